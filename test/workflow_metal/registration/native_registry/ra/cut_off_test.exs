defmodule WorkflowMetal.Registration.NativeRegistry.Ra.CutOffTest do
  # What the guide says about a node that is cut off, and about one that crashes and comes back.
  use WorkflowMetal.Registration.NativeRegistry.ClusterCase, async: true

  alias WorkflowMetal.Registration.NativeRegistry.ClusterWorker
  alias WorkflowMetal.Registration.NativeRegistry.{Members, Registry}

  @moduletag :ra

  @kernel ~w(-kernel prevent_overlapping_partitions false)

  # In milliseconds. The longer lease is for tests that look at what is the case before it ends.
  @lease 6_000
  @long_lease 20_000
  @timeout 2_000

  setup context do
    registry = unique_registry()
    nodes = start_nodes(3, :never, @kernel)
    folder = Path.join(System.tmp_dir!(), "#{registry}_#{System.pid()}")
    on_exit(fn -> File.rm_rf!(folder) end)
    names = for {_peer, node} <- nodes, do: node
    ra = {:ra, nodes: names, data_dir: folder, lease: context[:lease] || @lease, fsync: false}
    options = [cluster: ra, cluster_timeout: @timeout]
    start_registries(nodes, registry, options)
    for node <- nodes, do: eventually(fn -> call(node, Registry, :lease_valid?, [registry]) end)
    %{registry: registry, nodes: nodes, options: options}
  end

  # A process without a name, which is not ended with the holders.
  defp observer(node, registry) do
    {observer, []} = call(node, ClusterNode, :register, [registry, [], nil])
    observer
  end

  defp run(node, process, module, function, arguments),
    do: call(node, ClusterNode, :run, [process, module, function, arguments])

  # The nodes of the other side try to connect, with another cookie.
  @tag crashes: ~r/Connection attempt from node/
  test "on a node that is cut off subscribers are told of each holder, and supervisors forget it and live on",
       %{registry: registry, nodes: [one, two, alone]} do
    {:ok, dynamic} = call(alone, ClusterNode, :start_child, [registry, :dynamic])
    observer = observer(alone, registry)
    child = {ClusterWorker, name: {:via, NativeRegistry, {registry, :static}}}
    options = [strategy: :one_for_one]
    {:ok, supervisor} = run(alone, observer, Supervisor, :start_link, [[child], options])
    [{_, static, _, _}] = call(alone, Supervisor, :which_children, [supervisor])
    workers = call(alone, Process, :whereis, [ClusterNode.workers(registry)])
    :ok = run(alone, observer, Registry, :subscribe, [registry])
    cut([alone], [one, two])

    for {name, pid} <- [dynamic: dynamic, static: static] do
      fenced = {:fenced, registry, name, pid, :no_quorum}

      eventually(fn ->
        {:messages, messages} = call(alone, Process, :info, [observer, :messages])
        fenced in messages and {:unregister, registry, name, pid} in messages
      end)
    end

    assert call(alone, Supervisor, :which_children, [supervisor]) == []
    assert call(alone, Process, :whereis, [ClusterNode.workers(registry)]) == workers
    {_, alone_name} = alone
    assert {:ok, members} = call(alone, Members, :list, [])
    assert [%{node: ^alone_name}] = Enum.filter(members, & &1.reachable?)
    assert Enum.all?(members, &(&1.voter? and not &1.leader?))
  end

  @tag crashes: ~r/Connection attempt from node/
  @tag lease: @long_lease
  test "before its lease ends a node that is cut off answers its own names, and no registration in time",
       %{registry: registry, nodes: [one, two, alone]} do
    {:ok, pid} = call(alone, ClusterNode, :start_child, [registry, :held])
    cut([alone], [one, two])
    assert call(alone, ClusterNode, :whereis, [registry, :held]) == pid
    assert call(alone, Registry, :lease_valid?, [registry])

    assert {_, [{:error, :no_quorum}]} =
             call(alone, ClusterNode, :register, [registry, [:another], nil])

    # On the majority the name is still taken.
    assert call(one, ClusterNode, :start_child, [registry, :held]) == {:ok, pid}
  end

  @tag lease: @long_lease
  test "a node that is started again after a crash gets its names when their time is over",
       %{registry: registry, nodes: [_one, two, crashed], options: options} do
    {:ok, pid} = call(crashed, ClusterNode, :start_child, [registry, :held])
    eventually(fn -> call(two, ClusterNode, :whereis, [registry, :held]) == pid end)
    halt(crashed)
    again = start_again(crashed, @kernel)
    :ok = call(again, ClusterNode, :start_registry, [registry, options])

    assert {_, [{:error, :cluster_timeout}]} =
             call(again, ClusterNode, :register, [registry, [:held], nil])

    assert call(again, ClusterNode, :start_child, [registry, :held]) == {:error, :cluster_timeout}
    assert call(two, ClusterNode, :whereis, [registry, :held]) == pid

    new =
      eventually(fn ->
        with {:error, :cluster_timeout} <-
               call(again, ClusterNode, :start_child, [registry, :held]),
             do: false
      end)

    assert {:ok, holder} = new
    eventually(fn -> call(two, ClusterNode, :whereis, [registry, :held]) == holder end)
  end
end
