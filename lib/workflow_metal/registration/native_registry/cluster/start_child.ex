defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.StartChild do
  @moduledoc false
  # Starts a child whose name another node may take at the same time, under a supervisor that may run on
  # another node.

  alias WorkflowMetal.Registration.NativeRegistry.{Attempts, Registry}

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{
    Config,
    Deadlines,
    Lookup,
    Peers,
    Remote
  }

  # The name of the adapter is part of an exit's reason. Nothing of that module is called from here.
  @adapter :"Elixir.WorkflowMetal.Registration.NativeRegistry"

  # The pause between two lookups of what has been started, the one in which the winner of a conflict
  # becomes known here, and the one before a name is claimed again that an unknown process has, in
  # milliseconds.
  @pause 1
  @winner_pause 10
  @claim_pause 100

  @doc """
  The process that holds the name: a new child of the supervisor, or one that another caller or node has
  started meanwhile.

  The engine gets no more time for the child than the caller waits, also when the supervisor has other
  children to start first.
  """
  @spec start_child(Registry.registry(), Registry.name(), Supervisor.supervisor(), child) ::
          Attempts.answer()
        when child: {module, keyword}
  def start_child(registry, name, supervisor, child) do
    timeout = Config.fetch!(registry).timeout
    deadline = now() + timeout
    Deadlines.put(registry, name, deadline)

    try do
      find = fn -> Lookup.whereis(registry, name) end
      start = fn -> start_under(supervisor, child) end

      find
      |> Attempts.start(start, &refused(registry, name, &1, timeout, deadline))
      |> await_visible(registry, name, timeout)
    after
      Deadlines.delete(registry, name, deadline)
    end
  end

  # A supervisor that restarts a child whose name another node has taken would fail again and again, and
  # give up. `Remote.start_link/1` answers `:ignore` then, so that the supervisor forgets the child, and
  # sends the error to the caller of the first start.
  defp start_under(supervisor, child) do
    reply_to = :erlang.alias()

    # The supervisor refuses an invalid specification.
    spec =
      with %{start: {module, function, arguments}} = spec <- Supervisor.child_spec(child, []) do
        start = {Remote, :start_link, [{module, function, arguments, reply_to}]}
        spec |> Map.put_new(:modules, [module]) |> Map.put(:start, start)
      end

    try do
      DynamicSupervisor.start_child(supervisor, spec)
    else
      :ignore -> ignored(reply_to)
      answer -> answer
    after
      :erlang.unalias(reply_to)
    end
  end

  # The child's process has sent the error before the supervisor sent its answer.
  defp ignored(reply_to) do
    receive do
      {^reply_to, error} -> error
    after
      0 -> :ignore
    end
  end

  # What the error of a start means, see `Attempts.start/3`.
  defp refused(registry, name, {:already_started, holder}, timeout, _deadline)
       when is_pid(holder) and node(holder) != node() do
    with :undefined <- Lookup.whereis(registry, name) do
      # This node may not have heard of the name yet.
      if Peers.lookup(node(holder), registry, name, timeout) == [],
        do: {:gone, holder},
        else: {:ok, holder}
    else
      pid -> {:ok, pid}
    end
  end

  # An exclusive engine knows of a holder that is not found here: the grant has not reached this node yet, or
  # the holder has crashed with this node, and the name is not free yet.
  defp refused(registry, name, {:already_started, :undefined} = reason, _timeout, deadline) do
    if Config.fetch!(registry).exclusive?,
      do: await_holder(registry, name, min(now() + @claim_pause, deadline), deadline),
      else: Attempts.refused(fn -> Lookup.whereis(registry, name) end, reason)
  end

  defp refused(registry, name, reason, _timeout, _deadline) do
    case ended_by_cluster(reason) do
      :conflict ->
        if Lookup.whereis(registry, name) == :undefined, do: Process.sleep(@winner_pause)
        :conflict

      {:refused, reason} ->
        {:error, reason}

      nil ->
        Attempts.refused(fn -> Lookup.whereis(registry, name) end, reason)
    end
  end

  defp await_holder(registry, name, until, deadline) do
    case Lookup.whereis(registry, name) do
      pid when is_pid(pid) ->
        {:ok, pid}

      :undefined ->
        cond do
          now() >= deadline ->
            {:error, :cluster_timeout}

          now() >= until ->
            :conflict

          true ->
            Process.sleep(@pause)
            await_holder(registry, name, until, deadline)
        end
    end
  end

  # Whether the child, or a child that it has started itself, was ended by a conflict, or was refused its
  # name by `register_name/2`. When a child of the child lost its name, this name is lost as well.
  defp ended_by_cluster({:shutdown, {:name_conflict, _name, _winner}}), do: :conflict

  defp ended_by_cluster({:shutdown, {reason, {@adapter, _registry, _name}}}),
    do: {:refused, reason}

  defp ended_by_cluster({:shutdown, {:failed_to_start_child, _id, {:already_started, pid}}})
       when is_pid(pid) and node(pid) != node(),
       do: :conflict

  defp ended_by_cluster({:shutdown, {:failed_to_start_child, _id, reason}}),
    do: ended_by_cluster(reason)

  defp ended_by_cluster(_reason_of_the_child), do: nil

  # A lookup on this node has to find what is answered. The child may run on another node, and this
  # node's engine may not have heard of it yet.
  defp await_visible({:ok, pid} = answer, registry, name, timeout) when node(pid) != node() do
    monitor = Process.monitor(pid)
    visible? = visible?(registry, name, monitor, now() + timeout)
    Process.demonitor(monitor, [:flush])
    if visible?, do: answer, else: {:error, :cluster_timeout}
  end

  # The supervisor's node sees a holder that this node does not see, as one link of several is cut.
  defp await_visible({:error, {:already_started, pid}} = answer, _registry, _name, _timeout)
       when is_pid(pid) do
    if node(pid) in [node() | Node.list()], do: answer, else: {:error, :cluster_timeout}
  end

  # The name is held, and its holder cannot be seen: the engine ra keeps the names of a node that has crashed for a
  # while, and that node runs again.
  defp await_visible({:error, {:already_started, :undefined}}, _registry, _name, _timeout),
    do: {:error, :cluster_timeout}

  defp await_visible(answer, _registry, _name, _timeout), do: answer

  # Also when it has ended: then there is nothing to wait for.
  defp visible?(registry, name, monitor, deadline) do
    cond do
      Lookup.whereis(registry, name) != :undefined ->
        true

      now() >= deadline ->
        false

      true ->
        receive do
          {:DOWN, ^monitor, :process, _pid, _reason} -> true
        after
          @pause -> visible?(registry, name, monitor, deadline)
        end
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
