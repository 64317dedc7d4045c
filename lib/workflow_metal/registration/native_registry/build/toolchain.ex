defmodule WorkflowMetal.Registration.NativeRegistry.Build.Toolchain do
  @moduledoc false

  @type t :: %{
          cargo: Path.t(),
          rustc: Path.t(),
          version: String.t(),
          env: [{String.t(), String.t()}]
        }

  @spec cargo!(Path.t()) :: t
  def cargo!(_root) do
    cargo = System.find_executable("cargo") || Mix.raise("no cargo")
    rustc = System.find_executable("rustc") || Mix.raise("no rustc")
    %{cargo: cargo, rustc: rustc, version: "", env: []}
  end

  @spec link!(t, Path.t(), Path.t(), [String.t()], [{String.t(), String.t() | nil}]) :: :ok
  def link!(_toolchain, _root, _folder, _arguments, _env), do: :ok
end
