defmodule WorkflowMetal.Registration.NativeRegistry.Ra.EngineTest do
  # Registries with `cluster: {:ra, _}` on three real nodes.
  use WorkflowMetal.Registration.NativeRegistry.ClusterCase, async: true

  alias WorkflowMetal.Registration.NativeRegistry.ClusterFaults
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  @moduletag :ra

  @kernel ~w(-kernel prevent_overlapping_partitions false)

  # In milliseconds: long enough for a busy machine, so that no lease runs out unless a test has it so.
  @lease 6_000

  setup do
    registry = unique_registry()
    nodes = start_nodes(3, :never, @kernel)
    folder = Path.join(System.tmp_dir!(), "#{registry}_#{System.pid()}")
    on_exit(fn -> File.rm_rf!(folder) end)
    names = for {_peer, node} <- nodes, do: node
    ra = {:ra, nodes: names, data_dir: folder, lease: @lease, fsync: false}
    start_registries(nodes, registry, cluster: ra, cluster_timeout: 30_000)
    %{registry: registry, nodes: nodes, ra: ra}
  end

  # The two that lose one node, and that node. Which of them leads is left to chance.
  defp split([one, two, alone]) do
    :ok = cut([alone], [one, two])
    {[one, two], alone}
  end

  defp register(node, registry, names),
    do: call(node, ClusterNode, :register, [registry, names, :value])

  defp whereis(node, registry, name), do: call(node, ClusterNode, :whereis, [registry, name])

  test "of all nodes that start a name at once one runs it, and all find it", context do
    %{registry: registry, nodes: nodes} = context

    for number <- 1..20 do
      answers = call_all(nodes, ClusterNode, :start_child, [registry, {:case, number}])
      assert [{:ok, pid}] = Enum.uniq(answers)
      assert agreed(nodes, registry, {:case, number}) == pid
    end
  end

  test "a name is free for all nodes when its holder has ended, has given it back, or its node was drained",
       %{registry: registry, nodes: [one, two, three] = nodes} do
    {holder, [{:ok, _}]} = register(one, registry, [:killed])
    assert agreed(nodes, registry, :killed) == holder
    call(one, ClusterFaults, :kill, [holder])
    agreed_on_nobody(nodes, registry, :killed)
    assert {:ok, pid} = call(two, ClusterNode, :start_child, [registry, :killed])
    assert agreed(nodes, registry, :killed) == pid

    {holder, [{:ok, _}]} = register(one, registry, [:given_back])
    assert agreed(nodes, registry, :given_back) == holder
    call(one, ClusterNode, :run, [holder, Registry, :unregister, [registry, :given_back]])
    agreed_on_nobody(nodes, registry, :given_back)
    assert {_holder, [{:ok, _pid}]} = register(three, registry, [:given_back])

    {:ok, _pid} = call(one, ClusterNode, :start_child, [registry, :drained])
    assert {[:drained], []} = call(one, Registry, :drain, [registry])
    assert {:ok, _pid} = call(two, ClusterNode, :start_child, [registry, :drained])

    assert {:error, :draining} = call(one, ClusterNode, :start_child, [registry, :not_here])
  end

  test "a registration that loses names the holder, on the same node and on others",
       %{registry: registry, nodes: [one, two, _three]} do
    {holder, [{:ok, holder}]} = register(one, registry, [:taken])

    assert {_other, [{:error, {:already_registered, ^holder}}]} =
             register(one, registry, [:taken])

    assert {_other, [{:error, {:already_registered, ^holder}}]} =
             register(two, registry, [:taken])
  end

  test "a lookup answers value and token on all nodes, and tokens grow",
       %{registry: registry, nodes: [one, two, _three] = nodes} do
    {first, [{:ok, _}]} = register(one, registry, [:a])
    eventually(fn -> whereis(two, registry, :a) == first end)
    assert [{^first, :value, token}] = call(one, Registry, :lookup, [registry, :a, [token: true]])
    assert is_integer(token)

    assert [{^first, :value, ^token}] =
             call(two, Registry, :lookup, [registry, :a, [token: true]])

    call(one, ClusterFaults, :kill, [first])
    agreed_on_nobody(nodes, registry, :a)
    {second, [{:ok, _}]} = register(two, registry, [:a])

    assert [{^second, :value, later}] =
             call(two, Registry, :lookup, [registry, :a, [token: true]])

    assert later > token
  end

  test "names of any kind run once, those with pids and references of a node among them",
       %{registry: registry, nodes: [one, two, _three] = nodes} do
    pid = call(one, Process, :whereis, [:init])
    reference = call(one, :erlang, :make_ref, [])
    names = [pid, reference, {:x, [pid, %{reference => 1.0}]}, 1, 1.0, "", %{}, <<3::3>>, nil]
    {holder, answers} = register(one, registry, names)
    assert Enum.uniq(answers) == [{:ok, holder}]

    for name <- names do
      assert agreed(nodes, registry, name) == holder
      assert {_, [{:error, {:already_registered, ^holder}}]} = register(two, registry, [name])
    end
  end

  test "a node that is cut off loses its names, and the others get them after its holders have ended",
       %{registry: registry, nodes: [one, two, _three] = nodes} do
    {staying, alone} = split_after(nodes, registry)
    watcher = call(alone, ClusterNode, :watch_ends, [[whereis(alone, registry, :alone)]])

    for node <- [one, two], do: assert(node in staying)
    ended = Task.async(fn -> call(alone, ClusterNode, :ends, [watcher]) end)

    eventually(fn ->
      with {:ok, pid} <- start_now(one, registry, :alone), do: node(pid) == elem(one, 1)
    end)

    # The holder there had ended before the name was given away.
    assert {:ok, [reason]} = Task.yield(ended, 1_000) || Task.shutdown(ended)
    assert reason == :shutdown

    assert whereis(alone, registry, :alone) == :undefined
    refute call(alone, Registry, :lease_valid?, [registry])
    assert call(one, Registry, :lease_valid?, [registry])
    assert {_, [{:error, :no_quorum}]} = register(alone, registry, [:not_there])

    assert call(alone, ClusterNode, :start_child, [registry, :not_there]) ==
             {:error, :no_quorum}

    supervisor = call(alone, Process, :whereis, [ClusterNode.workers(registry)])
    for other <- [one, two], do: meet(alone, other)

    eventually(fn -> match?({:ok, _}, start_now(alone, registry, :healed)) end)
    assert call(alone, Registry, :lease_valid?, [registry])
    assert whereis(alone, registry, :alone) == whereis(one, registry, :alone)
    assert call(alone, Process, :whereis, [ClusterNode.workers(registry)]) == supervisor
  end

  defp split_after(nodes, registry) do
    {:ok, _pid} = call(List.last(nodes), ClusterNode, :start_child, [registry, :alone])
    split(nodes)
  end

  # The answer is `{:error, _}` as long as the name is blocked or there is no quorum.
  defp start_now(node, registry, name),
    do: call(node, ClusterNode, :start_child, [registry, name])

  test "past the deadline a lookup answers nobody although the holder still lives",
       %{registry: registry, nodes: [_one, _two, alone] = nodes} do
    {holder, [{:ok, _}]} = register(alone, registry, [:held])
    :ok = call(alone, :sys, :suspend, [Ra.Fence])
    split(nodes)
    eventually(fn -> whereis(alone, registry, :held) == :undefined end)
    assert call(alone, Process, :alive?, [holder])
    assert call(alone, Registry, :lookup, [registry, :held]) == []
    assert call(alone, Registry, :keys, [registry, holder]) == []
    assert call(alone, Registry, :match_names, [registry, :_]) == []
    refute call(alone, Registry, :lease_valid?, [registry])
  end

  @tag crashes: ~r/the engine of .* is down/
  test "holders keep their names when the session, the fence or the ra server is killed",
       %{registry: registry, nodes: [one, two, _three] = nodes} do
    {holder, [{:ok, _}]} = register(one, registry, [:kept])

    for victim <- [Ra.Session, Ra.Fence, Ra.Server, call(one, Ra.Server, :id, []) |> elem(0)] do
      call(one, ClusterFaults, :kill, [victim])
      assert whereis(one, registry, :kept) == holder
      eventually(fn -> match?({:ok, _}, start_now(one, registry, victim)) end)
      assert {_, [{:error, {:already_registered, ^holder}}]} = register(two, registry, [:kept])
    end

    assert agreed(nodes, registry, :kept) == holder
    assert call(one, Process, :alive?, [holder])
  end

  @tag crashes: ~r/the engine of .* is down/
  test "a name whose holder ended while the session was away is free afterwards",
       %{registry: registry, nodes: [one, two, _three] = nodes} do
    {holder, [{:ok, _}]} = register(one, registry, [:orphan])
    assert agreed(nodes, registry, :orphan) == holder
    supervisor = call(one, Process, :whereis, [Ra.Supervisor])
    :ok = call(one, :sys, :suspend, [supervisor])
    call(one, ClusterFaults, :kill, [Ra.Session])
    call(one, ClusterFaults, :kill, [holder])
    :ok = call(one, :sys, :resume, [supervisor])
    eventually(fn -> match?({_, [{:ok, _}]}, register(two, registry, [:orphan])) end)
  end

  test "the names of a registry that is stopped are free for the others at once",
       %{registry: registry, nodes: [one, two, _three] = nodes} do
    {holder, [{:ok, _}]} = register(one, registry, [:stopped])
    assert agreed(nodes, registry, :stopped) == holder
    call(one, ClusterNode, :stop_registry, [registry])
    eventually(fn -> match?({_, [{:ok, _}]}, register(two, registry, [:stopped])) end)
  end

  test "the names of a node that has crashed stay blocked until its lease has run out, then they are free",
       %{registry: registry, nodes: [one, two, three] = nodes} do
    {holder, [{:ok, _}]} = register(three, registry, [:crashed])
    assert agreed(nodes, registry, :crashed) == holder
    halt(three)
    assert {_, [refused]} = register(one, registry, [:crashed])
    assert refused == {:error, {:already_registered, holder}}
    eventually(fn -> match?({_, [{:ok, _}]}, register(two, registry, [:crashed])) end)
  end

  test "registries of one node share the ra server, and have to have the same options",
       %{registry: registry, nodes: [one, two, _three], ra: {:ra, options} = ra} do
    other = unique_registry()

    for node <- [one, two],
        do:
          :ok =
            call(node, ClusterNode, :start_registry, [
              other,
              [cluster: ra, cluster_timeout: 30_000]
            ])

    assert {:ok, pid} = start_now(one, other, :same)
    assert {:ok, held} = start_now(one, registry, :same)
    assert held != pid
    eventually(fn -> whereis(two, other, :same) == pid end)

    assert_raise ArgumentError, ~r/to be those of/, fn ->
      call(one, Ra.Options, :check_same!, [unique_registry(), Map.new(options ++ [lease: 7_000])])
    end

    assert :ok = call(one, Ra.Options, :check_same!, [registry, Map.new(options)])
  end
end
