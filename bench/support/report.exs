defmodule Bench.Report do
  # Prints the tables.

  alias Bench.{Builds, Engines, Latency, Measure, Names, Plan, Run, Subscribers, Wanted}
  alias Bench.Run.Free

  @parts [
    :lookup,
    :latency,
    :start_child,
    :register,
    :subscribers,
    :telemetry,
    :against,
    :registries,
    :memory,
    :free
  ]

  @first_column 24
  @figure 12
  @ratio 8
  @column @figure + @ratio

  def print(results, environment) do
    for {label, value} <- environment do
      IO.puts(String.pad_trailing(label, @first_column) <> value)
    end

    IO.puts("""

    Times are medians of rounds in which each row of a table has a turn. Each is followed by how many times
    NativeRegistry's time, or that of the first row, it is: 4.0x is four times as long. Below 1.0x NativeRegistry
    loses.\
    """)

    for part <- @parts, of_part = Enum.filter(results, &(&1.part == part)), of_part != [] do
      {title, explanation} = title(part)
      IO.puts("\n\n#{underlined(title)}\n#{explanation}")
      print_tables(part, of_part)
      print_reasons(of_part)
    end

    unless Enum.any?(results, &(&1.part == :against)), do: print_wanted(results)
  end

  defp underlined(title), do: title <> "\n" <> String.duplicate("=", String.length(title))

  defp title(:lookup),
    do: {"Lookup", "whereis_name/2: nanoseconds a call, by the number of names"}

  defp title(:latency) do
    {"Latency",
     "whereis_name/2: nanoseconds, clock included. The histogram has lookups of a million, and a # for each\n" <>
       "factor of ten"}
  end

  defp title(:start_child) do
    {"start_child", "start_child/4: nanoseconds a call, by the number of names"}
  end

  defp title(:register) do
    {"Register and unregister",
     "register_name/2, unregister_name/1: nanoseconds a call, by the number of other names.\n" <>
       "\"all by one process\" is the filling of an empty registry, measured once"}
  end

  defp title(:subscribers) do
    {"Subscribers",
     "register_name/2, unregister_name/1 of this registry: nanoseconds a call, by who is told of it"}
  end

  defp title(:telemetry) do
    {"Telemetry",
     "start_child/4 of this registry: nanoseconds a call, medians of VMs that took turns, by the number of names"}
  end

  defp title(:against) do
    {"Build against build",
     "Nanoseconds a call: medians of VMs that took turns, the lowest and the highest in brackets. The ratio is\n" <>
       "the median of the turns' ratios: above 1 the other build takes longer"}
  end

  defp title(:registries) do
    {"Many registries",
     "nanoseconds a lookup; bytes a registry, with #{Plan.number(Run.Registries.size())} registries"}
  end

  defp title(:memory), do: {"Memory", "resident bytes a name, without its process"}
  defp title(:free), do: {"Free", "milliseconds since all holders were killed at once"}

  # The part's tables, each with its columns and the column of a result.
  defp print_tables(:memory, results) do
    columns =
      for kind <- Names.kinds(),
          held <- Plan.held(),
          Enum.any?(results, &({&1.names, &1.held} == {kind, held})) do
        {{kind, held}, [Names.label(kind), Plan.held_label(held)]}
      end

    for {what, size} <- results |> Enum.map(&{&1.what, &1.size}) |> Enum.uniq() do
      group = Enum.filter(results, &({&1.what, &1.size} == {what, size}))
      print_table("#{what}: #{Plan.number(size)} names", columns, group, &{&1.names, &1.held})
    end
  end

  defp print_tables(:registries, results) do
    whats = results |> Enum.map(& &1.what) |> Enum.uniq()
    {bytes, lookups} = Enum.split_with(whats, &String.starts_with?(&1, "bytes"))

    for whats <- [lookups, bytes] do
      columns = Enum.map(whats, &{&1, wrap(&1)})
      print_table("", columns, Enum.filter(results, &(&1.what in whats)), & &1.what)
    end
  end

  defp print_tables(:against, results) do
    pairs = Enum.group_by(results, &{&1.what, &1.names, &1.held, &1.size}, &{&1.engine, &1})

    for what <- results |> Enum.map(& &1.what) |> Enum.uniq() do
      IO.puts("\n" <> what)

      for {{^what, names, held, size}, builds} <- Enum.sort(pairs),
          %{this: this, other: other} <- [Map.new(builds)] do
        ratios = Enum.zip_with(other.turns, this.turns, &(&1 / &2))

        IO.puts([
          String.pad_trailing(
            "  #{Plan.number(size)}, #{Names.label(names)}, #{Plan.held_label(held)}",
            46
          ),
          spread("this", this.turns, &Plan.number(round(&1))),
          spread("other", other.turns, &Plan.number(round(&1))),
          spread("ratio", ratios, &decimal/1)
        ])
      end
    end
  end

  defp print_tables(:free, [%{size: size, names: kind} | _] = results) do
    columns = Enum.map(Free.columns(), &{&1, wrap(&1)})
    title = "#{Plan.number(size)} names of #{Names.label(kind)}"
    print_table(title, columns, results, & &1.what)
  end

  defp print_tables(:latency, [%{size: size} | _] = results) do
    columns = Latency.columns()

    for {names, group} <- by_names(results), situation <- Latency.situations() do
      whats = Map.new(columns, &{Latency.what(situation, &1), &1})
      group_of = Enum.filter(group, &is_map_key(whats, &1.what))
      title = "#{situation}; #{Plan.number(size)} names: #{names}"
      print_table(title, Enum.map(columns, &{&1, wrap(&1)}), group_of, &whats[&1.what])
      print_histogram(situation, group)
    end
  end

  defp print_tables(_part, results) do
    for what <- results |> Enum.map(& &1.what) |> Enum.uniq(),
        {names, group} <- results |> Enum.filter(&(&1.what == what)) |> by_names() do
      sizes = group |> Enum.map(& &1.size) |> Enum.uniq() |> Enum.sort()
      columns = Enum.map(sizes, &{&1, [Plan.number(&1)]})
      print_table("#{what}: #{names}", columns, group, & &1.size)
    end
  end

  defp print_histogram(situation, results) do
    values = Map.new(results, &{{&1.engine, &1.what}, &1.value})
    rows = rows(results)
    IO.puts("")
    put_line("  up to", for({_key, label} <- rows, do: histogram_cell(label)))

    for {bar, label} <- Latency.bars() do
      counts = for {key, _label} <- rows, do: values[{key, Latency.what(situation, bar)}] || 0.0

      if Enum.any?(counts, &(&1 > 0)),
        do: put_line("  " <> label, Enum.map(counts, &histogram_cell(bar_text(&1))))
    end
  end

  defp histogram_cell(text), do: String.pad_trailing(text, 24)

  defp bar_text(count) when count == 0, do: ""

  defp bar_text(count) do
    length = max(round(2 * :math.log10(count)), 0) + 1
    number = if count < 10, do: decimal(count), else: Plan.number(round(count))
    String.pad_leading(number, 9) <> " " <> String.duplicate("#", div(length + 1, 2))
  end

  defp spread(label, values, format) do
    range = "(#{format.(Enum.min(values))}-#{format.(Enum.max(values))})"
    String.pad_trailing("#{label} #{format.(Measure.median(values))} #{range}", 30)
  end

  defp by_names(results) do
    for kind <- Names.kinds(),
        held <- Plan.held(),
        group = Enum.filter(results, &(&1.names == kind and &1.held == held)),
        group != [] do
      {"#{Names.label(kind)}, #{Plan.held_label(held)}", group}
    end
  end

  defp wrap(text) do
    text
    |> String.split()
    |> Enum.reduce([], fn
      word, [line | lines] when byte_size(line) + byte_size(word) < @figure + 2 ->
        ["#{line} #{word}" | lines]

      word, lines ->
        [word | lines]
    end)
    |> Enum.reverse()
  end

  defp print_table(title, columns, results, column_of) do
    cells = Map.new(results, &{{&1.engine, column_of.(&1)}, &1})
    height = columns |> Enum.map(fn {_column, lines} -> length(lines) end) |> Enum.max()
    IO.puts("\n" <> title)

    for line <- 0..(height - 1) do
      put_line("", for({_column, lines} <- columns, do: heading(Enum.at(lines, line, ""))))
    end

    [{first, _label} | _others] = rows = rows(results)

    for {key, label} <- rows do
      put_line(
        label,
        for {column, _lines} <- columns do
          cell(cells[{key, column}], if(key != first, do: cells[{first, column}]))
        end
      )
    end
  end

  # The keys and labels of the rows; the first is the one to compare with.
  defp rows([%{part: part} | _] = results) do
    rows =
      case part do
        :subscribers -> Subscribers.rows()
        :telemetry -> Builds.telemetry_rows()
        :registries -> Run.Registries.rows()
        _of_engines -> for engine <- Engines.present(), do: {engine.key, label(engine, part)}
      end

    for {key, _label} = row <- rows, Enum.any?(results, &(&1.engine == key)), do: row
  end

  # In this part the processes themselves are measured.
  defp label(%{key: :empty}, :free), do: "no registry"
  defp label(engine, _part), do: engine.label

  defp put_line(label, cells) do
    [String.pad_trailing(label, @first_column) | cells]
    |> IO.iodata_to_binary()
    |> String.trim_trailing()
    |> IO.puts()
  end

  # Over the figures, left of the ratios.
  defp heading(line), do: line |> String.pad_leading(@figure) |> String.pad_trailing(@column)

  defp cell(nil, _first), do: heading("-")

  defp cell(result, first) do
    figure = String.pad_leading(figure(result), @figure)
    figure <> String.pad_trailing(ratio(result, first), @ratio)
  end

  defp figure(%{part: :free, value: value}), do: Plan.number(round(value / 1.0e6))
  defp figure(%{value: value}), do: Plan.number(round(value))

  defp ratio(%{engine: :empty}, _first), do: ""
  defp ratio(%{unit: "a second"}, _first), do: ""
  defp ratio(_result, nil), do: ""

  defp ratio(%{value: value}, %{value: first}) when first > 0 do
    String.pad_leading(times(value / first), @ratio)
  end

  defp ratio(_result, _first), do: ""

  defp times(ratio) when ratio < 9.95, do: "#{:erlang.float_to_binary(ratio, decimals: 1)}x"
  defp times(ratio), do: "#{Plan.number(round(ratio))}x"

  defp print_reasons(results) do
    reasons =
      for engine <- Engines.present(),
          engine.because,
          hd(results).part not in [:subscribers, :telemetry, :against, :registries],
          Enum.any?(results, &(not Engines.takes?(engine, &1.held, &1.size))) do
        "- #{engine.label}: #{engine.because}"
      end

    if reasons != [], do: IO.puts(["\n" | Enum.intersperse(reasons, "\n")])
  end

  defp print_wanted(results) do
    IO.puts("\n\n#{underlined("Wanted")}")

    case Wanted.rows(results) do
      [] ->
        IO.puts("none of these was measured")

      rows ->
        IO.puts(
          "The figure behind \"/\" is what the first one is divided by. Without one, LocalRegistry's figure is\n" <>
            "divided by NativeRegistry's\n"
        )

        line(["", "", "wanted", "one holder", "a process a name"])
        for row <- rows, do: line(wanted_cells(row))
    end
  end

  defp wanted_cells(row) do
    verdicts = for held <- Plan.held(), do: verdict(row.measured[held])
    [row.what, Names.label(row.names), wanted(row.wanted) | verdicts]
  end

  defp wanted({:at_most, ratio}), do: "at most #{decimal(ratio)}"
  defp wanted(ratio), do: decimal(ratio)

  defp line([what, names, wanted, one, each]) do
    cells = [
      String.pad_trailing(names, 14),
      String.pad_leading(wanted, 14),
      "   ",
      String.pad_trailing(one, 15),
      each
    ]

    put_line(String.pad_trailing(what, 62), cells)
  end

  defp verdict(nil), do: "-"
  defp verdict(%{ratio: ratio, met: true}), do: "#{decimal(ratio)} met"
  defp verdict(%{ratio: ratio, met: false}), do: "#{decimal(ratio)} MISSED"

  defp decimal(number), do: :erlang.float_to_binary(number / 1, decimals: 2)
end
