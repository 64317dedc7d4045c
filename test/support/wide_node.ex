defmodule WorkflowMetal.Registration.NativeRegistry.WideNode do
  @moduledoc false
  # What runs on a node in the tests of calls with `cluster: true`.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Report

  @doc "Starts a process that subscribes and keeps what it is told. Answers it and what `subscribe/3` answered."
  def start_subscriber(registry, pattern, options) do
    caller = self()

    pid =
      spawn(fn ->
        send(caller, {self(), NativeRegistry.Registry.subscribe(registry, pattern, options)})
        keep([])
      end)

    receive do
      {^pid, answer} -> {pid, answer}
    end
  end

  defp keep(messages) do
    receive do
      {:told, from, reference} ->
        send(from, {reference, Enum.reverse(messages)})
        keep(messages)

      {:subscribe, from, reference, registry, pattern, options} ->
        send(from, {reference, NativeRegistry.Registry.subscribe(registry, pattern, options)})
        keep(messages)

      {:unsubscribe, from, reference, registry, pattern} ->
        send(from, {reference, NativeRegistry.Registry.unsubscribe(registry, pattern)})
        keep(messages)

      message ->
        keep([message | messages])
    end
  end

  def told(subscriber), do: ask(subscriber, fn reference -> {:told, self(), reference} end)

  def subscribe(subscriber, registry, pattern, options) do
    ask(subscriber, &{:subscribe, self(), &1, registry, pattern, options})
  end

  def unsubscribe(subscriber, registry, pattern) do
    ask(subscriber, &{:unsubscribe, self(), &1, registry, pattern})
  end

  defp ask(subscriber, message) do
    reference = make_ref()
    send(subscriber, message.(reference))

    receive do
      {^reference, answer} -> answer
    end
  end

  @doc "All that a report can tell of, of this node."
  def report_all(registry, name, pid) do
    Report.conflict(registry, name, pid, self())
    Report.fenced(registry, name, pid, :no_majority)
    Report.reconciled(registry, %{names: 3, disagreed: 2})
    Report.engine_down(registry, :engine, :killed)
    Report.engine_up(registry, :engine)
    Report.timeout(registry, name)
  end

  @doc "Suspends a process for good."
  def suspend(pid) do
    caller = self()

    # The process would be resumed when the process that suspended it ends.
    spawn(fn ->
      :erlang.suspend_process(pid)
      send(caller, {:suspended, pid})
      Process.sleep(:infinity)
    end)

    receive do
      {:suspended, ^pid} -> :ok
    end
  end

  @doc "How many processes the node has."
  def processes, do: length(Process.list())
end
