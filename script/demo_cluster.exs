# What `script/demo --cluster` runs. Three nodes on this machine start the same cases, in one registry for
# each engine. One node is deployed again, one is killed, and one is cut off from the others for a while.
# All engines go through the same at the same time, and each has a column of the table. What has been
# counted comes first, and is the same each time. What has been measured differs.

Code.require_file("demo.ex", __DIR__)

{:module, _name, node_code, _} =
  defmodule Demo.ClusterNode do
    # This module runs on the nodes. Each engine has a registry and a supervisor of its own.
    alias WorkflowMetal.Registration.NativeRegistry
    alias WorkflowMetal.Registration.NativeRegistry.Registry

    # The pause between two attempts, in milliseconds.
    @pause 5

    def start(engines) do
      {:ok, _started} = Application.ensure_all_started(:workflow_metal_native_registry)

      children =
        for {name, cluster} <- engines,
            child <- [
              {NativeRegistry, name: registry(name), cluster: cluster},
              {DynamicSupervisor, name: workers(name), strategy: :one_for_one}
            ],
            do: Supervisor.child_spec(child, id: make_ref())

      {:ok, pid} = Supervisor.start_link(children, strategy: :one_for_one, name: Demo.Supervisor)
      Process.unlink(pid)
      System.pid()
    end

    # What a deployment does, after the node was drained.
    def restart(engines) do
      Supervisor.stop(Demo.Supervisor)
      start(engines)
    end

    def ready?(:syn, nodes) do
      members = apply(:syn, :subcluster_nodes, [:registry, registry(:syn)])
      length(members) == length(nodes) - 1
    end

    def ready?(engine, _nodes), do: Registry.lease_valid?(registry(engine))

    def drain(engine) do
      {_drained, []} = Registry.drain(registry(engine), timeout: 10_000)
      :ok
    end

    # How many starts were refused because this node is on the side without a majority.
    def open(engine, names) do
      answers =
        for name <- Enum.shuffle(names) do
          NativeRegistry.start_child(
            %{registry: registry(engine)},
            name,
            workers(engine),
            {Demo.Case, case: name}
          )
        end

      [] = for(answer <- answers, not match?({:ok, _}, answer), do: answer) -- refusals(answers)
      length(refusals(answers))
    end

    defp refusals(answers), do: for({:error, :no_quorum} = refusal <- answers, do: refusal)

    # Starts what no process of these nodes has, until none is missing.
    def take_over(engine, names, nodes) do
      open(engine, names)

      unless engine |> whereis(names) |> Enum.all?(&(is_pid(&1) and node(&1) in nodes)) do
        Process.sleep(@pause)
        take_over(engine, names, nodes)
      end
    end

    def await_none(engine) do
      if cases(engine) != [] do
        Process.sleep(@pause)
        await_none(engine)
      end
    end

    def whereis(engine, names),
      do: for(name <- names, do: NativeRegistry.whereis_name({registry(engine), name}))

    # The processes themselves are asked, whatever the registry knows of them.
    def cases(engine) do
      for {_id, pid, _type, _modules} <- DynamicSupervisor.which_children(workers(engine)),
          is_pid(pid),
          name <- name(pid),
          do: {name, pid}
    end

    defp name(pid) do
      [GenServer.call(pid, :name)]
    catch
      # It has ended meanwhile.
      :exit, _reason -> []
    end

    def supervisor(engine), do: Process.whereis(workers(engine))

    # From now on it refuses the other nodes, and they refuse it.
    def leave(others) do
      for other <- others, do: Node.set_cookie(other, :cut)

      # The function of :global, as nodes that are disconnected one by one look to it like a partition that
      # is only partial. OTP before 25.1 has none.
      if function_exported?(:global, :disconnect, 0),
        do: apply(:global, :disconnect, []),
        else: for(other <- others, do: Node.disconnect(other))

      :ok
    end

    def meet(others, cookie) do
      for other <- others, do: Node.set_cookie(other, cookie)
      for other <- others, do: Node.connect(other)
    end

    defp registry(engine), do: Module.concat(Demo.Names, engine)
    defp workers(engine), do: Module.concat(Demo.Workers, engine)
  end

