for engine <- [:global, :syn] do
  defmodule Module.concat(
              WorkflowMetal.Registration.NativeRegistry.ClusterFaultsTest,
              engine |> Atom.to_string() |> Macro.camelize()
            ) do
    # Faults in clusters: engines that hang, end and come back, and processes that end meanwhile.
    use WorkflowMetal.Registration.NativeRegistry.ClusterCase

    alias WorkflowMetal.Registration.NativeRegistry.ClusterFaults

    @moduletag engine
    @moduletag reuse_nodes: true
    @moduletag timeout: 300_000
    @engine engine

    defp start_cluster(count, options \\ []) do
      nodes = start_nodes(count)
      registry = unique_registry()
      start_registries(nodes, registry, [cluster: @engine] ++ options)
      %{nodes: nodes, registry: registry, engine: ClusterFaults.engine(@engine, registry)}
    end

    defp settle(nodes) do
      for node <- nodes, do: eventually(fn -> call(node, ClusterFaults, :settled?, []) end)
    end

    describe "the loser of a conflict" do
      test "is ended by its supervisor, which does not count it, whatever kind of process it is",
           _context do
        %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2)
        cut([one], [two])
        kinds = [:one_for_one, :one_for_all, :dynamic, :partition, :none]

        [winners, losers] =
          for node <- [one, two] do
            for kind <- kinds, do: call(node, ClusterFaults, :start_under, [kind, registry, kind])
          end

        trees =
          for {supervisor, _pid} <- losers, supervisor, do: {supervisor, tree(two, supervisor)}

        watcher =
          call(two, ClusterNode, :watch_ends, [for({_supervisor, pid} <- losers, do: pid)])

        connect(nodes)

        for {kind, {_supervisor, winner}} <- Enum.zip(kinds, winners),
            do: assert(agreed(nodes, registry, kind) == winner)

        {_supervisor, winner} = List.last(winners)

        assert call(two, ClusterNode, :ends, [watcher]) ==
                 [:shutdown, :shutdown, :shutdown, :shutdown] ++
                   [{:shutdown, {:name_conflict, :none, winner}}]

        settle(nodes)

        # Everything except the loser still runs: the supervisor, its partition, the sibling.
        for {{supervisor, tree}, {_supervisor, loser}} <- Enum.zip(trees, losers),
            do: assert(tree(two, supervisor) == tree -- [loser])
      end

      defp tree(node, supervisor), do: call(node, ClusterFaults, :tree, [supervisor])

      test "that is busy is killed, and its supervisor goes on", _context do
        %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2)
        cut([one], [two])
        {:ok, winner} = call(one, ClusterNode, :start_child, [registry, :name])
        loser = call(two, ClusterFaults, :start_busy, [registry, :name])
        watcher = call(two, ClusterNode, :watch_ends, [[loser]])
        supervisor = call(two, Process, :whereis, [ClusterNode.workers(registry)])
        connect(nodes)
        assert agreed(nodes, registry, :name) == winner
        assert call(two, ClusterNode, :ends, [watcher]) == [:killed]
        assert call(two, Process, :whereis, [ClusterNode.workers(registry)]) == supervisor
        assert %{specs: 0} = call(two, DynamicSupervisor, :count_children, [supervisor])
      end

      test "whose init still runs is answered with the winner", _context do
        %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2)
        cut([one], [two])

        [winning, losing] =
          for node <- nodes do
            start = fn -> call(node, ClusterFaults, :start_gated, [registry, :name]) end
            task = Task.async(start)

            eventually(fn ->
              call(node, ClusterNode, :whereis, [registry, :name]) != :undefined
            end)

            task
          end

        supervisor = call(two, Process, :whereis, [ClusterNode.workers(registry)])
        connect(nodes)
        assert {:ok, winner} = Task.await(losing, 60_000)
        assert node(winner) == elem(one, 1)
        :ok = call(one, ClusterFaults, :pass_gate, [registry, :name])
        assert Task.await(winning, 60_000) == {:ok, winner}
        assert agreed(nodes, registry, :name) == winner
        assert %{specs: 0} = call(two, DynamicSupervisor, :count_children, [supervisor])
      end
    end

    describe "an engine that was held up" do
      test "takes no name back from a process that tried again", _context do
        context = start_cluster(2, cluster_timeout: 300)
        %{nodes: [one, _two] = nodes, registry: registry, engine: engine} = context
        names = for number <- 1..20, do: {:name, number}

        answers = call(one, ClusterFaults, :register_meanwhile, [registry, engine, names])
        for {pid, answer} <- answers, do: assert(answer == {:ok, pid})
        settle(nodes)

        for {name, {pid, _}} <- Enum.zip(names, answers),
            do: assert_held(nodes, registry, name, pid)
      end

      test "takes no name back from a process that freed it and registered it again", _context do
        context = start_cluster(2, cluster_timeout: 300)
        %{nodes: [one, _two] = nodes, registry: registry, engine: engine} = context
        names = for number <- 1..20, do: {:name, number}

        answers = call(one, ClusterFaults, :give_back_meanwhile, [registry, engine, names])
        for {pid, answer} <- answers, do: assert(answer == {:ok, pid})
        settle(nodes)

        for {name, {pid, _}} <- Enum.zip(names, answers),
            do: assert_held(nodes, registry, name, pid)
      end

      test "ends no supervisor whose child crashes meanwhile", _context do
        # As many restarts as there are crashes.
        context = start_cluster(2, cluster_timeout: 300, max_restarts: 4)
        %{nodes: [one, two] = nodes, registry: registry, engine: engine} = context
        {:ok, sibling} = call(one, ClusterNode, :start_permanent, [registry, :sibling])
        {:ok, first} = call(one, ClusterNode, :start_permanent, [registry, :name])
        assert agreed(nodes, registry, :name) == first
        # :global also wants the consent of the other node.
        held_up = if @engine == :global, do: [one, two], else: [one, one]

        for node <- held_up, reduce: first do
          pid ->
            :ok = call(node, :sys, :suspend, [engine])
            last = for _crash <- 1..2, reduce: pid, do: (pid -> crash(one, registry, pid))
            :ok = call(node, :sys, :resume, [engine])
            settle(nodes)
            assert agreed(nodes, registry, :name) == last
            last
        end

        assert call(one, ClusterNode, :whereis, [registry, :sibling]) == sibling
      end

      # The process that has taken its place.
      defp crash(node, registry, pid) do
        call(node, ClusterFaults, :kill, [pid])

        eventually(fn ->
          other = call(node, ClusterNode, :whereis, [registry, :name])
          if other not in [:undefined, pid], do: other
        end)
      end
    end

    defp assert_held(nodes, registry, name, pid) do
      for node <- nodes,
          do: eventually(fn -> call(node, ClusterNode, :whereis, [registry, name]) == pid end)

      holder = hd(nodes)

      known =
        case @engine do
          :global -> call(holder, :global, :whereis_name, [{NativeRegistry, registry, name}])
          :syn -> with {pid, _meta} <- call(holder, :syn, :lookup, [registry, name]), do: pid
        end

      assert known == pid
    end

    describe "a registry" do
      test "that is restarted keeps what its holders register again", _context do
        %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2)
        count = if @engine == :global, do: 200, else: 3_000
        names = for number <- 1..count, do: {:name, number}
        {pid, _answers} = call(one, ClusterNode, :register, [registry, names, nil])

        answers =
          call(one, ClusterFaults, :restart_registry, [registry, [cluster: @engine], pid, names])

        assert Enum.uniq(answers) == [{:ok, pid}]
        settle(nodes)
        held = for _name <- names, do: pid
        eventually(fn -> call(two, ClusterNode, :whereis_all, [registry, names]) == held end)
        for name <- Enum.take_every(names, 50), do: assert_held(nodes, registry, name, pid)
      end

      test "whose supervisor is killed leaves nothing behind", _context do
        %{nodes: [one, two], registry: registry, engine: engine} = start_cluster(2)
        {_pid, [{:ok, pid}]} = call(one, ClusterNode, :register, [registry, [:name], nil])
        assert agreed([one, two], registry, :name) == pid
        :ok = call(one, ClusterFaults, :kill, [registry])
        agreed_on_nobody([two], registry, :name)
        assert call(one, Cluster.Config, :get, [registry]) == nil
        assert call(one, Process, :alive?, [pid])

        # One without a cluster asks no engine.
        :ok = call(one, ClusterNode, :start_registry, [registry, []])
        :ok = call(one, :sys, :suspend, [engine])
        {other, answers} = call(one, ClusterNode, :register, [registry, [:name], nil])
        assert answers == [{:ok, other}]
        :ok = call(one, :sys, :resume, [engine])
        assert call(two, ClusterNode, :whereis, [registry, :name]) == :undefined
      end

      test "lets processes pass names to each other while it reconciles them with the engine",
           _context do
        %{nodes: [one, _two] = nodes, registry: registry} = start_cluster(2)
        count = if @engine == :global, do: 5, else: 1_000
        names = for number <- 1..count, do: {:name, number}
        pairs = call(one, ClusterFaults, :hand_around, [registry, names])
        :ok = call(one, ClusterFaults, :reconcile, [registry, 30])
        alive = call(one, ClusterFaults, :stop_handing, [pairs])
        assert Enum.uniq(alive) == [true]

        for {name, {first, second}} <- Enum.zip(names, pairs),
            do: assert(agreed(nodes, registry, name) in [first, second])
      end

      test "does not register a name again that is given back while it reconciles", _context do
        %{nodes: [one, _two] = nodes, registry: registry} = start_cluster(2)
        count = if @engine == :global, do: 200, else: 5_000
        names = for number <- 1..count, do: {:name, number}
        {holder, _answers} = call(one, ClusterNode, :register, [registry, names, nil])
        looking = Task.async(fn -> call(one, ClusterFaults, :reconcile, [registry, 30]) end)
        arguments = [holder, ClusterFaults, :unregister_all, [registry, names]]
        assert call(one, ClusterNode, :run, arguments) == :ok
        :ok = Task.await(looking, 60_000)
        settle(nodes)
        free = for _name <- names, do: :undefined

        for node <- nodes,
            do:
              eventually(fn ->
                call(node, ClusterNode, :whereis_all, [registry, names]) == free
              end)
      end

      test "decides a conflict by its function even on a node where it does not run", _context do
        %{nodes: [one, two], registry: registry} =
          start_cluster(2, on_conflict: {ClusterNode, :last})

        third = start_node()
        connect([one, two, third])
        {first, _answers} = call(one, ClusterNode, :register, [registry, [:one], nil])
        {last, _answers} = call(two, ClusterNode, :register, [registry, [:two], nil])
        assert call(third, Cluster.Engine, :decide, [registry, :name, first, last]) == last
        assert call(third, Cluster.Engine, :decide, [registry, :name, last, first]) == last
      end

      test "reconciles its names once when many nodes come at a time", _context do
        %{nodes: [one, two], registry: registry} = start_cluster(2)
        {:ok, pid} = call(one, ClusterNode, :start_child, [registry, :name])
        follower = Cluster.Monitor.name(registry)
        for _node <- 1..100, do: call(one, Kernel, :send, [follower, {:nodeup, elem(two, 1)}])
        # One timer, which the last of them has set.
        assert %{timer: {_timer, _reference}, reconciling: nil} =
                 call(one, :sys, :get_state, [follower])

        eventually(fn -> match?(%{timer: nil}, call(one, :sys, :get_state, [follower])) end)
        assert agreed([one, two], registry, :name) == pid
      end
    end

    describe "a node without a name of its own" do
      test "has its names known to others when it gets a name, and another name", _context do
        %{nodes: [one], registry: registry} = start_cluster(1)
        anonymous = start_anonymous_node()
        :ok = call(anonymous, ClusterNode, :start_registry, [registry, [cluster: @engine]])
        {:ok, _pid} = call(anonymous, ClusterNode, :start_child, [registry, :name])

        for name <- ~w(named renamed) do
          name = :"#{name}_#{System.pid()}_#{System.unique_integer([:positive])}@127.0.0.1"
          {:ok, _pid} = call(anonymous, :net_kernel, :start, [[name, :longnames]])
          true = call(anonymous, :erlang, :set_cookie, [:workflow_metal_native_registry])
          true = call(anonymous, :net_kernel, :connect_node, [elem(one, 1)])

          held =
            eventually(fn ->
              held = call(one, ClusterNode, :whereis, [registry, :name])
              if held != :undefined, do: held
            end)

          assert node(held) == name
          assert call(one, GenServer, :call, [held, :pid]) == held
          assert call(anonymous, ClusterNode, :whereis, [registry, :name]) == held
          {:ok, other} = call(one, ClusterNode, :start_child, [registry, :name])
          assert other == held
          :ok = call(anonymous, :net_kernel, :stop, [])
          eventually(fn -> call(one, ClusterNode, :whereis, [registry, :name]) == :undefined end)
        end
      end

      defp start_anonymous_node do
        {:ok, peer, node} =
          :peer.start(%{
            connection: :standard_io,
            wait_boot: 60_000,
            args:
              Enum.map(
                ~w(-kernel dist_auto_connect never -kernel inet_dist_use_interface {127,0,0,1}
                   -kernel logger_level warning),
                &String.to_charlist/1
              )
          })

        node = {peer, node}
        call(node, :code, :add_paths, [:code.get_path()])

        {:ok, _apps} =
          call(node, :application, :ensure_all_started, [:workflow_metal_native_registry])

        :ok = call(node, ClusterNode, :start, [])
        stop_in_the_end(peer)
        node
      end
    end

    if engine == :global do
      describe "nodes that have just met" do
        test "give a name to one process", _context do
          %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2)

          for round <- 1..10 do
            cut([one], [two])
            meet(one, two)
            # What they know of each other's names comes later.
            eventually(fn -> call(two, Node, :list, []) == [elem(one, 1)] end)
            name = {:name, round}
            answers = call_all(nodes, ClusterNode, :start_child, [registry, name])
            assert [{:ok, pid}] = Enum.uniq(answers)
            assert agreed(nodes, registry, name) == pid
          end
        end
      end

      describe "a node whose :global hangs while it is cut off" do
        @tag reuse_nodes: false
        test "recovers its names although it was asked for a lock that the lock's holder gave up",
             _context do
          %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2)
          call(two, :sys, :suspend, [:global_name_server])

          registering =
            Task.async(fn -> call(one, ClusterNode, :register, [registry, [:name], nil]) end)

          asked_for_lock(two)
          cut_link(one, two)
          assert {holder, [{:ok, holder}]} = Task.await(registering, 60_000)
          meet(one, two)
          call(two, :sys, :resume, [:global_name_server])

          assert agreed(nodes, registry, :name) == holder
          assert {other, [{:ok, other}]} = call(two, ClusterNode, :register, [registry, [1], nil])
          assert agreed(nodes, registry, 1) == other
        end

        @tag reuse_nodes: false
        test "recovers its names although two other nodes that met asked it for the lock",
             _context do
          %{nodes: [one, two, three] = nodes, registry: registry} = start_cluster(3)
          cut([one], [two, three])
          {holder, _answers} = call(one, ClusterNode, :register, [registry, [:name], nil])
          call(three, :sys, :suspend, [:global_name_server])
          meet(one, two)
          asked_for_lock(three)
          cut_link(two, three)
          eventually(fn -> call(two, ClusterNode, :whereis, [registry, :name]) == holder end)
          meet(two, three)
          meet(one, three)
          call(three, :sys, :resume, [:global_name_server])

          assert agreed(nodes, registry, :name) == holder

          assert {other, [{:ok, other}]} =
                   call(three, ClusterNode, :register, [registry, [3], nil])

          assert agreed(nodes, registry, 3) == other
        end

        defp asked_for_lock(node) do
          eventually(fn ->
            server = call(node, Process, :whereis, [:global_name_server])
            {:messages, messages} = call(node, Process, :info, [server, :messages])
            Enum.any?(messages, &match?({:"$gen_call", _from, {:set_lock, {:global, _}}}, &1))
          end)
        end
      end
    end

    if engine == :syn do
      describe "syn" do
        for {what, end_of_claim} <- [{"gives them back", :unregister}, {"ends", :halt}] do
          test "has all nodes know the names of a node whose link to another was cut, which #{what}",
               _context do
            nodes = start_nodes(3, :never, ~w(-kernel prevent_overlapping_partitions false))
            [one, two, three] = nodes
            registry = unique_registry()
            start_registries(nodes, registry, cluster: :syn)
            names = for number <- 1..2_500, do: {:claimed, number}
            {holder, _answers} = call(three, ClusterNode, :register, [registry, [:kept], nil])
            quiet(nodes, registry)
            cut_link(one, three)
            # What follows is not to be looked at before the link is back.
            for node <- [one, three], do: eventually(fn -> not quiet?(node, registry) end)
            quiet(nodes, registry)

            register_all = [holder, ClusterFaults, :register_all, [registry, names]]
            call(three, ClusterNode, :run, register_all)
            held(two, registry, names, holder)

            # The node in the middle answers the younger process.
            {claimer, _answers} = call(one, ClusterNode, :register, [registry, names, nil])
            held(two, registry, names, claimer)

            remaining =
              case unquote(end_of_claim) do
                :unregister ->
                  unregister = [claimer, ClusterFaults, :unregister_all, [registry, names]]
                  call(one, ClusterNode, :run, unregister)
                  held(two, registry, names, :undefined)
                  connect(nodes)
                  nodes

                :halt ->
                  halt(one)
                  [two, three]
              end

            for node <- remaining, do: held(node, registry, [:kept | names], holder)

            # No other name is sent again.
            {_peer, node} = three
            assert {^holder, ^node} = call(two, :syn, :lookup, [registry, :kept])
          end
        end

        test "finds no holder that only the supervisor's node sees, until the link is back",
             _context do
          nodes = start_nodes(3, :never, ~w(-kernel prevent_overlapping_partitions false))
          [one, two, three] = nodes
          registry = unique_registry()
          start_registries(nodes, registry, cluster: :syn)
          cut_link(one, three)
          {:ok, pid} = call(three, ClusterNode, :start_child, [registry, :name])
          eventually(fn -> call(two, ClusterNode, :whereis, [registry, :name]) == pid end)
          eventually(fn -> call(one, ClusterNode, :whereis, [registry, :name]) == :undefined end)
          supervisor = call(two, Process, :whereis, [ClusterNode.workers(registry)])
          start = [registry, :name, [], supervisor]
          assert call(one, ClusterNode, :start_child, start) == {:error, :cluster_timeout}
          connect(nodes)
          assert agreed(nodes, registry, :name) == pid
          assert call(one, ClusterNode, :start_child, start) == {:ok, pid}
        end

        defp quiet(nodes, registry),
          do: for(node <- nodes, do: eventually(fn -> quiet?(node, registry) end))

        defp quiet?(node, registry) do
          follower = Cluster.Monitor.name(registry)
          match?(%{timer: nil, reconciling: nil}, call(node, :sys, :get_state, [follower]))
        end

        defp held(node, registry, names, holder) do
          eventually(fn ->
            Enum.uniq(call(node, ClusterNode, :whereis_all, [registry, names])) == [holder]
          end)
        end

        @tag crashes: ~r/the engine of .* is down/
        test "that was stopped and started on one node runs no name twice", _context do
          %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2)
          names = for number <- 1..20, do: {:name, number}
          started = call(two, ClusterNode, :start_children, [registry, names])

          for {name, {:ok, pid}} <- Enum.zip(names, started),
              do: agreed_on(nodes, registry, name, pid)

          supervisors = call_all(nodes, Process, :whereis, [ClusterNode.workers(registry)])

          :ok = call(two, Application, :stop, [:syn])
          for name <- names, do: agreed_on_nobody([one], registry, name)
          # Half of them are started anew meanwhile.
          {anew, kept} = Enum.split(names, 10)
          winners = call(one, ClusterNode, :start_children, [registry, anew])
          {:ok, _apps} = call(two, Application, :ensure_all_started, [:syn])

          for {name, {:ok, pid}} <- Enum.zip(anew, winners),
              do: agreed_on(nodes, registry, name, pid)

          for {name, {:ok, pid}} <- Enum.zip(kept, Enum.drop(started, 10)),
              do: agreed_on(nodes, registry, name, pid)

          eventually(fn -> running(nodes, registry) == 20 end)

          assert call_all(nodes, Process, :whereis, [ClusterNode.workers(registry)]) ==
                   supervisors
        end

        @tag crashes: ~r/the engine of .* is down/
        test "whose process for the registry is killed loses nothing", _context do
          %{nodes: [one, two] = nodes, registry: registry, engine: engine} = start_cluster(2)
          names = for number <- 1..20, do: {:name, number}
          started = call(two, ClusterNode, :start_children, [registry, names])
          :ok = call(two, ClusterFaults, :kill, [engine])

          {:ok, new} =
            eventually_ok(fn -> call(two, ClusterNode, :start_child, [registry, :new]) end)

          for {name, {:ok, pid}} <- Enum.zip(names, started),
              do: agreed_on(nodes, registry, name, pid)

          agreed_on([one, two], registry, :new, new)
        end

        test "with another event handler answers no dead process", _context do
          %{nodes: [one, two] = nodes, registry: registry} = start_cluster(2)
          {:ok, pid} = call(one, ClusterNode, :start_child, [registry, :name])
          agreed_on(nodes, registry, :name, pid)
          :ok = call(two, :syn, :set_event_handler, [ClusterNode])

          :ok =
            call(one, DynamicSupervisor, :terminate_child, [ClusterNode.workers(registry), pid])

          agreed_on_nobody(nodes, registry, :name)

          # And it is asked again about conflicts, before long.
          eventually(fn ->
            call(two, Application, :get_env, [:syn, :event_handler]) == Cluster.Syn
          end)

          cut([one], [two])
          {:ok, winner} = call(one, ClusterNode, :start_child, [registry, :name])
          {:ok, loser} = call(two, ClusterNode, :start_child, [registry, :name])
          watcher = call(two, ClusterNode, :watch_ends, [[loser]])
          connect(nodes)
          agreed_on(nodes, registry, :name, winner)
          assert call(two, ClusterNode, :ends, [watcher]) == [:shutdown]
        end

        test "in strict mode registers with any timeout", _context do
          nodes = [one, _two] = start_nodes(2)
          for node <- nodes, do: call(node, Application, :put_env, [:syn, :strict_mode, true])
          registry = unique_registry()
          start_registries(nodes, registry, cluster: :syn, cluster_timeout: 500)
          {:ok, pid} = call(one, ClusterNode, :start_child, [registry, :name])
          agreed_on(nodes, registry, :name, pid)
        end

        test "has its previous event handler again when no registry is left", _context do
          [node] = start_nodes(1)
          {:ok, _apps} = call(node, Application, :ensure_all_started, [:syn])
          :ok = call(node, :syn, :set_event_handler, [ClusterNode])
          registry = unique_registry()
          :ok = call(node, ClusterNode, :start_registry, [registry, [cluster: :syn]])
          assert call(node, Application, :get_env, [:syn, :event_handler]) == Cluster.Syn
          :ok = call(node, ClusterNode, :stop_registry, [registry])

          eventually(fn ->
            call(node, Application, :get_env, [:syn, :event_handler]) == ClusterNode
          end)
        end

        defp agreed_on(nodes, registry, name, pid),
          do: assert(agreed(nodes, registry, name) == pid)

        defp eventually_ok(function) do
          eventually(fn ->
            with {:error, _reason} <- function.(), do: false
          end)
        end

        defp running(nodes, registry) do
          nodes
          |> call_all(DynamicSupervisor, :count_children, [ClusterNode.workers(registry)])
          |> Enum.map(& &1.active)
          |> Enum.sum()
        end
      end
    end
  end
end
