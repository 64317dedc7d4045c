defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Marks do
  @moduledoc false
  # What the processes of this node that deal with engines tell each other. Rows are few and live
  # shortly; on the way of a registration is only a look whether there is one.
  #
  #   * `{:settling, registry, name}` - this process is making the engine agree with the table about
  #     the name. It sees who holds the name after it has set its mark; whoever takes the name looks
  #     for the mark after he stands in the table. So one of the two sees the other. It may also have
  #     come and gone since the engine was asked, and have had the name freed: it leaves a count.
  #   * `{:late, registry}` - this process waits for an engine that has not answered in time
  #   * `{:expected, registry, name}` - until when the caller of `start_child/4` waits

  alias WorkflowMetal.Registration.NativeRegistry

  @table __MODULE__

  # The names fall in so many classes. Each has a count of the marks that were set and are not taken back,
  # which is too high when somebody was killed, and one of the marks that were taken back.
  @classes 1_024

  @typedoc "A class of names, and how many marks had been taken back of it."
  @type since :: {pos_integer, non_neg_integer}

  # Between two looks at a mark, in milliseconds: at first, and at most.
  @pause 1
  @longest_pause 50

  @spec create() :: :ok
  def create do
    options = [:named_table, :public, :set, read_concurrency: true, write_concurrency: true]
    @table = :ets.new(@table, options)
    # Whoever waits may have the one of before this process was restarted.
    unless counts(), do: :persistent_term.put(@table, :atomics.new(2 * @classes, []))
    :ok
  end

  defp counts, do: :persistent_term.get(@table, nil)

  # Where the two counts of the name's class stand.
  defp class(registry, name), do: 2 * :erlang.phash2({registry, name}, @classes) + 1

  @doc "What `settled_since?/3` compares with. Taken before one looks whether the name is being settled."
  @spec since(NativeRegistry.registry(), NativeRegistry.name()) :: since
  def since(registry, name) do
    class = class(registry, name)
    {class, :atomics.get(counts(), class + 1)}
  end

  @doc "Whether somebody is settling the name, or may have done so since."
  @spec settled_since?(NativeRegistry.registry(), NativeRegistry.name(), since) :: boolean
  def settled_since?(registry, name, {class, taken_back}) do
    counts = counts()
    # In this order: it is taken back after it has been counted as such.
    (:atomics.get(counts, class) > 0 and member?(registry, name)) or
      :atomics.get(counts, class + 1) != taken_back
  end

  @doc "Marks the name as being settled by the caller, once nobody else does."
  @spec lock(NativeRegistry.registry(), NativeRegistry.name(), deadline :: integer) ::
          :ok | :timeout
  def lock(registry, name, deadline), do: lock(registry, name, deadline, @pause)

  defp lock(registry, name, deadline, pause) do
    if :ets.insert_new(@table, {{:settling, registry, name}, self()}) do
      :atomics.add(counts(), class(registry, name), 1)
    else
      pause(registry, name, deadline, pause, &lock(registry, name, deadline, &1))
    end
  end

  @spec unlock(NativeRegistry.registry(), NativeRegistry.name()) :: :ok
  def unlock(registry, name) do
    class = class(registry, name)
    :atomics.add(counts(), class + 1, 1)
    :ets.delete_object(@table, {{:settling, registry, name}, self()})
    :atomics.sub(counts(), class, 1)
  end

  # Of a process that was killed. Two may find that at once, so it stays counted as set.
  defp take_back({{:settling, registry, name}, _pid} = mark) do
    :atomics.add(counts(), class(registry, name) + 1, 1)
    :ets.delete_object(@table, mark)
  end

  @doc "Whether somebody is settling the name."
  @spec locked?(NativeRegistry.registry(), NativeRegistry.name()) :: boolean
  def locked?(registry, name),
    do: :atomics.get(counts(), class(registry, name)) > 0 and member?(registry, name)

  defp member?(registry, name), do: :ets.member(@table, {:settling, registry, name})

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
            take_back(mark)
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
        do: take_back(mark)

    :ok
  end
end
