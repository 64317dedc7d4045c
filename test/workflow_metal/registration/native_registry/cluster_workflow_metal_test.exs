if Code.ensure_loaded?(WorkflowMetal.Application) do
  alias WorkflowMetal.Registration.NativeRegistry.ClusterWorkflowMetalTest, as: This

  # These modules are in no file that other nodes could load.
  {:module, _name, storage, _} =
    defmodule This.Storage do
      # One for all nodes: WorkflowMetal's own, on the node that the environment names.
      @behaviour WorkflowMetal.Storage.Adapter

      @impl true
      def child_spec(application, _config) do
        node = Application.fetch_env!(:workflow_metal_native_registry, :test_storage_node)
        idle = %{id: __MODULE__, start: {Agent, :start_link, [fn -> nil end]}}
        {:ok, idle, %{name: {Module.concat(application, Stored), node}}}
      end

      for {callback, arity} <- WorkflowMetal.Storage.Adapter.behaviour_info(:callbacks),
          callback != :child_spec do
        arguments = Macro.generate_arguments(arity, __MODULE__)
        @impl true
        defdelegate unquote(callback)(unquote_splicing(arguments)),
          to: WorkflowMetal.Storage.Adapters.InMemory
      end
    end

  {:module, _name, shop, _} =
    defmodule This.Shop do
      use WorkflowMetal.Application,
        registry: WorkflowMetal.Registration.NativeRegistry,
        storage: This.Storage
    end

  {:module, _name, step, _} =
    defmodule This.Step do
      # Work that another process does, on any node; until then it is listed on the node of the storage.
      use WorkflowMetal.Executor, application: This.Shop

      @impl WorkflowMetal.Executor
      def execute(workitem, options) do
        %{node: node, step: step} = options[:executor_params]
        offer = {step, workitem.case_id}
        Agent.update({__MODULE__, node}, &Map.put(&1, offer, workitem))
        :started
      end

      @impl WorkflowMetal.Executor
      def abandon(_workitem, _options), do: :ok

      def finish(workitem) do
        {:ok, _tokens} = preexecute(workitem)
        complete_workitem(workitem, %{})
      end
    end

  {:module, _name, steering, _} =
    defmodule This.Steering do
      alias WorkflowMetal.Registration.NativeRegistry
      alias WorkflowMetal.Storage
      alias WorkflowMetal.Storage.Schema

      def store do
        {:ok, _pid} = Agent.start(fn -> %{} end, name: This.Step)
        name = Module.concat(This.Shop, Stored)
        {:ok, pid} = WorkflowMetal.Storage.Adapters.InMemory.start_link(name: name)
        Process.unlink(pid)
        :ok
      end

      def start(storage, engine) do
        Application.put_env(:workflow_metal_native_registry, :test_storage_node, storage)
        Application.put_env(:workflow_metal_native_registry, This.Shop, cluster: engine)
        {:ok, pid} = This.Shop.start_link()
        Process.unlink(pid)
        :ok
      end

      # start -> (pack) -> packed -> (ship) -> end
      def insert_workflow(storage, workflow \\ 1) do
        :ok = insert(storage, workflow)
        {:ok, pid} = This.Shop.open_workflow(workflow)
        pid
      end

      def insert(storage, workflow) do
        {:ok, _workflow} =
          Storage.insert_workflow(This.Shop, %Schema.Workflow{id: workflow, state: :active}, %{
            places:
              for {id, type} <- [start: :start, packed: :normal, end: :end] do
                %Schema.Place{id: "#{workflow} #{id}", type: type, workflow_id: workflow}
              end,
            transitions:
              for id <- [:pack, :ship] do
                %Schema.Transition{
                  id: "#{workflow} #{id}",
                  join_type: :none,
                  split_type: :none,
                  executor: This.Step,
                  executor_params: %{node: storage, step: id},
                  workflow_id: workflow
                }
              end,
            arcs:
              for {place, step, direction} <- [
                    {:start, :pack, :out},
                    {:packed, :pack, :in},
                    {:packed, :ship, :out},
                    {:end, :ship, :in}
                  ] do
                %Schema.Arc{
                  id: "#{workflow} #{place} #{step}",
                  place_id: "#{workflow} #{place}",
                  transition_id: "#{workflow} #{step}",
                  direction: direction,
                  workflow_id: workflow
                }
              end
          })

        :ok
      end

      def open_new_case(workflow \\ 1) do
        {:ok, %{id: id}} =
          Storage.insert_case(This.Shop, %Schema.Case{state: :created, workflow_id: workflow})

        {id, open_case(id)}
      end

      def open_case(id) do
        with {:ok, pid} <- This.Shop.open_case(id), do: pid
      end

      # Workflows with two cases each, and the tasks and workitems that come of them.
      def run_workflows(ids) do
        for id <- ids do
          insert_workflow(node(), id)
          for _case <- 1..2, do: open_new_case(id)
        end
      end

      # What names this node holds.
      def held, do: Enum.sort(NativeRegistry.Registry.names(This.Shop))

      # The supervisor of all workflows, and that of this application.
      def supervisors do
        for supervisor <- [Module.concat(This.Shop, WorkflowsSupervisor), This.Shop],
            do: Process.whereis(supervisor)
      end

      def offered, do: Agent.get(This.Step, & &1)

      def state(id) do
        {:ok, %{state: state}} = Storage.fetch_case(This.Shop, id)
        state
      end

      def whereis_case(id) do
        NativeRegistry.whereis_name({This.Shop, {WorkflowMetal.Case.Case, {1, id}}})
      end
    end

  for engine <- [:global, :syn] do
    defmodule Module.concat(This, engine |> Atom.to_string() |> Macro.camelize()) do
      use WorkflowMetal.Registration.NativeRegistry.ClusterCase

      alias This.{Shop, Steering, Step}

      @moduletag engine
      @moduletag :workflow_metal
      @engine engine
      @modules [{This.Storage, storage}, {Shop, shop}, {Step, step}, {Steering, steering}]

      test "the real WorkflowMetal goes on elsewhere when the node of a workflow stops" do
        [one, two, three, {_peer, storage} = stored] = start_nodes(4)

        for node <- [one, two, three, stored], do: load(node)

        :ok = call(stored, Steering, :store, [])
        for node <- [one, two, three], do: :ok = call(node, Steering, :start, [storage, @engine])
        await_members([one, two, three], Shop, @engine)

        workflow = call(one, Steering, :insert_workflow, [storage])
        name = {WorkflowMetal.Workflow.Supervisor, 1}
        assert agreed([one, two, three], Shop, name) == workflow

        # Opened by two others, they run beneath the workflow.
        cases = for node <- [two, three, two, three], do: call(node, Steering, :open_new_case, [])
        for {_id, pid} <- cases, do: assert(node(pid) == elem(one, 1))

        for {id, pid} <- cases, node <- [one, two, three] do
          eventually(fn -> call(node, Steering, :whereis_case, [id]) == pid end)
        end

        # Half of the work is done from the others while its node lives.
        [first, second | _rest] = ids = for {id, _pid} <- cases, do: id
        finish(two, stored, :pack, first)
        finish(three, stored, :pack, second)
        offered(stored, :ship, first)
        offered(stored, :ship, second)

        halt(one)
        left = [two, three]
        agreed_on_nobody(left, Shop, name)

        for id <- ids do
          pid =
            eventually(fn ->
              with pid when is_pid(pid) <- call(two, Steering, :open_case, [id]),
                   do: pid,
                   else: (_ -> nil)
            end)

          assert node(pid) in for({_peer, node} <- left, do: node)
          eventually(fn -> call(three, Steering, :whereis_case, [id]) == pid end)
        end

        for {id, index} <- Enum.with_index(ids) do
          node = Enum.at(left, rem(index, 2))
          unless id in [first, second], do: finish(node, stored, :pack, id)
          finish(node, stored, :ship, id)
        end

        for id <- ids, do: eventually(fn -> call(two, Steering, :state, [id]) == :finished end)
      end

      test "the real WorkflowMetal loses no supervisor when a split heals" do
        [{_peer, winner} = one, {_other_peer, loser} = two] = nodes = start_nodes(2)

        for {_peer, name} = node <- nodes do
          load(node)
          # Each has a storage of its own: what a storage does in a split is not told here.
          :ok = call(node, Steering, :store, [])
          :ok = call(node, Steering, :start, [name, @engine])
        end

        await_members(nodes, Shop, @engine)
        call(two, Steering, :run_workflows, [[:untouched]])
        # A workflow, its three supervisors, two cases, tasks and workitems.
        held = fn node, count ->
          eventually(fn ->
            held = call(node, Steering, :held, [])
            if length(held) == count, do: held
          end)
        end

        untouched = held.(two, 10)
        before = call_all(nodes, Steering, :supervisors, [])
        cut([one], [two])
        workflows = Enum.to_list(1..10)
        call_all(nodes, Steering, :run_workflows, [workflows])
        for {node, count} <- [{one, 100}, {two, 110}], do: held.(node, count)
        connect(nodes)

        for id <- workflows do
          name = {WorkflowMetal.Workflow.Supervisor, id}
          assert node(agreed(nodes, Shop, name)) == winner
        end

        assert held.(two, 10) == untouched
        assert call_all(nodes, Steering, :supervisors, []) == before

        for name <- untouched, do: assert(node(agreed(nodes, Shop, name)) == loser)

        # Each of them goes on.
        for id <- workflows do
          assert {_case, pid} = call(one, Steering, :open_new_case, [id])
          assert node(pid) == winner
        end
      end

      @tag crashes: ~r/:start_error.*{:already_started, /s
      test "the real WorkflowMetal answers a process when two nodes open one workflow at once" do
        nodes = start_nodes(2)

        for {_peer, name} = node <- nodes do
          load(node)
          :ok = call(node, Steering, :store, [])
          :ok = call(node, Steering, :start, [name, @engine])
          for id <- 1..20, do: :ok = call(node, Steering, :insert, [name, id])
        end

        await_members(nodes, Shop, @engine)
        before = call_all(nodes, Steering, :supervisors, [])

        for id <- 1..20 do
          for answer <- call_all(nodes, Shop, :open_workflow, [id]) do
            assert {:ok, pid} = answer
            assert is_pid(pid)
          end
        end

        holders =
          for id <- 1..20, do: agreed(nodes, Shop, {WorkflowMetal.Workflow.Supervisor, id})

        # Each of them runs once, and whole.
        eventually(fn ->
          nodes |> call_all(Steering, :held, []) |> Enum.concat() |> length() == 80
        end)

        for {pid, id} <- Enum.with_index(holders, 1),
            name <- [WorkflowMetal.Case, WorkflowMetal.Task, WorkflowMetal.Workitem],
            do:
              assert(
                node(agreed(nodes, Shop, {Module.concat(name, Supervisor), id})) == node(pid)
              )

        assert call_all(nodes, Steering, :supervisors, []) == before
      end

      defp load(node) do
        {:ok, _apps} = call(node, :application, :ensure_all_started, [:workflow_metal])

        for {module, binary} <- @modules do
          {:module, ^module} = call(node, :code, :load_binary, [module, ~c"nofile", binary])
        end
      end

      defp offered(stored, step, id) do
        eventually(fn -> call(stored, Steering, :offered, [])[{step, id}] end)
      end

      defp finish(node, stored, step, id) do
        workitem = offered(stored, step, id)
        assert call(node, Step, :finish, [workitem]) == :ok
      end
    end
  end
end
