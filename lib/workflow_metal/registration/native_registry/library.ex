defmodule WorkflowMetal.Registration.NativeRegistry.Library do
  @moduledoc false
  # Where the native library is, and what to say when it cannot be used.

  @application :workflow_metal_native_registry

  @doc "The path of the library, without the ending that its kind has on this system."
  @spec path() :: {:ok, charlist} | {:error, {:no_library, String.t()}}
  def path do
    case :code.priv_dir(@application) do
      {:error, :bad_name} -> {:error, {:no_library, no_directory()}}
      directory -> {:ok, :filename.join(directory, ~c"native/native_registry")}
    end
  end

  @doc "Raises with the reason when the module that loads the library cannot be loaded."
  @spec ensure_loaded!(module) :: :ok
  def ensure_loaded!(native) do
    case Code.ensure_loaded(native) do
      {:module, ^native} -> :ok
      {:error, reason} -> raise message(path(), reason)
    end
  end

  defp message({:error, {:no_library, message}}, _reason), do: message

  defp message({:ok, path}, reason) do
    "the native library of #{@application}, #{path}, cannot be loaded (#{inspect(reason)}): see the " <>
      "warning of the code server for the reason"
  end

  defp no_directory do
    "#{@application} has no priv directory here, where its native library would lie: an escript " <>
      "cannot carry a native library, run this as a release or with Mix"
  end
end
