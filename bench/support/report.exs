defmodule Bench.Report do
  # Prints the tables.

  alias Bench.{Engines, Latency, Names, Plan, Wanted}
  alias Bench.Run.Free

  @first_column 24
  @figure 12
  @ratio 8
  @column @figure + @ratio

  def print(results, environment, parts) do
    for {label, value} <- environment do
      IO.puts(String.pad_trailing(label, @first_column) <> value)
    end

    IO.puts("""

    Times are medians of rounds in which each registry has a turn. Each is followed by how many times
    NativeRegistry's time it is: 4.0x is four times as long. Below 1.0x NativeRegistry loses.\
    """)

    for part <- parts, of_part = Enum.filter(results, &(&1.part == part)), of_part != [] do
      {title, explanation} = title(part)
      IO.puts("\n\n#{underlined(title)}\n#{explanation}")
      print_tables(part, of_part)
      print_reasons(of_part)
    end

    print_wanted(results)
  end

  defp underlined(title), do: title <> "\n" <> String.duplicate("=", String.length(title))

  defp title(:lookup),
    do: {"Lookup", "whereis_name/2: nanoseconds a call, by the number of names"}

  defp title(:latency) do
    {"Latency",
     "whereis_name/2: nanoseconds, clock included, while another process registers and unregisters"}
  end

  defp title(:start_child) do
    {"start_child", "start_child/4: nanoseconds a call, by the number of names"}
  end

  defp title(:register) do
    {"Register and unregister",
     "register_name/2, unregister_name/1: nanoseconds a call, by the number of other names.\n" <>
       "\"all by one process\" is the filling of an empty registry, measured once"}
  end

  defp title(:memory), do: {"Memory", "resident bytes a name, without its process"}
  defp title(:free), do: {"Free", "milliseconds since all holders were killed at once"}

  # The part's tables, each with its columns and the column of a result.
  defp print_tables(:memory, [%{size: size} | _] = results) do
    columns =
      for kind <- Names.kinds(),
          held <- Plan.held(),
          Enum.any?(results, &({&1.names, &1.held} == {kind, held})) do
        {{kind, held}, [Names.label(kind), Plan.held_label(held)]}
      end

    print_table("#{Plan.number(size)} names", columns, results, &{&1.names, &1.held})
  end

  defp print_tables(:free, [%{size: size, names: kind} | _] = results) do
    columns = Enum.map(Free.columns(), &{&1, wrap(&1)})
    title = "#{Plan.number(size)} names of #{Names.label(kind)}"
    print_table(title, columns, results, & &1.what)
  end

  defp print_tables(:latency, [%{size: size} | _] = results) do
    columns = Enum.map(Latency.columns(), &{&1, wrap(&1)})

    for {names, group} <- by_names(results) do
      print_table("#{Plan.number(size)} names: #{names}", columns, group, & &1.what)
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

    for engine <- Engines.present(), Enum.any?(results, &(&1.engine == engine.key)) do
      put_line(
        label(engine, results),
        for {column, _lines} <- columns do
          cell(cells[{engine.key, column}], cells[{:native, column}])
        end
      )
    end
  end

  # In this part the processes themselves are measured.
  defp label(%{key: :empty}, [%{part: :free} | _]), do: "no registry"
  defp label(engine, _results), do: engine.label

  defp put_line(label, cells) do
    [String.pad_trailing(label, @first_column) | cells]
    |> IO.iodata_to_binary()
    |> String.trim_trailing()
    |> IO.puts()
  end

  # Over the figures, left of the ratios.
  defp heading(line), do: line |> String.pad_leading(@figure) |> String.pad_trailing(@column)

  defp cell(nil, _native), do: heading("-")

  defp cell(result, native) do
    figure = String.pad_leading(figure(result), @figure)
    figure <> String.pad_trailing(ratio(result, native), @ratio)
  end

  defp figure(%{part: :free, value: value}), do: Plan.number(round(value / 1.0e6))
  defp figure(%{value: value}), do: Plan.number(round(value))

  defp ratio(%{engine: engine}, _native) when engine in [:native, :empty], do: ""
  defp ratio(%{unit: "a second"}, _native), do: ""
  defp ratio(_result, nil), do: ""

  defp ratio(%{value: value}, %{value: native}) do
    String.pad_leading(times(value / native), @ratio)
  end

  defp times(ratio) when ratio < 9.95, do: "#{:erlang.float_to_binary(ratio, decimals: 1)}x"
  defp times(ratio), do: "#{Plan.number(round(ratio))}x"

  defp print_reasons(results) do
    reasons =
      for engine <- Engines.present(),
          engine.because,
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
          "LocalRegistry's figure divided by NativeRegistry's, unless the row says otherwise\n"
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
      String.pad_leading(wanted, 12),
      "   ",
      String.pad_trailing(one, 15),
      each
    ]

    put_line(String.pad_trailing(what, 48), cells)
  end

  defp verdict(nil), do: "-"
  defp verdict(%{ratio: ratio, met: true}), do: "#{decimal(ratio)} met"
  defp verdict(%{ratio: ratio, met: false}), do: "#{decimal(ratio)} MISSED"

  defp decimal(number), do: :erlang.float_to_binary(number / 1, decimals: 2)
end
