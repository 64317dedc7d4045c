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
  # A set of held names, the engines that hold it, and the parts that are measured on it.

  @behaviour Bench.Run

  import Bench.Measure

  alias Bench.{Engines, Holders, Names, Run, StartChild, Subscribers}

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
      for engine <- engines(spec), Engines.takes?(engine, held, size), do: Engines.start(engine)

    Run.say_step("held by #{length(engines)} engines")
    {one, filled} = hold(engines, held)
    # Horde answers before other processes see the registration.
    for engine <- engines,
        engine.key != :empty,
        do: wait_until(fn -> Engines.count(engine) == size end)

    apart(fn -> check!(engines, one, spec) end)
    for %{prepare: prepare} = engine <- engines, do: prepare.(engine)

    measured =
      for {part, module} <- @parts, part in parts do
        Run.say_step("#{part}")
        for {what, key, samples} <- module.measure(engines, spec), do: {part, what, key, samples}
      end

    filled = if :register in parts, do: filled, else: []
    List.flatten([filled | measured])
  end

  defp engines(%{engines: :all}), do: Engines.present()
  defp engines(%{engines: :native}), do: [Engines.get(:native)]
  defp engines(%{engines: :subscribers, kind: kind}), do: Subscribers.engines(kind)

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

  alias Bench.{Engines, Holders, Run}
  alias WorkflowMetal.Registration.NativeRegistry

  # How often each name gives its place to another before the memory after churn is read.
  @generations 2

  def fresh, do: "resident"
  def churned, do: "resident, after churn"

  @doc "What the registry says that its tables take. Resident memory also has what churn leaves in the VM's allocators."
  def table(true), do: "its tables, after churn"
  def table(false), do: "its tables"

  @impl Run
  def run(%{engine: key, kind: kind, size: size, held: held, churn: churn}) do
    Run.quiet()
    engine = key |> Engines.get() |> Engines.start()
    others = Process.list()

    # Nothing large is built before: its memory would be used again, and would not be measured.
    one =
      case held do
        :one_holder -> [engine] |> Holders.one({:made, kind, 0, size}) |> elem(0)
        :process_a_name -> Holders.each([engine], {:made, kind, 0, size})
      end

    wait_until(fn -> key == :empty or Engines.count(engine) == size end)

    if churn do
      for generation <- 1..@generations,
          do: churn(held, engine, one, others, kind, size, generation)

      wait_until(fn -> key == :empty or Engines.count(engine) == size end)
    end

    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    Process.sleep(200)
    resident = {:memory, if(churn, do: churned(), else: fresh()), key, [resident_bytes()]}
    [resident | tables(engine, churn)]
  end

  defp tables(%{key: :native} = engine, churn) do
    %{bytes: bytes} = engine |> Engines.registry() |> NativeRegistry.Registry.info()
    [{:memory, table(churn), :native, [bytes]}]
  end

  defp tables(_engine, _churn), do: []

  # All names give their places to others in an order that looks random; there are as many names all the time.
  defp churn(:one_holder, engine, one, _others, kind, size, generation) do
    before = {:made, kind, (generation - 1) * size, size}
    Holders.replace_names(one, engine, before, {:made, kind, generation * size, size})
  end

  defp churn(:process_a_name, engine, _one, others, kind, size, generation) do
    apart(fn ->
      holders = (Process.list() -- others) -- [self()]
      ^size = length(holders)

      Holders.replace_holders(
        Enum.shuffle(holders),
        engine,
        {:made, kind, generation * size, size}
      )
    end)
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

