defmodule Bench.Plan do
  # Which VMs are started, and their results.

  alias Bench.{Engines, Measure, Names, Run}

  @held [:one_holder, :process_a_name]

  @full %{
    sets: [
      {1_000, [:lookup, :start_child, :register]},
      {10_000, [:lookup]},
      {100_000, [:lookup, :latency, :start_child, :register]},
      {1_000_000, [:lookup, :register]}
    ],
    memory: %{size: 100_000, runs: 3, kinds: [:integers, :uuids], held: @held},
    free: 100_000,
    counts: %{
      rounds: 9,
      lookups: 25_000,
      latency_rounds: 5,
      samples: 20_000,
      calls: 8_000,
      batch: 1_000,
      small_batch: 30
    }
  }

  @quick %{
    sets: [{1_000, [:lookup, :latency, :start_child, :register]}],
    memory: %{size: 20_000, runs: 1, kinds: [:uuids], held: [:process_a_name]},
    free: 2_000,
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

  # Which processes hold the names.
  def held, do: @held

  def parts, do: Run.Set.parts() ++ [:memory, :free]

  def scope(quick?), do: if(quick?, do: @quick, else: @full)

  @doc """
  All results as a list of maps, and the number of VMs that failed. `code` are the modules that the VMs
  load.
  """
  def measure(scope, parts, code) do
    jobs = jobs(scope, parts)
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

  defp jobs(scope, parts) do
    sets =
      for {size, measured} <- scope.sets, kind <- Names.kinds(), held <- @held do
        measured = Enum.filter(measured, &(&1 in parts))
        %{run: Run.Set, parts: measured, size: size, kind: kind, held: held, counts: scope.counts}
      end

    memory =
      for _run <- 1..scope.memory.runs,
          kind <- scope.memory.kinds,
          held <- scope.memory.held,
          engine <- Engines.present(),
          size = scope.memory.size,
          Engines.takes?(engine, held, size) do
        %{
          run: Run.Memory,
          parts: [:memory],
          engine: engine.key,
          size: size,
          kind: kind,
          held: held
        }
      end

    free =
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

    Enum.reject(sets, &(&1.parts == [])) ++
      if(:memory in parts, do: memory, else: []) ++
      if :free in parts, do: free, else: []
  end

  defp describe(job) do
    engine = if job[:engine], do: [Engines.get(job.engine).label], else: []
    what = Enum.join(job.parts ++ engine, ", ")
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

  # A million names want a million processes.
  defp in_fresh_vm(job, code) do
    paths = Enum.flat_map(:code.get_path(), &[~c"-pa", &1])
    arguments = [~c"+P", ~c"2000000" | paths]
    options = %{connection: :standard_io, args: arguments, wait_boot: 60_000}
    {:ok, vm, _node} = :peer.start(options)

    try do
      {:ok, _started} = :peer.call(vm, Application, :ensure_all_started, [:logger], :infinity)

      for {module, binary} <- code do
        {:module, ^module} = :peer.call(vm, :code, :load_binary, [module, ~c"bench", binary])
      end

      :peer.call(vm, job.run, :run, [job], :infinity)
    catch
      kind, reason ->
        Run.say(Exception.format(kind, reason))
        :failed
    after
      :peer.stop(vm)
    end
  end

  # In the order of measurement. Several VMs may have measured the same.
  defp results(jobs, answers) do
    rows =
      for {job, answer} <- Enum.zip(jobs, answers),
          answer != :failed,
          {part, what, engine, samples} <- answer do
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
  end

  defp unit(%{part: :memory}), do: "bytes a name"
  defp unit(%{part: :latency, what: "written" <> _}), do: "a second"
  defp unit(%{part: :free}), do: "ns"
  defp unit(_row), do: "ns a call"
end
