if Code.ensure_loaded?(WorkflowMetal.Application) do
  defmodule WorkflowMetal.Registration.NativeRegistry.WorkflowMetalTest do
    # The real WorkflowMetal, 0.2.1 or later, on this adapter.
    use ExUnit.Case

    import WorkflowMetal.Registration.NativeRegistry.RegistryCase, only: [eventually: 1, kill: 1]

    alias WorkflowMetal.Registration
    alias WorkflowMetal.Registration.{Adapter, NativeRegistry}
    alias WorkflowMetal.Storage
    alias WorkflowMetal.Storage.Schema

    @moduletag :workflow_metal

    defmodule Shop do
      use WorkflowMetal.Application,
        registry: WorkflowMetal.Registration.NativeRegistry,
        storage: WorkflowMetal.Storage.Adapters.InMemory
    end

    defmodule OtherShop do
      use WorkflowMetal.Application,
        registry: WorkflowMetal.Registration.NativeRegistry,
        storage: WorkflowMetal.Storage.Adapters.InMemory
    end

    defmodule Step do
      # Leaves the work to the test and waits for it.
      use WorkflowMetal.Executor

      @impl WorkflowMetal.Executor
      def execute(workitem, options) do
        %{test: test, step: step} = options[:executor_params]
        send(test, {:waits, step, workitem.case_id, workitem})
        :started
      end

      @impl WorkflowMetal.Executor
      def abandon(workitem, options) do
        %{test: test, step: step} = options[:executor_params]
        send(test, {:abandoned, step, workitem.case_id})
        :ok
      end

      def finish(application, workitem) do
        {:ok, _tokens} = preexecute(application, workitem)
        :ok = complete_workitem(application, workitem, %{finished: true})
      end
    end

    defmodule PromptStep do
      # Does its work at once.
      use WorkflowMetal.Executor

      @impl WorkflowMetal.Executor
      def execute(workitem, options) do
        {:ok, _tokens} = preexecute(options[:application], workitem)
        {:completed, %{prompt: true}}
      end
    end

    @long 60_000

    # start -> (pack) -> packed -> (label) -> labelled -> (ship) -> end
    @sequence {[pack: Step, label: PromptStep, ship: Step],
               [start: :pack, pack: :packed, packed: :label] ++
                 [label: :labelled, labelled: :ship, ship: :end]}

    # start -> (by_card or by_invoice) -> paid -> (ship) -> end
    @choice {[by_card: Step, by_invoice: Step, ship: PromptStep],
             [start: :by_card, start: :by_invoice, by_card: :paid, by_invoice: :paid] ++
               [paid: :ship, ship: :end]}

    setup do
      start_supervised!(Shop)
      :ok
    end

    defp insert_workflow(application, id, {steps, flow}) do
      places = flow |> Enum.flat_map(&Tuple.to_list/1) |> Enum.uniq()

      {:ok, workflow} =
        Storage.insert_workflow(application, %Schema.Workflow{id: id, state: :active}, %{
          places: for(place <- places -- Keyword.keys(steps), do: place(id, place)),
          transitions: for({step, executor} <- steps, do: transition(id, step, executor)),
          arcs: for(hop <- flow, do: arc(id, hop, steps))
        })

      workflow.id
    end

    defp place(workflow, place) do
      type = if place in [:start, :end], do: place, else: :normal
      %Schema.Place{id: "#{workflow}, #{place}", type: type, workflow_id: workflow}
    end

    defp transition(workflow, step, executor) do
      %Schema.Transition{
        id: "#{workflow}, #{step}",
        join_type: :none,
        split_type: :none,
        executor: executor,
        executor_params: %{test: self(), step: step},
        workflow_id: workflow
      }
    end

    # Seen from the place: out of it into the step, or into it.
    defp arc(workflow, {from, to}, steps) do
      {place, step, direction} =
        if Keyword.has_key?(steps, to), do: {from, to, :out}, else: {to, from, :in}

      %Schema.Arc{
        id: "#{workflow}, #{from} to #{to}",
        place_id: "#{workflow}, #{place}",
        transition_id: "#{workflow}, #{step}",
        direction: direction,
        workflow_id: workflow
      }
    end

    defp open_case(application, workflow) do
      schema = %Schema.Case{state: :created, workflow_id: workflow}
      {:ok, %{id: id}} = Storage.insert_case(application, schema)
      {:ok, pid} = application.open_case(id)
      {id, pid, Process.monitor(pid)}
    end

    defp waiting(step, id) do
      assert_receive {:waits, ^step, ^id, workitem}, @long
      workitem
    end

    defp assert_finished(application, {id, pid, reference}) do
      assert_receive {:DOWN, ^reference, :process, ^pid, :normal}, @long
      assert {:ok, %{state: :finished}} = Storage.fetch_case(application, id)
    end

    # A task is told of its end before the storage is.
    defp assert_task(application, workflow, id, step, state) do
      assert eventually(fn ->
               transition = "#{workflow}, #{step}"
               {:ok, tasks} = Storage.fetch_tasks(application, id, transition_id: transition)
               Enum.map(tasks, & &1.state) == [state]
             end)
    end

    defp case_name(workflow, id), do: {WorkflowMetal.Case.Case, {workflow, id}}

    defp task_name(item) do
      {WorkflowMetal.Task.Task,
       {item.workflow_id, item.transition_id, item.case_id, item.task_id}}
    end

    defp workitem_name(item) do
      {WorkflowMetal.Workitem.Workitem,
       {item.workflow_id, item.transition_id, item.case_id, item.id}}
    end

    defp whereis(application, name),
      do: NativeRegistry.whereis_name(%{registry: application}, name)

    # A process is told that it has done its work before it ends.
    defp assert_free(application, name) do
      assert eventually(fn -> whereis(application, name) == :undefined end)
    end

    defp successor(application, name, pid) do
      eventually(fn -> Enum.find([whereis(application, name)], &(is_pid(&1) and &1 != pid)) end)
    end

    defp registry_process(application) do
      {:ok, %{id: id}, _meta} = NativeRegistry.child_spec(application, [])
      {^id, pid, _type, _modules} = List.keyfind(Supervisor.which_children(application), id, 0)
      pid
    end

    describe "the application" do
      test "declares the callbacks of this WorkflowMetal's behaviour" do
        assert Adapter in Keyword.get(NativeRegistry.module_info(:attributes), :behaviour, [])

        for {function, arity} <- Adapter.behaviour_info(:callbacks) do
          assert function_exported?(NativeRegistry, function, arity)
        end
      end

      test "gets a child that a supervisor takes, and a small meta" do
        assert {:ok, child_spec, meta} = NativeRegistry.child_spec(Shop, [])
        assert :supervisor.check_childspecs([Supervisor.child_spec(child_spec, [])]) == :ok
        assert WorkflowMetal.Application.registry_adapter(Shop) == {NativeRegistry, meta}
        assert :erts_debug.flat_size(meta) < 10
        assert Shop |> registry_process() |> Process.alive?()
      end
    end

    describe "a sequential workflow" do
      test "runs to the end, and every process in it is found by name meanwhile" do
        workflow = insert_workflow(Shop, "sequence", @sequence)
        {id, pid, _reference} = opened = open_case(Shop, workflow)
        pack = waiting(:pack, id)

        assert whereis(Shop, case_name(workflow, id)) == pid

        for module <- [WorkflowMetal.Case, WorkflowMetal.Task, WorkflowMetal.Workitem] do
          assert Shop |> whereis({Module.concat(module, Supervisor), workflow}) |> is_pid()
        end

        {:ok, supervisor} = Shop.open_workflow(workflow)
        assert whereis(Shop, {WorkflowMetal.Workflow.Supervisor, workflow}) == supervisor

        for name <- [task_name(pack), workitem_name(pack)] do
          pid = whereis(Shop, name)
          assert is_pid(pid)
          assert Registration.whereis_name(Shop, name) == pid
          assert GenServer.whereis(Registration.via_tuple(Shop, name)) == pid
        end

        Step.finish(Shop, pack)
        ship = waiting(:ship, id)
        assert_free(Shop, task_name(pack))
        assert Shop |> whereis(task_name(ship)) |> is_pid()

        Step.finish(Shop, ship)
        assert_finished(Shop, opened)
        assert_free(Shop, case_name(workflow, id))
        assert_free(Shop, task_name(ship))

        for step <- [:pack, :label, :ship] do
          assert_task(Shop, workflow, id, step, :completed)
        end
      end

      test "that runs is answered when it is opened again" do
        workflow = insert_workflow(Shop, "again", @sequence)
        {id, pid, _reference} = open_case(Shop, workflow)
        item = waiting(:pack, id)
        task = whereis(Shop, task_name(item))

        assert Shop.open_case(id) == {:ok, pid}
        assert Shop.open_workflow(workflow) == Shop.open_workflow(workflow)
        assert WorkflowMetal.Task.Supervisor.open_task(Shop, item.task_id) == {:ok, task}
      end

      test "goes on after the application's supervisor has stopped the registry and started it again" do
        workflow = insert_workflow(Shop, "stopped registry", @sequence)
        {id, pid, _reference} = opened = open_case(Shop, workflow)
        item = waiting(:pack, id)
        {:ok, %{id: child}, _meta} = NativeRegistry.child_spec(Shop, [])

        :ok = Supervisor.terminate_child(Shop, child)
        {:ok, _owner} = Supervisor.restart_child(Shop, child)

        assert whereis(Shop, case_name(workflow, id)) == pid
        Step.finish(Shop, item)
        Step.finish(Shop, waiting(:ship, id))
        assert_finished(Shop, opened)
      end

      test "runs many cases at once while the registry's own process is killed" do
        workflow = insert_workflow(Shop, "many", @sequence)
        cases = for _ <- 1..50, do: open_case(Shop, workflow)
        half = for {id, _pid, _reference} <- Enum.take(cases, 25), do: waiting(:pack, id)
        Enum.each(half, &Step.finish(Shop, &1))

        registry = registry_process(Shop)
        kill(registry)

        for {id, _pid, _reference} <- Enum.drop(cases, 25),
            do: Step.finish(Shop, waiting(:pack, id))

        for {id, _pid, _reference} <- cases, do: Step.finish(Shop, waiting(:ship, id))
        for opened <- cases, do: assert_finished(Shop, opened)
        assert registry_process(Shop) != registry
      end
    end

    describe "a deferred choice" do
      test "runs to the end one way, and the other way is abandoned" do
        workflow = insert_workflow(Shop, "choice", @choice)
        {id, _pid, _reference} = opened = open_case(Shop, workflow)
        card = waiting(:by_card, id)
        invoice = waiting(:by_invoice, id)
        assert whereis(Shop, task_name(card)) != whereis(Shop, task_name(invoice))

        Step.finish(Shop, invoice)
        assert_receive {:abandoned, :by_card, ^id}, @long
        assert_finished(Shop, opened)
        assert_free(Shop, task_name(card))
        assert_free(Shop, task_name(invoice))

        assert_task(Shop, workflow, id, :by_card, :abandoned)
        assert_task(Shop, workflow, id, :by_invoice, :completed)
        assert_task(Shop, workflow, id, :ship, :completed)
      end
    end

    describe "a killed process" do
      test "comes back under its name if it is a task" do
        workflow = insert_workflow(Shop, "killed task", @sequence)
        {id, _pid, _reference} = open_case(Shop, workflow)
        item = waiting(:pack, id)
        task = whereis(Shop, task_name(item))

        kill(task)
        successor = successor(Shop, task_name(item), task)
        assert WorkflowMetal.Task.Supervisor.open_task(Shop, item.task_id) == {:ok, successor}

        # It answers by its name; what it answers is its own business.
        via = Registration.via_tuple(Shop, task_name(item))
        assert {_answer, _reason} = GenServer.call(via, :preexecute)
        assert whereis(Shop, task_name(item)) == successor
      end

      test "comes back under its name if it supervises a workflow's tasks" do
        workflow = insert_workflow(Shop, "killed supervisor", @sequence)
        name = {WorkflowMetal.Task.Supervisor, workflow}
        {:ok, _supervisor} = Shop.open_workflow(workflow)

        supervisor = whereis(Shop, name)
        kill(supervisor)
        assert Shop |> successor(name, supervisor) |> is_pid()

        # The next case runs below it.
        {id, _pid, _reference} = opened = open_case(Shop, workflow)
        Step.finish(Shop, waiting(:pack, id))
        Step.finish(Shop, waiting(:ship, id))
        assert_finished(Shop, opened)
      end
    end

    test "two applications with the same workflow do not affect each other" do
      start_supervised!(OtherShop)
      workflow = insert_workflow(Shop, "apart", @sequence)
      ^workflow = insert_workflow(OtherShop, "apart", @sequence)

      {id, pid, _reference} = opened = open_case(Shop, workflow)
      item = waiting(:pack, id)
      supervisor = {WorkflowMetal.Task.Supervisor, workflow}

      for name <- [supervisor, case_name(workflow, id), task_name(item)] do
        assert Shop |> whereis(name) |> is_pid()
        assert whereis(OtherShop, name) == :undefined
      end

      {other_id, other_pid, reference} = open_case(OtherShop, workflow)
      waiting(:pack, other_id)
      assert whereis(OtherShop, case_name(workflow, other_id)) == other_pid
      assert whereis(Shop, case_name(workflow, other_id)) == :undefined
      assert OtherShop |> whereis(supervisor) |> is_pid()
      assert whereis(OtherShop, supervisor) != whereis(Shop, supervisor)

      :ok = stop_supervised(OtherShop)
      assert_receive {:DOWN, ^reference, :process, ^other_pid, _reason}, @long
      assert_raise ArgumentError, ~r/OtherShop/, fn -> whereis(OtherShop, supervisor) end

      assert whereis(Shop, case_name(workflow, id)) == pid
      Step.finish(Shop, item)
      Step.finish(Shop, waiting(:ship, id))
      assert_finished(Shop, opened)
    end
  end
else
  defmodule WorkflowMetal.Registration.NativeRegistry.WorkflowMetalTest do
    use ExUnit.Case

    # Excluded, and so counted as excluded.
    @tag :workflow_metal
    test "WorkflowMetal runs its workflows on this adapter"
  end
end