{:module, _name, case_code, _} =
  defmodule Demo.Case do
    use GenServer, restart: :transient

    def start_link(options),
      do: GenServer.start_link(__MODULE__, options[:case], name: options[:name])

    @impl GenServer
    def init(name), do: {:ok, name}

    @impl GenServer
    def handle_call(:name, _from, name), do: {:reply, name, name}
  end

defmodule Demo.Cluster do
  alias Demo.Text
  alias WorkflowMetal.Registration.NativeRegistry.Cluster

  @names for number <- 1..30, do: {:case, number}
  @cookie :demo_of_native_registry
  @patience 60_000

  # How long :global may need for the names of nodes that were connected. It takes some milliseconds, or for
  # ever when a message of its was lost, as can happen on a busy machine.
  @sync 5_000
  @widths [13, 13, 13]

  @all "All engines go through the same at the same time."

  # Of ra, in milliseconds. Short, so that the demo is.
  @lease 2_000

  def main(code) do
    # Ctrl-C ends the demo, which would be logged.
    Logger.configure(level: :error)
    {engines, absent} = engines()
    start_epmd()

    Text.say("""
    Three nodes on this machine, a, b and c, each with a registry for #{these(engines)}. They
    start #{length(@names)} cases in each registry. A case should run once in the cluster, and all nodes should
    find the same process.

    #{absent}
    """)

    IO.puts("")
    state = start(engines, code)
    heading("Counted", engines)
    {state, times} = story(state)
    heading("Measured: until names could be had", engines)
    measured(times, engines)
    conclusion(engines)
    for {peer, _node} <- state.nodes, do: :peer.stop(peer)
  end

  # The engines, in the order of their columns, and why others are not shown.
  defp engines do
    {engines, absent} =
      Enum.split_with([global: Cluster.Global, syn: Cluster.Syn, ra: Cluster.Ra], fn {_, engine} ->
        Enum.all?(engine.requires(), fn {module, _} -> Code.ensure_loaded?(module) end)
      end)

    engines = Keyword.keys(engines)
    refusal = if :ra in engines, do: refusal_of_ra()
    absent = String.trim("#{absent(absent)} #{refusal}")
    {if(refusal, do: engines -- [:ra], else: engines), if(absent == "", do: @all, else: absent)}
  end

  defp these([engine]), do: "the engine `#{inspect(engine)}`"

  defp these(engines),
    do: "each of the engines #{list(for engine <- engines, do: "`#{inspect(engine)}`")}"

  defp absent([]), do: ""

  defp absent(engines) do
    names = for {name, _engine} <- engines, do: "`#{inspect(name)}`"
    needed = for {_name, engine} <- engines, {_module, needed} <- engine.requires(), do: needed

    "Not on the code path, and so not shown: #{list(names)}. What is missing is " <>
      "#{list(needed)}, from Hex or in a folder that ERL_LIBS names."
  end

  # What Hex fetches is not always of a version that this OTP can run.
  defp refusal_of_ra do
    _ = Application.load(:ra)
    version = to_string(Application.spec(:ra, :vsn))
    Cluster.Ra.Options.check_version!(version, System.otp_release())
    nil
  rescue
    refusal in ArgumentError -> "Not shown is `:ra`: #{Exception.message(refusal)}."
  end

  defp list([one]), do: one
  defp list(many), do: Enum.join(Enum.drop(many, -1), ", ") <> " and " <> List.last(many)

  ## The story

  defp start(engines, code) do
    peers = all(~w(a b c), &start_node(&1, code, engines))
    nodes = for {_peer, node} <- peers, do: node

    options =
      for engine <- engines do
        folder = Path.join(System.fetch_env!("DEMO_SCRATCH"), "data")
        ra = [nodes: nodes, data_dir: folder, lease: @lease, fsync: false]
        {engine, if(engine == :ra, do: {:ra, ra}, else: engine)}
      end

    state = %{engines: engines, options: options, code: code, nodes: peers}
    connect(peers, peers)
    start_registries(peers, state)
    Map.put(state, :supervisors, supervisors(state))
  end

  defp story(%{nodes: [a, b, c]} = state) do
    thirds = Enum.chunk_every(@names, div(length(@names), 3))

    run("nothing is started", state)

    each(state, fn engine ->
      all(Enum.zip([a, b, c], thirds), fn {node, third} -> call(node, :open, [engine, third]) end)
    end)

    run("each node starts a third of the cases", state)

    each(state, fn engine -> all([a, b, c], &call(&1, :open, [engine, @names])) end)
    run("all nodes start all cases at once", state)

    each(state, &call(b, :drain, [&1]))
    run("b drains, to be deployed again", state)
    deployed = each(state, &take_over(&1, a, [a, c], now()))
    run("a starts the cases that it misses", state)

    start_registries([b], state, :restart)
    each(state, &call(b, :open, [&1, @names]))
    run("b is back and starts all cases", state)
    state = %{state | supervisors: supervisors(state)}

    killed = now()
    halt(c)
    missed = %{state | nodes: [a, b]}
    taken_over = each(missed, &take_over(&1, b, [a, b], killed))
    run("c is killed, b starts all cases", missed)

    c = start_node("c", state.code, state.engines)
    state = %{state | nodes: [a, b, c]}
    connect(state.nodes, [c])
    start_registries([c], state)
    each(state, &call(c, :open, [&1, @names]))
    run("c is back and starts all cases", state)
    state = %{state | supervisors: supervisors(state)}

    {cut_off, ended} = split(state)
    healed = heal(state)

    died =
      each(state, fn engine ->
        before = state.supervisors[engine]
        length(before -- supervisors(engine, state))
      end)

    row("supervisors that died", died)
    {state, [deployed, taken_over, cut_off, ended, healed]}
  end

  # a is alone, and cannot know whether b and c are.
  defp split(%{nodes: [a, b, c]} = state) do
    own = each(state, &call(a, :cases, [&1]))
    cut = now()
    :ok = call(a, :leave, [for({_peer, node} <- [b, c], do: node)])
    await(fn -> for(node <- state.nodes, do: seen(node)) == [0, 1, 1] end)

    # Each side starts all cases at the same time. With :ra those of a may run until its lease ends.
    [a_alone, others] =
      all([&on_a_alone(&1, a, cut), &take_over(&1, b, [b, c], cut)], &each(state, &1))

    held = each(state, &settled(&1, [[a], [b, c]]))
    left = each(state, &length(own[&1] -- of(held[&1], [a])))

    row("a is cut off and starts all cases:", blank(state))
    row("  ended, of its own 20 cases", left)
    row("  starts of cases that were refused", each(state, &elem(a_alone[&1], 0)))
    row("  run on a", each(state, &distinct(of(held[&1], [a]))))
    row("b starts all cases:", blank(state))
    row("  run on b and c", each(state, &distinct(of(held[&1], [b, c]))))
    row("run twice, once on each side", each(state, &twice(held[&1])))
    {others, each(state, &elem(a_alone[&1], 1))}
  end

  defp on_a_alone(:ra, a, cut) do
    call(a, :await_none, [:ra])
    ended = now() - cut
    {call(a, :open, [:ra, @names]), ended}
  end

  defp on_a_alone(engine, a, _cut), do: {call(a, :open, [engine, @names]), nil}

  defp heal(%{nodes: [a | _others]} = state) do
    before = each(state, &running(&1, state.nodes))
    healed = now()
    connect(state.nodes, [a])

    times =
      each(state, fn engine ->
        # With :ra, a has to open a session first.
        if engine == :ra, do: await(fn -> call(a, :open, [engine, @names]) == 0 end)
        settled(engine, [state.nodes])
        now() - healed
      end)

    each(state, &call(a, :open, [&1, @names]))
    held = each(state, &settled(&1, [state.nodes]))
    row("the split is over, a starts all cases:", blank(state))
    row("  processes that were ended", each(state, &length(pids(before[&1]) -- pids(held[&1]))))
    row("  run, found by all nodes", each(state, &distinct(held[&1])))
    row("  run twice", each(state, &twice(held[&1])))
    times
  end

  # Milliseconds from `since` until a node that starts all cases again and again has found or started all
  # of them on nodes that are there.
  defp take_over(engine, on, nodes, since) do
    call(on, :take_over, [engine, @names, for({_peer, node} <- nodes, do: node)])
    now() - since
  end

  # Prints a row with the cases that run, when all nodes have found all of them.
  defp run(what, state) do
    held = each(state, &settled(&1, [state.nodes]))

    row(
      what,
      each(state, fn engine ->
        if twice(held[engine]) == 0,
          do: distinct(held[engine]),
          else: "#{twice(held[engine])} twice"
      end)
    )
  end

  ## What runs

  # What runs, as `{name, pid}`, when the nodes of each side have found just that.
  defp settled(engine, sides) do
    deadline = now() + @patience
    for side <- sides, held <- settled_side(engine, side, deadline), do: held
  end

  defp settled_side(engine, nodes, deadline) do
    held = running(engine, nodes)
    views = all(nodes, &call(&1, :whereis, [engine, @names]))
    members = for {_peer, node} <- nodes, do: node

    found =
      for view <- views do
        # During a split the others' cases may be known still.
        for {name, pid} <- Enum.zip(@names, view),
            is_pid(pid),
            node(pid) in members,
            do: {name, pid}
      end

    cond do
      Enum.all?(found, &(Enum.sort(&1) == Enum.sort(held))) ->
        held

      now() > deadline ->
        raise "the nodes do not agree with #{inspect(engine)}: #{inspect(views)}"

      true ->
        Process.sleep(20) && settled_side(engine, nodes, deadline)
    end
  end

  defp running(engine, nodes),
    do: nodes |> all(&call(&1, :cases, [engine])) |> Enum.concat()

  defp of(held, nodes) do
    members = for {_peer, node} <- nodes, do: node
    for {name, pid} <- held, node(pid) in members, do: {name, pid}
  end

  defp pids(held), do: for({_name, pid} <- held, do: pid)
  defp names(held), do: for({name, _pid} <- held, do: name)
  defp distinct(held), do: held |> names() |> Enum.uniq() |> length()
  defp twice(held), do: length(Enum.uniq(names(held) -- Enum.uniq(names(held))))

  defp supervisors(state), do: each(state, &supervisors(&1, state))
  defp supervisors(engine, state), do: all(state.nodes, &call(&1, :supervisor, [engine]))

  ## Output

  defp heading(label, engines) do
    IO.puts("")
    Text.row(label, for(engine <- engines, do: inspect(engine)), @widths)
    IO.puts(String.duplicate("-", Text.columns()))
  end

  defp row(label, cells),
    do: Text.row(label, for({_engine, cell} <- cells, do: "#{cell}"), @widths)

  defp blank(state), do: each(state, fn _engine -> "" end)

  defp measured([deployed, taken_over, cut_off, ended, healed], engines) do
    for {label, times} <- [
          {"b drained, until a had its cases", deployed},
          {"c was killed, until b had its cases", taken_over},
          {"a was cut off, until b had its cases", cut_off},
          {"a was cut off, until its cases ended", ended},
          {"split over, until all nodes agreed", healed}
        ] do
      row(label, for(engine <- engines, do: {engine, duration(times[engine])}))
    end

    Text.say("These differ from run to run and from machine to machine.")
  end

  defp duration(nil), do: "never"
  defp duration(ms) when ms < 1_000, do: "#{ms} ms"
  defp duration(ms), do: :erlang.float_to_binary(ms / 1_000, decimals: 1) <> " s"

  defp conclusion(engines) do
    others = for engine <- engines, engine != :ra, do: "`#{inspect(engine)}`"

    Text.say("""
    With #{list(others)} the names of a node are free when the others lose their connection to it.
    Here they notice at once; a machine that vanishes is noticed within a minute by default. Both sides of
    a split go on, so a case runs twice. When it is over, the process on the node whose name sorts first
    stays and the other ends.
    """)

    if :ra in engines do
      Text.say("""
      With `:ra` only a majority of the nodes gives names away, so no case runs twice. Node a, alone, is
      refused with {:error, :no_quorum}; it still finds the cases of b. A node holds its names under a lease,
      which it renews with the majority: #{Text.number(@lease)} ms here, 8,000 by default. When the lease has
      run out the node ends its cases, and a third of a lease later their names are free. That is the price:
      until then the names of a node that is cut off or was killed cannot be had.
      """)
    end

    Text.say("""
    The cases of a node that drains before it stops can run on other nodes at once.
    """)
  end

  ## Nodes

  defp start_epmd do
    epmd =
      System.find_executable("epmd") || hd(Path.wildcard("#{:code.root_dir()}/erts-*/bin/epmd"))

    {_output, 0} = System.cmd(epmd, ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])
  end

  # This node controls it through standard input and output, so that this node is no member of the cluster.
  # It ends when this node has ended, a moment later, and `script/demo` waits for that.
  defp start_node(letter, code, engines) do
    {:ok, peer, node} =
      :peer.start(%{
        name: :"#{letter}_#{System.pid()}",
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        wait_boot: @patience,
        args:
          ~w(-kernel inet_dist_use_interface {127,0,0,1} -kernel dist_auto_connect never)
          # Elixir's logger sets the level anew. Conflicts would be logged.
          |> Enum.concat(~w(-kernel logger_level none -logger level none))
          |> Enum.concat(~w(-setcookie #{@cookie} +sbwt none +sbwtdcpu none +sbwtdio none))
          |> Enum.concat(overlapping(engines))
          |> Enum.map(&String.to_charlist/1)
      })

    node = {peer, node}
    os_pid = rpc(node, :os, :getpid, [])
    File.write!(Path.join(System.fetch_env!("DEMO_SCRATCH"), "nodes"), "#{os_pid}\n", [:append])
    rpc(node, :code, :add_paths, [:code.get_path()])
    {:ok, _started} = rpc(node, :application, :ensure_all_started, [:elixir])

    for {module, binary} <- code do
      {:module, ^module} = rpc(node, :code, :load_binary, [module, ~c"nofile", binary])
    end

    # OTP prints on c that a file of ra was not closed when c was killed.
    {:ok, unseen} = StringIO.open("")
    Process.group_leader(peer, unseen)
    node
  end

  # ra wants that a node which one node has lost stays connected to the others.
  defp overlapping(engines) do
    if :ra in engines, do: ~w(-kernel prevent_overlapping_partitions false), else: []
  end

  # Has all nodes see each other. `new` are those that the others do not see yet.
  defp connect(nodes, new) do
    await(fn ->
      for node <- new, do: call(node, :meet, [others(node, nodes), @cookie])
      Enum.all?(nodes, &(seen(&1) == length(nodes) - 1))
    end)

    unless synchronized?(nodes) do
      for node <- new, do: call(node, :leave, [others(node, nodes)])
      connect(nodes, new)
    end
  end

  defp synchronized?(nodes) do
    nodes
    |> Enum.map(&Task.async(fn -> rpc(&1, :global, :sync, []) end))
    |> Task.yield_many(@sync)
    |> Enum.map(fn {task, answer} -> answer || Task.shutdown(task, :brutal_kill) end)
    |> Enum.all?()
  end

  defp others({_peer, own}, nodes), do: for({_peer, node} <- nodes, node != own, do: node)
  defp seen(node), do: length(rpc(node, Node, :list, []))

  defp start_registries(nodes, state, function \\ :start) do
    all(nodes, &call(&1, function, [state.options]))

    for engine <- state.engines, node <- nodes do
      await(fn -> call(node, :ready?, [engine, state.nodes]) end)
    end
  end

  defp halt({peer, _node}) do
    monitor = Process.monitor(peer)
    :peer.cast(peer, :erlang, :halt, [1, [flush: false]])

    receive do
      {:DOWN, ^monitor, :process, ^peer, _reason} -> :ok
    end
  end

  defp await(condition, deadline \\ now() + @patience) do
    cond do
      condition.() -> :ok
      now() > deadline -> raise "the nodes did not get that far"
      true -> Process.sleep(10) && await(condition, deadline)
    end
  end

  # For all engines at the same time.
  defp each(%{engines: engines}, function), do: Enum.zip(engines, all(engines, function))

  defp all(list, function) do
    list |> Enum.map(&Task.async(fn -> function.(&1) end)) |> Task.await_many(:infinity)
  end

  defp call(node, function, arguments), do: rpc(node, Demo.ClusterNode, function, arguments)

  defp rpc({peer, _node}, module, function, arguments),
    do: :peer.call(peer, module, function, arguments, @patience)

  defp now, do: System.monotonic_time(:millisecond)
end

Demo.Cluster.main([{Demo.ClusterNode, node_code}, {Demo.Case, case_code}])
