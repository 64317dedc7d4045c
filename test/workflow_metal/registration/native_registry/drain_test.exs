for engine <- [:global, :syn] do
  defmodule Module.concat(
              WorkflowMetal.Registration.NativeRegistry.DrainTest,
              engine |> Atom.to_string() |> Macro.camelize()
            ) do
    use WorkflowMetal.Registration.NativeRegistry.ClusterCase

    alias WorkflowMetal.Registration.NativeRegistry.WideNode

    @moduletag engine
    @moduletag reuse_nodes: true
    @moduletag timeout: 300_000
    @engine engine

    setup do
      nodes = start_nodes(2)
      registry = unique_registry()
      start_registries(nodes, registry, cluster: @engine, max_restarts: 10_000)
      %{nodes: nodes, registry: registry}
    end

    defp supervisors(nodes, registry) do
      call_all(nodes, Process, :whereis, [ClusterNode.workers(registry)])
    end

    test "all holders are shut down, other nodes take the names, and no supervisor counts it",
         context do
      %{nodes: [one, two] = nodes, registry: registry} = context
      before = supervisors(nodes, registry)
      names = for number <- 1..20, do: {:case, number}
      started = call(one, ClusterNode, :start_children, [registry, names])
      trapping = call(one, ClusterNode, :start_child, [registry, :trapping, [trap_exit: true]])
      # More of them than a supervisor may restart.
      permanent =
        for number <- 1..10,
            do: call(one, ClusterNode, :start_permanent, [registry, {:permanent, number}])

      {:ok, supervisor} = call(one, ClusterNode, :start_supervisor, [registry, :supervisor])
      below = call(one, ClusterNode, :start_child, [registry, :below, [], supervisor])

      {bare, [{:ok, bare}, {:ok, bare}]} =
        call(one, ClusterNode, :register, [registry, [:bare, :other], nil])

      {:ok, elsewhere} = call(two, ClusterNode, :start_child, [registry, :elsewhere])

      pids = for {:ok, pid} <- started ++ [trapping, below | permanent], do: pid
      ends = call(one, ClusterNode, :watch_ends, [pids ++ [supervisor]])
      bare_ends = call(one, ClusterNode, :watch_ends, [[bare]])

      {drained, []} = call(one, NativeRegistry.Registry, :drain, [registry])

      expected =
        names ++
          [:trapping, :supervisor, :below, :bare, :other] ++
          for(number <- 1..10, do: {:permanent, number})

      assert Enum.sort(drained) == Enum.sort(expected)
      assert Enum.uniq(call(one, ClusterNode, :ends, [ends])) == [:shutdown]
      assert call(one, ClusterNode, :ends, [bare_ends]) == [{:shutdown, :draining}]
      assert supervisors(nodes, registry) == before
      assert call(one, NativeRegistry.Registry, :count, [registry]) == 0
      assert agreed(nodes, registry, :elsewhere) == elsewhere

      # The other node takes over, also for callers of this one.
      for name <- names do
        agreed_on_nobody(nodes, registry, name)
        {:ok, pid} = call(two, ClusterNode, :start_child, [registry, name])
        assert agreed(nodes, registry, name) == pid
        assert call(one, ClusterNode, :start_child, [registry, name]) == {:ok, pid}
      end
    end

    test "no name is registered on the node, which still starts children on others", context do
      %{nodes: [one, two] = nodes, registry: registry} = context
      {:ok, supervisor} = call(two, ClusterNode, :start_supervisor, [registry, :supervisor])
      assert agreed(nodes, registry, :supervisor) == supervisor
      assert call(one, NativeRegistry.Registry, :drain, [registry]) == {[], []}

      assert {_holder, [{:error, :draining}]} =
               call(one, ClusterNode, :register, [registry, [:name], nil])

      assert call(one, ClusterNode, :start_child, [registry, :name]) == {:error, :draining}
      assert call(one, ClusterNode, :start_permanent, [registry, :name]) == {:error, :draining}
      assert call(one, NativeRegistry.Registry, :count, [registry]) == 0
      agreed_on_nobody(nodes, registry, :name)

      via = NativeRegistry.via_tuple(%{registry: registry}, :supervisor)
      assert {:ok, pid} = call(one, ClusterNode, :start_child, [registry, :name, [], via])
      assert node(pid) == elem(two, 1)
      assert agreed(nodes, registry, :name) == pid

      # The other node is not affected.
      assert {:ok, _pid} = call(two, ClusterNode, :start_child, [registry, :another])
    end

    test "subscribers are told of each name before its holder ends", context do
      %{nodes: [one, _two], registry: registry} = context
      {:ok, pid} = call(one, ClusterNode, :start_child, [registry, {:case, 1}])
      {:ok, _pid} = call(one, ClusterNode, :start_child, [registry, {:task, 1}])
      {subscriber, :ok} = call(one, WideNode, :start_subscriber, [registry, {:case, :_}, []])

      {_drained, []} = call(one, NativeRegistry.Registry, :drain, [registry])
      eventually(fn -> length(call(one, WideNode, :told, [subscriber])) == 2 end)

      assert [
               {:fenced, ^registry, {:case, 1}, ^pid, :draining},
               {:unregister, ^registry, {:case, 1}, ^pid}
             ] = call(one, WideNode, :told, [subscriber])
    end

    test "the names left after the timeout are answered, and a registry started anew registers names",
         context do
      %{nodes: [one, _two], registry: registry} = context
      {:ok, stuck} = call(one, ClusterNode, :start_child, [registry, :stuck, [trap_exit: true]])
      {:ok, _pid} = call(one, ClusterNode, :start_child, [registry, :other])
      :ok = call(one, WideNode, :suspend, [stuck])

      {drained, remaining} =
        call(one, NativeRegistry.Registry, :drain, [registry, [timeout: 500]])

      assert :stuck in remaining
      assert Enum.sort(drained ++ remaining) == [:other, :stuck]

      call(one, Process, :exit, [stuck, :kill])
      call(one, ClusterNode, :stop_registry, [registry])
      assert call(one, ClusterNode, :start_registry, [registry, [cluster: @engine]]) == :ok
      assert {:ok, _pid} = call(one, ClusterNode, :start_child, [registry, :name])
    end

    test "names that are registered meanwhile are given back", context do
      %{nodes: [one, _two], registry: registry} = context
      names = for number <- 1..10, do: {:name, number}

      hammers =
        for seed <- 1..4 do
          Task.async(fn -> call(one, ClusterNode, :hammer, [registry, names, seed, 300]) end)
        end

      eventually(fn -> call(one, NativeRegistry.Registry, :count, [registry]) > 0 end)
      {_drained, []} = call(one, NativeRegistry.Registry, :drain, [registry])
      answers = hammers |> Task.await_many(60_000) |> Enum.concat() |> Enum.uniq()
      assert answers -- [{:error, :draining}, {:error, :shutdown}] == []
      assert call(one, NativeRegistry.Registry, :count, [registry]) == 0
    end
  end
end

defmodule WorkflowMetal.Registration.NativeRegistry.DrainOptionsTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  test "a registry of one node alone cannot be drained", %{registry: registry} do
    assert_raise ArgumentError, ~r/expected a registry with the option :cluster/, fn ->
      NativeRegistry.Registry.drain(registry)
    end

    assert_raise ArgumentError, ~r/unknown registry: :nowhere/, fn ->
      NativeRegistry.Registry.drain(:nowhere)
    end
  end

  test "unknown options are named in the error" do
    registry = unique_registry()
    start_supervised!({NativeRegistry, name: registry, cluster: :global}, id: registry)

    for options <- [[timeout: :infinity], [timeout: -1], [time: 1], :timeout] do
      assert_raise ArgumentError, ~r/:timeout.*got: /, fn ->
        NativeRegistry.Registry.drain(registry, options)
      end
    end
  end
end
