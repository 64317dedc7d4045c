# Measures what searches cost the other callers, and how late messages arrive:
#
#     mix run bench/observe.exs [NAMES]
#
# Medians of interleaved rounds, with a million names by default.

alias WorkflowMetal.Registration.NativeRegistry

defmodule Observe do
  @rounds 7

  def median(list), do: list |> Enum.sort() |> Enum.at(div(length(list), 2))

  # Latencies of lookups in microseconds: median, 99th percentile and maximum.
  def lookups(registry, names) do
    samples =
      for name <- names do
        start = System.monotonic_time()
        pid = NativeRegistry.whereis_name({registry, name})
        true = is_pid(pid)
        System.monotonic_time() - start
      end

    percentiles(samples)
  end

  # From a registration to the message about it, which the calling process gets, in the same units. No other event
  # is waiting.
  def single_events(registry, names) do
    :ok = NativeRegistry.Registry.subscribe(registry, :_)

    samples =
      for name <- names do
        start = System.monotonic_time()
        {:ok, _pid} = NativeRegistry.Registry.register(registry, name, nil)

        time =
          receive do
            {:register, ^registry, ^name, _pid, _value} -> System.monotonic_time() - start
          end

        :ok = NativeRegistry.Registry.unregister(registry, name)

        receive do
          {:unregister, ^registry, ^name, _pid} -> time
        end
      end

    :ok = NativeRegistry.Registry.unsubscribe(registry, :_)
    percentiles(samples)
  end

  defp percentiles(samples) do
    sorted = samples |> Enum.sort() |> List.to_tuple()

    at = fn share ->
      elem(sorted, min(trunc(tuple_size(sorted) * share), tuple_size(sorted) - 1))
    end

    for share <- [0.5, 0.99, 1.0] do
      System.convert_time_unit(at.(share), :native, :nanosecond) / 1_000
    end
  end

  def while_running(work, measure) do
    test = self()

    pid =
      spawn_link(fn ->
        send(test, :running)
        Stream.repeatedly(work) |> Stream.run()
      end)

    receive do
      :running -> :ok
    end

    result = measure.()
    Process.unlink(pid)
    Process.exit(pid, :kill)
    result
  end

  def rounds(columns) do
    for _round <- 1..@rounds, {label, measure} <- columns do
      {label, measure.()}
    end
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
  end

  def until(condition) do
    unless condition.() do
      Process.sleep(1)
      until(condition)
    end
  end

  def row(label, cells) do
    cells = for cell <- cells, do: cell |> to_string() |> String.pad_leading(12)
    IO.puts([String.pad_trailing(label, 50), cells])
  end

  def round3(number), do: Float.round(number / 1, 3)
end

names =
  case System.argv() do
    [count] -> String.to_integer(count)
    [] -> 1_000_000
  end

{:ok, _supervisor} =
  Supervisor.start_link(
    [{NativeRegistry, name: Observed}, {NativeRegistry, name: Told}],
    strategy: :one_for_one
  )

holder =
  spawn_link(fn ->
    receive do
      :stop -> :ok
    end
  end)

name = fn number -> {WorkflowMetal.Task.Task, {rem(number, 100), :transition, number, number}} end
IO.puts(:stderr, "registering #{names} names ...")
for number <- 1..names, do: :yes = NativeRegistry.register_name({Observed, name.(number)}, holder)
looked_up = for _ <- 1..50_000, do: name.(:rand.uniform(names))

{select, found} =
  :timer.tc(fn ->
    NativeRegistry.Registry.match_names(Observed, {WorkflowMetal.Task.Task, {7, :_, :_, :_}})
  end)

{all, ^names} = :timer.tc(fn -> NativeRegistry.Registry.count_names(Observed, :_) end)
{info, _} = :timer.tc(fn -> for _ <- 1..1_000, do: NativeRegistry.Registry.info(Observed) end)
IO.puts("#{names} names, #{System.schedulers_online()} schedulers\n")
Observe.row("select of #{length(found)}", ["#{div(select, 1_000)} ms"])
Observe.row("count of all", ["#{div(all, 1_000)} ms"])
Observe.row("info", ["#{Float.round(info / 1_000, 1)} us"])

