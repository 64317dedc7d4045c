defmodule Bench.Plan do
  # Which VMs are started, and their results.

  alias Bench.{Builds, Engines, Measure, Names, Run, VM}

  @held [:one_holder, :process_a_name]

  @counts %{
    rounds: 9,
    lookups: 25_000,
    latency_rounds: 5,
    samples: 20_000,
    calls: 8_000,
    batch: 1_000,
    small_batch: 30
  }

  # `:sets` are numbers of names, and what is measured with so many. `:turns`: how many VMs each of two builds has.
  @full %{
    sets: [
      {1_000, [:lookup, :start_child, :register]},
      {10_000, [:lookup]},
      {100_000, [:lookup, :latency, :start_child, :register, :subscribers]},
      {1_000_000, [:lookup, :register]}
    ],
    held: @held,
    memory: %{sizes: [100_000], runs: 3, kinds: [:integers, :uuids], held: @held},
    churn: %{size: 100_000, runs: 2, kinds: [:integers, :uuids], held: @held},
    free: 100_000,
    builds: %{sizes: [1_000, 100_000], turns: 7},
    telemetry: %{sizes: [1_000, 100_000], turns: 5},
    counts: @counts
  }

  @quick %{
    sets: [{1_000, [:lookup, :latency, :start_child, :register, :subscribers]}],
    held: @held,
    memory: %{sizes: [20_000], runs: 1, kinds: [:uuids], held: [:process_a_name]},
    churn: %{size: 20_000, runs: 1, kinds: [:uuids], held: [:process_a_name]},
    free: 2_000,
    builds: %{sizes: [1_000], turns: 3},
    telemetry: %{sizes: [1_000], turns: 3},
    counts: %{
      rounds: 3,
      lookups: 4_000,
      latency_rounds: 2,
      samples: 2_000,
      calls: 1_600,
      batch: 100,
      small_batch: 10
    }
  }

  # More numbers of names, for the plots.
  @plots %{
    sets:
      for(
        size <- [100, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000],
        do: {size, [:lookup]}
      ),
    held: @held,
    memory: %{
      sizes: [100_000, 150_000, 200_000, 300_000, 500_000, 700_000, 1_000_000],
      runs: 1,
      kinds: [:integers, :uuids],
      held: [:one_holder]
    },
    counts: %{@counts | rounds: 7}
  }

  # Which processes hold the names.
  def held, do: @held

  @doc "The parts that run when none is chosen."
  def parts do
    Run.Set.parts() ++ [:subscribers, :telemetry, :registries, :memory, :churn, :free]
  end

  @doc "The parts that the plots need."
  def plotted, do: [:lookup, :memory]

  def scope(:full), do: @full
  def scope(:quick), do: @quick
  def scope(:plots), do: @plots

  @doc """
  All results as a list of maps, and the number of VMs that failed. `builds` are to be compared, if any; `code`
  are the modules that the VMs load.
  """
  def measure(scope, parts, builds, code) do
    jobs = Enum.flat_map(parts, &jobs(&1, scope, parts, builds))
    start = System.monotonic_time(:second)

    answers =
      for {job, number} <- Enum.with_index(jobs, 1) do
        seconds = System.monotonic_time(:second) - start
        time = "#{div(seconds, 60)}:#{String.pad_leading("#{rem(seconds, 60)}", 2, "0")}"
        Run.say("#{time}  #{number}/#{length(jobs)}  #{describe(job)}")
        in_fresh_vm(job, code)
      end

    {results(jobs, answers), Enum.count(answers, &(&1 == :failed))}
  end

  # The parts of a set are measured in one VM, with the first of them.
  defp jobs(part, scope, parts, _builds)
       when part in [:lookup, :latency, :start_child, :register] do
    of_set = Enum.filter(Run.Set.parts(), &(&1 in parts))

    for {size, measured} <- scope.sets,
        part == hd(of_set),
        measured = Enum.filter(measured, &(&1 in of_set)),
        measured != [],
        kind <- Names.kinds(),
        held <- scope.held do
      set(measured, size, kind, held, scope)
    end
  end

  defp jobs(:subscribers, scope, _parts, _builds) do
    for {size, measured} <- scope.sets, :subscribers in measured, kind <- Names.kinds() do
      [:register]
      |> set(size, kind, :process_a_name, scope)
      |> Map.merge(%{engines: :subscribers, as: :subscribers})
    end
  end

  defp jobs(:telemetry, scope, _parts, _builds) do
    # The names make no difference to what telemetry adds.
    what = %{parts: [:start_child], kinds: [:integers], held: [:one_holder]}
    in_turns(Builds.telemetry(), :telemetry, Map.merge(what, scope.telemetry), scope)
  end

  defp jobs(:against, scope, _parts, builds) do
    what = %{parts: Run.Set.parts() -- [:latency], kinds: Names.kinds(), held: @held}
    in_turns(builds, :against, Map.merge(what, scope.builds), scope)
  end

  defp jobs(:registries, scope, _parts, _builds) do
    size = Run.Registries.size()
    job = %{run: Run.Registries, parts: [:registries], size: size, counts: scope.counts}
    [Map.merge(job, %{kind: :integers, held: :one_holder})]
  end

  defp jobs(:memory, scope, _parts, _builds) do
    for _run <- 1..scope.memory.runs, size <- scope.memory.sizes, engine <- Engines.present() do
      {engine, size, scope.memory, false}
    end
    |> memory()
  end

  defp jobs(:churn, scope, _parts, _builds) do
    # Not bare ETS, which keeps the names of processes that have ended, and not Elixir's Registry, which takes minutes.
    for _run <- 1..scope.churn.runs, key <- [:native, :empty] do
      {Engines.get(key), scope.churn.size, scope.churn, true}
    end
    |> memory()
  end

  defp jobs(:free, scope, _parts, _builds) do
    for engine <- Engines.present(),
        engine.key != :ets,
        Engines.takes?(engine, :process_a_name, scope.free) do
      %{
        run: Run.Free,
        parts: [:free],
        engine: engine.key,
        size: scope.free,
        kind: Run.Free.names(),
        held: :process_a_name
      }
    end
  end

  defp set(parts, size, kind, held, scope) do
    %{
      run: Run.Set,
      engines: :all,
      parts: parts,
      size: size,
      kind: kind,
      held: held,
      counts: scope.counts
    }
  end

  defp memory(runs) do
    for {engine, size, %{kinds: kinds, held: held}, churn} <- runs,
        kind <- kinds,
        held <- held,
        Engines.takes?(engine, held, size) do
      %{
        run: Run.Memory,
        parts: [:memory],
        engine: engine.key,
        size: size,
        kind: kind,
        held: held,
        churn: churn
      }
    end
  end

  # A VM for each build in each turn, the first build last in every other turn.
  defp in_turns(builds, as, what, scope) do
    for size <- what.sizes,
        kind <- what.kinds,
        held <- what.held,
        turn <- 1..what.turns,
        build <- if(rem(turn, 2) == 0, do: Enum.reverse(builds), else: builds) do
      what.parts
      |> set(size, kind, held, scope)
      |> Map.merge(%{engines: :native, as: as, build: build})
    end
  end

  defp describe(job) do
    parts = if job[:as], do: [job.as], else: job.parts
    engine = if job[:engine], do: [Engines.get(job.engine).label], else: []
    build = if job[:build], do: [job.build.label], else: []
    what = Enum.join(parts ++ engine ++ build, ", ")
    "#{what}: #{number(job.size)} names of #{Names.label(job.kind)}, #{held_label(job.held)}"
  end

  def held_label(:one_holder), do: "one holder"
  def held_label(:process_a_name), do: "a process a name"

  def number(integer) do
    integer
    |> Integer.to_string()
    |> String.reverse()
    |> String.replace(~r/\d{3}(?=\d)/, "\\0,")
    |> String.reverse()
  end

  defp in_fresh_vm(job, code) do
    path = if job[:build], do: job.build.path, else: :code.get_path()

    VM.run(path, fn vm ->
      VM.load(vm, code)
      VM.call(vm, job.run, :run, [Map.delete(job, :build)])
    end)
  catch
    kind, reason ->
      Run.say(Exception.format(kind, reason))
      :failed
  end

  # In the order of measurement. Several VMs may have measured the same.
  defp results(jobs, answers) do
    rows =
      for {job, answer} <- Enum.zip(jobs, answers),
          answer != :failed,
          {part, what, engine, samples} <- Enum.map(answer, &renamed(&1, job)) do
        row = %{part: part, what: what, names: job.kind, held: job.held, size: job.size}
        {Map.put(row, :engine, engine), samples}
      end

    samples = Enum.group_by(rows, &elem(&1, 0), &elem(&1, 1))
    samples = Map.new(samples, fn {row, lists} -> {row, Enum.concat(lists)} end)

    for row <- rows |> Enum.map(&elem(&1, 0)) |> Enum.uniq(),
        result = result(row, samples) do
      result
    end
  end

  # A build stands in the place of an engine, and each of its VMs gives one sample.
  defp renamed({part, what, _engine, samples}, %{as: as, build: build}),
    do: {as, what(as, part, what), build.key, [Measure.median(samples)]}

  defp renamed({part, what, engine, samples}, %{as: as}),
    do: {as, what(as, part, what), engine, samples}

  defp renamed(answer, _job), do: answer

  defp what(:against, part, what), do: "#{part}: #{what}"
  defp what(_as, _part, what), do: what

  defp result(%{part: :memory, what: "its tables" <> _} = row, samples),
    do: summary(row, Enum.map(samples[row], &(&1 / row.size)))

  # Bytes for a name, minus those of a VM that registered nothing.
  defp result(%{part: :memory, engine: :empty}, _samples), do: nil

  defp result(%{part: :memory} = row, samples) do
    if without = samples[%{row | engine: :empty}] do
      without = Measure.median(without)
      summary(row, Enum.map(samples[row], &((&1 - without) / row.size)))
    end
  end

  defp result(row, samples), do: summary(row, samples[row])

  defp summary(row, samples) do
    Map.merge(row, %{
      value: Measure.median(samples) / 1,
      lowest: Enum.min(samples) / 1,
      highest: Enum.max(samples) / 1,
      samples: length(samples),
      unit: unit(row)
    })
    |> with_turns(samples)
  end

  # Which samples belong together, where builds took turns.
  defp with_turns(%{part: part} = result, samples) when part in [:telemetry, :against],
    do: Map.put(result, :turns, Enum.map(samples, &(&1 / 1)))

  defp with_turns(result, _samples), do: result

  defp unit(%{part: :memory}), do: "bytes a name"
  defp unit(%{part: :registries, what: "bytes" <> _}), do: "bytes a registry"

  defp unit(%{part: :latency, what: what}) do
    cond do
      String.ends_with?(what, Bench.Latency.written()) -> "a second"
      what =~ ~r/: (up to|longer)/ -> "of a million"
      true -> "ns"
    end
  end

  defp unit(%{part: :free}), do: "ns"
  defp unit(_row), do: "ns a call"
end
