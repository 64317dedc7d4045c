defmodule Bench.Main do
  # The command line.

  alias Bench.{Builds, Engines, Environment, JSON, Plan, Plots, Report, Run, Wanted}

  @usage """
  mix run bench/registry.exs [--quick] [--only PART]... [--json FILE] [--against DIR | --plot DIR]

    --quick        small numbers of everything, to see that it runs; the figures mean little
    --only PART    one of: #{Enum.join(Plan.parts(), ", ")};
                   may be given several times
    --json FILE    also writes the figures to FILE
    --against DIR  compares this build with that in DIR, a checkout or a compiled application, and nothing else
    --plot DIR     measures what the plots show, and nothing else, and writes them to DIR
  """

  @options [
    quick: :boolean,
    only: [:string, :keep],
    json: :string,
    against: :string,
    plot: :string,
    help: :boolean
  ]

  def run(arguments, code) do
    case OptionParser.parse(arguments, strict: @options) do
      {options, [], []} -> run_with(options, parts(Map.new(options), options), code)
      {_options, words, unknown} -> refuse(words ++ Enum.map(unknown, &elem(&1, 0)))
    end
  end

  defp parts(%{against: _directory}, _options), do: [:against]
  defp parts(%{plot: _directory}, _options), do: Plan.plotted()

  defp parts(_map, options) do
    case Keyword.get_values(options, :only) do
      [] ->
        Plan.parts()

      names ->
        parts = Enum.filter(Plan.parts(), &("#{&1}" in names))
        if length(parts) < length(Enum.uniq(names)), do: refuse(names), else: parts
    end
  end

  defp run_with(options, parts, code) do
    if options[:help] do
      IO.puts(@usage)
    else
      # Fails now, rather than at the end, if the file cannot be written.
      if options[:json], do: File.write!(options[:json], "")
      if options[:plot], do: File.mkdir_p!(options[:plot])

      builds =
        if options[:against], do: [Builds.this(), Builds.other!(options[:against])], else: []

      environment = Environment.describe()
      {results, failed} = options |> scope() |> Plan.measure(parts, builds, code)
      Report.print(results, environment)
      if options[:plot], do: Plots.write(options[:plot], results, environment)
      if options[:json], do: File.write!(options[:json], json(environment, results))

      if failed > 0 do
        Run.say("\n#{failed} of the VMs failed; their output is above.")
        System.halt(1)
      end
    end
  end

  defp scope(options) do
    cond do
      options[:quick] -> Plan.scope(:quick)
      options[:plot] -> Plan.scope(:plots)
      true -> Plan.scope(:full)
    end
  end

  @spec refuse([String.t()]) :: no_return
  defp refuse(words) do
    Run.say("unknown arguments: #{Enum.join(words, " ")}\n\n#{@usage}")
    System.halt(2)
  end

  defp json(environment, results) do
    wanted =
      for row <- Wanted.rows(results) do
        case row.wanted do
          {:at_most, bound} -> row |> Map.put(:wanted, bound) |> Map.put(:at_most, true)
          _bound -> Map.put(row, :at_most, false)
        end
      end

    JSON.encode(%{
      environment: Map.new(environment),
      results: results,
      wanted: wanted,
      limits: for(engine <- Engines.present(), engine.because, do: limit(engine)),
      absent: for(engine <- Engines.absent(), do: engine.key)
    })
  end

  defp limit(engine), do: %{engine: engine.key, names: engine.most, because: engine.because}
end