pattern = {WorkflowMetal.Task.Task, {7, :_, :_, :_}}
selecting = fn -> NativeRegistry.Registry.match_names(Observed, pattern) end
busy = fn -> Enum.reduce(1..10_000, 0, &(&1 + &2)) end
lookups = fn -> Observe.lookups(Observed, looked_up) end

results =
  Observe.rounds(
    alone: lookups,
    selecting: fn -> Observe.while_running(selecting, lookups) end,
    computing: fn -> Observe.while_running(busy, lookups) end
  )

IO.puts("\nlookup, microseconds")
Observe.row("", ["p50", "p99", "maximum"])

for {label, text} <- [
      alone: "nothing else runs",
      selecting: "select after select runs",
      computing: "a process computes, for comparison"
    ] do
  columns = results[label] |> Enum.zip() |> Enum.map(&Tuple.to_list/1)
  Observe.row(text, for(column <- columns, do: Observe.round3(Observe.median(column))))
end

# Another process subscribes, so that the measured process gets no messages.
subscriber = fn registry, patterns ->
  test = self()

  pid =
    spawn_link(fn ->
      for pattern <- patterns, do: NativeRegistry.Registry.subscribe(registry, pattern)
      send(test, {:subscribed, self()})

      # Reads its messages, as a subscriber should.
      Stream.repeatedly(fn ->
        receive do
          _event -> :ok
        end
      end)
      |> Stream.run()
    end)

  receive do
    {:subscribed, ^pid} -> pid
  end
end

events =
  Observe.rounds(
    single: fn -> Observe.single_events(Told, for(n <- 1..2_000, do: {:single, n})) end
  )

IO.puts("\nfrom a registration to the message, microseconds")
Observe.row("", ["p50", "p99", "maximum"])
columns = events[:single] |> Enum.zip() |> Enum.map(&Tuple.to_list/1)
Observe.row("a single event", for(column <- columns, do: Observe.round3(Observe.median(column))))

# How late an event arrives behind many others.
late = fn registry, count, pattern, name ->
  for number <- 1..count, do: subscriber.(registry, [pattern.(number)])
  :ok = NativeRegistry.Registry.subscribe(registry, :mark)

  for number <- 1..20_000 do
    :yes = NativeRegistry.register_name({registry, name.(number)}, holder)
  end

  start = System.monotonic_time()
  {:ok, _pid} = NativeRegistry.Registry.register(registry, :mark, nil)

  receive do
    {:register, ^registry, :mark, _pid, _value} -> System.monotonic_time() - start
  end
end

IO.puts("\nthe next event after 20,000 registrations, milliseconds")

for {registry, count} <- [Late10: 10, Late5000: 5_000] do
  {:ok, _supervisor} =
    Supervisor.start_link([{NativeRegistry, name: registry}], strategy: :one_for_one)

  time = late.(registry, count, &{:case, {&1, :_}}, &{:case, {rem(&1, count) + 1, &1}})
  time = System.convert_time_unit(time, :native, :microsecond) / 1_000
  Observe.row("#{count} subscribers, of their own names each", [Observe.round3(time)])
end

# Memory of messages that are not read.
receiver = subscriber.(Told, [{:memory, :_}])
:erlang.suspend_process(receiver)
for pid <- Process.list(), pid != receiver, do: :erlang.garbage_collect(pid)
before = :erlang.memory(:processes)

for number <- 1..20_000 do
  :yes = NativeRegistry.register_name({Told, {:memory, number}}, holder)
end

Observe.until(fn -> Process.info(receiver, :message_queue_len) == {:message_queue_len, 20_000} end)

bytes = div(:erlang.memory(:processes) - before, 20_000)
IO.puts("")
Observe.row("an event in a mailbox, bytes", [bytes])
