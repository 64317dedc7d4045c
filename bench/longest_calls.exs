# How long the longest calls hold a scheduler: names as large as they may be, of every shape; what
# grows with the number of names, of subscribers and of those who wait.
#
#     mix run bench/longest_calls.exs
#
# Microseconds: the shortest, the median and the longest of 21 calls. The longest is mostly the
# operating system's.

Code.require_file("support/longest.exs", __DIR__)

defmodule Longest do
  alias Bench.Longest
  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Native

  @times 21

  def main do
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

    heading("the end of a process that holds")

    for {label, names} <- Longest.deaths() do
      row(label, times(fn -> Longest.time_death(registry, names) end))
    end

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

    heading("with many who want to be told, registering and")
    crowded()

    heading("a process that is always ready, meanwhile: the longest it waits")
    meanwhile()
  end

  # On a machine that does other work, too, compare with the first row.
  defp meanwhile do
    row("nothing", waits(fn -> Process.sleep(1_000) end))

    for holders <- [1_000, 200_000] do
      registry = Longest.start(LongestCalls.Stopped)

      pids =
        for number <- 1..holders do
          pid = spawn(fn -> Process.sleep(:infinity) end)
          :yes = Native.register(registry, {:held, number}, pid, nil, nil)
          pid
        end

      # Longer than the stop: the holders are let go in the background.
      stop = fn ->
        Longest.stop(registry)
        Process.sleep(3_000)
      end

      row("the stop of a registry with #{holders} holders", waits(stop))
      Enum.each(pids, &Process.exit(&1, :kill))
    end

    registry = Longest.start(LongestCalls.Meanwhile)
    holder = spawn(fn -> Process.sleep(:infinity) end)
    names = 1_000_000
    for number <- 1..names, do: :yes = Native.register(registry, number, holder, nil, nil)
    row("the million names of one process", waits(fn -> Native.keys(registry, holder) end))

    others = fn ->
      keys = Task.async(fn -> Native.keys(registry, holder) end)
      times = for _call <- 1..10_000, do: register(registry)
      ^names = length(Task.await(keys, :infinity))
      times
    end

    row("the same: register", others.())

    row(
      "most of them unregistered: a call",
      for number <- 1..(names - 1_000) do
        timed(fn -> :yes = Native.unregister(registry, number, holder) end)
      end
    )

    Longest.stop(registry)
  end

  # For each scheduler, the longest that a process there was not run.
  defp waits(work) do
    test = self()

    tickers =
      for scheduler <- 1..System.schedulers_online() do
        spawn_link(fn ->
          :erlang.process_flag(:scheduler, scheduler)
          send(test, {:waited, tick(System.monotonic_time(), 0)})
        end)
      end

    work.()
    for ticker <- tickers, do: send(ticker, :stop)

    for _ticker <- tickers do
      receive do
        {:waited, longest} ->
          System.convert_time_unit(longest, :native, :nanosecond) / 1_000
      end
    end
  end

  defp tick(last, longest) do
    :erlang.yield()
    now = System.monotonic_time()
    longest = max(longest, now - last)

    receive do
      :stop -> longest
    after
      0 -> tick(now, longest)
    end
  end

  # A table grows in a hundred calls or more of these; the longest of all are the operating system's.
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
    for number <- 1..10_000, do: :ok = NativeRegistry.subscribe(registry, {:own, number})
    row("10,000 patterns of one: subscribe", times(fn -> subscribe(registry) end))
    crowd(registry, 10_000, fn _number -> NativeRegistry.subscribe(registry, {:some, :_}) end)
    await(fn -> NativeRegistry.info(registry).subscribers == 10_001 end)

    crowd(registry, 100_000, fn number ->
      NativeRegistry.await(registry, {:awaited, number}, :infinity)
    end)

    await(fn -> NativeRegistry.info(registry).waiting == 100_000 end)

    row(
      "10,000 subscribers, 100,000 waiting: register",
      times(fn -> register(registry) end, 1_000)
    )

    row("the same: info", times(fn -> timed(fn -> Native.info(registry) end) end))
    row("the same: subscribe", times(fn -> subscribe(registry) end))
  end

  defp subscribe(registry) do
    pattern = Native.pattern({:own, System.unique_integer()})
    time = timed(fn -> :ok = Native.subscribe(registry, pattern, self()) end)
    Native.unsubscribe(registry, pattern, self())
    time
  end

  defp register(registry) do
    name = {:new, System.unique_integer()}
    timed(fn -> :yes = Native.register(registry, name, self(), nil, nil) end)
  end

  defp crowd(_registry, count, function) do
    for number <- 1..count do
      spawn_link(fn ->
        function.(number)
        Process.sleep(:infinity)
      end)
    end
  end

  defp await(condition) do
    unless condition.() do
      Process.sleep(10)
      await(condition)
    end
  end

  defp timed(call) do
    start = System.monotonic_time()
    call.()
    System.convert_time_unit(System.monotonic_time() - start, :native, :nanosecond) / 1_000
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

Longest.main()
