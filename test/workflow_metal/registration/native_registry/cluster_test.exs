for engine <- [:global, :syn] do
  defmodule Module.concat(
              WorkflowMetal.Registration.NativeRegistry.ClusterTest,
              engine |> Atom.to_string() |> Macro.camelize()
            ) do
    use WorkflowMetal.Registration.NativeRegistry.ClusterCase

    # Not async: these nodes need the whole machine.
    @moduletag engine
    @moduletag reuse_nodes: true
    @engine engine

    defp start_cluster(count, options \\ []) do
      {auto_connect, options} = Keyword.pop(options, :auto_connect, :never)
      nodes = start_nodes(count, auto_connect)
      registry = unique_registry()
      start_registries(nodes, registry, [cluster: @engine] ++ options)
      %{nodes: nodes, registry: registry}
    end

    defp supervisors(nodes, registry) do
      call_all(nodes, Process, :whereis, [ClusterNode.workers(registry)])
    end

    describe "three nodes" do
      setup do
        start_cluster(3)
      end

      test "that start one name at once all get a pid, and one process stays", context do
        %{nodes: nodes, registry: registry} = context

        for round <- 1..20 do
          name = {:name, round}
          answers = call_all(nodes, ClusterNode, :start_child, [registry, name])

          for answer <- answers do
            assert {:ok, pid} = answer
            assert is_pid(pid)
          end

          holder = agreed(nodes, registry, name)

          case @engine do
            :global -> assert Enum.uniq(answers) == [{:ok, holder}]
            :syn -> assert {:ok, holder} in answers
          end

          eventually(fn -> running(nodes, registry) == round end)
        end
      end

      test "answer a process of another, and start none", %{nodes: nodes, registry: registry} do
        [one, two, three] = nodes
        {:ok, pid} = call(one, ClusterNode, :start_child, [registry, :name])
        assert agreed(nodes, registry, :name) == pid

        for node <- [one, two, three] do
          assert call(node, ClusterNode, :start_child, [registry, :name]) == {:ok, pid}
        end

        for node <- [two, three] do
          assert %{active: 0} =
                   call(node, DynamicSupervisor, :count_children, [ClusterNode.workers(registry)])
        end
      end

      test "find at once a process that they have started, wherever it runs", context do
        %{nodes: [one, two, three] = nodes, registry: registry} = context
        {:ok, supervisor} = call(two, ClusterNode, :start_supervisor, [registry, :supervisor])
        assert agreed(nodes, registry, :supervisor) == supervisor
        via = NativeRegistry.via_tuple(%{registry: registry}, :supervisor)

        for node <- [one, two, three], round <- 1..30 do
          name = {:name, node, round}

          assert {{:ok, pid}, pid} =
                   call(node, ClusterNode, :start_and_look, [registry, name, via])

          assert node(pid) == elem(two, 1)
        end
      end

      if engine == :syn do
        test "do not answer a start on another node before syn has told of it", context do
          %{nodes: [one, two, _three] = nodes, registry: registry} = context
          {:ok, supervisor} = call(two, ClusterNode, :start_supervisor, [registry, :supervisor])
          assert agreed(nodes, registry, :supervisor) == supervisor
          via = NativeRegistry.via_tuple(%{registry: registry}, :supervisor)
          syn = :"syn_registry_#{registry}"

          :ok = call(one, :sys, :suspend, [syn])

          start =
            Task.async(fn -> call(one, ClusterNode, :start_and_look, [registry, :name, via]) end)

          eventually(fn -> call(two, ClusterNode, :whereis, [registry, :name]) != :undefined end)
          refute Task.yield(start, 100)
          :ok = call(one, :sys, :resume, [syn])
          assert {{:ok, pid}, pid} = Task.await(start, 60_000)
        end

        @tag crashes: ~r/the engine of .* is down/
        test "find no name of another node without syn, and all when syn is back", context do
          %{nodes: [one, _two, three], registry: registry} = context
          {:ok, pid} = call(one, ClusterNode, :start_child, [registry, :name])
          eventually(fn -> call(three, ClusterNode, :whereis, [registry, :name]) == pid end)
          :ok = call(three, Application, :stop, [:syn])
          assert call(three, ClusterNode, :whereis, [registry, :name]) == :undefined
          assert {:error, _reason} = call(three, ClusterNode, :start_child, [registry, :name])
          {:ok, _apps} = call(three, Application, :ensure_all_started, [:syn])
          eventually(fn -> call(three, ClusterNode, :whereis, [registry, :name]) == pid end)
        end
      end

      test "reach each other's processes by via tuples", %{nodes: nodes, registry: registry} do
        [one, two, three] = nodes

        {:ok, pid} =
          call(one, ClusterNode, :start_child, [registry, {"odd", 1 / 3, %{a: &is_pid/1}}])

        name = {"odd", 1 / 3, %{a: &is_pid/1}}
        assert agreed(nodes, registry, name) == pid
        via = NativeRegistry.via_tuple(%{registry: registry}, name)

        for node <- [one, two, three] do
          assert call(node, GenServer, :call, [via, :pid]) == pid
          assert call(node, GenServer, :whereis, [via]) == pid
          assert call(node, NativeRegistry, :send, [elem(via, 2), :hello]) == pid
        end
      end

      test "say what value a name was registered with", %{nodes: nodes, registry: registry} do
        [one, two, three] = nodes
        {pid, [{:ok, pid}]} = call(one, ClusterNode, :register, [registry, [:name], %{since: 7}])
        assert agreed(nodes, registry, :name) == pid

        for node <- [one, two, three] do
          assert call(node, NativeRegistry.Registry, :lookup, [registry, :name]) == [
                   {pid, %{since: 7}}
                 ]
        end

        {other, answers} = call(two, ClusterNode, :register, [registry, [:name], nil])
        assert answers == [{:error, {:already_registered, pid}}]
        assert other != pid
      end

      test "see that a name is free when its holder gives it back or ends", context do
        %{nodes: [one, two, _three] = nodes, registry: registry} = context
        names = for number <- 1..10, do: {:name, number}
        {pid, _answers} = call(one, ClusterNode, :register, [registry, names, nil])
        for name <- names, do: assert(agreed(nodes, registry, name) == pid)

        assert call(one, ClusterNode, :run, [
                 pid,
                 NativeRegistry.Registry,
                 :unregister,
                 [registry, {:name, 1}]
               ]) ==
                 :ok

        assert call(one, ClusterNode, :whereis, [registry, {:name, 1}]) == :undefined
        agreed_on_nobody(nodes, registry, {:name, 1})
        assert {:ok, other} = call(two, ClusterNode, :start_child, [registry, {:name, 1}])
        assert agreed(nodes, registry, {:name, 1}) == other

        call(two, Process, :exit, [pid, :kill])
        for number <- 2..10, do: agreed_on_nobody(nodes, registry, {:name, number})
        assert {:ok, _pid} = call(two, ClusterNode, :start_child, [registry, {:name, 2}])
      end

      test "free the names of a node that goes down, and start them anew", context do
        %{nodes: [one, two, three], registry: registry} = context
        names = for number <- 1..20, do: {:name, number}
        started = call(three, ClusterNode, :start_children, [registry, names])

        for {name, {:ok, pid}} <- Enum.zip(names, started),
            do: assert(agreed([one, two], registry, name) == pid)

        halt(three)

        for name <- names, do: agreed_on_nobody([one, two], registry, name)
        anew = call(one, ClusterNode, :start_children, [registry, names])

        for {name, {:ok, pid}} <- Enum.zip(names, anew),
            do: assert(agreed([one, two], registry, name) == pid)
      end

      test "are joined by a fourth, which finds all names", %{nodes: nodes, registry: registry} do
        names = for number <- 1..20, do: {:name, number}

        started =
          for {:ok, pid} <- call(hd(nodes), ClusterNode, :start_children, [registry, names]),
              do: pid

        fourth = start_node()
        :ok = call(fourth, ClusterNode, :start_registry, [registry, [cluster: @engine]])
        connect([fourth | nodes])

        eventually(fn -> call(fourth, ClusterNode, :whereis_all, [registry, names]) == started end)

        assert {:ok, pid} = call(fourth, ClusterNode, :start_child, [registry, hd(names)])
        assert pid == hd(started)
      end

      test "go on while the registry's process of one does not run", context do
        %{nodes: [one, two, three] = nodes, registry: registry} = context
        {:ok, pid} = call(one, ClusterNode, :start_child, [registry, :name])
        assert agreed(nodes, registry, :name) == pid
        owner = call(one, Process, :whereis, [NativeRegistry.Owner.name(registry)])
        call(one, Process, :exit, [owner, :kill])

        assert call(one, ClusterNode, :whereis, [registry, :name]) == pid
        assert {:ok, new} = call(one, ClusterNode, :start_child, [registry, :new])

        eventually(fn ->
          restarted = call(one, Process, :whereis, [NativeRegistry.Owner.name(registry)])
          restarted not in [nil, owner]
        end)

        for node <- nodes,
            do: assert(call(node, ClusterNode, :start_child, [registry, :name]) == {:ok, pid})

        assert agreed([one, two, three], registry, :new) == new
      end

      test "free the names of a registry that stops on one of them", context do
        %{nodes: [one, two, three], registry: registry} = context
        {pid, [{:ok, pid}]} = call(one, ClusterNode, :register, [registry, [:name], nil])
        assert agreed([two, three], registry, :name) == pid
        :ok = call(one, ClusterNode, :stop_registry, [registry])
        agreed_on_nobody([two, three], registry, :name)
        assert {:ok, _pid} = call(two, ClusterNode, :start_child, [registry, :name])
      end
    end

    describe "a netsplit" do
      test "heals: no name is lost or held twice, and no supervisor ends", _context do
        %{nodes: [one, two, three] = nodes, registry: registry} = start_cluster(3)
        supervisors = supervisors(nodes, registry)
        untouched = call(two, ClusterNode, :start_child, [registry, :untouched])
        {:ok, untouched} = untouched
        cut([one], [two, three])

        names = for number <- 1..20, do: {:name, number}

        winners =
          for {:ok, pid} <- call(one, ClusterNode, :start_children, [registry, names]), do: pid

        losers =
          for {:ok, pid} <- call(two, ClusterNode, :start_children, [registry, names]), do: pid

        assert length(winners) == 20 and length(losers) == 20
        assert Enum.all?(winners, &(node(&1) == elem(one, 1)))
        watcher = call(two, ClusterNode, :watch_ends, [losers])

        connect(nodes)

        for {name, pid} <- Enum.zip(names, winners),
            do: assert(agreed(nodes, registry, name) == pid)

        # By their supervisor.
        assert Enum.uniq(call(two, ClusterNode, :ends, [watcher])) == [:shutdown]

        assert agreed(nodes, registry, :untouched) == untouched
        assert supervisors(nodes, registry) == supervisors

        eventually(fn ->
          call(two, DynamicSupervisor, :count_children, [ClusterNode.workers(registry)]).active ==
            1
        end)

        warnings =
          for {:warning, line} <- call(two, ClusterNode, :logged, []),
              line =~ "held twice",
              do: line

        assert length(warnings) == 20

        for {name, winner, loser} <- Enum.zip([names, winners, losers]) do
          assert [_line] =
                   for(
                     line <- warnings,
                     line =~ inspect(name) and line =~ call(two, Kernel, :inspect, [winner]) and
                       line =~ call(two, Kernel, :inspect, [loser]),
                     do: line
                   )
        end
      end

      test "heals: the function of the configuration decides conflicts", _context do
        %{nodes: [one, two] = nodes, registry: registry} =
          start_cluster(2, on_conflict: {ClusterNode, :last})

        cut([one], [two])
        {:ok, loser} = call(one, ClusterNode, :start_child, [registry, :name])
        {:ok, winner} = call(two, ClusterNode, :start_child, [registry, :name])
        watcher = call(one, ClusterNode, :watch_ends, [[loser]])
        connect(nodes)
        assert agreed(nodes, registry, :name) == winner

        assert call(one, ClusterNode, :ends, [watcher]) == [:shutdown]
      end

      @tag crashes: ~r/to decide for one of .* got: :nonsense/
      test "heals: the rule decides conflicts when that function answers nonsense", _context do
        %{nodes: [one, two] = nodes, registry: registry} =
          start_cluster(2, on_conflict: {ClusterNode, :nonsense})

        cut([one], [two])
        {:ok, winner} = call(one, ClusterNode, :start_child, [registry, :name])
        {:ok, _loser} = call(two, ClusterNode, :start_child, [registry, :name])
        connect(nodes)
        assert agreed(nodes, registry, :name) == winner
      end

      test "heals: losers end that trap exits, and permanent ones", _context do
        %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2)
        supervisors = supervisors(nodes, registry)
        cut([one], [two])
        names = [:traps, :supervisor, :permanent]

        [winners, losers] =
          for node <- [one, two] do
            {:ok, traps} =
              call(node, ClusterNode, :start_child, [registry, :traps, [trap_exit: true]])

            {:ok, supervisor} =
              call(node, ClusterNode, :start_supervisor, [registry, :supervisor])

            {:ok, permanent} = call(node, ClusterNode, :start_permanent, [registry, :permanent])
            [traps, supervisor, permanent]
          end

        watcher = call(two, ClusterNode, :watch_ends, [losers])
        connect(nodes)

        for {name, pid} <- Enum.zip(names, winners),
            do: assert(agreed(nodes, registry, name) == pid)

        assert call(two, ClusterNode, :ends, [watcher]) == [:shutdown, :shutdown, :shutdown]

        eventually(fn ->
          call(two, DynamicSupervisor, :count_children, [ClusterNode.workers(registry)]).specs ==
            0
        end)

        assert supervisors(nodes, registry) == supervisors
      end
    end

    describe "nodes that connect by themselves, as they do unless configured otherwise," do
      test "run each name once, before a netsplit and after it", _context do
        %{nodes: [one, two, three] = nodes, registry: registry} =
          start_cluster(3, auto_connect: :always)

        supervisors = supervisors(nodes, registry)
        untouched = for number <- 1..10, do: {:untouched, number}

        running =
          for {name, node} <- Enum.zip(untouched, Stream.cycle(nodes)) do
            {:ok, pid} = call(node, ClusterNode, :start_child, [registry, name])
            assert agreed(nodes, registry, name) == pid
            pid
          end

        cut([one], [two, three])
        names = for number <- 1..10, do: {:name, number}

        [winners, _losers] =
          for node <- [one, two] do
            for {:ok, pid} <- call(node, ClusterNode, :start_children, [registry, names]), do: pid
          end

        assert length(winners) == 10
        connect(nodes)

        for {name, pid} <- Enum.zip(untouched ++ names, running ++ winners),
            do: assert(agreed(nodes, registry, name) == pid)

        eventually(fn -> running(nodes, registry) == 20 end)
        assert supervisors(nodes, registry) == supervisors

        halt(three)

        for {name, pid} <- Enum.zip(untouched, running), node(pid) == elem(three, 1) do
          agreed_on_nobody([one, two], registry, name)
          {:ok, pid} = call(two, ClusterNode, :start_child, [registry, name])
          assert agreed([one, two], registry, name) == pid
        end
      end
    end

    describe "an engine that hangs" do
      test "delays no lookup, and delays a registration by its timeout at most", _context do
        %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2, cluster_timeout: 500)
        {:ok, pid} = call(one, ClusterNode, :start_child, [registry, :name])
        assert agreed(nodes, registry, :name) == pid

        # :global wants the consent of the other node; syn that of its own process.
        {hanging, process} =
          case @engine do
            :global -> {two, :global_name_server}
            :syn -> {one, :"syn_registry_#{registry}"}
          end

        :ok = call(hanging, :sys, :suspend, [process])

        for _lookup <- 1..1_000 do
          assert call(one, ClusterNode, :whereis, [registry, :name]) == pid
        end

        assert call(one, ClusterNode, :start_child, [registry, :late]) ==
                 {:error, :cluster_timeout}

        {holder, answers} = call(one, ClusterNode, :register, [registry, [:late], nil])
        assert answers == [{:error, :cluster_timeout}]
        :ok = call(hanging, :sys, :resume, [process])

        # What was answered with an error is not registered later.
        assert {:ok, _pid} =
                 eventually_ok(fn -> call(one, ClusterNode, :start_child, [registry, :new]) end)

        agreed_on_nobody(nodes, registry, :late)
        assert call(one, Process, :alive?, [holder])

        assert {:ok, late} =
                 eventually_ok(fn -> call(two, ClusterNode, :start_child, [registry, :late]) end)

        assert agreed(nodes, registry, :late) == late
      end

      defp eventually_ok(function) do
        eventually(fn ->
          with {:error, _reason} <- function.(), do: false
        end)
      end
    end

    if engine == :syn do
      describe "other scopes of syn" do
        test "keep the event handler that they had, and syn's own rule for conflicts", _context do
          [one, two] = nodes = start_nodes(2)
          registry = unique_registry()

          for node <- nodes do
            {:ok, _apps} = call(node, Application, :ensure_all_started, [:syn])
            :ok = call(node, :syn, :set_event_handler, [ClusterNode])
            :ok = call(node, :syn, :add_node_to_scopes, [[:of_the_user]])
          end

          start_registries(nodes, registry, cluster: :syn)
          await_members(nodes, :of_the_user, :syn)
          cut([one], [two])
          older = call(one, ClusterNode, :register_with_syn, [:of_the_user, :name])
          younger = call(two, ClusterNode, :register_with_syn, [:of_the_user, :name])
          watcher = call(one, ClusterNode, :watch_ends, [[older]])
          connect(nodes)

          assert call(one, ClusterNode, :ends, [watcher]) == [{:syn_resolve_kill, :name, :meta}]

          for node <- nodes do
            eventually(fn ->
              call(node, :syn, :lookup, [:of_the_user, :name]) == {younger, :meta}
            end)
          end

          told = for {:registered, what} <- call(two, ClusterNode, :logged, []), do: what
          assert call(two, Kernel, :inspect, [{:of_the_user, :name, younger, :meta}]) in told
          refute Enum.any?(told, &(&1 =~ inspect(registry)))
        end
      end
    end

    describe "a node that joins" do
      test "makes the others register the names again that the engine has lost", _context do
        %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2)
        {:ok, pid} = call(one, ClusterNode, :start_child, [registry, :name])
        assert agreed(nodes, registry, :name) == pid

        case @engine do
          :global -> call(one, :global, :unregister_name, [{NativeRegistry, registry, :name}])
          :syn -> call(one, :syn, :unregister, [registry, :name])
        end

        agreed_on_nobody([two], registry, :name)
        assert call(one, ClusterNode, :whereis, [registry, :name]) == pid

        joining = start_node()
        connect([joining | nodes])
        assert agreed(nodes, registry, :name) == pid
      end
    end

    describe "a rolling restart" do
      test "of three nodes under load loses no name and runs none twice", _context do
        %{nodes: nodes, registry: registry} = start_cluster(3, max_restarts: 1_000_000)
        names = for number <- 1..10, do: {:name, number}

        nodes =
          for leaving <- nodes, reduce: nodes do
            nodes ->
              staying = nodes -- [leaving]

              load =
                for {node, seed} <- Enum.with_index(staying) do
                  Task.async(fn ->
                    call(node, ClusterNode, :hammer, [registry, names, seed, 40])
                  end)
                end

              halt(leaving)
              joining = start_node()
              nodes = staying ++ [joining]
              options = [cluster: @engine, max_restarts: 1_000_000]
              :ok = call(joining, ClusterNode, :start_registry, [registry, options])
              connect(nodes)
              await_members(nodes, registry, @engine)

              # A start under way on the node that has gone may fail with it.
              for task <- load, do: assert(Task.await(task, 120_000) == [])
              nodes
          end

        for name <- names, do: agreed_and_running(nodes, registry, name)
        eventually(fn -> running(nodes, registry) == 10 end)
      end
    end

    # The last kills may still be on their way, and a process that is found may be ended by one.
    defp agreed_and_running(nodes, registry, name) do
      eventually(fn ->
        {:ok, pid} = call(hd(nodes), ClusterNode, :start_child, [registry, name])
        views = call_all(nodes, ClusterNode, :whereis, [registry, name])
        if Enum.uniq(views) == [pid], do: pid
      end)
    end

    defp running(nodes, registry) do
      nodes
      |> call_all(DynamicSupervisor, :count_children, [ClusterNode.workers(registry)])
      |> Enum.map(& &1.active)
      |> Enum.sum()
    end

    describe "under load" do
      test "four nodes with random kills agree in the end and lose no name", _context do
        %{nodes: nodes, registry: registry} = start_cluster(4, max_restarts: 1_000_000)
        supervisors = supervisors(nodes, registry)
        names = for number <- 1..5, do: {:name, number}
        rounds = if @engine == :global, do: 60, else: 300

        wrong =
          nodes
          |> Enum.with_index(fn node, seed ->
            Task.async(fn -> call(node, ClusterNode, :hammer, [registry, names, seed, rounds]) end)
          end)
          |> Task.await_many(120_000)
          |> Enum.concat()

        assert wrong == []

        holders =
          for name <- names do
            agreed_and_running(nodes, registry, name)
          end

        assert length(Enum.uniq(holders)) == 5

        eventually(fn -> running(nodes, registry) == 5 end)
        assert supervisors(nodes, registry) == supervisors
      end
    end
  end
end
