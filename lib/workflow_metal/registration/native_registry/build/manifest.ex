defmodule WorkflowMetal.Registration.NativeRegistry.Build.Manifest do
  @moduledoc false
  # What the build has to know of the package, read from the Cargo.toml in its root.

  @doc "The version of the package, which mix.exs has too."
  @spec version(Path.t()) :: String.t()
  def version(root), do: read(root, ~r/^version = "([^"]+)"/m)

  @doc "The oldest Rust that builds the library."
  @spec rust(Path.t()) :: String.t()
  def rust(root), do: read(root, ~r/^rust-version = "([^"]+)"/m)

  @doc "The version of the VM's native interface that the library needs."
  @spec nif(Path.t()) :: String.t()
  def nif(root) do
    root |> read(~r/^rustler = .*"nif_version_(\d+_\d+)"/m) |> String.replace("_", ".")
  end

  defp read(root, wanted) do
    [_line, value] = Regex.run(wanted, File.read!(Path.join(root, "Cargo.toml")))
    value
  end
end
