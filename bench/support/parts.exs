# The parts of the measurement. Each returns {what, engine's key, samples}, with times in nanoseconds.

defmodule Bench.Lookup do
  # whereis_name/2 of held and of missing names.

  import Bench.Measure

  alias Bench.Names

  def measure(engines, %{kind: kind, size: size, counts: counts}) do
    readers = Enum.uniq([2, System.schedulers_online()])
    hot = Names.name(kind, div(size, 2) + 1)

    [
      {hit(1), &mean_of_readers(1, :hits, &1.adapter, &1, &2, counts)},
      {miss(), &mean_of_readers(1, :misses, &1.misses, &1, &2, counts)},
      for readers <- readers do
        {hit(readers), &mean_of_readers(readers, :hits, &1.adapter, &1, &2, counts)}
      end,
      {"hit, all on one name, #{List.last(readers)} readers",
       fn engine, _round -> one_name(List.last(readers), hot, engine, counts) end}
    ]
    |> List.flatten()
    |> Enum.flat_map(fn {what, fun} ->
      for {key, samples} <- rounds(engines, counts.rounds, fun), do: {what, key, samples}
    end)
  end

  def hit(1), do: "hit, one reader"
  def hit(readers), do: "hit, #{readers} readers"
  def miss, do: "miss, one reader"

  # Each reader has names and a clock of its own.
  defp mean_of_readers(readers, key, adapter, engine, round, counts) do
    readers
    |> together(fn at ->
      names = Names.slice(key, round * readers + at)
      passes = max(div(counts.lookups, length(names)), 1)
      per(passes * length(names), fn -> several(passes, names, adapter, engine.meta) end)
    end)
    |> mean()
  end

  defp several(0, _names, _adapter, _meta), do: :ok

  defp several(passes, names, adapter, meta) do
    look_up(names, adapter, meta)
    several(passes - 1, names, adapter, meta)
  end

  defp look_up([name | names], adapter, meta) do
    adapter.whereis_name(meta, name)
    look_up(names, adapter, meta)
  end

  defp look_up([], _adapter, _meta), do: :ok

  defp one_name(readers, name, engine, counts) do
    readers
    |> together(fn _at ->
      name = Names.fresh(name)
      per(counts.lookups, fn -> again(counts.lookups, name, engine.adapter, engine.meta) end)
    end)
    |> mean()
  end

  defp again(0, _name, _adapter, _meta), do: :ok

  defp again(left, name, adapter, meta) do
    adapter.whereis_name(meta, name)
    again(left - 1, name, adapter, meta)
  end
end

defmodule Bench.Register do
  # register_name/2 and unregister_name/1 of names beside the held ones.

  import Bench.Measure

  alias Bench.{Engines, Holders}

  @own "by the process that gets it"

  def measure(engines, %{counts: counts}) do
    [{@own, &Holders.each_timed/2}, {"by one process", &Holders.one_timed/2}]
    |> Enum.flat_map(fn {by, timed} ->
      engines
      |> rounds(counts.rounds, fn engine, _round -> round(engine, timed) end)
      |> Enum.flat_map(fn {key, rounds} ->
        {registered, unregistered} = Enum.unzip(rounds)
        [{"register, " <> by, key, registered}, {"unregister, " <> by, key, unregistered}]
      end)
    end)
  end

  def own, do: "register, " <> @own

  defp round(engine, timed) do
    before = Engines.count(engine)
    times = timed.(engine, {:put, if(engine.slow, do: :passing_few, else: :passing)})
    wait_until(fn -> Engines.count(engine) == before end)
    times
  end
end

defmodule Bench.Child do
  use GenServer, restart: :temporary

  def start_link(arguments), do: GenServer.start_link(__MODULE__, :ok, arguments)

  @impl GenServer
  def init(state), do: {:ok, state}
end

defmodule Bench.StartChild do
  # start_child/4 of names that run and of new ones.

  import Bench.Measure

  alias Bench.{Child, Engines, Names}

  def measure(engines, %{counts: counts}) do
    engines = Enum.reject(engines, &(&1.key == :ets))

    [
      {running(1), &running(1, &1, &2, counts)},
      {running(16), &running(16, &1, &2, counts)},
      {new(), fn engine, _round -> new(engine) end}
    ]
    |> Enum.flat_map(fn {what, fun} ->
      for {key, samples} <- rounds(engines, counts.rounds, fun), do: {what, key, samples}
    end)
  end

  @callers [1, 16]

  def callers, do: @callers

  def running(1), do: "running name, one caller"
  def running(callers), do: "running name, #{callers} callers"
  def new, do: "new name"

  # From the start of the first caller to the end of the last one, because they wait for each other.
  defp running(callers, engine, round, counts) do
    {:ok, supervisor} = DynamicSupervisor.start_link(strategy: :one_for_one)
    each = div(counts.calls, callers)

    {starts, ends} =
      callers
      |> together(fn at ->
        names = Names.slice({:calls, callers}, round * callers + at)
        start = now()
        start_running(each, names, [], engine, supervisor)
        {start, now()}
      end)
      |> Enum.unzip()

    %{active: 0} = DynamicSupervisor.count_children(supervisor)
    DynamicSupervisor.stop(supervisor)
    nanoseconds(Enum.max(ends) - Enum.min(starts)) / (each * callers)
  end

  defp start_running(0, _names, _used, _engine, _supervisor), do: :ok

  defp start_running(left, [], used, engine, supervisor),
    do: start_running(left, used, [], engine, supervisor)

  defp start_running(left, [name | names], used, engine, supervisor) do
    {:ok, pid} = engine.adapter.start_child(engine.meta, name, supervisor, {Child, []})
    true = is_pid(pid)
    start_running(left - 1, names, [name | used], engine, supervisor)
  end

  defp new(engine) do
    before = Engines.count(engine)
    {:ok, supervisor} = DynamicSupervisor.start_link(strategy: :one_for_one)
    names = engine |> names() |> Tuple.to_list()
    time = apart(fn -> per(length(names), fn -> start_new(names, engine, supervisor) end) end)
    %{active: active} = DynamicSupervisor.count_children(supervisor)
    ^active = if engine.key == :empty, do: 0, else: length(names)
    DynamicSupervisor.stop(supervisor)
    wait_until(fn -> Engines.count(engine) == before end)
    time
  end

  defp start_new([name | names], engine, supervisor) do
    {:ok, _pid} = engine.adapter.start_child(engine.meta, name, supervisor, {Child, []})
    start_new(names, engine, supervisor)
  end

  defp start_new([], _engine, _supervisor), do: :ok

  defp names(%{slow: true}), do: Names.get(:passing_few)
  defp names(_engine), do: Names.get(:passing)
end
