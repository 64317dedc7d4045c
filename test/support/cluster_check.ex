defmodule WorkflowMetal.Registration.NativeRegistry.ClusterCheck do
  @moduledoc false
  # Rounds of faults on real nodes on 127.0.0.1: links are cut, nodes are paused, killed, renamed and join, and
  # engines hang and restart, while workers on each node register, start, unregister and crash. At the end of
  # a round the links are healed, and the invariants of a registry in a cluster must come to hold. A seed
  # repeats the faults of a round.
  #
  # Each mutant below failed, and the unchanged code passed, with
  # `CHECKED_STEPS=STEPS CHECKED_ENGINE=ENGINE script/cluster_check 0 SEED`. The seed does not fix what the nodes do
  # at each moment, so a mutant may survive a run of its seed.
  #
  # rule; the mutant                                                     engine  seed  steps
  # names are compared when nodes meet: they are not                     syn     200   part,heal
  # two holders become one: the loser lives on                           global  200   part,heal,heal
  # no supervisor counts a conflict: it is not asked to end the loser    syn     200   part,heal,heal
  # a conflict is not the child's error: it is answered as such          syn     200   part,heal,heal
  # all nodes decide a conflict alike: by the own node's name            syn     200   part,heal,heal
  # a restart does not ask an engine that hangs: it does                 global  200   crash_while_it_hangs
  # what the engine does too late is taken back: it is not               global  201   suspend_engine
  # no more than that is taken back: any holder of it loses it           global  200   suspend_engine
  # a name given back is free: the engine is not told                    syn     200   link,heal
  # a registry that stops frees its names: they stay with the engine     global  200   restart_registry,heal
  # an engine that restarts is told of the names: it is not              syn     100   restart_engine,kill_engine,heal
  # so it is when the node has another name: it is not                   syn     200   rename,heal
  # all members know a name after a cut of one link: it is not retold    syn     205   link,heal,link
  #
  # Not caught: a mutant that takes a late name back although the process holds it by now. The process
  # registers the name again at once, so that another node has only a moment to take it.

  alias WorkflowMetal.Registration.NativeRegistry.ClusterCheck.{Member, Plan}
  alias WorkflowMetal.Registration.NativeRegistry.{ClusterNode, OtherVM}

  @patience 60_000

  # How long the cluster may take until all holds, in milliseconds.
  @settles 30_000

  # The invariants have to hold this much later as well, because reconciliation is delayed.
  @stays [300, 300, 300, 3_000]

  @spec round(atom, integer, keyword) :: :ok | {:error, String.t()}
  def round(engine, seed, options \\ []) do
    plan = Plan.new(engine, seed, options)
    if options[:verbose], do: IO.write(Plan.describe(plan))
    registry = Module.concat(Checked, "N#{seed}")

    state = %{
      plan: plan,
      registry: registry,
      names: Member.names(plan.names) ++ Member.supervisors(),
      nodes: %{},
      away: %{},
      boots: 0,
      verbose: options[:verbose]
    }

    start_epmd()
    {:ok, pids} = Agent.start_link(fn -> [] end)

    try do
      state
      |> Map.put(:pids, pids)
      |> boot_all()
      |> run()
      |> settle()
    catch
      {:failed, wrong} ->
        {:error, Enum.map_join(wrong, &"#{elem(&1, 1)}\n") <> Plan.describe(plan)}
    after
      end_all(pids)
    end
  end

  ## Nodes

  defp boot_all(state) do
    state = Enum.reduce(1..state.plan.nodes, state, &boot(&2, &1, state.plan.late_start))

    if state.plan.late_start do
      for node <- Map.values(state.nodes), do: work(state, node)
      Process.sleep(300)

      for node <- Map.values(state.nodes),
          do: call(node, Member, :start_distribution, [node.name])

      mesh(state)
    else
      # Before the first fault all nodes have seen each other, as after a deployment.
      mesh(state)
      for node <- Map.values(state.nodes), do: work(state, node)
    end

    state
  end

  defp boot(state, number, late? \\ false) do
    boots = state.boots + 1
    name = :"check_#{System.pid()}_#{state.plan.seed}_#{number}@127.0.0.1"

    {:ok, peer, _node} =
      :peer.start(%{
        connection: :standard_io,
        wait_boot: @patience,
        args:
          ~w(-kernel dist_auto_connect never -kernel inet_dist_use_interface {127,0,0,1})
          |> Enum.concat(~w(-kernel logger_level error -kernel net_ticktime 4))
          |> Enum.concat(~w(-kernel prevent_overlapping_partitions #{state.plan.overlaps}))
          |> Enum.concat(~w(+S 1:1))
          |> Enum.map(&String.to_charlist/1)
      })

    node = %{peer: peer, number: number, name: name, boots: boots, os: nil}
    node = %{node | os: call(node, :os, :getpid, []) |> to_string()}
    Agent.update(state.pids, &[{peer, node.os} | &1])
    call(node, :code, :add_paths, [:code.get_path()])
    {:ok, _} = call(node, :application, :ensure_all_started, [:workflow_metal_native_registry])
    :ok = call(node, ClusterNode, :start, [])
    unless late?, do: :ok = call(node, Member, :start_distribution, [name])
    :ok = call(node, Member, :start, [state.registry, options(state), strict?(state.plan)])
    node = Map.put(node, :bystanders, call(node, Member, :bystanders, [state.registry]))
    state = %{state | boots: boots}
    put_in(state.nodes[number], node)
  end

  # No two processes are ever told that they hold the same name, so no process loses its name.
  defp strict?(plan), do: plan.engine == :global and plan.steady

  defp options(%{plan: plan}), do: [cluster: plan.engine, cluster_timeout: plan.timeout]

  defp work(%{plan: plan} = state, node) do
    seed = plan.seed * 100 + node.boots
    call(node, Member, :work, [state.registry, state.names, plan.workers, seed])
  end

  defp call(node, module, function, arguments, patience \\ @patience) do
    :peer.call(node.peer, module, function, arguments, patience)
  end

  # Connects all pairs until all connections exist at the same time.
  defp mesh(state, attempts \\ 300) do
    nodes = Map.values(state.nodes)

    for one <- nodes, other <- nodes, one.name < other.name do
      call(one, Member, :connect, [other.name])
    end

    meshed? =
      Enum.all?(nodes, fn node ->
        seen = call(node, Node, :list, [])
        Enum.all?(nodes, &(&1.name == node.name or &1.name in seen))
      end)

    cond do
      meshed? -> :ok
      attempts == 0 -> throw({:failed, [{nil, "the nodes do not connect"}]})
      true -> Process.sleep(50) && mesh(state, attempts - 1)
    end
  end

  defp start_epmd do
    epmd =
      System.find_executable("epmd") ||
        hd(Path.wildcard("#{:code.root_dir()}/{bin,erts-*/bin}/epmd"))

    {_output, 0} = System.cmd(epmd, ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])
  end

  # By signals to the operating system's process, because a paused node does not answer.
  defp end_all(pids) do
    for {peer, os} <- Agent.get(pids, & &1), do: OtherVM.kill(peer, os)
    Agent.stop(pids)
  end

  ## Trouble

  defp run(state) do
    state =
      Enum.reduce(state.plan.steps, state, fn {pause, step}, state ->
        Process.sleep(pause)
        if state.verbose, do: IO.puts("    #{inspect(step)}")
        step(step, state)
      end)

    Process.sleep(300)
    state = Enum.reduce(Map.keys(state.away), state, &step({:resume, &1}, &2))

    if state.plan.ends_hanging do
      for {number, _node} <- state.nodes, do: step({:suspend_engine, number, 2_000}, state)
      Process.sleep(1_000)
    end

    state
  end

  # A paused node is not asked, because it would not answer.
  defp step({:cut, one_side, other_side}, state) do
    for one <- one_side, other <- other_side do
      case {state.nodes[one], state.nodes[other], state.away[one], state.away[other]} do
        {%{} = one, _, nil, _} -> disconnect(state, one, other)
        {_, %{} = other, _, nil} -> disconnect(state, other, one)
        _both_away -> :ok
      end
    end

    state
  end

  defp step({:heal, :all}, state) do
    for {one, _} <- state.nodes, {other, _} <- state.nodes, one < other do
      step({:heal, {one, other}}, state)
    end

    state
  end

  defp step({:heal, {one, other}}, state) do
    if state.away[one] == nil and state.away[other] == nil do
      call(state.nodes[one], Member, :connect, [state.nodes[other].name])
    end

    state
  end

  defp step({:pause, number}, state) do
    OtherVM.pause(state.nodes[number].os)
    put_in(state.away[number], true)
  end

  defp step({:resume, number}, state) do
    OtherVM.resume(state.nodes[number].os)
    %{state | away: Map.delete(state.away, number)}
  end

  defp step({:kill, number}, state) do
    node = state.nodes[number]
    OtherVM.kill(node.peer, node.os)
    %{state | nodes: Map.delete(state.nodes, number), away: Map.delete(state.away, number)}
  end

  # It has names of its own before it meets the others.
  defp step({:boot, number}, state) do
    state = boot(state, number)
    work(state, state.nodes[number])
    if :erlang.phash2({state.plan.seed, number}, 2) == 0, do: Process.sleep(300)
    step({:heal, :all}, state)
  end

  defp step({:rename, number}, state) do
    node = state.nodes[number]
    name = :"check_#{System.pid()}_#{state.plan.seed}_#{number}_#{state.boots + 1}@127.0.0.1"
    :ok = call(node, Member, :rename, [name])
    # Otherwise a node that meets it may not hear of its names for a while, and take them.
    await_renamed(state, node)
    state = put_in(state.nodes[number].name, name)
    step({:heal, :all}, %{state | boots: state.boots + 1})
  end

  defp step({:suspend_engine, number, time}, state) do
    arguments = [state.plan.engine, state.registry, time]
    call(state.nodes[number], Member, :suspend_engine, arguments)
    state
  end

  defp step({kind, number}, state) when kind in [:restart_engine, :kill_engine] do
    call(state.nodes[number], Member, kind, [state.plan.engine, state.registry])
    state
  end

  defp step({:restart_registry, number}, state) do
    node = state.nodes[number]
    call(node, Member, :stop_working, [])
    idle(node)
    :ok = call(node, Member, :restart_registry, [state.registry, options(state)])
    node = %{node | bystanders: call(node, Member, :bystanders, [state.registry])}
    node = %{node | boots: state.boots + 1}
    work(state, node)
    %{put_in(state.nodes[number], node) | boots: state.boots + 1}
  end

  defp step({:kill_owner, number}, state) do
    call(state.nodes[number], Member, :kill_owner, [state.registry])
    state
  end

  defp step({:crash_kept, number}, state) do
    call(state.nodes[number], Member, :crash_kept, [state.registry, state.names])
    state
  end

  defp step({:crash_while_it_hangs, number, time}, state) do
    step({:crash_kept, number}, step({:suspend_engine, number, time}, state))
  end

  defp idle(node, attempts \\ 300) do
    cond do
      call(node, Member, :working, []) == [] -> :ok
      attempts == 0 -> throw({:failed, [{nil, "the workers on #{node.number} do not end"}]})
      true -> Process.sleep(100) && idle(node, attempts - 1)
    end
  end

  defp await_renamed(state, node, attempts \\ 100) do
    cond do
      call(node, Member, :engine_renamed?, [state.plan.engine, state.registry]) ->
        :ok

      attempts == 0 ->
        text = "the engine on #{node.number} has names under the name of the node before"
        throw({:failed, [{nil, "things that do not hold: #{text}"}]})

      true ->
        Process.sleep(100)
        await_renamed(state, node, attempts - 1)
    end
  end

  defp disconnect(state, from, to) do
    with %{name: name} <- state.nodes[to], do: call(from, :erlang, :disconnect_node, [name])
  end

  ## What has to hold in the end

  defp settle(state) do
    for node <- Map.values(state.nodes), do: call(node, Member, :stop_working, [])
    deadline = now() + @settles
    stays = Enum.at(@stays, :erlang.phash2(state.plan.seed, length(@stays)))

    with :ok <- settled(state, deadline),
         Process.sleep(stays),
         :ok <- settled(state, min(deadline, now())) do
      :ok
    else
      {:error, wrong} -> {:error, explain(state, wrong)}
    end
  catch
    {:failed, wrong} -> {:error, explain(state, wrong)}
  end

  defp settled(state, deadline) do
    mesh(state)

    case wrong(state) do
      {[], []} ->
        :ok

      {lasting, passing} ->
        # A wrong answer, or a supervisor that has given up, cannot be repaired.
        if lasting != [] or now() > deadline do
          {:error, if(lasting == [], do: passing, else: lasting)}
        else
          Process.sleep(100)
          settled(state, deadline)
        end
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  # The violations as `{name, text}`, where the name may be nil: those that are final, and those that may still be
  # repaired.
  defp wrong(state) do
    nodes = Map.values(state.nodes)
    arguments = [state.registry, state.plan.engine, state.names]

    reports =
      nodes
      |> Enum.map(&Task.async(fn -> {&1, call(&1, Member, :report, arguments)} end))
      |> Task.await_many(@patience)

    pids = for {_node, report} <- reports, pid <- pids(report), do: pid
    alive = alive(nodes, Enum.uniq(pids))
    # What the nodes say that they hold. Each process is given with the present name of its node.
    holders = for {_node, report} <- reports, holder <- report.holders, do: holder

    lasting = for {node, report} <- reports, wrong <- lasting(state, node, report), do: wrong

    passing = [
      for({node, report} <- reports, wrong <- wrong_here(node, report, alive), do: wrong),
      nameless(reports, holders),
      doubled(holders),
      disagreement(state, reports, holders)
    ]

    {lasting, Enum.concat(passing)}
  end

  defp pids(report) do
    [report.holders, report.here, report.engine, Map.to_list(report.answers)]
    |> Enum.concat()
    |> Enum.flat_map(fn {_name, pid} -> if is_pid(pid), do: [pid], else: [] end)
  end

  # As their own nodes say, under whatever name the nodes have.
  defp alive(nodes, pids) do
    for node <- nodes, pid <- call(node, Member, :alive, [pids]), into: MapSet.new(), do: pid
  end

  defp at(node, report), do: "on #{node.number} (#{report.node})"

  defp lasting(state, node, report) do
    at = at(node, report)

    answers =
      for {name, what} <- report.wrong, do: {name, "#{at} a wrong answer: #{inspect(what)}"}

    answers ++ bystanders(state, node, at)
  end

  defp wrong_here(node, report, alive) do
    at = at(node, report)
    live = MapSet.new(report.holders)
    here = MapSet.new(report.here)

    dead = fn what, pairs ->
      for {name, pid} <- pairs,
          pid not in alive,
          do: {name, "#{at} the #{what} has #{inspect(pid)}, which is dead"}
    end

    hang = for working <- report.working, do: {nil, "#{at} a worker hangs: #{inspect(working)}"}

    lost =
      for {name, pid} <- MapSet.difference(live, here),
          do: {name, "#{at} #{inspect(pid)} lives without its name in the table"}

    untold =
      for {name, pid} <- MapSet.difference(here, live),
          do: {name, "#{at} the table has #{inspect(pid)}, which was not told so"}

    miscounted =
      if report.count == MapSet.size(here),
        do: [],
        else: [{nil, "#{at} count says #{report.count} of #{MapSet.size(here)}"}]

    Enum.concat([
      hang,
      dead.("engine", report.engine),
      dead.("table", report.here),
      lost,
      untold,
      miscounted,
      values(at, report)
    ])
  end

  # Registered with a value by `register/3`.
  defp values(at, report) do
    for {name, lookup} <- report.values,
        pid = report.answers[name],
        is_pid(pid),
        lookup != [{pid, {:value, name}}],
        do: {name, "#{at} lookup answers #{inspect(lookup)}, whereis #{inspect(pid)}"}
  end

  defp bystanders(state, node, at) do
    case call(node, Member, :bystanders, [state.registry]) do
      same when same == node.bystanders ->
        []

      now ->
        logged = for {:error, text} <- call(node, ClusterNode, :logged, []), do: text

        [
          {nil,
           "#{at} the registry's supervisor and the others, each with its nameless child, were " <>
             "#{inspect(node.bystanders)}, are #{inspect(now)}; its last errors: " <>
             inspect(Enum.take(logged, 3), printable_limit: 2_000)}
        ]
    end
  end

  # Every node answers every living holder.
  defp nameless(reports, holders) do
    for {name, pid} <- holders, {node, report} <- reports, report.answers[name] != pid do
      {name,
       "#{inspect(pid)} holds the name, #{node.number} (#{report.node}) answers #{inspect(report.answers[name])}"}
    end
  end

  defp doubled(holders) do
    for {name, [_, _ | _] = pids} <- Enum.group_by(holders, &elem(&1, 0), &elem(&1, 1)),
        do: {name, "runs more than once: #{inspect(pids)}"}
  end

  # Every process that is answered holds the name, and the engine agrees.
  defp disagreement(state, reports, holders) do
    held = Map.new(holders)

    for {node, report} <- reports,
        engine = Map.new(report.engine),
        name <- state.names,
        answer = report.answers[name],
        expected = Map.get(held, name, :undefined),
        answer != expected or Map.get(engine, name, :undefined) != expected do
      {name,
       "held by #{inspect(expected)}; #{node.number} (#{report.node}) answers #{inspect(answer)}, its engine #{inspect(engine[name])}"}
    end
  end

  # The first violations, and everything that was done with one of their names.
  defp explain(state, wrong) do
    texts = for {name, text} <- Enum.take(wrong, 20), do: "  #{inspect(name)}: #{text}\n"
    name = Enum.find_value(wrong, fn {name, _text} -> name end)

    history =
      for(
        node <- Map.values(state.nodes),
        event <- call(node, Member, :history, [name]),
        do: event
      )
      |> Enum.sort()

    {first, _, _, _} = List.first(history) || {0, nil, nil, nil}

    events =
      for {time, node, pid, what} <- Enum.take(history, -60) do
        "    #{div(time - first, 1_000)} ms #{node} #{inspect(pid)} #{inspect(what)}\n"
      end

    engines =
      for node <- Map.values(state.nodes),
          known = call(node, Member, :engine_state, [state.plan.engine]),
          do: "  the engine of #{node.number}: #{inspect(known, limit: :infinity)}\n"

    "#{length(wrong)} things do not hold\n#{texts}  history of #{inspect(name)}\n#{events}#{engines}" <>
      Plan.describe(state.plan)
  rescue
    error -> "#{inspect(wrong)}, whose history could not be had: #{Exception.message(error)}"
  end
end
