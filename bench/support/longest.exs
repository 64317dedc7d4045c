defmodule Bench.Longest do
  # The inputs with which calls into the library take longest, for bench/longest_calls.exs and for the test that
  # no call holds a scheduler.

  import Bitwise

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Name, Native, Value}

  # In words: so large that no garbage is collected between two readings of the clock.
  @heap 4_000_000

  @doc """
  Names as large as they may be, by what they consist of.
  """
  def names do
    reference = make_ref()
    port = hd(Port.list())
    remote = :erlang.binary_to_term(<<131, 88, 119, 3, "a@b", 1::32, 0::32, 1::32>>)
    text = :binary.copy("text", 100)

    [
      {"a binary", &:binary.copy("a", &1)},
      {"atoms", &List.duplicate(:a, &1)},
      {"small integers in a tuple", &Tuple.duplicate(1, &1)},
      {"integers of 64 bits", &List.duplicate((1 <<< 63) + 1, &1)},
      {"floats", &List.duplicate(1.5, &1)},
      {"empty tuples", &List.duplicate({}, &1)},
      {"empty binaries", &List.duplicate("", &1)},
      {"empty maps", &List.duplicate(%{}, &1)},
      {"parts of a binary", &List.duplicate(binary_part(text, 3, 70), &1)},
      {"pids", &List.duplicate(self(), &1)},
      {"pids of another node", &List.duplicate(remote, &1)},
      {"ports", &List.duplicate(port, &1)},
      {"references", &List.duplicate(reference, &1)},
      {"references in tuples", &List.duplicate({reference}, &1)},
      {"lists of one", &List.duplicate([1], &1)},
      {"tuples as deep as may be", &List.duplicate(nest(250, fn inner -> {inner} end), &1)},
      {"lists as deep as may be", &List.duplicate(nest(250, fn inner -> [inner] end), &1)},
      {"maps as deep as may be", &List.duplicate(nest(250, fn inner -> %{1 => inner} end), &1)},
      {"a map", &Map.new(1..&1//1, fn key -> {key, key} end)},
      {"a map with texts as keys",
       &Map.new(1..&1//1, fn key -> {"a longer text #{key}", key} end)},
      {"maps of 32", &List.duplicate(Map.new(1..32, fn key -> {key, key} end), &1)},
      {"maps as keys of a map",
       &Map.new(1..&1//1, fn key -> {Map.new(1..10, fn part -> {part * key, 1} end), 1} end)},
      {"a big integer", &(1 <<< (8 * &1 + 70))},
      {"big integers", &List.duplicate(1 <<< 70, &1)},
      {"a bitstring", &<<0::size(&1)-unit(8), 1::1>>},
      {"functions", &List.duplicate(fn -> 1 end, &1)}
    ]
    |> Enum.map(fn {label, build} -> {label, largest(build)} end)
  end

  @doc """
  Names that are refused.
  """
  def refused do
    maps = &%{1 => 1, 2 => &1, 3 => %{4 => 5}}

    <<_bits::3, shifted::binary-size(67_000_000), _rest::bitstring>> =
      :binary.copy("a", 67_108_864)

    # The documented way to read a binary copies it if it does not begin at a byte boundary.
    direct =
      if Native.reads_words(), do: [{"a binary of 64 MiB, shifted", {1, shifted}}], else: []

    direct ++
      [
        {"a binary of 64 MiB", :binary.copy("a", 67_108_864)},
        {"a list of a million tuples", List.duplicate({}, 1_000_000)},
        {"a tuple of a million", Tuple.duplicate(1, 1_000_000)},
        {"a map of 300,000", Map.new(1..300_000, &{&1, &1})},
        {"2,500 references", for(_reference <- 1..2_500, do: make_ref())},
        {"a million levels", Enum.reduce(1..1_000_000, 1, fn _level, inner -> {inner} end)},
        {"maps that move too much",
         Enum.reduce(1..250, :binary.copy("a", 1_000), fn _, inner -> maps.(inner) end)}
      ]
  end

  @doc """
  `{label, prepare}` of every call of a normal scheduler; what `prepare` answers makes it.
  """
  def calls(registry, names, refused) do
    of_names =
      for {label, name} <- names, {operation, call} <- name_calls(registry) do
        {"#{operation}: #{label}", fn -> call.(opened(registry, name)) end}
      end

    of_refused =
      for {label, name} <- refused do
        {"refused: #{label}", fn -> fn -> Native.whereis(registry, name) end end}
      end

    of_names ++ of_refused ++ value_calls(registry) ++ registry_calls(registry)
  end

  defp name_calls(registry) do
    me = fn -> self() end

    [
      {"whereis", fn name -> fn -> Native.whereis(registry, name) end end},
      {"register",
       fn name ->
         Native.unregister(registry, name, me.())
         fn -> :yes = Native.register(registry, name, me.(), nil, nil) end
       end},
      {"unregister",
       fn name ->
         Native.register(registry, name, me.(), nil, nil)
         fn -> :yes = Native.unregister(registry, name, me.()) end
       end},
      {"pattern", fn name -> fn -> Native.pattern(name) end end},
      {"wait", fn name -> fn -> Native.wait(registry, name, me.()) end end}
    ]
  end

  # Data and terms of the size from which they are copied on dirty schedulers, which take as much memory as
  # possible for that size.
  defp value_calls(registry) do
    value_calls(registry, "a value of 256 KiB", external(:binary.copy("v", 262_000))) ++
      value_calls(registry, "terms of 32 KiB", terms({self(), List.duplicate(?a, 32_700)}))
  end

  defp external(value) do
    external = Value.encode!(value)
    true = is_binary(external)
    external
  end

  defp terms(value), do: {_size, ^value} = Value.encode!(value)

  defp value_calls(registry, label, value) do
    free = fn -> Native.unregister(registry, :value, self()) end
    hold = fn -> Native.register(registry, :value, self(), nil, value) end

    [
      {"register with #{label}",
       fn ->
         free.()
         fn -> :yes = hold.() end
       end},
      {"lookup of #{label}",
       fn ->
         hold.()
         fn -> {_pid, _value} = Native.lookup(registry, :value) end
       end},
      {"update of #{label}",
       fn ->
         hold.()
         fn -> :yes = Native.update(registry, :value, self(), value) end
       end},
      {"unregister with #{label}",
       fn ->
         hold.()
         fn -> :yes = free.() end
       end}
    ]
  end

  defp registry_calls(registry) do
    [
      {"info", fn -> fn -> %{} = Native.info(registry) end end},
      {"sizes", fn -> fn -> {_, _} = Native.sizes(registry) end end}
    ]
  end

  @doc """
  The name with what the library does not open opened, as the Elixir side hands it over.
  """
  def opened(registry, name) do
    case Native.whereis(registry, name) do
      :odd -> Name.prepare!(:odd, registry, name)
      _answer -> name
    end
  end

  @doc """
  Microseconds of one call, in a process that does nothing else and tells before it begins.
  """
  def time(prepare) do
    test = self()

    {pid, reference} =
      :erlang.spawn_opt(
        fn ->
          call = prepare.()
          send(test, {:ready, self()})

          receive do
            :go -> :ok
          end

          # Starts with a full time slice.
          :erlang.yield()
          start = System.monotonic_time()
          call.()
          stop = System.monotonic_time()
          :erlang.yield()

          send(
            test,
            {:called, self(), System.convert_time_unit(stop - start, :native, :nanosecond)}
          )
        end,
        [:monitor, min_heap_size: @heap]
      )

    receive do
      {:ready, ^pid} -> send(pid, :go)
      {:DOWN, ^reference, :process, ^pid, reason} -> exit(reason)
    end

    receive do
      {:called, ^pid, nanoseconds} ->
        Process.demonitor(reference, [:flush])
        nanoseconds / 1_000

      {:DOWN, ^reference, :process, ^pid, reason} ->
        exit(reason)
    end
  end

  @doc """
  Microseconds from the kill of a process that holds these names until its end is told.
  """
  def time_death(registry, names) do
    holder = spawn(fn -> Process.sleep(:infinity) end)
    for name <- names, do: :yes = Native.register(registry, name, holder, nil, nil)
    reference = Process.monitor(holder)
    start = System.monotonic_time()
    Process.exit(holder, :kill)

    receive do
      {:DOWN, ^reference, :process, ^holder, :killed} ->
        stop = System.monotonic_time()
        await_free(registry, names)
        System.convert_time_unit(stop - start, :native, :nanosecond) / 1_000
    end
  end

  defp await_free(registry, names) do
    unless Enum.all?(names, &(Native.whereis(registry, &1) == :undefined)) do
      Process.sleep(1)
      await_free(registry, names)
    end
  end

  @doc """
  `{label, names}` of processes that die.
  """
  def deaths do
    uuid = "10f4b6e2-9b3a-4a4e-8d1c-0123456789ab"
    long = :binary.copy("x", 65_000)

    [
      {"1,000 short names", for(number <- 1..1_000, do: number)},
      {"1,000 names with UUIDs", for(number <- 1..1_000, do: {number, uuid, uuid, uuid})},
      {"1,000 names of 64 KiB", for(number <- 1..1_000, do: {number, long})},
      {"100,000 names", for(number <- 1..100_000, do: number)}
    ]
  end

  defp nest(levels, wrap), do: Enum.reduce(1..levels, 1, fn _level, inner -> wrap.(inner) end)

  # The largest that is accepted, by bisection.
  defp largest(build), do: largest(build, 1, 70_000)
  defp largest(build, low, high) when high - low <= 1, do: build.(low)

  defp largest(build, low, high) do
    middle = div(low + high, 2)
    if name?(build.(middle)), do: largest(build, middle, high), else: largest(build, low, middle)
  end

  defp name?(name) do
    case Native.check(name) do
      :ok -> true
      :odd -> is_tuple({Name.prepare!(:odd, nil, name)})
      _refusal -> false
    end
  rescue
    _too_large in ArgumentError -> false
  end

  @doc "Starts a registry and answers its name."
  def start(registry) do
    {:ok, _pid} =
      Supervisor.start_link([{NativeRegistry, name: registry}],
        strategy: :one_for_one,
        name: supervisor(registry)
      )

    registry
  end

  @doc "Stops a registry that was started here."
  def stop(registry), do: Supervisor.stop(supervisor(registry))

  defp supervisor(registry), do: Module.concat(registry, Supervisor)
end
