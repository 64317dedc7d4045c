Code.require_file("../../../../bench/support/longest.exs", __DIR__)

defmodule WorkflowMetal.Registration.NativeRegistry.SchedulersTest do
  # Alone on the machine, and the VM has one system monitor only.
  #
  # A call is long when it takes a millisecond by the clock, or its time slice does by a report of the
  # VM, each of many times: now and then the operating system has the processor in between.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: false

  alias Bench.Longest

  @times 50
  @milliseconds 1

  setup do
    :erlang.system_monitor(self(), long_schedule: @milliseconds)
    on_exit(fn -> :erlang.system_monitor(:undefined) end)
  end

  describe "no call holds a normal scheduler for a millisecond" do
    @tag timeout: 300_000
    test "whatever the name, and whatever is refused", %{registry: registry} do
      calls = Longest.calls(registry, Longest.names(), Longest.refused())
      assert length(calls) > 100
      assert for({label, prepare} <- calls, long?(prepare), do: label) == []
    end

    @tag timeout: 300_000
    test "with 100,000 names, held by one process and by many", %{registry: registry} do
      one = idle()
      many = List.to_tuple(for _holder <- 1..1_000, do: idle())
      name = fn number -> {:case, {rem(number, 100), number}} end

      for number <- 1..50_000,
          do: :yes = NativeRegistry.register_name({registry, name.(number)}, one)

      for number <- 50_001..100_000 do
        holder = elem(many, rem(number, 1_000))
        :yes = NativeRegistry.register_name({registry, name.(number)}, holder)
      end

      pattern = Native.pattern({:case, {7, :_}})

      calls = [
        {"info", fn -> fn -> Native.info(registry) end end},
        {"count", fn -> fn -> Native.sizes(registry) end end}
      ]

      # They may take as long as they like, on the schedulers for that.
      dirty = [
        {"keys", fn -> fn -> Native.keys(registry, one) end end},
        {"select", fn -> fn -> Native.piece(registry, pattern, 0) end end},
        {"count_select", fn -> fn -> Native.count_matching(registry, pattern) end end}
      ]

      assert for({label, prepare} <- calls, long?(prepare), do: label) == []
      assert for({label, prepare} <- dirty, reported?(prepare), do: label) == []
    end

    @tag timeout: 300_000
    test "while a table grows to 100,000 names", context do
      uuid = "10f4b6e2-9b3a-4a4e-8d1c-0123456789ab"
      long = :binary.copy("x", 65_000)

      shapes = [
        {"short", 100_000, & &1},
        {"with UUIDs", 100_000, &{&1, uuid, uuid}},
        {"of 200 bytes", 100_000, &{&1, binary_part(long, 0, 200)}},
        {"of 64 KiB", 5_000, &{&1, long}}
      ]

      # The same call is not made again, so its like are counted: a table grows in many of them.
      for {label, count, name} <- shapes do
        fewest = Enum.min(for _time <- 1..3, do: long_registrations(count, name))
        assert fewest < 10, "#{fewest} registrations of names #{label} took a millisecond"
      end

      assert Native.sizes(context.registry) == {0, 0}
    end

    @tag timeout: 300_000
    test "with 10,000 subscribers and 10,000 who wait", %{registry: registry} do
      for number <- 1..10_000 do
        spawn_link(fn ->
          :ok = NativeRegistry.subscribe(registry, {:told, number})
          Process.sleep(:infinity)
        end)

        spawn_link(fn -> NativeRegistry.await(registry, {:awaited, number}, :infinity) end)
      end

      eventually(fn ->
        match?(%{subscribers: 10_000, waiting: 10_000}, NativeRegistry.info(registry))
      end)

      # The courier has something to do all the while.
      busy = spawn_link(fn -> register_for_ever(registry) end)
      name = fn -> {:new, System.unique_integer()} end

      calls = [
        {"register",
         fn ->
           name = name.()
           fn -> :yes = Native.register(registry, name, self(), nil, nil) end
         end},
        {"info", fn -> fn -> Native.info(registry) end end},
        {"subscribe",
         fn ->
           pattern = Native.pattern(name.())
           fn -> Native.subscribe(registry, pattern, self()) end
         end},
        {"wait",
         fn ->
           name = name.()
           fn -> Native.wait(registry, name, self()) end
         end}
      ]

      assert for({label, prepare} <- calls, long?(prepare), do: label) == []
      Process.unlink(busy)
      Process.exit(busy, :kill)
    end
  end

  describe "nobody waits for a millisecond" do
    @tag timeout: 300_000
    test "for the end of a process that holds names", %{registry: registry} do
      # With a subscriber, every name that becomes free is written down.
      for subscribe <- [fn -> :ok end, fn -> NativeRegistry.subscribe(registry, {:never, :_}) end],
          {label, names} <- Longest.deaths() do
        subscribe.()
        times = Stream.repeatedly(fn -> Longest.time_death(registry, names) end)
        assert times |> Enum.take(10) |> Enum.min() < 1_000, label
      end
    end
  end

  # ETS copies what it is given in one go.
  test "a call that takes long would be seen" do
    table = :ets.new(:table, [:public])
    large = Enum.to_list(1..1_000_000)

    assert long?(fn -> fn -> :ets.insert(table, {:large, large}) end end)
    refute long?(fn -> fn -> :ets.insert(table, {:small, 1}) end end)
  end

  defp long?(prepare) do
    Enum.all?(1..@times, fn _time ->
      {microseconds, reported} = time(prepare)
      reported or microseconds >= 1_000 * @milliseconds
    end)
  end

  defp reported?(prepare), do: Enum.all?(1..@times, fn _time -> elem(time(prepare), 1) end)

  defp time(prepare) do
    flush_reports()
    {pid, microseconds} = Longest.time(prepare)

    # The report of a time slice comes before what the next one sends. The VM counts whole
    # milliseconds, and reports more than one.
    receive do
      {:monitor, ^pid, :long_schedule, _info} -> {microseconds, true}
    after
      0 -> {microseconds, false}
    end
  end

  defp flush_reports do
    receive do
      {:monitor, _pid, :long_schedule, _info} -> flush_reports()
    after
      0 -> :ok
    end
  end

  # How many calls took a millisecond.
  defp long_registrations(count, name) do
    %{registry: registry, id: id} = start_registry()
    holder = idle()

    long =
      Enum.count(1..count, fn number ->
        name = name.(number)
        start = System.monotonic_time(:microsecond)
        :yes = Native.register(registry, name, holder, nil, nil)
        System.monotonic_time(:microsecond) - start >= 1_000
      end)

    :ok = stop_supervised(id)
    kill(holder)
    long
  end

  defp register_for_ever(registry) do
    NativeRegistry.register(registry, {:busy, self()}, nil)
    NativeRegistry.unregister(registry, {:busy, self()})
    register_for_ever(registry)
  end
end
