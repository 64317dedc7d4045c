defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Deadlines do
  @moduledoc false
  # How long a registration may wait for the engine.
  #
  # A child registers its name while its supervisor is blocked by its start. So the callers of
  # `start_child/4` leave their deadlines here, and the child's registration gets the time that is left.
  # Processes that wait for an engine that missed a deadline are noted here, too: until it answers, a
  # name that this node held before is registered without it.

  alias WorkflowMetal.Registration.NativeRegistry.Registry

  @table __MODULE__

  @spec create_table() :: :ok
  def create_table do
    options = [:named_table, :public, :set, read_concurrency: true, write_concurrency: true]
    @table = :ets.new(@table, options)
    :ok
  end

  @doc "The calling process waits until `deadline` for a child of this name."
  @spec put(Registry.registry(), Registry.name(), deadline :: integer) :: :ok
  def put(registry, name, deadline) do
    :ets.insert(@table, {{:deadline, registry, name}, deadline, self()})
    :ok
  end

  @spec delete(Registry.registry(), Registry.name(), deadline :: integer) :: :ok
  def delete(registry, name, deadline) do
    :ets.delete_object(@table, {{:deadline, registry, name}, deadline, self()})
    :ok
  end

  @doc "The milliseconds that are left for a registration of the name, at most `timeout`."
  @spec left(Registry.registry(), Registry.name(), timeout :: pos_integer) :: non_neg_integer
  def left(registry, name, timeout) do
    case :ets.lookup(@table, {:deadline, registry, name}) do
      [{_key, deadline, _caller}] ->
        (deadline - System.monotonic_time(:millisecond)) |> max(0) |> min(timeout)

      [] ->
        timeout
    end
  end

  @doc "The process waits for the engine, which has not answered in time."
  @spec put_late(Registry.registry(), pid) :: :ok
  def put_late(registry, pid) do
    :ets.insert(@table, {{:late, registry}, pid})
    :ok
  end

  @doc "The engine has answered the calling process."
  @spec delete_late(Registry.registry()) :: :ok
  def delete_late(registry) do
    :ets.delete_object(@table, {{:late, registry}, self()})
    :ok
  end

  @doc "Whether a process waits for the engine, which has not answered in time."
  @spec late?(Registry.registry()) :: boolean
  def late?(registry) do
    case :ets.lookup(@table, {:late, registry}) do
      [{_key, pid}] -> Process.alive?(pid)
      [] -> false
    end
  end

  @doc "Deletes the deadlines of callers that were killed while they waited."
  @spec sweep() :: :ok
  def sweep do
    for {key, _deadline, caller} <- :ets.match_object(@table, {{:deadline, :_, :_}, :_, :_}),
        not Process.alive?(caller),
        do: :ets.delete(@table, key)

    :ok
  end
end
