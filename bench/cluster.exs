# Measures registrations and lookups in a cluster, with this registry and with the engine alone, on nodes
# of 127.0.0.1.
#
#     mix run bench/cluster.exs [--quick] [--json FILE]

for file <- ~w(json measure), do: Code.require_file("support/#{file}.exs", __DIR__)

{:module, _name, node_code, _} =
  defmodule Bench.ClusterNode do
    # This module runs on the nodes.
    alias WorkflowMetal.Registration.NativeRegistry

    @registry Bench.Names
    @local Bench.LocalNames

    # Either the engine alone, or this registry on it.
    def start(:global, :alone),
      do: Application.put_env(:kernel, :global_multi_name_action, :allow)

    def start(:syn, :alone) do
      {:ok, _started} = Application.ensure_all_started(:syn)
      :ok = :syn.add_node_to_scopes([@registry])
    end

    def start(engine, :registry) do
      {:ok, _started} = Application.ensure_all_started(:workflow_metal_native_registry)

      children = [
        {NativeRegistry, name: @registry, cluster: engine},
        {NativeRegistry, name: @local}
      ]

      {:ok, pid} = Supervisor.start_link(children, strategy: :one_for_one)
      Process.unlink(pid)
      :ok
    end

    def members(:syn), do: length(:syn.subcluster_nodes(:registry, @registry))
    def members(:global), do: length(Node.list())

    # Microseconds for one of `count` registrations, each by a process of its own, as in WorkflowMetal.
    def register(engine, how, count) do
      names = for number <- 1..count, do: {node(), number}
      caller = self()

      {pids, times} =
        names
        |> Enum.map(fn name ->
          pid =
            spawn(fn ->
              # Not :timer.tc/1, which counts whole microseconds.
              start = System.monotonic_time(:nanosecond)
              register_one(engine, how, name)
              time = System.monotonic_time(:nanosecond) - start
              send(caller, {self(), time})
              receive do: (:stop -> unregister_one(engine, how, name))
              send(caller, {self(), :stopped})
            end)

          receive do
            {^pid, time} -> {pid, time}
          end
        end)
        |> Enum.unzip()

      for pid <- pids do
        send(pid, :stop)

        receive do
          {^pid, :stopped} -> :ok
        end
      end

      Enum.sum(times) / count / 1_000
    end

    # A process that holds names until the node ends.
    def hold(engine, how, count) do
      caller = self()

      spawn(fn ->
        for number <- 1..count, do: register_one(engine, how, {:held, node(), number})
        if how == :registry, do: for(number <- 1..count, do: hold_locally(number))
        send(caller, :held)
        Process.sleep(:infinity)
      end)

      receive do
        :held -> :ok
      end
    end

    defp hold_locally(number) do
      :yes = NativeRegistry.register_name({@local, {:held, node(), number}}, self())
    end

    # Nanoseconds for one of `count` lookups of names that a node holds.
    def lookup(engine, how, holder, names, count) do
      elsewhere(fn ->
        keys = for _lookup <- 1..count, do: {:held, holder, :rand.uniform(names)}
        {time, _answers} = :timer.tc(fn -> Enum.each(keys, &look_up(engine, how, &1)) end)
        time * 1_000 / count
      end)
    end

    defp register_one(_engine, :registry, name),
      do: :yes = NativeRegistry.register_name({@registry, name}, self())

    defp register_one(:global, :alone, name), do: :yes = :global.register_name(name, self())
    defp register_one(:syn, :alone, name), do: :ok = :syn.register(@registry, name, self())

    defp unregister_one(_engine, :registry, name),
      do: NativeRegistry.unregister_name({@registry, name})

    defp unregister_one(:global, :alone, name), do: :global.unregister_name(name)
    defp unregister_one(:syn, :alone, name), do: :syn.unregister(@registry, name)

    defp look_up(_engine, :registry, name),
      do: true = is_pid(NativeRegistry.whereis_name(%{registry: @registry}, name))

    defp look_up(_engine, :local, name),
      do: true = is_pid(NativeRegistry.whereis_name(%{registry: @local}, name))

    defp look_up(:global, :alone, name), do: true = is_pid(:global.whereis_name(name))
    defp look_up(:syn, :alone, name), do: {_pid, _meta} = :syn.lookup(@registry, name)

    defp elsewhere(fun) do
      {pid, reference} = spawn_monitor(fn -> exit({:answer, fun.()}) end)

      receive do
        {:DOWN, ^reference, :process, ^pid, {:answer, answer}} -> answer
        {:DOWN, ^reference, :process, ^pid, reason} -> exit(reason)
      end
    end
  end

