# Measures registrations, lookups and memory in clusters of three nodes of 127.0.0.1: with this registry on each of
# its engines, and with `:global` and syn alone.
#
#     mix run bench/cluster.exs [--quick] [--only PART] [--json FILE]
#
# The parts are registrations, lookups, memory and snapshot. syn and ra are measured if they are on the code path.

for file <- ~w(json measure), do: Code.require_file("support/#{file}.exs", __DIR__)

{:module, _name, node_code, _} =
  defmodule Bench.ClusterNode do
    # This module runs on the nodes.
    alias WorkflowMetal.Registration.NativeRegistry
    alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra

    @registry Bench.Names
    @local Bench.LocalNames

    # Either an engine alone, or this registry with the option `:cluster`.
    def start(:global, :alone),
      do: Application.put_env(:kernel, :global_multi_name_action, :allow)

    def start(:syn, :alone) do
      {:ok, _started} = Application.ensure_all_started(:syn)
      :ok = :syn.add_node_to_scopes([@registry])
    end

    def start(:registry, cluster) do
      {:ok, _started} = Application.ensure_all_started(:workflow_metal_native_registry)

      children = [
        {NativeRegistry, name: @registry, cluster: cluster, cluster_timeout: 60_000},
        {NativeRegistry, name: @local}
      ]

      {:ok, pid} = Supervisor.start_link(children, strategy: :one_for_one)
      Process.unlink(pid)
      :ok
    end

    # Whether all three nodes are in the cluster.
    def ready?(:syn), do: length(:syn.subcluster_nodes(:registry, @registry)) == 2
    def ready?(:global), do: length(Node.list()) == 2

    def ready?(_ra) do
      with pid when is_pid(pid) <- Process.whereis(Ra.Session),
           %{status: :open} <- :sys.get_state(pid),
           do: true,
           else: (_not_yet -> false)
    end

    # Registrations a second by so many callers at once, each name by a process of its own, as in WorkflowMetal. Each
    # caller goes on for so many milliseconds.
    def register(how, callers, milliseconds) do
      start = now()
      deadline = start + milliseconds * 1_000_000
      done = together(callers, &register_until(how, {node(), &1}, deadline, 0, []))
      seconds = (now() - start) / 1.0e9
      for {_names, pids} <- done, pid <- pids, do: Process.exit(pid, :kill)

      for number <- 1..callers,
          {names, _pids} = Enum.at(done, number - 1),
          names > 0,
          do: await_free(how, workflow_name({node(), number}, names - 1))

      # Behind what the engine still has to do.
      register_one(how, {:last, node()})
      unregister_one(how, {:last, node()})
      Enum.sum(for {names, _pids} <- done, do: names) / seconds
    end

    defp register_until(how, caller, deadline, names, pids) do
      if now() < deadline do
        name = workflow_name(caller, names)
        pid = holder(how, name)
        register_until(how, caller, deadline, names + 1, [pid | pids])
      else
        {names, pids}
      end
    end

    # A process that has registered a name, and holds it.
    defp holder(how, name) do
      caller = self()

      pid =
        spawn(fn ->
          register_one(how, name)
          send(caller, {self(), :registered})
          Process.sleep(:infinity)
        end)

      receive do
        {^pid, :registered} -> pid
      end
    end

    defp await_free(how, name) do
      if find(how, name) != :undefined do
        Process.sleep(1)
        await_free(how, name)
      end
    end

    # Processes that hold names until the node ends, with 64 callers. Answers the longest time in which none of them
    # got a name, in milliseconds.
    def fill(tag, names) do
      callers = min(64, names)
      last = :atomics.new(1, [])
      :atomics.put(last, 1, now())

      1..callers
      |> Enum.map(fn caller ->
        share = div(names, callers) + if(caller <= rem(names, callers), do: 1, else: 0)
        hold(fn -> longest_pause({tag, caller}, share, last) end)
      end)
      |> Enum.map(fn pid ->
        receive do
          {^pid, :held, longest} -> longest
        end
      end)
      |> Enum.max()
      |> div(1_000_000)
    end

    defp hold(fun) do
      caller = self()

      spawn(fn ->
        send(caller, {self(), :held, fun.()})
        :erlang.garbage_collect()
        Process.sleep(:infinity)
      end)
    end

    defp longest_pause(caller, names, last) do
      Enum.reduce(1..names//1, 0, fn number, longest ->
        register_one(:registry, workflow_name(caller, number))
        time = now()
        max(longest, time - :atomics.exchange(last, 1, time))
      end)
    end

    # Names that are looked up.
    def hold_names(how, names) do
      pid = hold(fn -> for number <- 1..names, do: hold_one(how, {:held, node(), number}) end)

      receive do
        {^pid, :held, _names} -> :ok
      end
    end

    defp hold_one(how, name) do
      register_one(how, name)
      if how == :registry, do: :yes = NativeRegistry.register_name({@local, name}, self())
    end

    # Whether this node sees the name that another one has registered last.
    def sees?(how, holder, names), do: find(how, {:held, holder, names}) != :undefined

    # Nanoseconds for one lookup in each of two ways: medians of 101 short turns each, so that other work on the machine
    # comes to both.
    def lookups_in_turns(one, other, holder, names, count) do
      [times] =
        together(1, fn _one ->
          for _turn <- 1..101 do
            keys = for _lookup <- 1..div(count, 100), do: {:held, holder, :rand.uniform(names)}
            for how <- [one, other], do: timed(how, keys)
          end
        end)

      for at <- 0..1, do: times |> Enum.map(&Enum.at(&1, at)) |> Enum.sort() |> Enum.at(50)
    end

    defp timed(how, keys) do
      start = now()
      Enum.each(keys, &look_up(how, &1))
      (now() - start) / length(keys)
    end

    # Nanoseconds for one of `count` lookups of names that a node holds.
    def lookup(how, holder, names, count) do
      [time] =
        together(1, fn _one ->
          keys = for _lookup <- 1..count, do: {:held, holder, :rand.uniform(names)}
          timed(how, keys)
        end)

      time
    end

    # Bytes on this node, after a garbage collection of all processes.
    def memory do
      for pid <- Process.list(), do: :erlang.garbage_collect(pid)
      {_names, mirror} = Ra.Mirror.info()
      {server, _node} = Ra.Server.id()
      {:memory, state} = server |> Process.whereis() |> Process.info(:memory)

      %{
        vm: :erlang.memory(:total),
        processes: :erlang.memory(:processes),
        ets: :erlang.memory(:ets),
        binary: :erlang.memory(:binary),
        state: state,
        native: NativeRegistry.Registry.info(@registry).bytes + mirror,
        mirror: mirror
      }
    end

    # Of two UUIDs, as WorkflowMetal has them.
    defp workflow_name(caller, number) do
      {:case, {uuid(:erlang.phash2(caller), number), uuid(number, :erlang.phash2(caller))}}
    end

    defp uuid(one, two) do
      hex = Base.encode16(<<one::64, two::64>>, case: :lower)
      <<a::binary-8, b::binary-4, c::binary-4, d::binary-4, e::binary-12>> = hex
      # What is appended to a binary has room for more, unlike a UUID that was read.
      :binary.copy(Enum.join([a, b, c, d, e], "-"))
    end

    defp register_one(:registry, name),
      do: :yes = NativeRegistry.register_name({@registry, name}, self())

    defp register_one(:global, name), do: :yes = :global.register_name(name, self())
    defp register_one(:syn, name), do: :ok = :syn.register(@registry, name, self())

    defp unregister_one(:registry, name), do: NativeRegistry.unregister_name({@registry, name})
    defp unregister_one(:global, name), do: :global.unregister_name(name)
    defp unregister_one(:syn, name), do: :syn.unregister(@registry, name)

    defp look_up(:syn, name), do: {_pid, _meta} = find(:syn, name)
    defp look_up(how, name), do: true = is_pid(find(how, name))

    defp find(:registry, name), do: NativeRegistry.whereis_name(%{registry: @registry}, name)
    defp find(:local, name), do: NativeRegistry.whereis_name(%{registry: @local}, name)
    defp find(:global, name), do: :global.whereis_name(name)
    defp find(:syn, name), do: :syn.lookup(@registry, name)

    # One process for each number, or for each element of a list.
    defp together(count, fun) when is_integer(count), do: together(Enum.to_list(1..count), fun)

    defp together(list, fun) do
      for one <- list do
        spawn_monitor(fn -> exit({:answer, fun.(one)}) end)
      end
      |> Enum.map(fn {pid, reference} ->
        receive do
          {:DOWN, ^reference, :process, ^pid, {:answer, answer}} -> answer
          {:DOWN, ^reference, :process, ^pid, reason} -> exit(reason)
        end
      end)
    end

    # Not :timer.tc/1, which counts whole microseconds.
    defp now, do: System.monotonic_time(:nanosecond)
  end

