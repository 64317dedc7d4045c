defmodule WorkflowMetal.Registration.NativeRegistry.TelemetryTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  @moduletag :telemetry

  @span [:workflow_metal, :registry, :start_child]

  setup context do
    attach(context.test, context.registry)
    %{supervisor: start_dynamic_supervisor()}
  end

  # From now on the test gets the events of this registry. Other tests run beside this one.
  defp attach(id, registry) do
    test = self()
    id = {__MODULE__, id, registry}

    tell = fn event, measurements, metadata, _config ->
      if metadata.registry == registry, do: send(test, {event, measurements, metadata})
    end

    events = for part <- [:start, :stop, :exception], do: @span ++ [part]
    events = [[:workflow_metal, :registry, :backlog] | events]
    :ok = apply(:telemetry, :attach_many, [id, events, tell, nil])
    on_exit(fn -> apply(:telemetry, :detach, [id]) end)
  end

  # The last parts of the span's events that have come. Telemetry calls the function of `attach/2` in the process
  # that calls `start_child/4`, so none is still to come.
  defp spans do
    receive do
      {[:workflow_metal, :registry, :start_child, part], _measurements, _metadata} ->
        [part | spans()]
    after
      0 -> []
    end
  end

  test "start_child of a name that does not run reports its start and its answer", context do
    %{registry: registry, meta: meta, supervisor: supervisor} = context
    {:ok, pid} = NativeRegistry.start_child(meta, :name, supervisor, Worker)

    assert_received {[:workflow_metal, :registry, :start_child, :start], started, metadata}
    assert %{system_time: _, monotonic_time: _} = started
    assert %{registry: ^registry, name: :name, supervisor: ^supervisor} = metadata
    assert_received {[:workflow_metal, :registry, :start_child, :stop], stopped, metadata}
    assert %{duration: duration, monotonic_time: _} = stopped
    assert duration >= 0
    assert %{registry: ^registry, name: :name, result: {:ok, ^pid}} = metadata
    refute_received {[:workflow_metal, :registry, :start_child | _], _, _}
  end

  test "start_child of a running name reports nothing, and of the same name later again",
       context do
    %{meta: meta, supervisor: supervisor} = context
    {:ok, pid} = NativeRegistry.start_child(meta, :name, supervisor, Worker)
    assert spans() == [:start, :stop]

    {:ok, ^pid} = NativeRegistry.start_child(meta, :name, supervisor, Worker)
    {:ok, ^pid} = NativeRegistry.start_child(meta, :name, supervisor, {Worker, a: 1})
    :yes = NativeRegistry.register_name({context.registry, :another}, self())
    assert NativeRegistry.start_child(meta, :another, supervisor, Worker) == {:ok, self()}
    assert spans() == []

    kill(pid)
    {:ok, _another_pid} = NativeRegistry.start_child(meta, :name, supervisor, Worker)
    assert spans() == [:start, :stop]
  end

  test "start_child reports the error of a child that does not start", context do
    %{meta: meta, supervisor: supervisor} = context
    child_spec = {Worker, init: fn -> {:stop, {:shutdown, :not_today}} end}

    assert {:error, {:shutdown, :not_today}} =
             NativeRegistry.start_child(meta, :name, supervisor, child_spec)

    assert_received {[:workflow_metal, :registry, :start_child, :start], _started, _metadata}
    assert_received {[:workflow_metal, :registry, :start_child, :stop], _stopped, metadata}
    assert metadata.result == {:error, {:shutdown, :not_today}}
  end

  test "start_child reports its exit when there is no supervisor", context do
    %{registry: registry, meta: meta} = context
    assert {:noproc, _call} = catch_exit(NativeRegistry.start_child(meta, :name, :nobody, Worker))

    assert_received {[:workflow_metal, :registry, :start_child, :start], _started, _metadata}

    assert_received {[:workflow_metal, :registry, :start_child, :exception],
                     %{duration: _, monotonic_time: _}, metadata}

    assert %{registry: ^registry, name: :name, supervisor: :nobody} = metadata
    assert %{kind: :exit, reason: {:noproc, _call}} = metadata
    assert is_list(metadata.stacktrace)
  end

  test "start_child reports no call that it refuses", context do
    %{meta: meta, supervisor: supervisor} = context

    for {meta, name, child_spec} <- [
          {meta, :name, "no child spec"},
          {meta, :name, {Worker, [{:a, 1}, :b]}},
          {meta, Enum.reduce(1..100_000, [], fn _level, name -> {name} end), Worker},
          {%{registry: unique_registry()}, :name, Worker}
        ] do
      assert_raise ArgumentError, fn ->
        NativeRegistry.start_child(meta, name, supervisor, child_spec)
      end
    end

    assert spans() == []
  end

  test "start_child of a clustered registry reports a start only, too", context do
    registry = unique_registry()
    meta = %{registry: registry}
    start_supervised!({NativeRegistry, name: registry, cluster: :global}, id: registry)
    attach(context.test, registry)
    {:ok, pid} = NativeRegistry.start_child(meta, :name, context.supervisor, Worker)

    assert_received {[:workflow_metal, :registry, :start_child, :start], _started, _metadata}
    assert_received {[:workflow_metal, :registry, :start_child, :stop], _stopped, metadata}
    assert metadata.result == {:ok, pid}

    {:ok, ^pid} = NativeRegistry.start_child(meta, :name, context.supervisor, Worker)
    assert spans() == []
  end

  test "the registry's process reports the backlog of events", context do
    %{owner: owner} = context
    # Not to wait for it.
    send(owner, :backlog)
    assert_receive {[:workflow_metal, :registry, :backlog], measurements, _metadata}, 30_000
    assert measurements == %{backlog: 0, events_lost: 0}
  end
end
