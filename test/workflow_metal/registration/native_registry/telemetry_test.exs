defmodule WorkflowMetal.Registration.NativeRegistry.TelemetryTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  @moduletag :telemetry

  @span [:workflow_metal, :registry, :start_child]

  setup context do
    test = self()
    id = {__MODULE__, context.test}
    registry = context.registry

    tell = fn event, measurements, metadata, _config ->
      # Other tests run beside this one.
      if metadata.registry == registry, do: send(test, {event, measurements, metadata})
    end

    events = for part <- [:start, :stop, :exception], do: @span ++ [part]
    events = [[:workflow_metal, :registry, :backlog] | events]
    :ok = apply(:telemetry, :attach_many, [id, events, tell, nil])
    on_exit(fn -> apply(:telemetry, :detach, [id]) end)
    %{supervisor: start_dynamic_supervisor()}
  end

  test "start_child reports its start and its answer", context do
    %{registry: registry, meta: meta, supervisor: supervisor} = context

    for _opened <- 1..2 do
      {:ok, pid} = NativeRegistry.start_child(meta, :name, supervisor, Worker)
      assert_received {[:workflow_metal, :registry, :start_child, :start], started, metadata}
      assert %{system_time: _, monotonic_time: _} = started
      assert %{registry: ^registry, name: :name, supervisor: ^supervisor} = metadata
      assert_received {[:workflow_metal, :registry, :start_child, :stop], stopped, metadata}
      assert %{duration: duration, monotonic_time: _} = stopped
      assert duration >= 0
      assert %{registry: ^registry, name: :name, result: {:ok, ^pid}} = metadata
    end
  end

  test "start_child reports an error that it raises", context do
    %{registry: registry, meta: meta, supervisor: supervisor} = context

    assert_raise ArgumentError, fn ->
      NativeRegistry.start_child(meta, :name, supervisor, "no child spec")
    end

    assert_received {[:workflow_metal, :registry, :start_child, :start], _started, _metadata}

    assert_received {[:workflow_metal, :registry, :start_child, :exception],
                     %{duration: _, monotonic_time: _}, metadata}

    assert %{registry: ^registry, kind: :error, reason: %ArgumentError{}} = metadata
    assert is_list(metadata.stacktrace)
  end

  test "the registry's process reports the backlog of events", context do
    %{owner: owner} = context
    # Not to wait for it.
    send(owner, :backlog)
    assert_receive {[:workflow_metal, :registry, :backlog], measurements, _metadata}, 30_000
    assert measurements == %{backlog: 0, events_lost: 0}
  end
end