defmodule Bench.Cluster do
  alias Bench.{JSON, Measure}

  @patience 900_000
  @parts ~w(registrations lookups memory snapshot)
  @callers [1, 16, 64, 256]
  @million 1_000_000

  # What an engine alone is measured as, and this registry on it. They run on nodes of their own: this registry sets
  # syn's event handler.
  @clusters [
    global: ":global alone",
    registry_global: "registry, :global",
    syn: "syn alone",
    registry_syn: "registry, syn",
    ra: "registry, :ra without fsync",
    ra_fsync: "registry, :ra"
  ]

  def run(arguments, node_code) do
    switches = [quick: :boolean, json: :string, only: :keep]
    {options, _rest} = OptionParser.parse!(arguments, strict: switches)
    numbers = if options[:quick], do: quick(), else: full()
    parts = parts!(Keyword.get_values(options, :only), numbers.parts)
    {_output, 0} = System.cmd("epmd", ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])

    missing = for engine <- [:syn, :ra], not Code.ensure_loaded?(engine), do: engine
    for engine <- missing, do: IO.puts("#{engine} is not on the code path and is not measured.")
    keys = for {key, _title} <- @clusters, engine(key) not in missing, do: key

    result = in_turns(keys, parts, numbers, node_code)
    print(result)
    memory? = :ra not in missing and ("memory" in parts or "snapshot" in parts)
    memory = if memory?, do: memory(numbers, parts, node_code), else: %{}
    print_memory(memory)
    print_wanted(result, memory)

    if options[:json],
      do: File.write!(options[:json], JSON.encode(%{medians: result, memory: memory}))
  end

  defp quick do
    %{
      rounds: 2,
      time: 300,
      names: 300,
      lookups: 20_000,
      memory: 10_000,
      parts: @parts -- ["snapshot"]
    }
  end

  defp full do
    %{rounds: 5, time: 500, names: 1_000, lookups: 200_000, memory: 100_000, parts: @parts}
  end

  defp parts!([], parts), do: parts

  defp parts!(only, _parts) do
    unless only -- @parts == [],
      do: raise(ArgumentError, "the parts are #{Enum.join(@parts, ", ")}")

    only
  end

  defp engine(:registry_global), do: :global
  defp engine(:registry_syn), do: :syn
  defp engine(:ra_fsync), do: :ra
  defp engine(alone), do: alone

  # What the nodes are asked to do: with the engine alone, or with this registry.
  defp how(key) when key in [:global, :syn], do: key
  defp how(_key), do: :registry

  ## Registrations and lookups

  defp in_turns(keys, parts, numbers, node_code) do
    if "registrations" in parts or "lookups" in parts do
      clusters = for key <- keys, do: start(key, node_code)
      if "lookups" in parts, do: for(cluster <- clusters, do: prepare_lookups(cluster, numbers))

      samples =
        Measure.rounds(clusters, numbers.rounds, fn cluster, round ->
          IO.write(
            :stderr,
            "\r#{String.pad_trailing("round #{round + 1} of #{numbers.rounds}: #{cluster.key}", 50)}"
          )

          sample(cluster, parts, numbers)
        end)

      IO.write(:stderr, "\n")
      for cluster <- clusters, do: stop(cluster)
      Map.new(samples, fn {key, samples} -> {key, medians(samples)} end)
    else
      %{}
    end
  end

  defp prepare_lookups(%{nodes: [one, two | _rest]} = cluster, numbers) do
    for node <- [one, two], do: call(node, :hold_names, [how(cluster.key), numbers.names])
    sees = [how(cluster.key), elem(two, 1), numbers.names]
    Measure.wait_until(fn -> call(one, :sees?, sees) end)
  end

  defp sample(%{key: key, nodes: [one | _others] = nodes}, parts, numbers) do
    registrations =
      if "registrations" in parts do
        rates = for c <- @callers, do: {"#{c}", call(one, :register, [how(key), c, numbers.time])}
        three = at_once(nodes, :register, [how(key), 64, numbers.time])
        [{"3x64", Enum.sum(three)} | rates]
      else
        []
      end

    Map.new(registrations ++ if("lookups" in parts, do: lookups(key, nodes, numbers), else: []))
  end

  # Nanoseconds. Own names beside those of a registry of this node alone, in turns as well.
  defp lookups(key, [{_peer, own} = one, {_other_peer, other} | _rest], numbers) do
    lookup = &call(one, :lookup, [&1, &2, numbers.names, numbers.lookups])

    if how(key) == :registry do
      in_turns = [:local, :registry, own, numbers.names, numbers.lookups]
      [local, own] = call(one, :lookups_in_turns, in_turns)
      [local: local, own: own, own_to_local: own / local, other: lookup.(:registry, other)]
    else
      [own: lookup.(key, own), other: lookup.(key, other)]
    end
  end

  defp medians(samples) do
    Map.new(hd(samples), fn {what, _sample} ->
      {what, Measure.median(for sample <- samples, do: sample[what])}
    end)
  end

  ## Memory

  # Bytes a name on each node, the holder's first, when one node holds all; then as many as make a million.
  defp memory(numbers, parts, node_code) do
    %{nodes: [one | _others] = nodes} = cluster = start(:ra, node_code)
    before = for node <- nodes, do: call(node, :memory, [])
    _pause = call(one, :fill, [:first, numbers.memory])
    settle(nodes, numbers.memory)
    later = for node <- nodes, do: call(node, :memory, [])

    memory =
      for {before, later} <- Enum.zip(before, later) do
        a_name = for {what, bytes} <- later, do: {what, (bytes - before[what]) / numbers.memory}
        Map.new([{:all, 0} | a_name]) |> then(&%{&1 | all: &1.vm + &1.native})
      end

    snapshot = if "snapshot" in parts, do: snapshot(cluster, numbers), else: %{}
    stop(cluster)
    Map.merge(%{names: numbers.memory, nodes: memory}, snapshot)
  end

  # Until all nodes have the names, and ra has written what it had in memory.
  defp settle(nodes, names) do
    Measure.wait_until(fn ->
      Enum.all?(tl(nodes), fn node ->
        elem(rpc(node, WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Mirror, :info, []), 0) >=
          names
      end)
    end)

    Process.sleep(2_000)
  end

  defp snapshot(%{nodes: [one | _others], folder: folder}, numbers) do
    start = Measure.now()
    pause = call(one, :fill, [:more, @million - numbers.memory])
    seconds = Measure.nanoseconds(Measure.now() - start) / 1.0e9
    files = Path.wildcard(Path.join(folder, "**/snapshot.dat"))
    bytes = files |> Enum.map(&File.stat!(&1).size) |> Enum.max(fn -> 0 end)
    rate = (@million - numbers.memory) / seconds
    %{million_rate: rate, snapshot_bytes: bytes, longest_pause_ms: pause}
  end

  ## Nodes

  defp start(key, node_code) do
    nodes = for _node <- 1..3, do: start_node(node_code)
    for one <- nodes, {_peer, other} <- nodes, do: rpc(one, :net_kernel, :connect_node, [other])
    folder = Path.join(System.tmp_dir!(), "bench_cluster_#{System.pid()}_#{key}")
    arguments = arguments(key, for({_peer, node} <- nodes, do: node), folder)
    at_once(nodes, :start, arguments)
    for node <- nodes, do: Measure.wait_until(fn -> call(node, :ready?, [engine(key)]) end)
    %{key: key, nodes: nodes, folder: folder}
  end

  defp arguments(key, _nodes, _folder) when key in [:global, :syn], do: [key, :alone]
  defp arguments(:registry_global, _nodes, _folder), do: [:registry, :global]
  defp arguments(:registry_syn, _nodes, _folder), do: [:registry, :syn]

  defp arguments(key, nodes, folder),
    do: [:registry, {:ra, nodes: nodes, data_dir: folder, fsync: key == :ra_fsync}]

  defp stop(%{nodes: nodes, folder: folder}) do
    for {peer, _node} <- nodes, do: :peer.stop(peer)
    File.rm_rf!(folder)
  end

  defp start_node(node_code) do
    {:ok, peer, node} =
      :peer.start(%{
        name: :"bench_#{System.pid()}_#{System.unique_integer([:positive])}",
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        args:
          Enum.map(
            # Many VMs share the processors, and one that waits for work takes no time from the others.
            ~w(-kernel inet_dist_use_interface {127,0,0,1} -kernel logger_level error) ++
              ~w(-kernel prevent_overlapping_partitions false) ++
              ~w(+sbwt none +sbwtdcpu none +sbwtdio none) ++
              ~w(-setcookie bench_workflow_metal_native_registry),
            &String.to_charlist/1
          )
      })

    node = {peer, node}
    rpc(node, :code, :add_paths, [:code.get_path()])
    {:ok, _started} = rpc(node, :application, :ensure_all_started, [:elixir])
    {:module, module} = rpc(node, :code, :load_binary, [Bench.ClusterNode, ~c"nofile", node_code])
    true = module == Bench.ClusterNode
    node
  end

  defp at_once(nodes, function, arguments) do
    nodes
    |> Enum.map(&Task.async(fn -> call(&1, function, arguments) end))
    |> Task.await_many(@patience)
  end

  defp call(node, function, arguments), do: rpc(node, Bench.ClusterNode, function, arguments)

  defp rpc({peer, _node}, module, function, arguments),
    do: :peer.call(peer, module, function, arguments, @patience)

  ## Output

  @rows [
    {"1", "registrations a second, 1 caller"},
    {"16", "16 callers"},
    {"64", "64 callers"},
    {"256", "256 callers"},
    {"3x64", "64 callers on each node"},
    {:own, "lookup of an own name, ns"},
    {:local, "in a registry of this node alone"},
    {:own_to_local, "own : this node alone"},
    {:other, "lookup of another node's name, ns"}
  ]

  defp print(result) do
    for {key, title} <- @clusters, figures = result[key] do
      IO.puts("\n#{title}")

      for {row, text} <- @rows, figure = figures[row] do
        IO.puts("  " <> String.pad_trailing(text, 36) <> String.pad_leading(figure(figure), 12))
      end
    end
  end

  defp print_memory(memory) do
    for {node, number} <- Enum.with_index(memory[:nodes] || [], 1) do
      IO.puts("\n:ra, #{memory.names} names of node 1, bytes a name on node #{number}")

      for {what, bytes} <- node,
          do: IO.puts("  #{String.pad_trailing("#{what}", 36)}#{figure(bytes)}")
    end

    for what <- [:million_rate, :snapshot_bytes, :longest_pause_ms],
        value = memory[what],
        do: IO.puts("#{String.pad_trailing("a million names: #{what}", 38)}#{figure(value)}")
  end

  defp print_wanted(result, memory) do
    IO.puts("\nWanted")

    for {text, measured} <- wanted(result, memory),
        measured,
        do: IO.puts("  #{text}: #{figure(measured)}")
  end

  defp wanted(result, memory) do
    [
      {"16 callers, :ra without fsync : :global, at least 10", ratio(result, :ra, :global, "16")},
      {"16 callers, :ra : :global, at least 10", ratio(result, :ra_fsync, :global, "16")},
      {"64 callers, :ra without fsync, at least 20,000", result[:ra]["64"]},
      {"own name, :ra : this node alone, at most 1.2", result[:ra][:own_to_local]},
      {"another node's name, :ra : :global, below 1", ratio(result, :ra, :global, :other)},
      {"bytes a name on a node, below 600",
       memory[:nodes] && memory.nodes |> Enum.map(& &1.all) |> Enum.max()}
    ]
  end

  defp ratio(result, one, other, what) do
    with one when one != nil <- result[one][what],
         other when other != nil <- result[other][what],
         do: one / other
  end

  defp figure(number) when is_integer(number), do: "#{number}"

  defp figure(number) when abs(number) < 100,
    do: :erlang.float_to_binary(number * 1.0, decimals: 2)

  defp figure(number), do: "#{round(number)}"
end

Bench.Cluster.run(System.argv(), node_code)
