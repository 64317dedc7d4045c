defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.NameLock do
  @moduledoc false
  # The lock under which one process of this node at a time makes the engine agree with the table about
  # a name; see `Settle`.
  #
  # A registration does not take the lock, as it would cost too much. It reads the name's version before
  # it asks the engine, and calls `changed?/3` after it has written the name to the table. The holder of
  # the lock reads the table after it took the lock. So one of the two sees the other, and a registration whose
  # name was freed in the engine meanwhile asks the engine again.

  alias WorkflowMetal.Registration.NativeRegistry.Registry

  @table __MODULE__

  # Names fall into so many classes by their hash. A class has two counters: how many of its locks are
  # held, so that a registration needs no lookup in the table as a rule, and how many were released. The
  # first is too high once a process was killed that held a lock.
  @classes 1_024

  @typedoc "The class of a name, and how many locks of the class had been released."
  @type version :: {class :: pos_integer, non_neg_integer}

  # The pause between two looks at a lock that is held, in milliseconds: the first, and the longest.
  @pause 1
  @longest_pause 50

  @spec create_table() :: :ok
  def create_table do
    options = [:named_table, :public, :set, read_concurrency: true, write_concurrency: true]
    @table = :ets.new(@table, options)
    # A process may hold a lock across a restart of the table's owner, and counts it down later.
    unless counters(), do: :persistent_term.put(@table, :atomics.new(2 * @classes, []))
    :ok
  end

  defp counters, do: :persistent_term.get(@table, nil)

  # The index of the class's first counter.
  defp class(registry, name), do: 2 * :erlang.phash2({registry, name}, @classes) + 1

  @doc "The version to give to `changed?/3`."
  @spec version(Registry.registry(), Registry.name()) :: version
  def version(registry, name) do
    class = class(registry, name)
    {class, :atomics.get(counters(), class + 1)}
  end

  @doc "Whether the lock is held, or may have been held since the version was read."
  @spec changed?(Registry.registry(), Registry.name(), version) :: boolean
  def changed?(registry, name, {class, released}) do
    counters = counters()
    # In this order, as a release is counted before the lock is given up.
    (:atomics.get(counters, class) > 0 and held?(registry, name)) or
      :atomics.get(counters, class + 1) != released
  end

  @doc "Takes the lock for the calling process, once no other has it."
  @spec lock(Registry.registry(), Registry.name(), deadline :: integer) :: :ok | :timeout
  def lock(registry, name, deadline), do: lock(registry, name, deadline, @pause)

  defp lock(registry, name, deadline, pause) do
    if :ets.insert_new(@table, {{registry, name}, self()}) do
      :atomics.add(counters(), class(registry, name), 1)
    else
      wait(registry, name, deadline, pause, &lock(registry, name, deadline, &1))
    end
  end

  @spec unlock(Registry.registry(), Registry.name()) :: :ok
  def unlock(registry, name) do
    class = class(registry, name)
    :atomics.add(counters(), class + 1, 1)
    :ets.delete_object(@table, {{registry, name}, self()})
    :atomics.sub(counters(), class, 1)
  end

  @doc "Whether a process holds the lock."
  @spec locked?(Registry.registry(), Registry.name()) :: boolean
  def locked?(registry, name),
    do: :atomics.get(counters(), class(registry, name)) > 0 and held?(registry, name)

  defp held?(registry, name), do: :ets.member(@table, {registry, name})

  @doc "Waits until no process holds the lock."
  @spec await(Registry.registry(), Registry.name(), deadline :: integer) :: :ok | :timeout
  def await(registry, name, deadline), do: await(registry, name, deadline, @pause)

  defp await(registry, name, deadline, pause) do
    if locked?(registry, name),
      do: wait(registry, name, deadline, pause, &await(registry, name, deadline, &1)),
      else: :ok
  end

  defp wait(registry, name, deadline, pause, try_again) do
    case :ets.lookup(@table, {registry, name}) do
      [{_key, pid} = lock] ->
        left = deadline - System.monotonic_time(:millisecond)

        cond do
          not Process.alive?(pid) ->
            release_for_killed(lock)
            try_again.(pause)

          left <= 0 ->
            :timeout

          true ->
            Process.sleep(min(pause, left))
            try_again.(min(pause * 2, @longest_pause))
        end

      [] ->
        try_again.(pause)
    end
  end

  # The first counter stays as it is: two processes may get here at once, and would both lower it.
  defp release_for_killed({{registry, name}, _pid} = lock) do
    :atomics.add(counters(), class(registry, name) + 1, 1)
    :ets.delete_object(@table, lock)
  end

  @doc "Releases the locks of processes that were killed."
  @spec sweep() :: :ok
  def sweep do
    for {_key, pid} = lock <- :ets.tab2list(@table),
        not Process.alive?(pid),
        do: release_for_killed(lock)

    :ok
  end
end
