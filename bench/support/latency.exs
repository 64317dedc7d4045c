defmodule Bench.Latency do
  # Single lookups, timed each, by a reader on every scheduler: while another process registers and unregisters,
  # and while none does.

  import Bench.Measure

  alias Bench.{Engines, Names}

  @writer "readers on every scheduler, one writer"
  @alone "the same readers, no writer"

  @shares [{"p50", 0.50}, {"p99", 0.99}, {"p99.9", 0.999}, {"maximum", 1.0}]
  @written "written a second"

  # Upper bounds of the bars of a histogram, in nanoseconds.
  @bounds for(power <- 2..6, step <- [1, 2, 5], do: step * Integer.pow(10, power))
          |> Enum.drop(-2)

  # So many lookups take less than a time slice of the VM. Without a new time slice before them, many a lookup
  # would be interrupted by the scheduler, which lets the writer run.
  @slice 50

  def situations, do: [@writer, @alone]
  def columns, do: Enum.map(@shares, &elem(&1, 0)) ++ [@written]
  def written, do: @written

  @doc "The bars of a histogram and their labels, from the shortest time."
  def bars, do: Enum.map(@bounds ++ [:more], &{bar(&1), bar_label(&1)})

  @doc "What a result is called: a column, or a bar, of a situation."
  def what(situation, column), do: "#{situation}: #{column}"

  @doc "The name of the share that decides whether readers wait."
  def tail(:writer), do: what(@writer, "p99.9")
  def tail(:alone), do: what(@alone, "p99.9")

  defp bar(:more), do: "longer"
  defp bar(bound), do: "up to #{bound} ns"

  defp bar_label(:more), do: "longer"
  defp bar_label(bound) when bound < 1_000, do: "#{bound} ns"
  defp bar_label(bound) when bound < 1_000_000, do: "#{div(bound, 1_000)} us"
  defp bar_label(bound), do: "#{div(bound, 1_000_000)} ms"

  def measure(engines, %{counts: counts}) do
    for situation <- situations(),
        {key, rounds} <-
          rounds(engines, counts.latency_rounds, &round(situation, &1, &2, counts)),
        {samples, rates} = Enum.unzip(rounds),
        sorted = samples |> Enum.concat() |> Enum.sort() |> List.to_tuple(),
        {column, values} <- summary(sorted, rates) do
      {what(situation, column), key, values}
    end
  end

  defp summary(sorted, rates) do
    for({column, share} <- @shares, do: {column, [percentile(sorted, share)]}) ++
      [{@written, rates}] ++
      for({bar, count} <- histogram(sorted), do: {bar, [count * 1.0e6 / tuple_size(sorted)]})
  end

  defp histogram(sorted) do
    counts = sorted |> Tuple.to_list() |> Enum.frequencies_by(&bound/1)
    for bound <- @bounds ++ [:more], do: {bar(bound), Map.get(counts, bound, 0)}
  end

  defp bound(time), do: Enum.find(@bounds, :more, &(time <= &1))

  defp round(@writer, engine, round, counts) do
    {writer, reference} = spawn_monitor(fn -> write(engine, Names.get(:passing), 0, now()) end)
    times = read(engine, round, counts)
    send(writer, :stop)

    receive do
      {:DOWN, ^reference, :process, ^writer, {:written, rate}} -> {times, rate}
    end
  end

  defp round(@alone, engine, round, counts), do: {read(engine, round, counts), 0}

  defp read(engine, round, %{samples: samples}) do
    readers = System.schedulers_online()
    times = for _reader <- 1..readers, do: :atomics.new(samples, [])

    together(readers, fn reader ->
      names = Names.slice(:hits, round * readers + reader)
      read(names, names, samples, engine.adapter, engine.meta, Enum.at(times, reader))
    end)

    for times <- times, at <- 1..samples, do: nanoseconds(:atomics.get(times, at))
  end

  defp read(_names, _all, 0, _adapter, _meta, _times), do: :ok
  defp read([], all, left, adapter, meta, times), do: read(all, all, left, adapter, meta, times)

  defp read([name | names], all, left, adapter, meta, times) do
    if rem(left, @slice) == 0, do: :erlang.yield()
    start = now()
    adapter.whereis_name(meta, name)
    :atomics.put(times, left, now() - start)
    read(names, all, left - 1, adapter, meta, times)
  end

  defp write(engine, names, written, start) do
    {module, term} = Engines.via(engine, elem(names, rem(written, tuple_size(names))))
    :yes = module.register_name(term, self())
    module.unregister_name(term)

    receive do
      :stop -> exit({:written, (written + 1) * 1.0e9 / nanoseconds(now() - start)})
    after
      0 -> write(engine, names, written + 1, start)
    end
  end
end