defmodule Bench.Cluster do
  alias Bench.{JSON, Measure}

  @patience 120_000

  def run(arguments, node_code) do
    {options, _rest} = OptionParser.parse!(arguments, strict: [quick: :boolean, json: :string])
    numbers = if options[:quick], do: quick(), else: full()
    {_output, 0} = System.cmd("epmd", ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])

    engines = if Code.ensure_loaded?(:syn), do: [:global, :syn], else: [:global]
    if engines == [:global], do: IO.puts("syn is not on the code path and is not measured.")

    results = for engine <- engines, result <- measure(engine, numbers, node_code), do: result
    print(results)
    if options[:json], do: File.write!(options[:json], JSON.encode(results))
  end

  defp quick, do: %{rounds: 3, global: 30, syn: 500, names: 300, lookups: 20_000}
  defp full, do: %{rounds: 9, global: 100, syn: 2_000, names: 1_000, lookups: 200_000}

  defp measure(engine, numbers, node_code) do
    # The engine alone is measured on other nodes, because this registry sets syn's event handler.
    clusters =
      for how <- [:registry, :alone], do: %{key: how, nodes: start(engine, how, node_code)}

    for %{key: how, nodes: [one, two | _rest]} <- clusters, node <- [one, two] do
      call(node, :hold, [engine, how, numbers.names])
    end

    Measure.wait_until(fn -> Enum.all?(clusters, &sees_all?(engine, &1, numbers.names)) end)

    samples =
      Measure.rounds(clusters, numbers.rounds, fn cluster, round ->
        IO.write(:stderr, "\r#{engine}: round #{round + 1} of #{numbers.rounds} ")
        sample(engine, cluster, numbers)
      end)

    IO.write(:stderr, "\n")
    for %{nodes: nodes} <- clusters, {peer, _node} <- nodes, do: :peer.stop(peer)

    %{registry: ours, alone: theirs} =
      Map.new(samples, fn {how, samples} -> {how, medians(samples)} end)

    [
      rate(engine, "registrations a second, one node", ours.one, theirs.one),
      rate(engine, "registrations a second, three nodes at once", ours.three, theirs.three),
      time(engine, "lookup of an own name, ns", ours.own, "not in a cluster", ours.local),
      time(engine, "lookup of an own name, ns", ours.own, "the engine alone", theirs.own),
      time(
        engine,
        "lookup of another node's name, ns",
        ours.other,
        "the engine alone",
        theirs.other
      )
    ]
  end

  # Microseconds for a registration, nanoseconds for a lookup.
  defp sample(engine, %{key: how, nodes: nodes}, numbers) do
    [{_peer, own} = one, {_other_peer, other} | _rest] = nodes
    lookup = &call(one, :lookup, [engine, &1, &2, numbers.names, numbers.lookups])

    %{
      one: call(one, :register, [engine, how, numbers[engine]]),
      three: at_once(nodes, [engine, how, div(numbers[engine], 3)]) / 3,
      own: lookup.(how, own),
      other: lookup.(how, other),
      local: if(how == :registry, do: lookup.(:local, own), else: 0)
    }
  end

  defp medians(samples) do
    Map.new(hd(samples), fn {what, _sample} ->
      {what, Measure.median(for sample <- samples, do: sample[what])}
    end)
  end

  defp rate(engine, what, ours, theirs) do
    result(engine, what, 1.0e6 / ours, "the engine alone", 1.0e6 / theirs, theirs / ours)
  end

  defp time(engine, what, ours, beside, theirs) do
    result(engine, what, ours, beside, theirs, theirs / ours)
  end

  defp result(engine, what, ours, beside, theirs, ratio) do
    %{engine: engine, what: what, registry: ours, beside: beside, other: theirs, ratio: ratio}
  end

  # The time of the slowest node, for one registration on each node.
  defp at_once(nodes, arguments) do
    nodes
    |> Enum.map(&Task.async(fn -> call(&1, :register, arguments) end))
    |> Task.await_many(@patience)
    |> Enum.max()
  end

  defp sees_all?(engine, %{key: how, nodes: [one, {_peer, two} | _rest]}, names) do
    call(one, :lookup, [engine, how, two, 1, 1]) &&
      call(one, :lookup, [engine, how, two, names, 100])

    true
  catch
    _kind, _reason -> false
  end

  defp start(engine, how, node_code) do
    nodes = for _node <- 1..3, do: start_node(node_code)
    for one <- nodes, {_peer, other} <- nodes, do: rpc(one, :net_kernel, :connect_node, [other])
    for node <- nodes, do: call(node, :start, [engine, how])
    for node <- nodes, do: Measure.wait_until(fn -> call(node, :members, [engine]) == 2 end)
    nodes
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
            ~w(-kernel inet_dist_use_interface {127,0,0,1} -kernel logger_level error) ++
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

  defp call(node, function, arguments), do: rpc(node, Bench.ClusterNode, function, arguments)

  defp rpc({peer, _node}, module, function, arguments),
    do: :peer.call(peer, module, function, arguments, @patience)

  defp print(results) do
    for result <- results do
      IO.puts(
        String.pad_trailing("#{result.engine}: #{result.what}", 56) <>
          String.pad_leading("#{round(result.registry)}", 9) <>
          "   #{String.pad_trailing(result.beside, 17)}" <>
          String.pad_leading("#{round(result.other)}", 9) <> "   x#{Float.round(result.ratio, 2)}"
      )
    end
  end
end

Bench.Cluster.run(System.argv(), node_code)
