defmodule WorkflowMetal.Registration.NativeRegistry.Native do
  @moduledoc false
  # One function a NIF, named as in Rust. Guards and errors are the callers'.

  alias WorkflowMetal.Registration.NativeRegistry

  # The library is built after this module: it must not be loaded while Mix compiles.
  @compile {:autoload, false}
  @on_load :load

  @type refusal :: :no_registry | :too_large | :too_deep | :odd

  @doc false
  def load do
    path = Path.join(:code.priv_dir(:workflow_metal_native_registry), "native/native_registry")

    # Any value forces the documented API of the VM where terms would be read directly.
    portable = System.get_env("WORKFLOW_METAL_NATIVE_REGISTRY_PORTABLE") != nil
    :erlang.load_nif(String.to_charlist(path), portable)
  end

  @spec open(NativeRegistry.registry(), pid) :: :ok | pid
  def open(_registry, _supervisor), do: :erlang.nif_error(:not_loaded)

  @spec close(NativeRegistry.registry(), pid) :: boolean
  def close(_registry, _supervisor), do: :erlang.nif_error(:not_loaded)

  @spec sizes(NativeRegistry.registry()) ::
          {non_neg_integer, non_neg_integer} | :no_registry
  def sizes(_registry), do: :erlang.nif_error(:not_loaded)

  @spec reads_words() :: boolean
  def reads_words, do: :erlang.nif_error(:not_loaded)

  @spec odd() :: reference
  def odd, do: :erlang.nif_error(:not_loaded)

  @spec whereis(NativeRegistry.registry(), term) :: pid | :undefined | refusal
  def whereis(_registry, _name), do: :erlang.nif_error(:not_loaded)

  @spec register(NativeRegistry.registry(), term, pid, pid | nil) :: :yes | pid | :ended | refusal
  def register(_registry, _name, _pid, _instead_of), do: :erlang.nif_error(:not_loaded)

  @spec unregister(NativeRegistry.registry(), term, pid) :: :yes | :no | refusal
  def unregister(_registry, _name, _pid), do: :erlang.nif_error(:not_loaded)
end
