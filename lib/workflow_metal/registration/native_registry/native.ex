defmodule WorkflowMetal.Registration.NativeRegistry.Native do
  @moduledoc false
  # The functions of the native library, each named as in Rust. Guards and errors are the callers'.

  alias WorkflowMetal.Registration.NativeRegistry.{Library, Registry, Samples, Value}

  # The library is built after this module, so it must not be loaded while Mix compiles.
  @compile {:autoload, false}
  @on_load :load

  # With a name in opened form, the name as it was given comes with the value.
  @type value :: Value.encoded() | {:name, name :: term, Value.encoded()}
  # A value as `Value.decode/1` takes it: in external format, or the term.
  @type kept :: nil | binary | {term}
  @type refusal :: :no_registry | :too_large | :too_deep | :too_many_maps | :odd

  @doc false
  def load do
    with {:ok, path} <- Library.path() do
      # With any value of this variable terms are read by the documented functions of the VM alone.
      portable = System.get_env("WORKFLOW_METAL_NATIVE_REGISTRY_PORTABLE") != nil
      :erlang.load_nif(path, {portable, Samples.all(), Samples.parts()})
    end
  end

  @typedoc """
  Whether a registry is of this node alone, part of a cluster, or part of one whose names are held under
  this node's lease.
  """
  @type kind :: :local | :clustered | :leased

  @spec open(Registry.registry(), pid, kind) :: :ok | pid
  def open(_registry, _supervisor, _kind), do: :erlang.nif_error(:not_loaded)

  @spec close(Registry.registry(), pid) :: boolean
  def close(_registry, _supervisor), do: :erlang.nif_error(:not_loaded)

  @typedoc "Identifies one suspension of one registry."
  @type suspended :: {non_neg_integer, non_neg_integer}

  @spec suspend(Registry.registry(), pid) :: suspended | :no_registry
  def suspend(_registry, _supervisor), do: :erlang.nif_error(:not_loaded)

  @spec close_suspended(Registry.registry(), suspended) :: boolean
  def close_suspended(_registry, _suspended), do: :erlang.nif_error(:not_loaded)

  @spec sizes(Registry.registry()) ::
          {non_neg_integer, non_neg_integer} | :no_registry
  def sizes(_registry), do: :erlang.nif_error(:not_loaded)

  @spec clustered(Registry.registry()) :: boolean | :no_registry
  def clustered(_registry), do: :erlang.nif_error(:not_loaded)

  # What is kept with the registry as a whole. `:heavy` as below.
  @spec meta(Registry.registry(), key :: term) :: {:ok, kept} | :error | :heavy | refusal
  def meta(_registry, _key), do: :erlang.nif_error(:not_loaded)

  @spec meta_heavy(Registry.registry(), key :: term) :: {:ok, kept} | :error | refusal
  def meta_heavy(_registry, _key), do: :erlang.nif_error(:not_loaded)

  @spec put_meta(Registry.registry(), key :: term, value) :: :ok | :heavy | refusal
  def put_meta(_registry, _key, _value), do: :erlang.nif_error(:not_loaded)

  @spec put_meta_heavy(Registry.registry(), key :: term, value) :: :ok | refusal
  def put_meta_heavy(_registry, _key, _value), do: :erlang.nif_error(:not_loaded)

  @spec delete_meta(Registry.registry(), key :: term) :: :ok | refusal
  def delete_meta(_registry, _key), do: :erlang.nif_error(:not_loaded)

  @spec limits() ::
          {name_bytes :: pos_integer, depth :: pos_integer, map_work :: pos_integer,
           value_bytes :: pos_integer}
  def limits, do: :erlang.nif_error(:not_loaded)

  # The text of the error, number included, to which what was given is added.
  @spec message(:too_large | :too_deep | :too_many_maps | :odd | :bad_pattern | :value_too_large) ::
          String.t()
  def message(_refusal), do: :erlang.nif_error(:not_loaded)

  @spec reads_words() :: boolean
  def reads_words, do: :erlang.nif_error(:not_loaded)

  @spec odd() :: reference
  def odd, do: :erlang.nif_error(:not_loaded)

  @spec check(term) :: :ok | refusal
  def check(_name), do: :erlang.nif_error(:not_loaded)

  # `{pid}` is a process of another node.
  @spec whereis(Registry.registry(), term) :: pid | :undefined | :elsewhere | {pid} | refusal
  def whereis(_registry, _name), do: :erlang.nif_error(:not_loaded)

  # `:heavy` says that the value takes long to copy. The function with `_heavy` in its name does that on a
  # dirty scheduler. The same below.
  @spec lookup(Registry.registry(), term) ::
          {pid, kept} | :undefined | :elsewhere | :heavy | refusal
  def lookup(_registry, _name), do: :erlang.nif_error(:not_loaded)

  @spec lookup_heavy(Registry.registry(), term) ::
          {pid, kept} | :undefined | :elsewhere | refusal
  def lookup_heavy(_registry, _name), do: :erlang.nif_error(:not_loaded)

  @spec register(Registry.registry(), term, pid, pid | nil, value) ::
          :yes | pid | :ended | :elsewhere | :heavy | refusal
  def register(_registry, _name, _pid, _instead_of, _value), do: :erlang.nif_error(:not_loaded)

  @spec register_heavy(Registry.registry(), term, pid, pid | nil, value) ::
          :yes | pid | :ended | :elsewhere | refusal
  def register_heavy(_registry, _name, _pid, _instead_of, _value),
    do: :erlang.nif_error(:not_loaded)

  # `epoch`: that of the lease, or 0.
  @spec hold(Registry.registry(), term, pid, pid | nil, value, epoch :: non_neg_integer) ::
          :yes | pid | :ended | :no_lease | :heavy | refusal
  def hold(_registry, _name, _pid, _instead_of, _value, _epoch),
    do: :erlang.nif_error(:not_loaded)

  @spec hold_heavy(Registry.registry(), term, pid, pid | nil, value, epoch :: non_neg_integer) ::
          :yes | pid | :ended | :no_lease | refusal
  def hold_heavy(_registry, _name, _pid, _instead_of, _value, _epoch),
    do: :erlang.nif_error(:not_loaded)

  # The holder by the table, whether or not the lease is valid.
  @spec here(Registry.registry(), term) :: pid | :undefined | refusal
  def here(_registry, _name), do: :erlang.nif_error(:not_loaded)

  @spec was_held(Registry.registry(), term) :: boolean | refusal
  def was_held(_registry, _name), do: :erlang.nif_error(:not_loaded)

  @spec update(Registry.registry(), term, pid, value) :: :yes | :no | :heavy | refusal
  def update(_registry, _name, _pid, _value), do: :erlang.nif_error(:not_loaded)

  @spec update_heavy(Registry.registry(), term, pid, value) :: :yes | :no | refusal
  def update_heavy(_registry, _name, _pid, _value), do: :erlang.nif_error(:not_loaded)

  @spec unregister(Registry.registry(), term, pid) :: :yes | :no | :elsewhere | refusal
  def unregister(_registry, _name, _pid), do: :erlang.nif_error(:not_loaded)

  @spec pattern(term) :: binary | :bad_pattern | refusal
  def pattern(_name), do: :erlang.nif_error(:not_loaded)

  @spec piece(Registry.registry(), binary, non_neg_integer) ::
          {[{term, pid, kept}], pos_integer | nil} | :no_registry
  def piece(_registry, _pattern, _from), do: :erlang.nif_error(:not_loaded)

  # A piece of all names with their holders, whether or not the lease is valid.
  @spec held_piece(Registry.registry(), non_neg_integer) ::
          {[{term, pid}], pos_integer | nil} | :no_registry
  def held_piece(_registry, _from), do: :erlang.nif_error(:not_loaded)

  @spec count_matching(Registry.registry(), binary) :: non_neg_integer | :no_registry
  def count_matching(_registry, _pattern), do: :erlang.nif_error(:not_loaded)

  @spec keys(Registry.registry(), pid) :: [term] | :no_registry
  def keys(_registry, _pid), do: :erlang.nif_error(:not_loaded)

  @spec listen(Registry.registry(), [atom]) :: :ok | :no_thread | :no_registry
  def listen(_registry, _listeners), do: :erlang.nif_error(:not_loaded)

  @spec listen_to_releases(Registry.registry(), [atom]) :: :ok | :no_thread | :no_registry
  def listen_to_releases(_registry, _listeners), do: :erlang.nif_error(:not_loaded)

  @spec subscribe(Registry.registry(), binary, pid) ::
          :ok | :ended | :no_thread | :no_registry
  def subscribe(_registry, _pattern, _pid), do: :erlang.nif_error(:not_loaded)

  @spec unsubscribe(Registry.registry(), binary, pid) :: boolean | :no_registry
  def unsubscribe(_registry, _pattern, _pid), do: :erlang.nif_error(:not_loaded)

  @spec audience(Registry.registry(), term) :: [pid | atom] | refusal
  def audience(_registry, _name), do: :erlang.nif_error(:not_loaded)

  @spec everybody(Registry.registry()) :: [pid | atom] | :no_registry
  def everybody(_registry), do: :erlang.nif_error(:not_loaded)

  @spec wait(Registry.registry(), term, pid) ::
          non_neg_integer | :no_thread | refusal
  def wait(_registry, _name, _pid), do: :erlang.nif_error(:not_loaded)

  @spec stop_waiting(Registry.registry(), pid, non_neg_integer) :: boolean | :no_registry
  def stop_waiting(_registry, _pid, _number), do: :erlang.nif_error(:not_loaded)

  @spec info(Registry.registry()) :: Registry.info() | :no_registry
  def info(_registry), do: :erlang.nif_error(:not_loaded)

  # Of the lease, by `Cluster.Ra.Lease`. Instants are nanoseconds of `lease_clock/0`.

  @spec lease_clock() :: integer
  def lease_clock, do: :erlang.nif_error(:not_loaded)

  @spec lease_begin(epoch :: pos_integer, deadline :: integer) :: boolean
  def lease_begin(_epoch, _deadline), do: :erlang.nif_error(:not_loaded)

  @spec lease_extend(epoch :: pos_integer, deadline :: integer) :: boolean
  def lease_extend(_epoch, _deadline), do: :erlang.nif_error(:not_loaded)

  @spec lease_end(epoch :: pos_integer) :: boolean
  def lease_end(_epoch), do: :erlang.nif_error(:not_loaded)

  @spec lease_left() :: integer
  def lease_left, do: :erlang.nif_error(:not_loaded)

  @spec lease_valid(Registry.registry()) :: boolean | :no_registry
  def lease_valid(_registry), do: :erlang.nif_error(:not_loaded)

  @spec lease_holds() :: non_neg_integer
  def lease_holds, do: :erlang.nif_error(:not_loaded)

  @spec lease_holders() :: [pid]
  def lease_holders, do: :erlang.nif_error(:not_loaded)

  # Of names that sessions of other nodes hold, by `Cluster.Ra.Mirror`. A session has a number from 1 on.

  @spec mirror_node(no :: pos_integer, prefix :: binary, suffix :: binary) :: boolean
  def mirror_node(_no, _prefix, _suffix), do: :erlang.nif_error(:not_loaded)

  @spec mirror_drop(no :: pos_integer) :: :ok
  def mirror_drop(_no), do: :erlang.nif_error(:not_loaded)

  @spec mirror_put(
          Registry.registry(),
          term,
          no :: pos_integer,
          id :: non_neg_integer,
          serial :: non_neg_integer
        ) :: :ok | refusal
  def mirror_put(_registry, _name, _no, _id, _serial), do: :erlang.nif_error(:not_loaded)

  @spec mirror_delete(Registry.registry(), term, no :: pos_integer) :: :ok | refusal
  def mirror_delete(_registry, _name, _no), do: :erlang.nif_error(:not_loaded)

  @spec mirror_whereis(Registry.registry(), term) :: pid | :undefined | refusal
  def mirror_whereis(_registry, _name), do: :erlang.nif_error(:not_loaded)

  @spec mirror_clear() :: :ok
  def mirror_clear, do: :erlang.nif_error(:not_loaded)

  @spec mirror_info() :: {names :: non_neg_integer, bytes :: non_neg_integer}
  def mirror_info, do: :erlang.nif_error(:not_loaded)
end