defmodule Bench.Run.Registries do
  # Lookups in many registries of a few names each, in turn, and their memory.

  @behaviour Bench.Run

  import Bench.Measure

  alias Bench.Run
  alias WorkflowMetal.Registration.NativeRegistry

  @registries 1_000
  @names 10
  @several 5
  # So often each registry is looked up in a round.
  @passes 20

  def rows, do: [native: "NativeRegistry", elixir: "Elixir's Registry", ets: "bare ETS"]

  def size, do: @registries

  def in_one, do: "lookups in one"
  def in_all, do: "in #{@registries} in turn"
  defp in_several, do: "in #{@several} in turn"
  defp by_two, do: "in #{@registries} in turn, two readers"
  def in_spread, do: "in #{@registries} in turn, spread"

  # So many names make a registry of this project spread its names over many parts, and it stays so.
  @spread 300

  @impl Run
  def run(%{counts: counts}) do
    Run.quiet()
    apart(fn -> memory() end) ++ lookups(counts)
  end

  # What the first registry of a VM makes once is not counted.
  defp memory do
    start(:native, [:first])
    register(:native, :first, 1)
    :ok = NativeRegistry.Registry.subscribe(:first)
    registries = named(:memory)

    steps = [
      {"bytes, empty", fn -> start(:native, registries) end},
      {"bytes more, a name", fn -> for r <- registries, do: register(:native, r, 1) end},
      {"bytes more, a subscriber",
       fn -> for r <- registries, do: :ok = NativeRegistry.Registry.subscribe(r, {:other, :_}) end}
    ]

    for {what, step} <- steps do
      before = resident()
      step.()
      {:registries, what, :native, [(resident() - before) / @registries]}
    end
  end

  defp resident do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    resident_bytes()
  end

  defp lookups(counts) do
    for {kind, _label} <- rows() do
      start(kind, named(kind))
      for registry <- named(kind), name <- 1..@names, do: register(kind, registry, {:case, name})
    end

    start(:native, named(:spread))

    for registry <- named(:spread) do
      for name <- 1..@spread, do: register(:native, registry, {:case, name})

      for name <- (@names + 1)..@spread,
          do: NativeRegistry.unregister_name({registry, {:case, name}})
    end

    picks =
      for _pass <- 1..@passes,
          at <- Enum.shuffle(0..(@registries - 1)),
          do: {at, :rand.uniform(@names)}

    work =
      for {kind, _label} <- rows(),
          {what, group, many, readers} <- [
            {in_one(), kind, 1, 1},
            {in_several(), kind, @several, 1},
            {in_all(), kind, @registries, 1},
            {by_two(), kind, @registries, 2},
            {in_spread(), :spread, @registries, 1}
          ],
          kind == :native or group != :spread,
          registries = group |> named() |> List.to_tuple() do
        names = for {at, name} <- picks, do: {elem(registries, rem(at, many)), {:case, name}}
        %{key: {what, kind}, kind: kind, names: names, readers: readers}
      end

    samples =
      rounds(work, counts.rounds, fn %{kind: kind, names: names, readers: readers}, _round ->
        readers
        |> together(fn _reader ->
          # The process has a copy of the names.
          per(length(names), fn -> look_up(kind, names) end)
        end)
        |> mean()
      end)

    for %{key: {what, kind} = key} <- work, do: {:registries, what, kind, samples[key]}
  end

  defp named(kind), do: for(number <- 1..@registries, do: :"#{kind}_#{number}")

  defp start(:native, registries) do
    children =
      for registry <- registries do
        Supervisor.child_spec({NativeRegistry, name: registry}, id: registry)
      end

    {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
    # They stay when the process that has started them ends.
    Process.unlink(supervisor)
  end

  defp start(:elixir, registries) do
    for registry <- registries do
      {:ok, supervisor} = Registry.start_link(keys: :unique, name: registry)
      Process.unlink(supervisor)
    end
  end

  defp start(:ets, tables) do
    for table <- tables, do: :ets.new(table, [:named_table, :public, read_concurrency: true])
  end

  defp register(:native, registry, name),
    do: :yes = NativeRegistry.register_name({registry, name}, self())

  defp register(:elixir, registry, name), do: {:ok, _} = Registry.register(registry, name, nil)
  defp register(:ets, table, name), do: true = :ets.insert(table, {name, self()})

  defp look_up(:native, names), do: Enum.each(names, &NativeRegistry.whereis_name/1)
  defp look_up(:elixir, names), do: Enum.each(names, &Registry.whereis_name/1)

  defp look_up(:ets, names),
    do: Enum.each(names, fn {table, name} -> :ets.lookup_element(table, name, 2) end)
end
