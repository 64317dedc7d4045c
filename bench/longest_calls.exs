# Measures how long the longest calls hold a scheduler: with names of the largest size and of every shape, and
# with many names, subscribers and waiting callers.
#
#     mix run bench/longest_calls.exs [PART ...]
#
# A part is names, deaths, growth, crowd, stalls or meanwhile. Without one, all parts run.
#
# Prints microseconds: the shortest, the median and the longest of 21 calls. The longest is mostly due to the
# operating system. For the stalls, one scheduler in the real-time class reduces that; this needs root:
# ELIXIR_ERL_OPTIONS="+S 1:1 +sbwt none".

Code.require_file("support/longest.exs", __DIR__)

defmodule Longest do
  import Bitwise

  alias Bench.Longest
  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Native

  @times 21

  @parts [:names, :deaths, :growth, :crowd, :stalls, :meanwhile]

  def main(arguments) do
    parts = for part <- @parts, arguments == [] or to_string(part) in arguments, do: part
    Enum.each(parts, &measure/1)
  end

  defp measure(:names) do
    registry = Longest.start(LongestCalls)
    names = Longest.names()
    heading("calls on names (the longest five of each)")

    Longest.calls(registry, names, Longest.refused())
    |> Enum.map(fn {label, prepare} ->
      {label, times(fn -> Longest.time(prepare) end)}
    end)
    |> Enum.group_by(fn {label, _times} -> label |> String.split(":") |> hd() end)
    |> Enum.sort()
    |> Enum.each(fn {_operation, rows} ->
      rows
      |> Enum.sort_by(fn {_label, times} -> -median(times) end)
      |> Enum.take(5)
      |> Enum.each(fn {label, times} -> row(label, times) end)
    end)

    Longest.stop(registry)
  end

  defp measure(:deaths) do
    registry = Longest.start(LongestCalls)
    heading("the end of a process that holds")

    for {label, names} <- Longest.deaths() do
      row(label, times(fn -> Longest.time_death(registry, names) end))
    end

    Longest.stop(registry)
  end

  defp measure(:growth) do
    heading("registering so many names, the hundredth longest call")
    uuid = "10f4b6e2-9b3a-4a4e-8d1c-0123456789ab"
    long = :binary.copy("x", 65_000)

    for {label, count, name} <- [
          {"1,000,000 short ones", 1_000_000, & &1},
          {"500,000 with UUIDs", 500_000, &{&1, uuid, uuid}},
          {"300,000 of 200 bytes", 300_000, &{&1, binary_part(long, 0, 200)}},
          {"15,000 of 64 KiB", 15_000, &{&1, long}}
        ] do
      row(label, for(_time <- 1..3, do: longest_registration(count, name)))
    end
  end

  defp measure(:crowd) do
    heading("with many who want to be told")
    crowded()
  end

  defp measure(:stalls) do
    if System.schedulers_online() == 1, do: real_time()
    heading("how long a process that counts milliseconds stands still")
    stalls()
  end

  defp measure(:meanwhile) do
    heading("beside a process with a million names")
    meanwhile()
  end

  # Only one scheduler: other programs on the machine need the other processors.
  defp real_time do
    tasks = "/proc/#{System.pid()}/task"

    for task <- File.ls!(tasks),
        name = File.read!(Path.join([tasks, task, "comm"])),
        name =~ ~r/^(erts_sched_1|1_scheduler)$/ do
      {_output, 0} = System.cmd("chrt", ["-f", "-p", "10", task])
    end
  end

  defp meanwhile do
    registry = Longest.start(LongestCalls.Meanwhile)
    holder = spawn(fn -> Process.sleep(:infinity) end)
    names = 1_000_000
    for number <- 1..names, do: :yes = Native.register(registry, number, holder, nil, nil)

    others = fn ->
      keys = Task.async(fn -> Native.keys(registry, holder) end)
      times = for _call <- 1..10_000, do: register(registry)
      ^names = length(Task.await(keys, :infinity))
      times
    end

    row("all of them are asked for: register", others.())

    row(
      "most of them unregistered: a call",
      for number <- 1..(names - 1_000) do
        timed(fn -> :yes = Native.unregister(registry, number, holder) end)
      end
    )

    Longest.stop(registry)
  end

  # The table grows in a hundred or more of these calls. The longest of all are due to the operating system.
  defp longest_registration(count, name) do
    registry = Longest.start(:"Elixir.LongestCalls#{System.unique_integer([:positive])}")
    holder = spawn(fn -> Process.sleep(:infinity) end)

    times =
      for number <- 1..count do
        name = name.(number)
        timed(fn -> :yes = Native.register(registry, name, holder, nil, nil) end)
      end

    Longest.stop(registry)
    Process.exit(holder, :kill)
    times |> Enum.sort(:desc) |> Enum.at(99)
  end

  defp crowded do
    registry = Longest.start(LongestCalls.Crowded)
    for number <- 1..10_000, do: :ok = NativeRegistry.Registry.subscribe(registry, {:own, number})
    row("10,000 patterns of one: subscribe", times(fn -> subscribe(registry) end))
    crowd(10_000, fn _number -> NativeRegistry.Registry.subscribe(registry, {:some, :_}) end)
    await(fn -> NativeRegistry.Registry.info(registry).subscribers == 10_001 end)

    crowd(100_000, fn number ->
      NativeRegistry.Registry.await(registry, {:awaited, number}, :infinity)
    end)

    await(fn -> NativeRegistry.Registry.info(registry).waiting == 100_000 end)

    row(
      "10,000 subscribers, 100,000 waiting: register",
      times(fn -> register(registry) end, 1_000)
    )

    row("the same: info", times(fn -> timed(fn -> Native.info(registry) end) end))
    row("the same: subscribe", times(fn -> subscribe(registry) end))
    row("the same: wait", times(fn -> wait(registry) end))
    row("the same: the end of a process", times(fn -> time_end(registry) end, 100))

    # All patterns in which each part of the name is a constant or `:_`. The name matches every one.
    for ways <- 1..4_095 do
      pattern = for bit <- 0..11, do: if((ways >>> bit &&& 1) == 1, do: :_, else: 1)
      :ok = NativeRegistry.Registry.subscribe(registry, List.to_tuple(pattern ++ [:never]))
    end

    text = :binary.copy("x", 5_000)
    name = List.to_tuple(List.duplicate(1, 12) ++ [[text]])
    row("and 4,095 patterns alike: register", times(fn -> register(registry, name) end, 200))

    large = fn -> [System.unique_integer() | List.duplicate(:_, 10_000)] end
    row("subscribe with 10,000 variables", times(fn -> subscribe(registry, large.()) end))
    large = fn -> [System.unique_integer() | List.duplicate(1, 10_000)] ++ :_ end
    row("subscribe with 10,000 parts", times(fn -> subscribe(registry, large.()) end))

    listeners = for number <- 1..1_000, do: :"longest_calls_#{number}"

    row(
      "listen of 1,000",
      times(fn -> timed(fn -> :ok = Native.listen(registry, listeners) end) end)
    )

    Native.listen(registry, [])
    disperse()
    Longest.stop(registry)

    registry = Longest.start(LongestCalls.Common)
    pattern = {:common, :_}

    crowd(100_000, fn _number -> NativeRegistry.Registry.subscribe(registry, pattern) end)
    await(fn -> NativeRegistry.Registry.info(registry).subscribers == 100_000 end)

    row(
      "100,000 subscribers of one pattern: subscribe",
      times(fn -> subscribe(registry, pattern) end)
    )

    row("the same: register", times(fn -> register(registry) end, 1_000))

    row(
      "the same: the end of a process with 10,000 patterns",
      times(fn ->
        time_end(registry, fn ->
          for number <- 1..10_000, do: NativeRegistry.Registry.subscribe(registry, {:own, number})
        end)
      end)
    )

    row(
      "the same: the end of a process that waits for 10,000 names",
      times(fn ->
        time_end(registry, fn ->
          for number <- 1..10_000, do: Native.wait(registry, {:own, number}, self())
        end)
      end)
    )

    # Only the thread that sends messages does this.
    {:ok, _pid} = NativeRegistry.Registry.register(registry, {:common, 1}, nil)
    row("the same, all of them being told: register", times(fn -> register(registry) end, 1_000))
    row("the same: subscribe", times(fn -> subscribe(registry) end))
    row("the same: the end of a process", times(fn -> time_end(registry) end, 100))
    disperse()
    Longest.stop(registry)
  end

  # A process that wants to run notices whatever holds the scheduler.
  defp stalls do
    stall("nothing, for a second", fn _registry -> fn -> Process.sleep(1_000) end end)

    stall("30,000 processes raise an error, no registry", fn _registry ->
      crowd(30_000, fn _number ->
        receive do
          :raise -> try_raising()
        end
      end)

      fn ->
        for pid <- Process.get(:crowd), do: send(pid, :raise)
        Process.sleep(500)
      end
    end)

    for count <- [10_000, 30_000, 100_000] do
      stall("#{count} wait for one name: register", fn registry ->
        crowd(count, fn _number -> NativeRegistry.Registry.await(registry, :one, :infinity) end)
        await(fn -> NativeRegistry.Registry.info(registry).waiting == count end)

        fn ->
          {:ok, _pid} = NativeRegistry.Registry.register(registry, :one, nil)
          await(fn -> NativeRegistry.Registry.info(registry).waiting == 0 end)
        end
      end)
    end

    stall("30,000 wait for one name: stop", fn registry ->
      crowd(30_000, fn _number ->
        try do
          NativeRegistry.Registry.await(registry, :one, :infinity)
        rescue
          ArgumentError -> :ok
        end
      end)

      await(fn -> NativeRegistry.Registry.info(registry).waiting == 30_000 end)

      fn ->
        Longest.stop(registry)
        Process.sleep(500)
      end
    end)

    for holders <- [1_000, 200_000] do
      stall("the stop of a registry with #{holders} holders", fn registry ->
        crowd(holders, fn number ->
          NativeRegistry.Registry.register(registry, {:held, number}, nil)
        end)

        await(fn -> NativeRegistry.Registry.info(registry).names == holders end)

        # Longer than the stop, because the holders are released in the background.
        fn ->
          Longest.stop(registry)
          Process.sleep(2_500)
        end
      end)
    end

    for {label, prepare} <- [
          {"of a process with 10,000 patterns",
           fn registry, number -> NativeRegistry.Registry.subscribe(registry, {:own, number}) end},
          {"of a process that waits for 10,000 names",
           fn registry, number -> Native.wait(registry, {:own, number}, self()) end},
          {"of a process with a million names",
           fn registry, number ->
             for part <- 1..100,
                 do: NativeRegistry.Registry.register(registry, {number, part}, nil)
           end}
        ] do
      stall("the end #{label}", fn registry ->
        test = self()

        crowd(1, fn _number ->
          for number <- 1..10_000, do: prepare.(registry, number)
          send(test, :asked)
        end)

        receive do
          :asked -> :ok
        end

        fn ->
          disperse()
          Process.sleep(500)
        end
      end)
    end

    stall("30,000 wait for one name: all of them end", fn registry ->
      crowd(30_000, fn _number -> NativeRegistry.Registry.await(registry, :one, :infinity) end)
      await(fn -> NativeRegistry.Registry.info(registry).waiting == 30_000 end)
      &disperse/0
    end)

    for {label, patterns} <- [
          {"10,000 subscribers of their own names each", &{:case, {&1, :_}}},
          {"10,000 subscribers of all names", fn _number -> {:case, :_} end}
        ] do
      stall("#{label}: 200 long names", fn registry ->
        crowd(10_000, fn number ->
          NativeRegistry.Registry.subscribe(registry, patterns.(number))
        end)

        await(fn -> NativeRegistry.Registry.info(registry).subscribers == 10_000 end)
        text = :binary.copy("x", 2_000)

        fn ->
          for number <- 1..200,
              do: NativeRegistry.Registry.register(registry, {:case, {number, text}}, nil)
        end
      end)
    end
  end

  defp try_raising do
    raise ArgumentError, "raised by #{inspect(self())}"
  rescue
    ArgumentError -> :ok
  end

  defp stall(label, prepare) do
    times =
      for _time <- 1..5 do
        registry = Longest.start(:"Elixir.LongestCalls#{System.unique_integer([:positive])}")
        work = prepare.(registry)
        for pid <- Process.list(), do: :erlang.garbage_collect(pid)
        test = self()

        ticker =
          :erlang.spawn_opt(fn -> tick(test, System.monotonic_time(), 0) end, [
            :link,
            priority: :high
          ])

        Process.sleep(20)
        send(ticker, :start)
        work.()
        Process.sleep(20)
        send(ticker, :stop)

        longest =
          receive do
            {:longest, longest} -> longest
          end

        disperse()
        System.convert_time_unit(longest, :native, :nanosecond) / 1_000
      end

    row(label, times)
  end

  defp tick(test, before, longest) do
    receive do
      :start -> tick(test, System.monotonic_time(), 0)
      :stop -> send(test, {:longest, longest})
    after
      1 ->
        now = System.monotonic_time()
        tick(test, now, max(longest, now - before))
    end
  end

  # From the kill of a process until the message about its end arrives.
  defp time_end(registry, ask \\ fn -> :ok end) do
    test = self()
    name = {:ends, System.unique_integer()}

    pid =
      spawn(fn ->
        {:ok, _pid} = NativeRegistry.Registry.register(registry, name, nil)
        ask.()
        send(test, {:asked, self()})
        Process.sleep(:infinity)
      end)

    receive do
      {:asked, ^pid} -> :ok
    end

    reference = Process.monitor(pid)

    timed(fn ->
      Process.exit(pid, :kill)

      receive do
        {:DOWN, ^reference, :process, ^pid, _reason} -> :ok
      end
    end)
  end

  defp wait(registry) do
    name = {:awaited_now, System.unique_integer()}
    {time, number} = timed_answer(fn -> Native.wait(registry, name, self()) end)
    true = Native.stop_waiting(registry, self(), number)
    time
  end

  defp subscribe(registry, pattern \\ {:own, System.unique_integer()}) do
    pattern = Native.pattern(pattern)
    time = timed(fn -> :ok = Native.subscribe(registry, pattern, self()) end)
    Native.unsubscribe(registry, pattern, self())
    time
  end

  defp register(registry, name \\ {:new, System.unique_integer()}) do
    time = timed(fn -> :yes = Native.register(registry, name, self(), nil, nil) end)
    Native.unregister(registry, name, self())
    time
  end

  # Processes that make one call and then do nothing until `disperse/0`.
  defp crowd(count, function) do
    pids =
      for number <- 1..count do
        spawn(fn ->
          function.(number)
          Process.sleep(:infinity)
        end)
      end

    Process.put(:crowd, pids ++ Process.get(:crowd, []))
  end

  defp disperse do
    pids = Process.delete(:crowd) || []
    for pid <- pids, do: Process.exit(pid, :kill)
    await(fn -> not Enum.any?(pids, &Process.alive?/1) end)
  end

  defp await(condition) do
    unless condition.() do
      Process.sleep(10)
      await(condition)
    end
  end

  defp timed(call), do: call |> timed_answer() |> elem(0)

  defp timed_answer(call) do
    start = System.monotonic_time()
    answer = call.()
    time = System.monotonic_time() - start
    {System.convert_time_unit(time, :native, :nanosecond) / 1_000, answer}
  end

  defp times(time, count \\ @times), do: for(_time <- 1..count, do: time.())
  defp median(times), do: times |> Enum.sort() |> Enum.at(div(length(times), 2))

  defp heading(text),
    do: IO.puts("\n#{String.pad_trailing(text, 60)}  shortest    median   longest")

  defp row(label, times) do
    cells = for time <- [Enum.min(times), median(times), Enum.max(times)], do: cell(time)
    IO.puts([String.pad_trailing(label, 60), cells])
  end

  defp cell(time), do: time |> Float.round(1) |> to_string() |> String.pad_leading(10)
end

Longest.main(System.argv())
