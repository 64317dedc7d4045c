defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Marks do
  @moduledoc false
  # What the processes of this node that deal with engines tell each other. Rows are few and live
  # shortly; on the way of a registration is only a look whether there is one.
  #
  #   * `{:settling, registry, name}` - this process is making the engine agree with the table about
  #     the name. It sees who holds the name after it has set its mark; whoever takes the name looks
  #     for the mark after he stands in the table. So one of the two sees the other.
  #   * `{:late, registry}` - this process waits for an engine that has not answered in time
  #   * `{:expected, registry, name}` - until when the caller of `start_child/4` waits

  alias WorkflowMetal.Registration.NativeRegistry

  @table __MODULE__

  # Between two looks at a mark, in milliseconds: at first, and at most.
  @pause 1
  @longest_pause 50

  @spec create() :: :ok
  def create do
    options = [:named_table, :public, :set, read_concurrency: true, write_concurrency: true]
    @table = :ets.new(@table, options)
    :ok
  end

  @doc "Marks the name as being settled by the caller, once nobody else does."
  @spec lock(NativeRegistry.registry(), NativeRegistry.name(), deadline :: integer) ::
          :ok | :timeout
  def lock(registry, name, deadline), do: lock(registry, name, deadline, @pause)

  defp lock(registry, name, deadline, pause) do
    if :ets.insert_new(@table, {{:settling, registry, name}, self()}) do
      :ok
    else
      pause(registry, name, deadline, pause, &lock(registry, name, deadline, &1))
    end
  end

  @spec unlock(NativeRegistry.registry(), NativeRegistry.name()) :: :ok
  def unlock(registry, name) do
    :ets.delete_object(@table, {{:settling, registry, name}, self()})
    :ok
  end

  @doc "Whether somebody is settling the name."
  @spec locked?(NativeRegistry.registry(), NativeRegistry.name()) :: boolean
  def locked?(registry, name), do: :ets.member(@table, {:settling, registry, name})

  @doc "Waits until nobody is settling the name."
  @spec await(NativeRegistry.registry(), NativeRegistry.name(), deadline :: integer) ::
          :ok | :timeout
  def await(registry, name, deadline), do: await(registry, name, deadline, @pause)

  defp await(registry, name, deadline, pause) do
    if locked?(registry, name),
      do: pause(registry, name, deadline, pause, &await(registry, name, deadline, &1)),
      else: :ok
  end

  defp pause(registry, name, deadline, pause, again) do
    case :ets.lookup(@table, {:settling, registry, name}) do
      [{_key, pid} = mark] ->
        left = deadline - System.monotonic_time(:millisecond)

        cond do
          # It was killed.
          not Process.alive?(pid) ->
            :ets.delete_object(@table, mark)
            again.(pause)

          left <= 0 ->
            :timeout

          true ->
            Process.sleep(min(pause, left))
            again.(min(pause * 2, @longest_pause))
        end

      [] ->
        again.(pause)
    end
  end

  @doc "The process waits for an engine that did not answer in time."
  @spec late(NativeRegistry.registry(), pid) :: :ok
  def late(registry, pid) do
    :ets.insert(@table, {{:late, registry}, pid})
    :ok
  end

  @doc "It has had an answer."
  @spec answered(NativeRegistry.registry(), pid) :: :ok
  def answered(registry, pid) do
    :ets.delete_object(@table, {{:late, registry}, pid})
    :ok
  end

  @doc "Whether somebody waits for an engine that did not answer in time."
  @spec late?(NativeRegistry.registry()) :: boolean
  def late?(registry) do
    case :ets.lookup(@table, {:late, registry}) do
      [{_key, pid}] -> Process.alive?(pid)
      [] -> false
    end
  end

  @doc "The caller waits for a child of this name, until `deadline`."
  @spec expect(NativeRegistry.registry(), NativeRegistry.name(), deadline :: integer) :: :ok
  def expect(registry, name, deadline) do
    :ets.insert(@table, {{:expected, registry, name}, deadline, self()})
    :ok
  end

  @spec unexpect(NativeRegistry.registry(), NativeRegistry.name(), deadline :: integer) :: :ok
  def unexpect(registry, name, deadline) do
    :ets.delete_object(@table, {{:expected, registry, name}, deadline, self()})
    :ok
  end

  @doc "How many milliseconds somebody waits yet for a child of this name, `most` at most."
  @spec left(NativeRegistry.registry(), NativeRegistry.name(), most :: integer) :: integer
  def left(registry, name, most) do
    case :ets.lookup(@table, {:expected, registry, name}) do
      [{_key, deadline, _caller}] ->
        (deadline - System.monotonic_time(:millisecond)) |> max(0) |> min(most)

      [] ->
        most
    end
  end

  @doc "Keeps what belongs to a node and not to a registry."
  @spec put(key :: term, term) :: :ok
  def put(key, value) do
    :ets.insert(@table, {key, value})
    :ok
  end

  @spec get(key :: term) :: term
  def get(key) do
    case :ets.lookup(@table, key) do
      [{_key, value}] -> value
      [] -> nil
    end
  end

  @doc "Forgets callers that were killed while they waited."
  @spec sweep() :: :ok
  def sweep do
    for {key, _deadline, caller} <- :ets.match_object(@table, {{:expected, :_, :_}, :_, :_}),
        not Process.alive?(caller),
        do: :ets.delete(@table, key)

    for {{:settling, _, _}, pid} = mark <-
          :ets.match_object(@table, {{:settling, :_, :_}, :_}),
        not Process.alive?(pid),
        do: :ets.delete_object(@table, mark)

    :ok
  end
end
