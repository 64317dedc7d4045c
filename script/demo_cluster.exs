# What `script/demo --cluster` runs. Three nodes on this machine start the same names. One node is
# deployed again, one is killed, and a netsplit happens and heals. Each step prints a line of a table, which
# is the same each time.

Code.require_file("demo.ex", __DIR__)

{:module, _name, node_code, _} =
  defmodule Demo.ClusterNode do
    # This module runs on the nodes.
    alias WorkflowMetal.Registration.NativeRegistry

    @registry Demo.Names
    @workers Demo.Workers

    def start(engine) do
      {:ok, _started} = Application.ensure_all_started(:workflow_metal_native_registry)

      children = [
        {NativeRegistry, name: @registry, cluster: engine},
        {DynamicSupervisor, name: @workers, strategy: :one_for_one}
      ]

      {:ok, pid} = Supervisor.start_link(children, strategy: :one_for_one, name: Demo.Supervisor)
      Process.unlink(pid)
      Process.whereis(@workers)
    end

    def drain do
      {_drained, []} = NativeRegistry.Registry.drain(@registry, timeout: 10_000)
      :ok
    end

    # What a deployment does.
    def restart(engine) do
      Supervisor.stop(Demo.Supervisor)
      start(engine)
    end

    def open(names) do
      # Each node has its own order, so that each node gets some of the names.
      for name <- Enum.shuffle(names) do
        {:ok, pid} =
          NativeRegistry.start_child(%{registry: @registry}, name, @workers, {Demo.Case, []})

        pid
      end
    end

    def whereis(names),
      do: for(name <- names, do: NativeRegistry.whereis_name({@registry, name}))

    def supervisor, do: Process.whereis(@workers)
    def running, do: DynamicSupervisor.count_children(@workers).active
  end

{:module, _name, case_code, _} =
  defmodule Demo.Case do
    use GenServer, restart: :transient

    def start_link(options), do: GenServer.start_link(__MODULE__, nil, name: options[:name])

    @impl GenServer
    def init(state), do: {:ok, state}
  end

