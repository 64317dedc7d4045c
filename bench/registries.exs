# What many registries cost: lookups in one, in five and in a thousand of them in turn, beside Elixir's
# Registry and a bare ETS table for each; and the memory of a thousand.
#
#     mix run bench/registries.exs
#
# Nanoseconds a lookup, medians of 15 interleaved rounds. Memory is the resident memory of the VM, on
# Linux, as differences in kilobytes for all thousand.

defmodule Registries do
  alias WorkflowMetal.Registration.NativeRegistry

  @count 1_000
  @names 10
  @rounds 15

  def main do
    memory()
    lookups()
  end

  defp memory do
    # What the first registry of a VM makes once is not counted.
    start_ours([:warm])
    :yes = NativeRegistry.register_name({:warm, 1}, self())
    :ok = NativeRegistry.Registry.subscribe(:warm)
    registries = named("memory")

    steps = [
      {"#{@count} empty registries", fn -> start_ours(registries) end},
      {"a name in each",
       fn -> for r <- registries, do: :yes = NativeRegistry.register_name({r, 1}, self()) end},
      {"a subscriber in each",
       fn -> for r <- registries, do: :ok = NativeRegistry.Registry.subscribe(r, {:other, :_}) end}
    ]

    for {label, step} <- steps do
      before = resident()
      step.()
      IO.puts("#{String.pad_trailing(label, 40)} #{resident() - before} KB")
    end
  end

  defp lookups do
    kinds = [
      {"NativeRegistry", named("ours"), &start_ours/1,
       fn r, name -> :yes = NativeRegistry.register_name({r, name}, self()) end,
       &NativeRegistry.whereis_name/1},
      {"Registry", named("elixirs"),
       fn rs -> for r <- rs, do: {:ok, _} = Registry.start_link(keys: :unique, name: r) end,
       fn r, name -> {:ok, _} = Registry.register(r, name, nil) end, &Registry.whereis_name/1},
      {"ETS", named("tables"),
       fn rs -> for r <- rs, do: :ets.new(r, [:named_table, :public, read_concurrency: true]) end,
       fn r, name -> :ets.insert(r, {name, self()}) end,
       fn {r, name} -> :ets.lookup_element(r, name, 2) end}
    ]

    picks = for _ <- 1..20, at <- Enum.shuffle(0..(@count - 1)), do: {at, :rand.uniform(@names)}

    work =
      for {label, registries, start, register, lookup} <- kinds do
        start.(registries)
        for r <- registries, name <- 1..@names, do: register.(r, {:case, name})
        registries = List.to_tuple(registries)

        for many <- [1, 5, @count] do
          names = for {at, name} <- picks, do: {elem(registries, rem(at, many)), {:case, name}}
          {{label, many}, names, lookup}
        end
      end
      |> Enum.concat()

    times = for _ <- 1..@rounds, {key, names, lookup} <- work, do: {key, time(names, lookup)}

    for {key, times} <- Enum.group_by(times, &elem(&1, 0), &elem(&1, 1)) do
      {label, many} = key
      median = times |> Enum.sort() |> Enum.at(div(@rounds, 2))
      IO.puts("#{String.pad_trailing("#{label}, #{many} in turn", 40)} #{round(median)} ns")
    end
  end

  defp named(kind), do: for(number <- 1..@count, do: :"#{kind}_#{number}")

  defp start_ours(registries) do
    children = for r <- registries, do: Supervisor.child_spec({NativeRegistry, name: r}, id: r)

    {:ok, _pid} = Supervisor.start_link(children, strategy: :one_for_one)
  end

  # In a process that collects no garbage meanwhile.
  defp time(names, lookup) do
    test = self()

    :erlang.spawn_opt(
      fn ->
        names = Enum.map(names, & &1)
        start = System.monotonic_time()
        Enum.each(names, lookup)
        send(test, {:time, System.monotonic_time() - start})
      end,
      [:link, min_heap_size: 1_000_000]
    )

    receive do
      {:time, time} ->
        System.convert_time_unit(time, :native, :nanosecond) / length(names)
    end
  end

  defp resident do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    [_, kilobytes] = Regex.run(~r/^VmRSS:\s+(\d+) kB/m, File.read!("/proc/self/status"))
    String.to_integer(kilobytes)
  end
end

Registries.main()
