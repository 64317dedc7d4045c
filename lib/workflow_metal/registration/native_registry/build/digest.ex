defmodule WorkflowMetal.Registration.NativeRegistry.Build.Digest do
  @moduledoc false
  # Of what the library is built from. Times say nothing: they are those of a checkout or of a cache.

  alias WorkflowMetal.Registration.NativeRegistry.Build.{Settings, Target}

  @sources ~w(Cargo.toml Cargo.lock native/*/Cargo.toml .cargo/config.toml
    native/{native_registry,registry_core}/build.rs native/{native_registry,registry_core}/src/**/*)

  @doc "Of the content of the sources, and their paths in `root`."
  @spec sources(Path.t()) :: String.t()
  def sources(root) do
    for pattern <- @sources,
        path <- root |> Path.join(pattern) |> Path.wildcard(match_dot: true),
        {:ok, content} <- [File.read(path)] do
      [Path.relative_to(path, root), 0, <<byte_size(content)::64>>, content]
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
