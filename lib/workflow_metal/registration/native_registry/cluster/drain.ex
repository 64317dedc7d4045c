defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Drain do
  @moduledoc false
  # A node gives its names to the other nodes before it stops: it registers no name any more, and every
  # holder is ended by its supervisor, which neither restarts nor counts it.

  alias WorkflowMetal.Registration.NativeRegistry.{Registry, Table}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Evictor, Report, Tasks}

  @timeout 30_000

  # The pause between two looks at the names that are left, in milliseconds.
  @pause 20

  @doc "See `NativeRegistry.Registry.drain/2`."
  @spec drain(Registry.registry(), keyword) ::
          {drained :: [Registry.name()], remaining :: [Registry.name()]}
  def drain(registry, options) do
    timeout = timeout!(options)

    # Raises when the registry was stopped meanwhile.
    _config = Config.fetch!(registry)
    deadline = now() + timeout

    # This precedes the list: a name that the table takes now is listed, or given back by `Claim`.
    :persistent_term.put(key(registry), true)
    drain_until(registry, MapSet.new(), MapSet.new(), %{}, deadline)
  end

  defp timeout!(options) do
    unless Keyword.keyword?(options) and Keyword.keys(options) -- [:timeout] == [] do
      raise ArgumentError, "expected a keyword list of :timeout, got: #{inspect(options)}"
    end

    timeout = Keyword.get(options, :timeout, @timeout)

    unless is_integer(timeout) and timeout >= 0 do
      raise ArgumentError, "expected :timeout to be milliseconds, got: #{inspect(timeout)}"
    end

    timeout
  end

  # `seen` are all names that were found, `reported` those that were reported as fenced, each with its
  # holder, `ending` the holders that are being ended, each with the process that ends it.
  defp drain_until(registry, seen, reported, ending, deadline) do
    records = Table.held(registry)
    names = for {name, _pid} <- records, into: MapSet.new(), do: name
    seen = MapSet.union(seen, names)
    held = for {name, pid} <- records, pid != self(), into: MapSet.new(), do: {name, pid}

    # This comes before the holders are ended, so that subscribers are told first.
    for {name, pid} <- MapSet.difference(held, reported),
        do: Report.fenced(registry, name, pid, :draining)

    if Enum.empty?(names) or now() >= deadline do
      # An order that a supervisor has already got is carried out all the same.
      for {_pid, ender} <- ending, do: Process.exit(ender, :kill)
      {MapSet.to_list(MapSet.difference(seen, names)), MapSet.to_list(names)}
    else
      holders = MapSet.new(held, fn {_name, pid} -> pid end)
      ending = Map.filter(ending, fn {_pid, ender} -> Process.alive?(ender) end)

      # What runs beneath a supervisor ends with it.
      ending =
        for pid <- holders,
            not is_map_key(ending, pid),
            not Enum.any?(Evictor.ancestors(pid), &(&1 in holders)),
            into: ending,
            do: {pid, start_ending(pid)}

      Process.sleep(@pause)
      drain_until(registry, seen, MapSet.union(reported, held), ending, deadline)
    end
  end

  defp start_ending(pid) do
    {:ok, ender} = Tasks.run(fn -> end_holder(pid) end)
    ender
  end

  # It gets as much time as its supervisor gives it.
  defp end_holder(pid) do
    supervisor = Evictor.supervisor(pid)

    unless supervisor != nil and Evictor.end_child(supervisor, pid) == :ok do
      case Process.info(pid, :trap_exit) do
        {:trap_exit, true} -> :sys.terminate(pid, {:shutdown, :draining}, :infinity)
        {:trap_exit, false} -> Process.exit(pid, {:shutdown, :draining})
        nil -> :ok
      end
    end
  catch
    # It has ended meanwhile.
    :exit, _reason -> :ok
  end

  @doc "Whether this node gives its names to the others."
  @spec draining?(Registry.registry()) :: boolean
  def draining?(registry), do: :persistent_term.get(key(registry), false)

  @doc "Called when the registry is closed, so that one that is started again registers names."
  @spec stop(Registry.registry()) :: :ok
  def stop(registry) do
    :persistent_term.erase(key(registry))
    :ok
  end

  defp key(registry), do: {__MODULE__, registry}

  defp now, do: System.monotonic_time(:millisecond)
end
