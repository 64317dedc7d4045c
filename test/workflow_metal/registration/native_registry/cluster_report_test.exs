defmodule WorkflowMetal.Registration.NativeRegistry.ClusterReportTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  import Bitwise

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Report

  # Each call, and the message and event that it has to make.
  defp all(registry) do
    one = self()
    other = idle()

    [
      {fn -> Report.conflict(registry, :name, one, other) end,
       {:conflict, registry, :name, one, other}, %{name: :name, winner: one, loser: other}, %{}},
      {fn -> Report.fenced(registry, :name, one, :reason) end,
       {:fenced, registry, :name, one, :reason}, %{name: :name, pid: one, reason: :reason}, %{}},
      {fn -> Report.timeout(registry, :name) end, {:cluster_timeout, registry, :name},
       %{name: :name}, %{}},
      {fn -> Report.reconciled(registry, %{names: 2, disagreed: 1}) end,
       {:reconciled, registry, node(), %{names: 2, disagreed: 1}}, %{},
       %{names: 2, disagreed: 1}},
      {fn -> Report.engine_down(registry, Engine, :killed) end,
       {:engine_down, registry, node(), :killed}, %{engine: Engine, reason: :killed}, %{}},
      {fn -> Report.engine_up(registry, Engine) end, {:engine_up, registry, node()},
       %{engine: Engine}, %{}}
    ]
  end

  @tag crashes: ~r/Engine, the engine of .* is down/
  test "subscribers and listeners get one message each, whatever the name is", context do
    %{registry: registry} = context
    test = self()
    listener = Module.concat(registry, Listener)

    spawn_link(fn ->
      Process.register(self(), listener)
      send(test, :listening)

      for _message <- all(registry) do
        receive do
          message -> send(test, {:listener, elem(message, 0)})
        end
      end
    end)

    assert_receive :listening, 30_000
    :ok = Native.listen(registry, [listener, NobodyListens])
    # Two patterns that match.
    NativeRegistry.Registry.subscribe(registry, :name)
    NativeRegistry.Registry.subscribe(registry, :_)

    for {report, message, _metadata, _measurements} <- all(registry) do
      assert report.() == :ok
      event = elem(message, 0)
      assert_receive {:listener, ^event}, 30_000
      assert_receive told when elem(told, 0) == event, 30_000
      assert tuple_size(told) == tuple_size(message)
      assert elem(told, 1) == registry
    end

    odd = {fn -> 1 end, 1 <<< 80}
    NativeRegistry.Registry.unsubscribe(registry, :_)
    NativeRegistry.Registry.subscribe(registry, odd)
    :ok = Report.timeout(registry, odd)
    assert_receive {:cluster_timeout, ^registry, ^odd}, 30_000
    :ok = Report.timeout(registry, :another)
    :ok = Report.timeout(registry, :name)
    assert_receive {:cluster_timeout, ^registry, :name}, 30_000
    :ok = Report.reconciled(registry, %{names: 2, disagreed: 0})
    refute_received _anything_else
  end

  @tag crashes: ~r/Engine, the engine of .* is down/
  test "no report fails when the registry is stopped", %{registry: registry, id: id} do
    :ok = stop_supervised(id)

    for {report, _message, _metadata, _measurements} <- all(registry),
        do: assert(report.() == :ok)
  end

  @tag :telemetry
  @tag crashes: ~r/Engine, the engine of .* is down/
  test "telemetry gets an event for each report", %{registry: registry} do
    events =
      for event <- [:conflict, :fenced, :cluster_timeout, :reconciled, :engine_down, :engine_up],
          do: [:workflow_metal, :registry, event]

    id = {__MODULE__, registry}
    :ok = apply(:telemetry, :attach_many, [id, events, &__MODULE__.handle/4, self()])
    on_exit(fn -> apply(:telemetry, :detach, [id]) end)

    for {report, message, metadata, measurements} <- all(registry) do
      report.()
      kind = elem(message, 0)

      assert_receive {:event, [:workflow_metal, :registry, ^kind], measured,
                      %{registry: ^registry} = told},
                     30_000

      assert Map.keys(told) |> Enum.sort() == Enum.sort([:registry | Map.keys(metadata)])
      assert is_integer(measured.system_time)
      assert Map.delete(measured, :system_time) == measurements
    end
  end

  def handle(event, measurements, metadata, test),
    do: send(test, {:event, event, measurements, metadata})
end
