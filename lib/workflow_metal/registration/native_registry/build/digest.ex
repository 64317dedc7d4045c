defmodule WorkflowMetal.Registration.NativeRegistry.Build.Digest do
  @moduledoc false
  # A digest of the sources of the library.

  @sources ["Cargo.toml", "Cargo.lock", "native/*/Cargo.toml", "native/*/src/**/*.rs"]

  @spec sources(Path.t()) :: String.t()
  def sources(root) do
    files =
      for pattern <- @sources, path <- Path.wildcard(Path.join(root, pattern)) do
        {Path.relative_to(path, root), File.read!(path)}
      end

    :sha256
    |> :crypto.hash(:erlang.term_to_binary(files))
    |> Base.encode16(case: :lower)
  end
end
