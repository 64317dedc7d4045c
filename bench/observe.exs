# What the functions that look at many names, and those who want to be told, cost the others:
#
#     mix run bench/observe.exs
#
# Medians of interleaved rounds; a million names unless a number is given.

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

  # Nanoseconds of a registration and of giving the name back.
  def registrations(registry) do
    {time, _} =
      :timer.tc(fn ->
        for number <- 1..20_000 do
          :yes = NativeRegistry.register_name({registry, {:round, number}}, self())
          :ok = NativeRegistry.unregister_name({registry, {:round, number}})
        end
      end)

    time * 1_000 / 20_000
  end

  def rounds(columns) do
    for _round <- 1..@rounds, {label, measure} <- columns do
      {label, measure.()}
    end
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
  end

  def row(label, cells) do
    cells = for cell <- cells, do: cell |> to_string() |> String.pad_leading(12)
    IO.puts([String.pad_trailing(label, 44), cells])
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
  :timer.tc(fn -> NativeRegistry.select(Observed, {WorkflowMetal.Task.Task, {7, :_, :_, :_}}) end)

{all, ^names} = :timer.tc(fn -> NativeRegistry.count_select(Observed, :_) end)
{info, _} = :timer.tc(fn -> for _ <- 1..1_000, do: NativeRegistry.info(Observed) end)
IO.puts("#{names} names, #{System.schedulers_online()} schedulers\n")
Observe.row("select of #{length(found)}", ["#{div(select, 1_000)} ms"])
Observe.row("count of all", ["#{div(all, 1_000)} ms"])
Observe.row("info", ["#{Float.round(info / 1_000, 1)} us"])

pattern = {WorkflowMetal.Task.Task, {7, :_, :_, :_}}
selecting = fn -> NativeRegistry.select(Observed, pattern) end
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

# Somebody else is told, so that no message comes to whoever is measured.
told = fn pattern ->
  fn ->
    test = self()

    pid =
      spawn_link(fn ->
        NativeRegistry.subscribe(Told, pattern)
        send(test, :subscribed)

        # Reads what it gets, as whoever subscribes does.
        Stream.repeatedly(fn ->
          receive do
            _event -> :ok
          end
        end)
        |> Stream.run()
      end)

    receive do
      :subscribed -> :ok
    end

    time = Observe.registrations(Told)
    Process.unlink(pid)
    Process.exit(pid, :kill)
    time
  end
end

results =
  Observe.rounds(
    nobody: fn -> Observe.registrations(Told) end,
    another: told.({:another, :_}),
    this: told.({:round, :_})
  )

IO.puts("\nregister and unregister, nanoseconds")

for {label, text} <- [
      nobody: "nobody is told",
      another: "one subscriber of other names",
      this: "one subscriber of these names"
    ] do
  Observe.row(text, [round(Observe.median(results[label]))])
end
