defmodule Bench.Wanted do
  # The ratios that NativeRegistry should reach, and those that were measured.

  alias Bench.{Lookup, Names, Plan, Register, StartChild}
  alias Bench.Run.Free

  @thousand 1_000
  @ten_thousand 10_000
  @hundred_thousand 100_000
  @million 1_000_000

  # The label, the part and the row, what is divided by what, and the wanted ratio for five integers and for
  # four UUIDs.
  defp wanted do
    local = &{{&1, :local}, {&1, :native}}
    ets = {{@hundred_thousand, :ets}, {@hundred_thousand, :native}}
    growth = {{@million, :native}, {@ten_thousand, :native}}
    start_child = &{"start_child, #{&1}", :start_child, &1, local.(@hundred_thousand), &2}

    [
      {"lookup, 100,000 names", :lookup, Lookup.hit(1), local.(@hundred_thousand), {4.0, 3.5}},
      {"lookup, 1,000 names", :lookup, Lookup.hit(1), local.(@thousand), {5.0, 4.5}},
      {"lookup, 100,000 names, by bare ETS", :lookup, Lookup.hit(1), ets, {1.8, 1.6}},
      {"lookup, 100,000 names, 2 readers", :lookup, Lookup.hit(2), local.(@hundred_thousand),
       {4.0, 3.5}},
      {"register, 100,000 names", :register, Register.own(), local.(@hundred_thousand),
       {3.0, 3.0}},
      start_child.(StartChild.running(1), {13.0, 13.0}),
      start_child.(StartChild.running(16), {13.0, 13.0}),
      start_child.(StartChild.new(), {1.15, 1.15}),
      {"memory a name", :memory, "resident", local.(@hundred_thousand), {2.0, 2.0}},
      {"lookup, 1,000,000 names, by its own of 10,000", :lookup, Lookup.hit(1), growth,
       {:at_most, 2.0}},
      {"free, no name is found", :free, Free.unfound(), local.(@hundred_thousand), 1.0},
      {"free, nothing is left", :free, Free.nothing_left(), local.(@hundred_thousand), 1.0}
    ]
  end

  @doc """
  For each wanted ratio and kind of names, the ratios that were measured, by the kind of holders.
  """
  def rows(results) do
    values =
      Map.new(results, &{{&1.part, &1.what, &1.names, &1.held, {&1.size, &1.engine}}, &1.value})

    for {what, part, row, {over, under}, wanted} <- wanted(),
        {names, wanted} <- by_names(wanted),
        measured = measured(values, {part, row, names}, over, under, wanted),
        measured != %{} do
      %{what: what, names: names, wanted: wanted, measured: measured}
    end
  end

  defp measured(values, {part, row, names}, over, under, wanted) do
    for held <- Plan.held(),
        over = values[{part, row, names, held, over}],
        under = values[{part, row, names, held, under}],
        into: %{} do
      {held, verdict(over / under, wanted)}
    end
  end

  defp by_names({:at_most, ratio}),
    do: for(names <- Names.kinds(), do: {names, {:at_most, ratio}})

  defp by_names({integers, uuids}), do: [integers: integers, uuids: uuids]
  defp by_names(ratio), do: [{Free.names(), ratio}]

  defp verdict(ratio, {:at_most, wanted}), do: %{ratio: ratio, met: ratio <= wanted}
  defp verdict(ratio, wanted), do: %{ratio: ratio, met: ratio >= wanted}
end
