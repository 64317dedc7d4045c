# A workflow of three steps, one after the other, in applications with each registry, with its calls timed and not.

for {name, registry} <- [
      {Bench.Cases.Local, WorkflowMetal.Registration.LocalRegistry},
      {Bench.Cases.Native, WorkflowMetal.Registration.NativeRegistry},
      {Bench.Cases.TimedLocal, Bench.Timed.Local},
      {Bench.Cases.TimedNative, Bench.Timed.Native}
    ] do
  defmodule name do
    use WorkflowMetal.Application,
      registry: registry,
      storage: WorkflowMetal.Storage.Adapters.InMemory
  end
end

defmodule Bench.Cases.Step do
  use WorkflowMetal.Executor, application: nil

  @impl WorkflowMetal.Executor
  def execute(workitem, options) do
    {:ok, _tokens} = preexecute(options[:application], workitem)
    if to = options[:executor_params].tell, do: send(to, {:last_step, workitem.case_id})
    {:completed, %{done: true}}
  end
end

defmodule Bench.Cases.Wait do
  # The work of a person, which takes longer than the benchmark.
  use WorkflowMetal.Executor, application: nil

  @impl WorkflowMetal.Executor
  def execute(workitem, options) do
    send(options[:executor_params].tell, {:waits, workitem.case_id})
    :started
  end
end

defmodule Bench.Cases do
  # The job of a VM: opens cases and waits for their ends.

  import Bench.Measure

  alias Bench.Cases.{Step, Wait}
  alias Bench.Timed
  alias WorkflowMetal.Storage
  alias WorkflowMetal.Storage.Schema

  @patience 120_000

  def run(%{application: application, waiting: waiting, cases: cases, clients: clients}) do
    :logger.set_primary_config(:level, :none)
    {:ok, _started} = Application.ensure_all_started(:workflow_metal)
    {:ok, _started} = Application.ensure_all_started(:workflow_metal_native_registry)
    Timed.start()
    {:ok, _pid} = application.start_link()

    for {workflow, steps} <- [walk: [Step, Step, Step], wait: [Step, Wait, Step]] do
      {:ok, _workflow} = insert(application, workflow, steps)
    end

    # So many cases run already, and wait.
    for _case <- 1..waiting//1, do: open(application, :wait)
    for _case <- 1..waiting//1, do: await(:waits)
    walk(application, clients, clients)

    Timed.reset()
    before = cpu()
    {time, :ok} = :timer.tc(fn -> walk(application, cases, clients) end)
    used = cpu() - before
    %{cases_a_second: cases * 1.0e6 / time, calls: calls(cases), cpu: used / cases}
  end

  # Each client opens the next case when its last one has ended.
  defp walk(application, cases, clients) do
    for _case <- 1..clients, do: open(application, :walk)

    for number <- 1..cases do
      id = await(:last_step)
      if number <= cases - clients, do: open(application, :walk)
      id
    end
    |> Enum.each(&wait_finished(application, &1))
  end

  defp open(application, workflow) do
    {:ok, %{id: id}} =
      Storage.insert_case(application, %Schema.Case{state: :created, workflow_id: workflow})

    {:ok, _pid} = application.open_case(id)
    id
  end

  defp await(what) do
    receive do
      {^what, id} -> id
    after
      @patience -> raise "no case got on for #{div(@patience, 1_000)} seconds"
    end
  end

  defp wait_finished(application, id) do
    wait_until(fn ->
      match?({:ok, %{state: :finished}}, Storage.fetch_case(application, id))
    end)
  end

  # Nanoseconds of the processors, by this VM.
  defp cpu do
    {milliseconds, _since_last} = :erlang.statistics(:runtime)
    milliseconds * 1.0e6
  end

  # For one case: how often each call was made, and the nanoseconds of such calls in the middle and of the slowest
  # of a hundred.
  defp calls(cases) do
    for {call, number, times} <- Timed.read(), times != [], into: %{} do
      sorted = times |> Enum.sort() |> List.to_tuple()

      {call,
       %{number: number / cases, median: percentile(sorted, 0.5), slow: percentile(sorted, 0.99)}}
    end
  end

  # The in-memory storage takes no tuples as ids.
  defp insert(application, workflow, steps) do
    last = length(steps)
    numbered = Enum.with_index(steps, 1)

    places =
      for at <- 0..last do
        type = %{0 => :start, last => :end}[at] || :normal
        %Schema.Place{id: "#{workflow}, place #{at}", type: type, workflow_id: workflow}
      end

    transitions =
      for {executor, at} <- numbered do
        tell = if at == last or executor == Wait, do: self()

        %Schema.Transition{
          id: "#{workflow}, step #{at}",
          join_type: :none,
          split_type: :none,
          executor: executor,
          executor_params: %{tell: tell},
          workflow_id: workflow
        }
      end

    arcs =
      for {_executor, at} <- numbered, {place, direction} <- [{at - 1, :out}, {at, :in}] do
        %Schema.Arc{
          id: "#{workflow}, arc #{at} #{place}",
          place_id: "#{workflow}, place #{place}",
          transition_id: "#{workflow}, step #{at}",
          direction: direction,
          workflow_id: workflow
        }
      end

    Storage.insert_workflow(
      application,
      %Schema.Workflow{id: workflow, state: :active},
      %{places: places, transitions: transitions, arcs: arcs}
    )
  end
end
