# What script/soak runs.

Code.require_file("../test/support/crash_log.ex", __DIR__)

defmodule Soak do
  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{CrashLog, Native, Owner, Registry}

  defmodule Child do
    use GenServer, restart: :temporary

    def start_link(options), do: GenServer.start_link(__MODULE__, nil, options)

    @impl GenServer
    def init(nil), do: {:ok, nil}
  end

  @steady Soak.Steady
  @coming Enum.map(1..4, &:"Elixir.Soak.Coming#{&1}")

  # Each round ends with a pause in which everything is counted. A leak grows in every round; what the VM
  # allocates for itself now and then does not.
  @rounds 4

  # By how much a figure may grow in every single round. Counts may not grow. Memory may grow by these bytes in a
  # round of some million operations, because the allocators keep some of it.
  @allowed %{system: 262_144, resident: 1_048_576}

  # How much resident memory may grow in all.
  @allowed_in_all 16 * 1_048_576

  @names 2_000
  @patience 60_000

  def run(minutes) do
    # Processes are killed on purpose, which logs no error. Any crash that is logged fails the soak.
    Logger.configure(level: :error)
    :ok = CrashLog.start()
    total = round(minutes * 60_000)
    {:ok, _pid} = start_registry(@steady)
    {:ok, supervisor} = DynamicSupervisor.start_link(strategy: :one_for_one)
    keepers = for _keeper <- 1..20, do: spawn_link(fn -> Process.sleep(:infinity) end)
    counters = :counters.new(length(kinds()), [:write_concurrency])
    world = %{supervisor: supervisor, keepers: List.to_tuple(keepers), counters: counters}

    IO.puts("warming up for #{div(total, 5_000)} s, then #{@rounds} rounds")
    work(world, div(total, 5))
    # The first count makes atoms itself.
    footprint()

    {figures, _last} =
      Enum.map_reduce(1..@rounds, footprint(), fn round, before ->
        work(world, div(total * 4, 5 * @rounds))
        now = footprint()
        grown = Map.new(now, fn {figure, value} -> {figure, value - before[figure]} end)

        IO.puts(
          "round #{round}: resident #{mib(now.resident)} MiB, #{signed(grown.resident)} bytes"
        )

        {grown, now}
      end)

    report(world, figures)
  end

  defp report(world, rounds) do
    IO.puts("\noperations")

    done =
      for {kind, at} <- Enum.with_index(kinds(), 1) do
        count = :counters.get(world.counters, at)

        IO.puts(
          "  #{String.pad_trailing(to_string(kind), 24)}#{String.pad_leading("#{count}", 12)}"
        )

        count
      end

    IO.puts("  #{String.pad_trailing("all", 24)}#{String.pad_leading("#{Enum.sum(done)}", 12)}")
    IO.puts("\ngrowth, by rounds, and how much is allowed in all of them")

    grown =
      for figure <- rounds |> hd() |> Map.keys() |> Enum.sort() do
        growths = Enum.map(rounds, & &1[figure])
        allowed = Map.get(@allowed, figure, 0)
        cells = Enum.map(growths ++ [allowed], &String.pad_leading(signed(&1), 12))
        IO.puts(["  ", String.pad_trailing(to_string(figure), 24), cells])
        if Enum.min(growths) > allowed, do: figure
      end

    in_all = rounds |> Enum.map(& &1.resident) |> Enum.sum()
    IO.puts("\nresident memory in all: #{signed(in_all)} bytes, allowed #{@allowed_in_all}")
    grown = Enum.reject(grown, &is_nil/1)
    grown = if in_all > @allowed_in_all, do: [:resident_in_all | grown], else: grown

    idle = for {kind, 0} <- Enum.zip(kinds(), done), do: kind
    crashes = CrashLog.take()

    cond do
      crashes != [] -> fail("#{length(crashes)} crashes were logged, the first: #{hd(crashes)}")
      grown != [] -> fail("these figures have grown: #{Enum.join(grown, ", ")}")
      idle != [] -> fail("these operations never ran: #{Enum.join(idle, ", ")}")
      true -> IO.puts("nothing has grown")
    end
  end

  # Two workers for each scheduler; processes that start and stop registries and kill the owner; and a
  # listener. All have ended when this returns.
  defp work(world, time) do
    deadline = System.monotonic_time(:millisecond) + time
    listener = spawn_link(fn -> listen(0) end)
    Process.register(listener, Soak.Listener)
    workers = for _worker <- 1..(2 * System.schedulers_online()), do: fn -> step(world) end
    comings = for registry <- @coming, do: fn -> come_and_go(world, registry) end
    faults = [fn -> kill_owner(world) end]

    (workers ++ comings ++ faults)
    |> Enum.map(&Task.async(fn -> until(deadline, &1) end))
    |> Task.await_many(:infinity)

    Process.unlink(listener)
    reference = Process.monitor(listener)
    Process.exit(listener, :kill)

    receive do
      {:DOWN, ^reference, :process, _pid, _reason} -> :ok
    end
  end

  defp until(deadline, step) do
    step.()
    if System.monotonic_time(:millisecond) < deadline, do: until(deadline, step)
  end

  defp listen(told) do
    receive do
      _event -> listen(told + 1)
    end
  end

  defp kinds do
    [:lookup, :register, :take_over, :start_child, :subscribe, :await, :select, :value, :meta] ++
      [:match, :give_to_keeper, :long_name, :start_and_stop, :kill_owner]
  end

  defp step(world) do
    kind =
      Enum.random(
        [:lookup, :register, :take_over, :start_child, :subscribe, :await] ++
          [:select, :value, :meta, :match, :give_to_keeper, :long_name]
      )

    # In a process of its own, so that the holders of names end.
    {pid, reference} = spawn_monitor(fn -> for _time <- 1..times(kind), do: act(kind, world) end)
    await_down(pid, reference, :normal)
    count(world, kind, times(kind))
  end

  defp times(kind) when kind in [:select, :await, :subscribe, :start_child], do: 5
  defp times(_kind), do: 200

  defp act(:lookup, _world) do
    name = name()

    case Registry.lookup(@steady, name) do
      [{pid, _value}] when is_pid(pid) -> :ok
      [] -> :ok
    end
  end

  defp act(:register, _world) do
    name = name()

    case Registry.register(@steady, name, nil) do
      {:ok, _pid} ->
        check(NativeRegistry.whereis_name({@steady, name}) == self())
        check(NativeRegistry.register_name({@steady, name}, self()) == :no)
        if :rand.uniform(2) == 1, do: Registry.unregister(@steady, name)

      {:error, {:already_registered, pid}} ->
        check(is_pid(pid))
    end
  end

  defp act(:take_over, _world) do
    name = {:taken, self(), :rand.uniform(10)}
    pid = spawn(fn -> Process.sleep(:infinity) end)
    check(NativeRegistry.register_name({@steady, name, :value}, pid) in [:yes, :no])
    Process.exit(pid, :kill)
    check(NativeRegistry.whereis_name({@steady, name}) in [:undefined, self()])
    NativeRegistry.register_name({@steady, name, :another}, self())
    check(Registry.lookup(@steady, name) != [])
  end

  defp act(:start_child, world) do
    name = {:child, :rand.uniform(20)}
    meta = %{registry: @steady}
    {:ok, pid} = NativeRegistry.start_child(meta, name, world.supervisor, Child)
    reference = Process.monitor(pid)
    if :rand.uniform(2) == 1, do: Process.exit(pid, :kill), else: Process.exit(pid, :shutdown)
    await_down(pid, reference)
    check(NativeRegistry.whereis_name(meta, name) != pid)
  end

  defp act(:subscribe, _world) do
    name = {:told, self()}
    :ok = Registry.subscribe(@steady, {:told, :_})
    {:ok, pid} = Registry.register(@steady, name, nil)
    receive_told({:register, @steady, name, pid, nil})
    :ok = Registry.unregister(@steady, name)
    receive_told({:unregister, @steady, name, pid})
    # Half of the subscriptions end with their process.
    if :rand.uniform(2) == 1, do: Registry.unsubscribe(@steady, {:told, :_})
  end

  defp act(:await, world) do
    name = {:awaited, self()}
    check(Registry.await(@steady, name, 0) == {:error, :timeout})
    keeper = Enum.random(Tuple.to_list(world.keepers))
    test = self()

    waiter =
      spawn(fn ->
        send(test, :waits)
        Registry.await(@steady, name)
      end)

    reference = Process.monitor(waiter)

    receive do
      :waits -> :ok
    end

    # Some are killed while they wait.
    case :rand.uniform(2) do
      1 ->
        Process.exit(waiter, :kill)

      2 ->
        {:ok, _pid} = Registry.register(@steady, name, nil)
        check(Registry.await(@steady, name, 1_000) == {:ok, self()})
    end

    await_down(waiter, reference)
    Registry.unregister(@steady, name)
    check(Process.alive?(keeper))
  end

  defp act(:select, world) do
    for {name, pid, _value} <- Registry.match_names(@steady, {:name, :_, :_}) do
      check(match?({:name, _, _}, name) and is_pid(pid))
    end

    check(Registry.count_names(@steady, :_) >= 0)
    own = [{{{:name, :_, :_}, self(), :"$1"}, [], [:"$1"]}]
    check(Registry.select(@steady, own) == [] and Registry.count_select(@steady, own) == 0)
    check(is_list(Registry.keys(@steady, elem(world.keepers, 0))))
    check(Registry.info(@steady).names >= 0)
  end

  defp act(:value, _world) do
    name = {:value, self()}
    {:ok, _pid} = Registry.register(@steady, name, 1)
    check(Registry.update_value(@steady, name, &(&1 + 1)) == {2, 1})
    check(Registry.lookup(@steady, name) == [{self(), 2}])
    :ok = Registry.unregister(@steady, name)
  end

  defp act(:meta, _world) do
    key = {:meta, self()}
    :ok = Registry.put_meta(@steady, key, self())
    check(Registry.meta(@steady, key) == {:ok, self()})
    :ok = Registry.delete_meta(@steady, key)
    check(Registry.meta(@steady, key) == :error)
  end

  defp act(:match, _world) do
    name = {:match, self()}
    {:ok, _pid} = Registry.register(@steady, name, {:open, 3})
    check(Registry.match(@steady, name, {:open, :_}) == [{self(), {:open, 3}}])
    check(Registry.count_match(@steady, name, {:closed, :_}) == 0)
    check(Registry.values(@steady, name, self()) == [{:open, 3}])
    :ok = Registry.dispatch(@steady, name, fn [{pid, _value}] -> check(pid == self()) end)
    :ok = Registry.unregister_match(@steady, name, {:_, :"$1"}, [{:>, :"$1", 2}])
    check(Registry.lookup(@steady, name) == [])
  end

  defp act(:give_to_keeper, world) do
    # Long-lived processes give names back at some time: those left are counted at the end.
    keeper = elem(world.keepers, :rand.uniform(tuple_size(world.keepers)) - 1)
    name = {:kept, self(), :rand.uniform(1_000_000)}
    check(NativeRegistry.register_name({@steady, name}, keeper) == :yes)
    :ok = Registry.unregister(@steady, name, keeper)
    check(Registry.lookup(@steady, name) == [])
  end

  defp act(:long_name, _world) do
    name =
      case :rand.uniform(4) do
        1 -> {:long, self(), String.duplicate("long", 100 + :rand.uniform(1_000))}
        2 -> {:long, self(), Integer.pow(2, 70 + :rand.uniform(1_000))}
        3 -> {:long, self(), Map.new(1..50, &{&1, {&1}})}
        4 -> {:long, self(), fn -> self() end}
      end

    check(NativeRegistry.register_name({@steady, name}, self()) == :yes)
    check(NativeRegistry.whereis_name({@steady, name}) == self())
    if :rand.uniform(2) == 1, do: NativeRegistry.unregister_name({@steady, name})
    NativeRegistry.unregister_name({@steady, name})
  end

  # A registry is opened, used and closed, half of the time by the end of its supervisor.
  defp come_and_go(world, registry) do
    {pid, reference} =
      spawn_monitor(fn ->
        Process.flag(:trap_exit, true)
        {:ok, supervisor} = start_registry(registry, listeners: [Soak.Listener])
        :ok = Registry.subscribe(registry, {:told, :_})

        for number <- 1..100 do
          :yes = NativeRegistry.register_name({registry, {:told, number}}, self())
          spawn(fn -> register_or_too_late(registry, number) end)
        end

        case :rand.uniform(2) do
          1 -> Supervisor.stop(supervisor)
          2 -> Process.exit(supervisor, :kill)
        end

        eventually(fn -> Native.sizes(registry) == :no_registry end)
        eventually(fn -> Process.whereis(Owner.name(registry)) == nil end)
      end)

    await_down(pid, reference, :normal)
    count(world, :start_and_stop, 1)
  end

  defp register_or_too_late(registry, name) do
    Registry.register(registry, name, nil)
  rescue
    _closed in ArgumentError -> :ok
  end

  defp kill_owner(world) do
    owner = eventually(fn -> Process.whereis(Owner.name(@steady)) end)
    reference = Process.monitor(owner)
    Process.exit(owner, :kill)
    await_down(owner, reference)
    count(world, :kill_owner, 1)
  end

  defp start_registry(registry, options \\ []) do
    Supervisor.start_link([{NativeRegistry, [name: registry] ++ options}],
      strategy: :one_for_one,
      max_restarts: 1_000_000,
      max_seconds: 1
    )
  end

  # So few names that the workers collide.
  defp name, do: {:name, :rand.uniform(@names), "10f4b6e2-9b3a-4a4e-8d1c-0123456789ab"}

  defp count(world, kind, times) do
    at = Enum.find_index(kinds(), &(&1 == kind))
    :counters.add(world.counters, at + 1, times)
  end

  # Counted after everything that ended has been cleaned up.
  defp footprint do
    eventually(fn -> :code.soft_purge(Native) end)
    eventually(fn -> match?({0, _processes}, Native.sizes(@steady)) end)
    info = Registry.info(@steady)
    # The threads of closed registries end by themselves.
    threads = settled(&threads/0)
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    processes = Process.list()

    %{
      atoms: :erlang.system_info(:atom_count),
      processes: length(processes),
      ports: length(Port.list()),
      threads: threads,
      monitors: sum(processes, :monitors),
      # The library's own resources are included.
      monitored_by: sum(processes, :monitored_by),
      names: info.names,
      holders: info.processes,
      subscribers: info.subscribers,
      waiting: info.waiting,
      ets_tables: length(:ets.all()),
      system: settled(fn -> div(:erlang.memory(:system), 16_384) end) * 16_384,
      resident: resident()
    }
  end

  defp sum(processes, item) do
    processes
    |> Enum.map(fn pid ->
      case Process.info(pid, item) do
        {^item, list} -> length(list)
        nil -> 0
      end
    end)
    |> Enum.sum()
  end

  # Waits until the value has not changed for a while.
  defp settled(function), do: settled(function, function.(), 0)
  defp settled(_function, value, 20), do: value

  defp settled(function, value, times) do
    Process.sleep(10)

    case function.() do
      ^value -> settled(function, value, times + 1)
      another -> settled(function, another, 0)
    end
  end

  defp threads do
    case File.ls("/proc/self/task") do
      {:ok, threads} -> length(threads)
      {:error, _reason} -> 0
    end
  end

  defp resident do
    with {:ok, text} <- File.read("/proc/self/statm"),
         [_size, resident | _rest] <- String.split(text) do
      String.to_integer(resident) * page()
    else
      _other -> 0
    end
  end

  defp page do
    case System.cmd("getconf", ["PAGESIZE"]) do
      {text, 0} -> text |> String.trim() |> String.to_integer()
    end
  end

  defp receive_told(event) do
    receive do
      ^event -> :ok
    after
      @patience -> fail("this event did not arrive: #{inspect(event)}")
    end
  end

  defp await_down(_pid, reference, wanted \\ nil) do
    receive do
      {:DOWN, ^reference, :process, _pid, reason} ->
        if wanted != nil and reason != wanted,
          do: fail("ended by #{inspect(reason, pretty: true)}")
    after
      @patience -> fail("a process did not end")
    end
  end

  defp check(true), do: :ok
  defp check(false), do: raise("an answer was wrong")

  defp eventually(condition),
    do: eventually(condition, System.monotonic_time(:millisecond) + @patience)

  defp eventually(condition, deadline) do
    cond do
      result = condition.() ->
        result

      System.monotonic_time(:millisecond) > deadline ->
        fail("a condition that was waited for did not become true")

      true ->
        Process.sleep(5)
        eventually(condition, deadline)
    end
  end

  defp mib(bytes), do: Float.round(bytes / 1_048_576, 1)
  defp signed(number) when number > 0, do: "+#{number}"
  defp signed(number), do: "#{number}"

  defp fail(text) do
    IO.puts(:stderr, "FAILED: #{text}")
    System.halt(1)
  end
end

case Float.parse(List.first(System.argv()) || "") do
  {minutes, ""} when minutes > 0 -> Soak.run(minutes)
  _other -> raise ArgumentError, "expected a number of minutes"
end
