Code.require_file("../../../../bench/support/longest.exs", __DIR__)

defmodule WorkflowMetal.Registration.NativeRegistry.SchedulersTest do
  # Not async, because it reads the clock. A call that takes long does so each time; a single long time is due to
  # the operating system.
  #
  # `:erlang.system_monitor/2` is used too, but is not enough: it reports two milliseconds and more only, and on OTP 25
  # nothing of a process that has waited before.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: false

  alias Bench.Longest

  # That often at once, and then after pauses: after a pause the operating system prefers this VM, which then runs
  # for longer than a millisecond without an interruption.
  @times 50
  @patient_times 100
  @limit 1_000

  describe "no call holds a normal scheduler for a millisecond" do
    @tag timeout: 300_000
    test "with any name, accepted or refused", %{registry: registry} do
      calls = Longest.calls(registry, Longest.names(), Longest.refused())
      assert length(calls) > 100
      assert for({label, prepare} <- calls, long?(prepare), do: label) == []
    end

    @tag :one_way
    test "with 100,000 names", %{registry: registry} do
      holder = idle()

      for number <- 1..100_000,
          do: :yes = NativeRegistry.register_name({registry, number}, holder)

      calls = [
        {"info", fn -> fn -> Native.info(registry) end end},
        {"count", fn -> fn -> Native.sizes(registry) end end}
      ]

      assert for({label, prepare} <- calls, long?(prepare), do: label) == []
    end

    @tag :one_way
    @tag timeout: 300_000
    test "with 10,000 subscribers and 10,000 waiting processes", %{registry: registry} do
      for number <- 1..10_000 do
        spawn_link(fn ->
          :ok = Registry.subscribe(registry, {:told, number})
          Process.sleep(:infinity)
        end)

        spawn_link(fn -> Registry.await(registry, {:awaited, number}, :infinity) end)
      end

      eventually(fn ->
        match?(%{subscribers: 10_000, waiting: 10_000}, Registry.info(registry))
      end)

      # The thread that sends messages is busy all the time.
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

  describe "no caller waits for a millisecond" do
    @tag :one_way
    @tag timeout: 300_000
    test "for the end of a process that holds names", %{registry: registry} do
      # With a subscriber, every name that becomes free is written down.
      for subscribe <- [fn -> :ok end, fn -> Registry.subscribe(registry, {:never, :_}) end],
          {label, names} <- Longest.deaths() do
        subscribe.()
        # Repeated until the wait was short once.
        assert once?(fn -> Longest.time_death(registry, names) < @limit end), label
      end
    end
  end

  @tag :one_way
  test "a call that reads many names does not run on the normal schedulers", %{registry: registry} do
    pattern = Native.pattern(:_)

    calls = [
      piece: [registry, pattern, 0],
      count_matching: [registry, pattern],
      keys: [registry, self()],
      close: [registry, self()]
    ]

    for {function, arguments} <- calls do
      pid = spawn(fn -> receive(do: (:go -> apply(Native, function, arguments))) end)
      :erlang.trace(pid, true, [:running, :scheduler_id])
      send(pid, :go)
      # The number of no normal scheduler.
      mfa = {Native, function, length(arguments)}
      assert_receive {:trace, ^pid, :in, ^mfa, 0}, 10_000
    end
  end

  # The first test asks of the same calls, more exactly.
  @tag :one_way
  @tag timeout: 300_000
  test "the VM reports no long schedule of any name again and again", %{registry: registry} do
    :erlang.system_monitor(self(), long_schedule: 1)
    on_exit(fn -> :erlang.system_monitor(:undefined) end)

    reported = fn prepare ->
      Longest.time(prepare)
      reported?(false)
    end

    calls = Longest.calls(registry, Longest.names(), Longest.refused())

    assert for({label, prepare} <- calls, not once?(fn -> not reported.(prepare) end), do: label) ==
             []
  end

  defp reported?(reported) do
    receive do
      {:monitor, _pid, :long_schedule, _info} -> reported?(true)
    after
      0 -> reported
    end
  end

  # ETS copies what it is given in one go.
  @tag :one_way
  test "a call that takes long is noticed by these tests" do
    table = :ets.new(:table, [:public])
    large = Enum.to_list(1..500_000)
    assert long?(fn -> fn -> :ets.insert(table, {:large, large}) end end)
    refute long?(fn -> fn -> :ets.insert(table, {:small, 1}) end end)
  end

  defp long?(prepare), do: not once?(fn -> Longest.time(prepare) < @limit end)

  defp once?(condition) do
    Enum.any?(1..@times, fn _time -> condition.() end) or
      Enum.any?(1..@patient_times, fn _time ->
        Process.sleep(:rand.uniform(10))
        condition.()
      end)
  end

  defp register_for_ever(registry) do
    Registry.register(registry, {:busy, self()}, nil)
    Registry.unregister(registry, {:busy, self()})
    register_for_ever(registry)
  end
end
