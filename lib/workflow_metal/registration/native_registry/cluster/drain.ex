defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Drain do
  @moduledoc false
  # A node gives its names to the others before it stops: no new name is taken here any more, and
  # every holder ends by its supervisor's hand, who neither restarts nor counts it.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Name, Native}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Leaving, Report}

  @timeout 30_000

  # Between two looks at what is left, in milliseconds.
  @pause 20

  @doc "See `NativeRegistry.drain/2`."
  @spec drain(NativeRegistry.registry(), keyword) ::
          {drained :: [NativeRegistry.name()], remaining :: [NativeRegistry.name()]}
  def drain(registry, options) do
    timeout = timeout!(options)

    unless Cluster.config(registry) do
      # Raises for one that does not run.
      _names = NativeRegistry.count(registry)

      raise ArgumentError,
            "expected a registry with the option :cluster, whose names others can take, " <>
              "got: #{inspect(registry)}"
    end

    deadline = now() + timeout
    # First: a name taken at this moment is either seen below or given back by `guard/4`.
    :persistent_term.put(key(registry), true)
    seen = MapSet.new(NativeRegistry.names(registry))
    drain_until(registry, seen, MapSet.new(), %{}, deadline)
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

  # `told` are the names and holders that have been reported, `ending` the holders whose end has been
  # ordered, with who ordered it.
  defp drain_until(registry, seen, told, ending, deadline) do
    records = NativeRegistry.select(registry, :_)
    names = for {name, _pid, _value} <- records, do: name
    seen = MapSet.union(seen, MapSet.new(names))
    held = for {name, pid, _value} <- records, pid != self(), into: MapSet.new(), do: {name, pid}

    # Before they end, so that it is told before the end is.
    for {name, pid} <- MapSet.difference(held, told),
        do: Report.fenced(registry, name, pid, :draining)

    if names == [] or now() >= deadline do
      # Nobody waits for them any more; an order that a supervisor has got stands.
      for {_pid, orderer} <- ending, do: Process.exit(orderer, :kill)
      {MapSet.to_list(MapSet.difference(seen, MapSet.new(names))), Enum.uniq(names)}
    else
      holders = MapSet.new(held, fn {_name, pid} -> pid end)
      ending = Map.filter(ending, fn {_pid, orderer} -> Process.alive?(orderer) end)

      # All beneath a supervisor end with it.
      ordered =
        for pid <- holders,
            not is_map_key(ending, pid),
            not Enum.any?(Leaving.ancestors(pid), &(&1 in holders)),
            into: ending,
            do: {pid, spawn(fn -> end_holder(pid) end)}

      Process.sleep(@pause)
      drain_until(registry, seen, MapSet.union(told, held), ordered, deadline)
    end
  end

  # It gets as long as its supervisor gives it.
  defp end_holder(pid) do
    supervisor = Leaving.supervisor(pid)

    unless supervisor != nil and Leaving.end_child(supervisor, pid) == :ok do
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

  @doc """
  What `take` answers, which registers a name for a process of this node; `{:error, :draining}` while
  names are given away.
  """
  @spec guard(NativeRegistry.registry(), NativeRegistry.name(), pid, (() -> answer)) ::
          answer | {:error, :draining}
        when answer: term
  def guard(registry, name, pid, take) do
    if draining?(registry) do
      {:error, :draining}
    else
      with :yes <- take.() do
        # Once more: what was taken before the draining began is seen by it, what was taken
        # afterwards sees it here.
        if draining?(registry), do: give_back(registry, name, name, pid), else: :yes
      end
    end
  end

  # `opened` is the name in the form that the NIF takes.
  defp give_back(registry, opened, name, pid) do
    case Native.unregister(registry, opened, pid) do
      :elsewhere ->
        Cluster.settle_later(registry, name, [pid], false)
        {:error, :draining}

      answer when answer in [:yes, :no, :no_registry] ->
        {:error, :draining}

      refusal ->
        give_back(registry, Name.prepare!(refusal, registry, opened), name, pid)
    end
  end

  @doc "Whether this node gives its names away."
  @spec draining?(NativeRegistry.registry()) :: boolean
  def draining?(registry), do: :persistent_term.get(key(registry), false)

  @doc "Called when the registry is closed: one that is started anew takes names."
  @spec forget(NativeRegistry.registry()) :: :ok
  def forget(registry) do
    :persistent_term.erase(key(registry))
    :ok
  end

  defp key(registry), do: {__MODULE__, registry}

  defp now, do: System.monotonic_time(:millisecond)
end
