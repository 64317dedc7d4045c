for engine <- [:global, :syn] do
  defmodule Module.concat(
              WorkflowMetal.Registration.NativeRegistry.ClusterWideTest,
              engine |> Atom.to_string() |> Macro.camelize()
            ) do
    use WorkflowMetal.Registration.NativeRegistry.ClusterCase

    alias WorkflowMetal.Registration.NativeRegistry.{OtherVM, WideNode}

    @moduletag engine
    @moduletag reuse_nodes: true
    @moduletag timeout: 300_000
    @engine engine
    @wide [cluster: true, timeout: 30_000]

    setup do
      nodes = start_nodes(3)
      registry = unique_registry()
      start_registries(nodes, registry, cluster: @engine)
      %{nodes: nodes, registry: registry}
    end

    # Where there are others already.
    defp start_late(late, nodes, registry) do
      for node <- late do
        assert call(node, ClusterNode, :start_registry, [registry, [cluster: @engine]]) == :ok
      end

      await_members(nodes, registry, @engine)
    end

    defp name({_peer, node}), do: node

    # Each node has a name of its own that ends in its number.
    defp register_each(nodes, registry, kind) do
      for {node, number} <- Enum.with_index(nodes) do
        {pid, [{:ok, pid}]} =
          call(node, ClusterNode, :register, [registry, [{kind, number}], {:value, number}])

        pid
      end
    end

    defp told(node, subscriber, wanted) do
      eventually(fn ->
        told = call(node, WideNode, :told, [subscriber])
        Enum.all?(wanted, &(&1 in told)) and told
      end)
    end

    describe "select, count and names with cluster: true" do
      test "answer for all nodes, and without the option for their own", context do
        %{nodes: [one, _two, _three] = nodes, registry: registry} = context
        pids = register_each(nodes, registry, :case)
        register_each(nodes, registry, :task)

        expected =
          for {pid, number} <- Enum.with_index(pids), do: {{:case, number}, pid, {:value, number}}

        {found, []} =
          call(one, NativeRegistry.Registry, :match_names, [registry, {:case, :_}, @wide])

        assert Enum.sort(found) == expected

        assert call(one, NativeRegistry.Registry, :match_names, [registry, {:case, :_}]) == [
                 hd(expected)
               ]

        assert call(one, NativeRegistry.Registry, :match_names, [registry, {:case, :_}, []]) == [
                 hd(expected)
               ]

        assert call(one, NativeRegistry.Registry, :count, [registry, @wide]) == {6, []}
        assert call(one, NativeRegistry.Registry, :count, [registry]) == 2

        assert call(one, NativeRegistry.Registry, :count_names, [registry, {:case, :_}, @wide]) ==
                 {3, []}

        assert call(one, NativeRegistry.Registry, :count_names, [registry, {:case, :_}]) == 1

        {names, []} = call(one, NativeRegistry.Registry, :names, [registry, @wide])
        assert Enum.sort(names) == for(kind <- [:case, :task], number <- 0..2, do: {kind, number})

        assert Enum.sort(call(one, NativeRegistry.Registry, :names, [registry])) == [
                 case: 0,
                 task: 0
               ]
      end

      @tag reuse_nodes: false
      test "do not call a node missing whose registry does not run, or that has none", context do
        %{nodes: [one, two, three] = nodes, registry: registry} = context
        register_each(nodes, registry, :case)
        :ok = call(two, ClusterNode, :stop_registry, [registry])
        assert call(one, NativeRegistry.Registry, :count, [registry, @wide]) == {2, []}

        # One that cannot find this project's modules.
        for module <- [NativeRegistry, Cluster.Remote] do
          call(three, :code, :purge, [module])
          call(three, :code, :delete, [module])
        end

        paths =
          for path <- call(three, :code, :get_path, []), "#{path}" =~ "native_registry", do: path

        for path <- paths, do: call(three, :code, :del_path, [path])
        assert call(one, NativeRegistry.Registry, :count, [registry, @wide]) == {1, []}

        # One that has the project, but not what it is asked for: another version.
        for path <- paths, do: call(three, :code, :add_path, [path])
        {:module, _} = call(three, :code, :load_file, [NativeRegistry])
        source = "defmodule #{inspect(Cluster.Remote)} do end"
        call(three, Code, :put_compiler_option, [:ignore_module_conflict, true])
        [{_module, _code}] = call(three, Code, :compile_string, [source])
        assert call(one, NativeRegistry.Registry, :count, [registry, @wide]) == {1, [name(three)]}
      end

      @tag reuse_nodes: false
      test "name a node that does not answer in time, and include the answers of the others",
           context do
        %{nodes: [one, _two, three] = nodes, registry: registry} = context
        register_each(nodes, registry, :case)
        os = call(three, :os, :getpid, []) |> to_string()

        OtherVM.pause(os)

        try do
          options = [cluster: true, timeout: 1_000]
          assert {2, [missing]} = call(one, NativeRegistry.Registry, :count, [registry, options])
          assert missing == name(three)

          assert {found, [^missing]} =
                   call(one, NativeRegistry.Registry, :match_names, [
                     registry,
                     {:case, :_},
                     options
                   ])

          assert for({name, _pid, _value} <- found, do: name) |> Enum.sort() == [case: 0, case: 1]
        after
          OtherVM.resume(os)
        end

        eventually(fn ->
          call(one, NativeRegistry.Registry, :count, [registry, @wide]) == {3, []}
        end)
      end
    end

    describe "subscribe with cluster: true" do
      test "tells of each change on all nodes once, also on nodes that come later", context do
        %{nodes: [one, two, three] = nodes, registry: registry} = context

        {subscriber, answer} =
          call(one, WideNode, :start_subscriber, [registry, {:case, :_}, @wide])

        assert answer == {:ok, []}
        # More of its patterns match, on this node and on others.
        assert call(one, WideNode, :subscribe, [subscriber, registry, {:_, :_}, @wide]) ==
                 {:ok, []}

        pids = register_each(nodes, registry, :case)

        registered =
          for {pid, number} <- Enum.with_index(pids),
              do: {:register, registry, {:case, number}, pid, {:value, number}}

        told(one, subscriber, registered)
        [first, second, _third] = pids

        call(two, Process, :exit, [second, :kill])
        call(one, Process, :exit, [first, :kill])

        ended = [
          {:unregister, registry, {:case, 1}, second},
          {:unregister, registry, {:case, 0}, first}
        ]

        told(one, subscriber, ended)

        four = start_node()
        connect([four | nodes])
        start_late([four], [four | nodes], registry)
        told(one, subscriber, [{:nodeup, registry, name(four)}])

        {pid, [{:ok, pid}]} = call(four, ClusterNode, :register, [registry, [{:case, 3}], nil])
        all = told(one, subscriber, [{:register, registry, {:case, 3}, pid, nil}])

        # Messages about the engines are not part of this test.
        changes = for change <- all, elem(change, 0) != :reconciled, do: change

        assert Enum.sort(changes) ==
                 Enum.sort(
                   registered ++
                     ended ++
                     for(node <- [two, three, four], do: {:nodeup, registry, name(node)}) ++
                     [{:register, registry, {:case, 3}, pid, nil}]
                 )
      end

      test "tells when the registry of a node stops and starts, and when the node is gone",
           context do
        %{nodes: [one, two, three] = nodes, registry: registry} = context
        {subscriber, {:ok, []}} = call(one, WideNode, :start_subscriber, [registry, :_, @wide])
        :ok = call(two, ClusterNode, :stop_registry, [registry])
        told(one, subscriber, [{:nodedown, registry, name(two)}])
        start_late([two], nodes, registry)

        eventually(fn ->
          ups = for {:nodeup, _, node} <- call(one, WideNode, :told, [subscriber]), do: node
          Enum.count(ups, &(&1 == name(two))) == 2
        end)

        {pid, [{:ok, pid}]} = call(two, ClusterNode, :register, [registry, [:name], nil])
        told(one, subscriber, [{:register, registry, :name, pid, nil}])

        halt(three)
        told(one, subscriber, [{:nodedown, registry, name(three)}])
      end

      test "is ended by unsubscribe, and leaves nothing on any node", context do
        %{nodes: [one, two, _three] = nodes, registry: registry} = context
        before = call_all(nodes, WideNode, :processes, [])
        {subscriber, {:ok, []}} = call(one, WideNode, :start_subscriber, [registry, :_, @wide])
        {:ok, []} = call(one, WideNode, :subscribe, [subscriber, registry, {:case, :_}, @wide])
        :ok = call(one, WideNode, :unsubscribe, [subscriber, registry, :_])

        {pid, [{:ok, pid}, {:ok, pid}]} =
          call(two, ClusterNode, :register, [registry, [{:task, 1}, {:case, 1}], nil])

        all = told(one, subscriber, [{:register, registry, {:case, 1}, pid, nil}])
        refute {:register, registry, {:task, 1}, pid, nil} in all

        call(one, Process, :exit, [subscriber, :kill])
        call(two, Process, :exit, [pid, :kill])
        eventually(fn -> call_all(nodes, WideNode, :processes, []) == before end)

        for node <- nodes,
            do: assert(%{subscribers: 0} = call(node, NativeRegistry.Registry, :info, [registry]))
      end

      @tag reuse_nodes: false
      test "answers which nodes do not send events yet; they send them later", context do
        %{nodes: [one, _two, three], registry: registry} = context
        os = call(three, :os, :getpid, []) |> to_string()
        OtherVM.pause(os)

        subscriber =
          try do
            options = [cluster: true, timeout: 1_000]
            {subscriber, answer} = call(one, WideNode, :start_subscriber, [registry, :_, options])
            assert answer == {:ok, [name(three)]}
            subscriber
          after
            OtherVM.resume(os)
          end

        told(one, subscriber, [{:nodeup, registry, name(three)}])
        {pid, [{:ok, pid}]} = call(three, ClusterNode, :register, [registry, [:name], nil])
        told(one, subscriber, [{:register, registry, :name, pid, nil}])
      end
    end

    describe "an event of the cluster" do
      @tag crashes: ~r/the engine of .* is down/
      test "is told to the subscribers of the name, on all nodes with cluster: true", context do
        %{nodes: [one, two, _three], registry: registry} = context
        {here, :ok} = call(two, WideNode, :start_subscriber, [registry, {:case, :_}, []])
        {other, :ok} = call(two, WideNode, :start_subscriber, [registry, {:task, :_}, []])

        {elsewhere, {:ok, []}} =
          call(one, WideNode, :start_subscriber, [registry, {:case, :_}, @wide])

        {pid, _answers} = call(two, ClusterNode, :register, [registry, [{:note, 1}], nil])
        :ok = call(two, WideNode, :report_all, [registry, {:case, 1}, pid])

        for {node, subscriber} <- [{two, here}, {one, elsewhere}] do
          told = told(node, subscriber, [{:cluster_timeout, registry, {:case, 1}}])
          told = for message <- told, elem(message, 0) != :nodeup, do: message
          reporter = name(two)

          assert [
                   {:conflict, ^registry, {:case, 1}, ^pid, loser},
                   {:fenced, ^registry, {:case, 1}, ^pid, :no_majority},
                   {:reconciled, ^registry, ^reporter, %{names: 3, disagreed: 2}},
                   {:engine_down, ^registry, ^reporter, :killed},
                   {:engine_up, ^registry, ^reporter},
                   {:cluster_timeout, ^registry, {:case, 1}}
                 ] = told

          assert is_pid(loser)
        end

        # Of no single name.
        kinds = for message <- call(two, WideNode, :told, [other]), do: elem(message, 0)
        assert kinds == [:reconciled, :engine_down, :engine_up]
      end
    end
  end
