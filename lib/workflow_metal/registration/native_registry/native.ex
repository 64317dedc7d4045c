defmodule WorkflowMetal.Registration.NativeRegistry.Native do
  @moduledoc false
  # One function a NIF, named as in Rust. Guards and errors are the callers'.

  alias WorkflowMetal.Registration.NativeRegistry

  # The library is built after this module: it must not be loaded while Mix compiles.
  @compile {:autoload, false}
  @on_load :load

  # A value in external format; nil for none.
  @type value :: binary | nil
  @type refusal :: :no_registry | :too_large | :too_deep | :too_many_maps | :odd

  @doc false
  def load do
    path = Path.join(:code.priv_dir(:workflow_metal_native_registry), "native/native_registry")

    # Any value forces the documented API of the VM where terms would be read directly.
    portable = System.get_env("WORKFLOW_METAL_NATIVE_REGISTRY_PORTABLE") != nil
    :erlang.load_nif(String.to_charlist(path), portable)
  end

  @spec open(NativeRegistry.registry(), pid, clustered :: boolean) :: :ok | pid
  def open(_registry, _supervisor, _clustered), do: :erlang.nif_error(:not_loaded)

  @spec close(NativeRegistry.registry(), pid) :: boolean
  def close(_registry, _supervisor), do: :erlang.nif_error(:not_loaded)

  @spec sizes(NativeRegistry.registry()) ::
          {non_neg_integer, non_neg_integer} | :no_registry
  def sizes(_registry), do: :erlang.nif_error(:not_loaded)

  @spec reads_words() :: boolean
  def reads_words, do: :erlang.nif_error(:not_loaded)

  @spec odd() :: reference
  def odd, do: :erlang.nif_error(:not_loaded)

  @spec check(term) :: :ok | refusal
  def check(_name), do: :erlang.nif_error(:not_loaded)

  @spec whereis(NativeRegistry.registry(), term) :: pid | :undefined | :elsewhere | refusal
  def whereis(_registry, _name), do: :erlang.nif_error(:not_loaded)

  @spec lookup(NativeRegistry.registry(), term) ::
          {pid, value} | :undefined | :elsewhere | refusal
  def lookup(_registry, _name), do: :erlang.nif_error(:not_loaded)

  @spec register(NativeRegistry.registry(), term, pid, pid | nil, value) ::
          :yes | pid | :ended | :elsewhere | refusal
  def register(_registry, _name, _pid, _instead_of, _value), do: :erlang.nif_error(:not_loaded)

  @spec hold(NativeRegistry.registry(), term, pid, pid | nil, value) ::
          :yes | pid | :ended | refusal
  def hold(_registry, _name, _pid, _instead_of, _value), do: :erlang.nif_error(:not_loaded)

  @spec was_held(NativeRegistry.registry(), term) :: boolean | refusal
  def was_held(_registry, _name), do: :erlang.nif_error(:not_loaded)

  @spec update(NativeRegistry.registry(), term, pid, value) :: :yes | :no | refusal
  def update(_registry, _name, _pid, _value), do: :erlang.nif_error(:not_loaded)

  @spec unregister(NativeRegistry.registry(), term, pid) :: :yes | :no | :elsewhere | refusal
  def unregister(_registry, _name, _pid), do: :erlang.nif_error(:not_loaded)

  @spec pattern(term) :: binary | :bad_pattern | refusal
  def pattern(_name), do: :erlang.nif_error(:not_loaded)

  @spec piece(NativeRegistry.registry(), binary, non_neg_integer) ::
          {[{term, pid, value}], pos_integer | nil} | :no_registry
  def piece(_registry, _pattern, _from), do: :erlang.nif_error(:not_loaded)

  @spec count_matching(NativeRegistry.registry(), binary) :: non_neg_integer | :no_registry
  def count_matching(_registry, _pattern), do: :erlang.nif_error(:not_loaded)

  @spec keys(NativeRegistry.registry(), pid) :: [term] | :no_registry
  def keys(_registry, _pid), do: :erlang.nif_error(:not_loaded)

  @spec listen(NativeRegistry.registry(), [atom]) :: :ok | :no_thread | :no_registry
  def listen(_registry, _listeners), do: :erlang.nif_error(:not_loaded)

  @spec subscribe(NativeRegistry.registry(), binary, pid) ::
          :ok | :ended | :no_thread | :no_registry
  def subscribe(_registry, _pattern, _pid), do: :erlang.nif_error(:not_loaded)

  @spec unsubscribe(NativeRegistry.registry(), binary, pid) :: boolean | :no_registry
  def unsubscribe(_registry, _pattern, _pid), do: :erlang.nif_error(:not_loaded)

  @spec wait(NativeRegistry.registry(), term, pid) ::
          non_neg_integer | :ended | :no_thread | refusal
  def wait(_registry, _name, _pid), do: :erlang.nif_error(:not_loaded)

  @spec stop_waiting(NativeRegistry.registry(), pid, non_neg_integer) :: boolean | :no_registry
  def stop_waiting(_registry, _pid, _number), do: :erlang.nif_error(:not_loaded)

  @spec info(NativeRegistry.registry()) :: NativeRegistry.info() | :no_registry
  def info(_registry), do: :erlang.nif_error(:not_loaded)
end
