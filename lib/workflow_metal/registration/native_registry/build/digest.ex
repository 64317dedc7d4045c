defmodule WorkflowMetal.Registration.NativeRegistry.Build.Digest do
  @moduledoc false
  # Of what the library is built from. Times say nothing: they are those of a checkout or of a cache.

  alias WorkflowMetal.Registration.NativeRegistry.Build.{Settings, Target}

  # All of them are in the package for Hex, and nothing else is: an archive fits the package and the repository.
  @sources ~w(Cargo.toml Cargo.lock
    native/{native_registry,prefetch,registry_core}/{Cargo.toml,build.rs}
    native/{native_registry,prefetch,registry_core}/src/**/*.rs)

  @doc "Of the content of the sources, and their paths in `root`."
  @spec sources(Path.t()) :: String.t()
  def sources(root) do
    # The path of the root is none of the pattern, which its brackets would be.
    for pattern <- @sources,
        name <- :filelib.wildcard(String.to_charlist(pattern), String.to_charlist(root)),
        path = List.to_string(name),
        {:ok, content} <- [File.read(Path.join(root, path))] do
      [path, 0, <<byte_size(content)::64>>, content]
    end
    |> bytes()
  end

  @doc "Of all that decides what the library is. `toolchain` is what `rustc -vV` prints."
  @spec of(Path.t(), Target.t(), String.t(), %{String.t() => String.t()}) :: String.t()
  def of(root, target, toolchain, environment \\ System.get_env()) do
    settings = Settings.variables(environment, target.explicit?)

    [sources(root), target.triple, toolchain, settings, Settings.config(root, environment)]
    |> :erlang.term_to_binary()
    |> bytes()
  end

  @doc "Of a file, or `nil` if there is none."
  @spec file(Path.t()) :: String.t() | nil
  def file(path) do
    case File.read(path) do
      {:ok, content} -> bytes(content)
      {:error, _reason} -> nil
    end
  end

  # Not called by its name: the build has `:crypto` from Mix, and the application runs without it, so it is no
  # application that this one depends on.
  @crypto :crypto

  @doc "Of bytes: SHA-256, in hexadecimal digits."
  @spec bytes(iodata) :: String.t()
  def bytes(content), do: :sha256 |> crypto().hash(content) |> Base.encode16(case: :lower)

  defp crypto, do: @crypto
end