end

defmodule WorkflowMetal.Registration.NativeRegistry.ClusterWideOptionsTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  test "a registry of one node alone answers for that node", %{registry: registry} do
    {:ok, _pid} = NativeRegistry.Registry.register(registry, :name, 1)

    assert NativeRegistry.Registry.match_names(registry, :_, cluster: true) ==
             {[{:name, self(), 1}], []}

    assert NativeRegistry.Registry.count(registry, cluster: true) == {1, []}
    assert NativeRegistry.Registry.subscribe(registry, :_, cluster: true) == {:ok, []}
    NativeRegistry.Registry.unregister(registry, :name)
    assert_receive {:unregister, ^registry, :name, _pid}, 30_000
  end

  test "unknown options are named in the error", %{registry: registry} do
    for options <- [[clustr: true], [cluster: 1], [timeout: -1], [timeout: :infinity], :cluster],
        call <- [
          &NativeRegistry.Registry.match_names(registry, :_, &1),
          &NativeRegistry.Registry.count(registry, &1),
          &NativeRegistry.Registry.names(registry, &1),
          &NativeRegistry.Registry.count_names(registry, :_, &1),
          &NativeRegistry.Registry.subscribe(registry, :_, &1)
        ] do
      error = assert_raise ArgumentError, fn -> call.(options) end

      assert error.message =~
               inspect(if is_list(options), do: options |> hd() |> elem(1), else: options)
    end

    for call <- [
          &NativeRegistry.Registry.count(&1, cluster: true),
          &NativeRegistry.Registry.names(&1, cluster: true)
        ] do
      assert_raise ArgumentError, ~r/unknown registry: :nowhere/, fn -> call.(:nowhere) end
    end
  end
end
