defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Rounds do
  @moduledoc false
  # Rounds of random faults, while workers on each node register names. A seed repeats the faults of a round;
  # what the nodes do at each moment is not part of it.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Fence, Server, Session}
  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.{Member, Nodes}

  import WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Nodes

  # For which node a fault is, as it is not known before which one leads.
  @roles [:leader, :follower, :any]

  @kinds [
           :cut_link,
           :cut_link,
           :isolate,
           :isolate,
           :isolate,
           :part_all,
           :heal,
           :heal,
           :pause,
           :pause
         ] ++
           [:kill, :kill, :wipe, :reopen, :suspend_server, :suspend_fence] ++
           [:kill_server, :kill_session, :kill_fence]

  @spec plan(seed :: integer, keyword) :: map
  def plan(seed, options \\ []) do
    :rand.seed(:exsss, {seed, 15, 0})
    lease = Enum.random([1_000, 1_500, 2_000])
    steps = options[:steps] || 5 + :rand.uniform(5)

    %{
      seed: seed,
      lease: lease,
      # Shorter and longer than the time in which a session ends.
      timeout: Enum.random([500, 2_000, 5_000]),
      names: for(number <- 1..(2 + :rand.uniform(4)), do: {:name, number}),
      workers: :rand.uniform(3),
      steps:
        for(
          _ <- 1..steps,
          do: {Enum.random([100, 500, 1_000, 2_000]), step(options[:only] || @kinds, lease)}
        )
    }
  end

  defp step(kinds, lease) do
    kind = Enum.random(kinds)
    role = Enum.random(@roles)

    cond do
      kind in [:heal, :part_all] ->
        kind

      # Shorter than a lease, than a session, and than neither.
      kind in [:pause, :suspend_server, :suspend_fence] ->
        {kind, role, Enum.random([div(lease, 2), lease, 2 * lease])}

      true ->
        {kind, role}
    end
  end

  @spec describe(map) :: String.t()
  def describe(plan) do
    steps = for {pause, step} <- plan.steps, do: "    after #{pause} ms #{inspect(step)}\n"

    "  lease: #{plan.lease}, cluster_timeout: #{plan.timeout}, #{length(plan.names)} names, " <>
      "#{plan.workers} workers each\n#{steps}"
  end

  @spec round(integer, keyword) :: {:ok, holds :: non_neg_integer} | {:error, String.t()}
  def round(seed, options \\ []) do
    plan = plan(seed, options)
    if options[:verbose], do: IO.write(describe(plan))
    cluster = Nodes.start(lease: plan.lease, timeout: plan.timeout, mutant: options[:mutant])

    try do
      for number <- numbers(), do: work(cluster, plan, number)

      for {pause, step} <- plan.steps do
        Process.sleep(pause)
        if options[:verbose], do: IO.puts("    #{inspect(step)}")
        step(cluster, plan, step)
      end

      settle(cluster)

      case violations(cluster) do
        [] -> {:ok, holds(cluster)}
        violations -> {:error, report(cluster, violations) <> describe(plan)}
      end
    after
      stop(cluster)
    end
  end

  defp holds(cluster),
    do: Enum.count(history(cluster), &match?({:hold, _id}, elem(elem(&1, 1), 0)))

  defp work(%{registry: registry} = cluster, %{names: names, workers: workers} = plan, number),
    do: call(cluster, number, Member, :work, [registry, names, workers, plan.seed * 10 + number])

  defp step(cluster, _plan, :heal), do: heal(cluster)

  defp step(cluster, _plan, :part_all), do: for(number <- numbers(), do: isolate(cluster, number))

  defp step(cluster, plan, step) do
    case node_of(cluster, elem(step, 1)) do
      nil -> :ok
      number -> at(cluster, plan, step, number)
    end
  end

  defp at(cluster, _plan, {:cut_link, _role}, number),
    do: cut(cluster, [number], [Enum.random(numbers() -- [number])])

  defp at(cluster, _plan, {:isolate, _role}, number), do: isolate(cluster, number)

  defp at(cluster, _plan, {:pause, _role, time}, number) do
    pause(cluster, number)
    Process.sleep(time)
    resume(cluster, number)
  end

  # It is started again after less, or more, than the time in which its session ends.
  defp at(cluster, plan, {:kill, _role}, number) do
    kill(cluster, number)
    Process.sleep(Enum.random([0, 2 * plan.lease]))
    boot(cluster, number)
    heal(cluster)
    work(cluster, plan, number)
  end

  # Only one member at a time may lose its data, so the others are well when it does.
  defp at(cluster, plan, {:wipe, _role}, number) do
    recover(cluster)
    kill(cluster, number)
    wipe(cluster, number)
    boot(cluster, number)
    heal(cluster)
    await_registers(cluster, [number])
    work(cluster, plan, number)
  end

  # What has a name keeps it, unless the lease runs out meanwhile.
  defp at(cluster, plan, {:reopen, _role}, number) do
    call(cluster, number, Member, :terminate, [cluster.registry])
    Process.sleep(Enum.random([0, div(plan.lease, 2), 2 * plan.lease]))
    call(cluster, number, Member, :restart, [cluster.registry])
  end

  defp at(cluster, _plan, {:kill_server, _role}, number) do
    with {server, _node} <- call(cluster, number, Server, :id, []),
         do: call(cluster, number, Member, :kill, [server])
  end

  defp at(cluster, _plan, {:suspend_server, _role, time}, number) do
    with {server, _node} <- call(cluster, number, Server, :id, []),
         do: suspended(cluster, number, server, time)
  end

  defp at(cluster, _plan, {:suspend_fence, _role, time}, number),
    do: suspended(cluster, number, Fence, time)

  defp at(cluster, _plan, {:kill_session, _role}, number),
    do: call(cluster, number, Member, :kill, [Session])

  defp at(cluster, _plan, {:kill_fence, _role}, number),
    do: call(cluster, number, Member, :kill, [Fence])

  defp suspended(cluster, number, process, time) do
    with keeper when is_pid(keeper) <- call(cluster, number, Member, :suspend, [process]) do
      Process.sleep(time)
      call(cluster, number, Member, :resume, [keeper])
    end
  end

  defp node_of(cluster, role) do
    awake = awake(cluster)
    leader = Enum.find(awake, &(leader_of(cluster, &1) == &1))

    case role do
      :leader -> leader
      :follower -> Enum.random([nil | awake -- [leader]])
      :any -> Enum.random([nil | awake])
    end
  end
end
