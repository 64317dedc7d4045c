# A real workflow, which `script/demo` runs if WorkflowMetal is on the code path.
#
#                  +--> (by card) -----+
#   ordered -------+                   +--> paid ---> (ship) ---> the end
#                  +--> (by invoice) --+
#
# The customer is offered both ways to pay and takes one. WorkflowMetal abandons the other.

defmodule Demo.Orders.Workflows do
  use WorkflowMetal.Application,
    registry: WorkflowMetal.Registration.NativeRegistry,
    storage: WorkflowMetal.Storage.Adapters.InMemory
end

defmodule Demo.Orders.Pay do
  use WorkflowMetal.Executor, application: Demo.Orders.Workflows

  @impl WorkflowMetal.Executor
  def execute(workitem, options) do
    send(options[:executor_params].customer, {:offer, workitem.case_id, workitem})
    :started
  end

  @impl WorkflowMetal.Executor
  def abandon(_workitem, options) do
    send(options[:executor_params].customer, :abandoned)
    :ok
  end

  def pay(workitem) do
    {:ok, _tokens} = preexecute(workitem)
    :ok = complete_workitem(workitem, %{paid: true})
  end
end

defmodule Demo.Orders.Ship do
  use WorkflowMetal.Executor, application: Demo.Orders.Workflows

  @impl WorkflowMetal.Executor
  def execute(workitem, options) do
    {:ok, _tokens} = preexecute(workitem)
    send(options[:executor_params].customer, :shipped)
    {:completed, %{shipped: true}}
  end
end

defmodule Demo.Orders do
  alias Demo.Orders.{Pay, Ship, Workflows}
  alias WorkflowMetal.Storage.Schema

  @orders 200
  @workflow "orders"

  def go do
    Logger.configure(level: :error)
    Application.load(:workflow_metal)
    version = Application.spec(:workflow_metal, :vsn)

    {:ok, _pid} = Workflows.start_link()
    {:ok, _workflow} = WorkflowMetal.Storage.insert_workflow(Workflows, workflow(), net())

    :ok = run()

    Demo.Text.say("""
    WorkflowMetal #{version} is on the code path, so it ran a workflow on NativeRegistry. #{@orders}
    orders were offered two ways to pay, were paid in one way and shipped. The registry's own process
    was killed in the middle. All #{@orders} cases are finished, and #{@orders} offers are abandoned.
    """)
  end

  defp run do
    cases =
      for _ <- 1..@orders do
        order = %Schema.Case{state: :created, workflow_id: @workflow}
        {:ok, order} = WorkflowMetal.Storage.insert_case(Workflows, order)
        {:ok, _pid} = Workflows.open_case(order.id)
        order.id
      end

    cases
    |> Enum.with_index()
    |> Enum.each(fn {id, index} ->
      offers = for _ <- 1..2, do: offer(id)
      if index == div(@orders, 2), do: kill_registry()
      offers |> Enum.random() |> Pay.pay()
    end)

    for _ <- 1..@orders, what <- [:shipped, :abandoned] do
      receive do
        ^what -> :ok
      after
        10_000 -> raise "nothing was #{what} for 10 seconds"
      end
    end

    Enum.each(cases, &finished/1)
  end

  defp offer(id) do
    receive do
      {:offer, ^id, workitem} -> workitem
    after
      10_000 -> raise "no way to pay was offered for 10 seconds"
    end
  end

  defp finished(id) do
    case WorkflowMetal.Storage.fetch_case(Workflows, id) do
      {:ok, %{state: :finished}} ->
        :ok

      {:ok, _not_yet} ->
        Process.sleep(1)
        finished(id)
    end
  end

  defp kill_registry do
    registry = WorkflowMetal.Registration.NativeRegistry
    {:ok, %{id: id}, _meta} = registry.child_spec(Workflows, [])
    {^id, pid, _type, _modules} = List.keyfind(Supervisor.which_children(Workflows), id, 0)
    Process.exit(pid, :kill)
  end

  defp workflow, do: %Schema.Workflow{id: @workflow, state: :active}

  defp net do
    %{
      places:
        for({id, type} <- [ordered: :start, paid: :normal, done: :end], do: place(id, type)),
      transitions:
        for({id, executor} <- [card: Pay, invoice: Pay, ship: Ship], do: transition(id, executor)),
      arcs:
        for(
          {place, transition, direction} <- [
            {:ordered, :card, :out},
            {:ordered, :invoice, :out},
            {:paid, :card, :in},
            {:paid, :invoice, :in},
            {:paid, :ship, :out},
            {:done, :ship, :in}
          ],
          do: arc(place, transition, direction)
        )
    }
  end

  defp place(id, type), do: %Schema.Place{id: id, type: type, workflow_id: @workflow}

  defp transition(id, executor) do
    %Schema.Transition{
      id: id,
      join_type: :none,
      split_type: :none,
      executor: executor,
      executor_params: %{customer: self()},
      workflow_id: @workflow
    }
  end

  defp arc(place, transition, direction) do
    %Schema.Arc{
      id: {place, transition},
      place_id: place,
      transition_id: transition,
      direction: direction,
      workflow_id: @workflow
    }
  end
end
