defmodule Bench.Wanted do
  # The bounds that NativeRegistry should keep, and what was measured.

  alias Bench.{Latency, Lookup, Names, Plan, Register, StartChild}
  alias Bench.Run.{Free, Memory, Registries}

  @thousand 1_000
  @ten_thousand 10_000
  @hundred_thousand 100_000
  @million 1_000_000

  # The label, the part, what is divided by what, and the wanted ratio: for five integers and for four UUIDs, or one
  # for both. Divided are the figures of rows: {what, size, row}; or of one row by a number.
  defp wanted do
    lookup = &{&1, &2, :native}
    local = &{{&1, &2, :local}, {&1, &2, :native}}
    running = StartChild.running(1)
    register = Register.own()
    resident = Memory.fresh()

    [
      {"lookup, 100,000 names", :lookup, local.(Lookup.hit(1), @hundred_thousand), {5.5, 5.0},
       :one_holder},
      {"lookup, 100,000 names", :lookup, local.(Lookup.hit(1), @hundred_thousand), {2.6, 3.0},
       :process_a_name},
      {"lookup, 1,000 names", :lookup, local.(Lookup.hit(1), @thousand), {5.0, 4.5}},
      {"lookup, 100,000 names, 2 readers", :lookup, local.(Lookup.hit(2), @hundred_thousand),
       {4.0, 3.5}},
      {"lookup, 100,000 names: bare ETS /", :lookup,
       {{Lookup.hit(1), @hundred_thousand, :ets}, lookup.(Lookup.hit(1), @hundred_thousand)},
       {1.8, 1.6}},
      {"lookup, 100,000 names: a miss / a hit", :lookup,
       {lookup.(Lookup.miss(), @hundred_thousand), lookup.(Lookup.hit(1), @hundred_thousand)},
       {:at_most, 1.0}},
      {"lookup: 1,000,000 names / 10,000", :lookup,
       {lookup.(Lookup.hit(1), @million), lookup.(Lookup.hit(1), @ten_thousand)},
       {:at_most, 1.7}},
      {"lookup, 100,000 names, p99.9: with a writer / without", :latency,
       {lookup.(Latency.tail(:writer), @hundred_thousand),
        lookup.(Latency.tail(:alone), @hundred_thousand)}, {:at_most, 1.5}},
      {"register, 100,000 names", :register, local.(register, @hundred_thousand), {2.0, 2.2},
       :process_a_name},
      {"register, 100,000 names", :register, local.(register, @hundred_thousand), {3.0, 3.0},
       :one_holder},
      {"register: one subscriber of other names / none", :subscribers,
       {{register, @hundred_thousand, :other}, {register, @hundred_thousand, :nobody}},
       {:at_most, 1.3}},
      {"register: 1,000 subscribers of other names / none", :subscribers,
       {{register, @hundred_thousand, :others}, {register, @hundred_thousand, :nobody}},
       {:at_most, 1.3}},
      {"start_child, running, 1,000 names: with telemetry / without", :telemetry,
       {{running, @thousand, :with}, {running, @thousand, :without}}, {:at_most, 1.2}},
      {"start_child, running, 100,000 names", :start_child, local.(running, @hundred_thousand),
       {11.0, 11.0}},
      {"start_child, running, 100,000 names, 16 callers", :start_child,
       local.(StartChild.running(16), @hundred_thousand), {13.0, 13.0}},
      {"start_child, new name, 100,000 names", :start_child,
       local.(StartChild.new(), @hundred_thousand), {1.15, 1.15}},
      {"lookups in turn: in 1,000 registries / in one", :registries,
       {lookup.(Registries.in_all(), @thousand), lookup.(Registries.in_one(), @thousand)},
       {:at_most, 2.0}},
      {"the same, where each has held 300 names", :registries,
       {lookup.(Registries.in_spread(), @thousand), lookup.(Registries.in_one(), @thousand)},
       {:at_most, 2.0}},
      {"memory a name", :memory, local.(resident, @hundred_thousand), {2.0, 2.0}},
      {"memory a name, bytes", :memory, {lookup.(resident, @hundred_thousand), 1},
       {:at_most, 210}, :process_a_name},
      {"memory of the tables: after churn / fresh", :memory,
       {lookup.(Memory.table(true), @hundred_thousand),
        lookup.(Memory.table(false), @hundred_thousand)}, {:at_most, 1.1}},
      {"free, no name is found", :free, local.(Free.unfound(), @hundred_thousand), 1.0},
      {"free, nothing is left", :free, local.(Free.nothing_left(), @hundred_thousand), 1.0}
    ]
  end

  @doc """
  For each wanted ratio and kind of names, the ratios that were measured, by the kind of holders.
  """
  def rows(results) do
    values =
      Map.new(results, &{{&1.part, &1.names, &1.held, {&1.what, &1.size, &1.engine}}, &1.value})

    for row <- wanted(),
        {what, part, divided, wanted, held} = with_holders(row),
        {names, wanted} <- by_names(wanted),
        measured = measured(values, {part, names}, divided, wanted, held),
        measured != %{} do
      %{what: what, names: names, wanted: wanted, measured: measured}
    end
  end

  # Most are wanted of names of one holder, and of those that have a process each.
  defp with_holders({what, part, divided, wanted}), do: {what, part, divided, wanted, Plan.held()}

  defp with_holders({what, part, divided, wanted, held}),
    do: {what, part, divided, wanted, [held]}

  defp measured(values, {part, names}, {over, under}, wanted, holders) do
    for held <- holders,
        over = values[{part, names, held, over}],
        under = if(is_integer(under), do: under, else: values[{part, names, held, under}]),
        into: %{} do
      {held, verdict(over / under, wanted)}
    end
  end

  defp by_names({:at_most, bound}),
    do: for(names <- Names.kinds(), do: {names, {:at_most, bound}})

  defp by_names({integers, uuids}), do: [integers: integers, uuids: uuids]
  defp by_names(ratio), do: [{Free.names(), ratio}]

  defp verdict(ratio, {:at_most, wanted}), do: %{ratio: ratio, met: ratio <= wanted}
  defp verdict(ratio, wanted), do: %{ratio: ratio, met: ratio >= wanted}
end