defmodule Demo.Cluster do
  alias Demo.Text

  @names for number <- 1..30, do: {:case, number}
  @patience 60_000

  def main(code) do
    # Ctrl-C ends the demo, which would be logged.
    Logger.configure(level: :error)
    engine = if Code.ensure_loaded?(:syn), do: :syn, else: :global
    start_epmd()

    Text.say("""
    Three nodes on this machine, each with a registry of the same name, `cluster: #{inspect(engine)}`.
    They start #{length(@names)} cases. Each case should run once in the cluster, and all nodes should
    find the same process. #{note(engine)}
    """)

    IO.puts("")

    nodes = for letter <- ~w(a b c), do: start_node(letter, code)
    connect(nodes)
    for node <- nodes, do: call(node, :start, [engine])
    await_members(nodes, engine)

    row("cases that run on", ["a", "b", "c", "found by all"])
    IO.puts(String.duplicate("-", Text.columns()))
    [a, b, c] = nodes

    tell("nothing is started", nodes, nodes, fn -> :ok end)

    tell("each node starts a third of the cases", nodes, nodes, fn ->
      thirds = Enum.chunk_every(@names, div(length(@names), 3))
      for {node, third} <- Enum.zip(nodes, thirds), do: call(node, :open, [third])
    end)

    tell("all nodes start all cases", nodes, nodes, fn ->
      nodes
      |> Enum.map(&Task.async(fn -> call(&1, :open, [@names]) end))
      |> Task.await_many(@patience)
    end)

    tell("b drains, to be deployed again", nodes, nodes, fn -> call(b, :drain, []) end)
    tell("a starts the cases that it misses", nodes, nodes, fn -> call(a, :open, [@names]) end)

    tell("b is back and starts all cases", nodes, nodes, fn ->
      call(b, :restart, [engine])
      await_members(nodes, engine)
      call(b, :open, [@names])
    end)

    supervisors = for node <- [a, b], do: call(node, :supervisor, [])

    tell("c is killed", nodes, [a, b], fn -> halt(c) end)
    tell("b starts the cases that it misses", nodes, [a, b], fn -> call(b, :open, [@names]) end)
    tell("a and b lose each other: a finds", nodes, [a], fn -> cut(a, b) end)
    tell("  b finds", nodes, [b], fn -> :ok end)
    tell("a starts the cases that it misses", nodes, [a], fn -> call(a, :open, [@names]) end)
    tell("b starts the cases that it misses", nodes, [b], fn -> call(b, :open, [@names]) end)
    tell("a and b find each other", nodes, [a, b], fn -> connect([a, b]) end)

    alive = for node <- [a, b], do: call(node, :supervisor, [])

    Text.say("""
    The cases of a node that drains before it stops can run on other nodes at once, without conflicts.
    Those of a killed node are free at once. Of the cases that ran twice after the netsplit, the process
    on the node whose name sorts first stayed and the other ended. #{supervisors(alive == supervisors)}
    """)

    for {peer, _node} <- [a, b], do: :peer.stop(peer)
  end

  defp note(:syn), do: "syn is on the code path, so it is the engine."
  defp note(:global), do: "With syn on the code path the engine would be syn."

  defp supervisors(true), do: "No supervisor died."
  defp supervisors(false), do: "A supervisor died, which is a fault."

  # Does one step and prints a line of the table when all nodes agree.
  defp tell(what, nodes, asked, act) do
    act.()
    holders = settled(asked)

    counts =
      for {_peer, node} = member <- nodes do
        found = Enum.count(holders, &(is_pid(&1) and node(&1) == node))
        if member in asked or found > 0, do: "#{found}", else: "-"
      end

    row(what, counts ++ ["#{Enum.count(holders, &is_pid/1)} of #{length(@names)}"])
  end

  # Waits until all nodes asked give the same answer, and as many cases run as are found.
  defp settled(asked, attempts \\ 3_000) do
    views = for node <- asked, do: call(node, :whereis, [@names])
    found = views |> hd() |> Enum.count(&is_pid/1)
    nodes = for {_peer, node} <- asked, do: node
    theirs = Enum.all?(hd(views), &(&1 == :undefined or node(&1) in nodes))
    running = Enum.sum(for node <- asked, do: call(node, :running, []))

    cond do
      Enum.uniq(views) == [hd(views)] and theirs and running == found -> hd(views)
      attempts == 0 -> raise "the nodes did not agree: #{inspect(views)}"
      true -> Process.sleep(10) && settled(asked, attempts - 1)
    end
  end

  defp row(label, cells), do: Text.row(label, cells, [6, 6, 6, 15])

  defp start_epmd do
    epmd =
      System.find_executable("epmd") || hd(Path.wildcard("#{:code.root_dir()}/erts-*/bin/epmd"))

    {_output, 0} = System.cmd(epmd, ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])
  end

  # This node controls it through standard input and output, so that this node is no member of the cluster.
  defp start_node(letter, code) do
    {:ok, peer, node} =
      :peer.start_link(%{
        name: :"#{letter}_#{System.pid()}",
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        args:
          ~w(-kernel inet_dist_use_interface {127,0,0,1} -kernel dist_auto_connect never)
          # Elixir's logger sets the level anew. Conflicts would be logged.
          |> Enum.concat(~w(-kernel logger_level none -logger level none))
          |> Enum.concat(~w(-setcookie demo_of_native_registry))
          |> Enum.map(&String.to_charlist/1)
      })

    node = {peer, node}
    rpc(node, :code, :add_paths, [:code.get_path()])
    {:ok, _started} = rpc(node, :application, :ensure_all_started, [:elixir])

    for {module, binary} <- code do
      {:module, ^module} = rpc(node, :code, :load_binary, [module, ~c"nofile", binary])
    end

    node
  end

  defp connect(nodes) do
    for one <- nodes, {_peer, other} = node <- nodes, one != node do
      rpc(one, :net_kernel, :connect_node, [other])
    end

    for node <- nodes, do: rpc(node, :global, :sync, [])
  end

  defp cut(one, {_peer, other}), do: rpc(one, :erlang, :disconnect_node, [other])

  defp halt({peer, _node}) do
    Process.unlink(peer)
    :peer.cast(peer, :erlang, :halt, [1, [flush: false]])
  end

  defp await_members(nodes, :syn) do
    for node <- nodes do
      until(fn ->
        length(rpc(node, :syn, :subcluster_nodes, [:registry, Demo.Names])) == length(nodes) - 1
      end)
    end
  end

  defp await_members(_nodes, :global), do: :ok

  defp until(condition, attempts \\ 1_000) do
    cond do
      condition.() -> :ok
      attempts == 0 -> raise "the nodes did not find each other"
      true -> Process.sleep(10) && until(condition, attempts - 1)
    end
  end

  defp call(node, function, arguments), do: rpc(node, Demo.ClusterNode, function, arguments)

  defp rpc({peer, _node}, module, function, arguments),
    do: :peer.call(peer, module, function, arguments, @patience)
end

Demo.Cluster.main([{Demo.ClusterNode, node_code}, {Demo.Case, case_code}])
