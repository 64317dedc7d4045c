# The jobs of the VMs: each run/1 is called once in a fresh VM.

defmodule Bench.Run do
  @callback run(map) :: [{part :: atom, what :: String.t(), engine :: atom, samples :: [number]}]

  # On standard error, because standard output has the tables.
  def say(text), do: IO.puts(:stderr, text)

  def say_step(text), do: say("         " <> text)

  # Engines log what they start, and the ends of children.
  def quiet, do: :logger.set_primary_config(:level, :none)
end

defmodule Bench.Run.Set do
  # A set of held names, all engines that take it, and the parts that are measured on it.

  @behaviour Bench.Run

  import Bench.Measure

  alias Bench.{Engines, Holders, Names, Run, StartChild}

  @parts [
    lookup: Bench.Lookup,
    latency: Bench.Latency,
    start_child: Bench.StartChild,
    register: Bench.Register
  ]

  # Lists of names to look up, so many that a large set is not always asked for the same ones.
  @slices 10

  @checked 1_000

  def parts, do: Keyword.keys(@parts)

  @impl Run
  def run(%{held: held, size: size, parts: parts} = spec) do
    Run.quiet()
    Run.say_step("names")
    apart(fn -> put_names(spec) end)

    engines =
      for engine <- Engines.present(), Engines.takes?(engine, held, size) do
        Engines.start(engine)
      end

    Run.say_step("held by #{length(engines)} engines")
    {one, filled} = hold(engines, held)
    # Horde answers before other processes see the registration.
    for engine <- engines,
        engine.key != :empty,
        do: wait_until(fn -> Engines.count(engine) == size end)

    apart(fn -> check!(engines, one, spec) end)

    measured =
      for {part, module} <- @parts, part in parts do
        Run.say_step("#{part}")
        for {what, key, samples} <- module.measure(engines, spec), do: {part, what, key, samples}
      end

    filled = if :register in parts, do: filled, else: []
    List.flatten([filled | measured])
  end

  defp put_names(%{kind: kind, size: size, counts: counts}) do
    Names.put(:held, Names.held(kind, size))
    looked_up = Names.looked_up(kind, size, counts.lookups * @slices)
    Names.put_slices(:hits, looked_up, counts.lookups)
    missing = Names.missing(kind, min(size, counts.lookups * 2))
    Names.put_slices(:misses, Enum.shuffle(missing), counts.lookups)

    for callers <- StartChild.callers() do
      Names.put_slices({:calls, callers}, looked_up, div(counts.calls, callers))
    end

    Names.put(:passing, Names.passing(kind, counts.batch))
    Names.put(:passing_few, Names.passing(kind, counts.small_batch))
  end

  defp hold(engines, :one_holder) do
    {one, times} = Holders.one(engines, {:put, :held})
    {one, for({key, time} <- times, do: {:register, "all by one process", key, [time]})}
  end

  defp hold(engines, :process_a_name) do
    Holders.each(engines, {:put, :held})
    {nil, []}
  end

  # A lookup that should find a name has to find it.
  defp check!(engines, one, %{kind: kind, size: size}) do
    for engine <- engines, engine.key != :empty do
      for at <- Enum.take_random(0..(size - 1), @checked) do
        Holders.check!(engine, Names.fresh(Names.name(kind, at + 1)), at, one)
      end

      for names <- Tuple.to_list(Names.get(:hits)), name <- names do
        is_pid(Engines.whereis(engine, name)) || raise "#{engine.label} misses a held name"
      end

      for names <- Tuple.to_list(Names.get(:misses)), name <- names do
        :undefined = engine.misses.whereis_name(engine.meta, name)
      end
    end
  end
end

defmodule Bench.Run.Memory do
  # The memory of this VM when one engine holds the names. For the empty engine it is the memory without a
  # registry.

  @behaviour Bench.Run

  import Bench.Measure

  alias Bench.{Engines, Holders, Names, Run}

  @impl Run
  def run(%{engine: key, kind: kind, size: size, held: held}) do
    Run.quiet()
    engine = key |> Engines.get() |> Engines.start()

    # Nothing large is built before: its memory would be used again, and would not be measured.
    case held do
      :one_holder -> Holders.one([engine], {:made, kind, size})
      :process_a_name -> Holders.each([engine], {:made, kind, size})
    end

    wait_until(fn -> key == :empty or Engines.count(engine) == size end)
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    Process.sleep(200)
    [{:memory, "resident", key, [resident_bytes()]}]
  end
end

defmodule Bench.Run.Free do
  # All holders of an engine are killed at once.

  @behaviour Bench.Run

  import Bench.Measure

  alias Bench.{Engines, Holders, Names, Run}

  # Elixir's Registry takes most of a minute for 100,000.
  @patience 300_000

  def names, do: :uuids

  def columns, do: ["all have ended", unfound(), nothing_left()]
  def unfound, do: "no name is found"
  def nothing_left, do: "nothing is left in the table"

  @impl Run
  def run(%{engine: key, kind: kind, size: size}) do
    Run.quiet()
    apart(fn -> Names.put(:held, Names.held(kind, size)) end)
    engine = key |> Engines.get() |> Engines.start()
    others = MapSet.new(Process.list())
    Holders.each([engine], {:put, :held})
    holders = Enum.reject(Process.list(), &(&1 in others))
    ^size = length(holders)
    wait_until(fn -> key == :empty or Engines.count(engine) == size end)

    start = now()
    for pid <- holders, do: Process.exit(pid, :kill)

    waits = [
      fn -> wait_until(fn -> not Enum.any?(holders, &Process.alive?/1) end, @patience) end,
      fn -> wait_unfound(Names.get(:held), size, engine) end,
      fn -> wait_until(fn -> Engines.count(engine) == 0 end, @patience) end
    ]

    times =
      together(length(waits), fn at ->
        Enum.at(waits, at).()
        nanoseconds(now() - start)
      end)

    for {what, time} <- Enum.zip(columns(), times), do: {:free, what, key, [time]}
  end

  defp wait_unfound(_names, 0, _engine), do: :ok

  defp wait_unfound(names, left, engine) do
    wait_until(fn -> Engines.whereis(engine, elem(names, left - 1)) == :undefined end, @patience)
    wait_unfound(names, left - 1, engine)
  end
end
