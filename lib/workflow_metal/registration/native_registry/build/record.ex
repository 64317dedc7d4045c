defmodule WorkflowMetal.Registration.NativeRegistry.Build.Record do
  @moduledoc false
  # What the library was built from, kept beside the application, where no release takes it from.

  alias WorkflowMetal.Registration.NativeRegistry.Build.Rustc

  @type t :: %{built_from: String.t() | nil, library: String.t() | nil, rustc: Rustc.t() | nil}

  @none %{built_from: nil, library: nil, rustc: nil}

  @spec path() :: Path.t()
  def path, do: Path.join(Mix.Project.manifest_path(), "compile.native_registry")

  @doc "The record of the last build. One that cannot be read, or of another version, is as good as none."
  @spec read() :: t
  def read do
    with {:ok, content} <- File.read(path()),
         %{built_from: _, library: _, rustc: _} = record <- decode(content) do
      record
    else
      _none -> @none
    end
  end

  defp decode(content) do
    :erlang.binary_to_term(content)
  rescue
    ArgumentError -> :none
  end

  @spec write(t) :: :ok
  def write(record) do
    File.mkdir_p!(Path.dirname(path()))
    File.write!(path(), :erlang.term_to_binary(record))
  end
end
