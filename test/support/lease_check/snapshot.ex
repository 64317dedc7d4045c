defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Snapshot do
  @moduledoc false
  # Registers very many names, so that the members write snapshots of them and send one to a member that was
  # away, and measures how long each node has to wait for a registration meanwhile. No lease may run out.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Lease, Server}
  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Nodes
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  import WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Nodes

  @holders 64
  @lease 8_000
  # Only a run that fails takes so long, in milliseconds.
  @limit 3_600_000

  @doc "Answers what was measured as lines of text, or what does not hold."
  @spec run(names :: pos_integer) :: {:ok, String.t()} | {:error, String.t()}
  def run(names) do
    cluster = Nodes.start(lease: @lease, timeout: 60_000)

    try do
      for number <- numbers(),
          do: call(cluster, number, __MODULE__, :watch, [cluster.registry, number])

      started = now()
      call(cluster, 1, __MODULE__, :register, [cluster.registry, names])

      eventually(
        fn -> all_done?(cluster) end,
        "all is registered",
        @limit
      )

      registered = {now() - started, watched(cluster)}

      # Until a snapshot has all of the names in it.
      before = snapshot_index(cluster)
      call(cluster, 1, __MODULE__, :renew, [])
      eventually(fn -> snapshot_index(cluster) > before end, "a snapshot of all", @limit)
      call(cluster, 1, __MODULE__, :stop_renewing, [])
      eventually(fn -> all_done?(cluster) end, "it ends", @limit)
      snapshot = watched(cluster)

      # A member that comes back has to take the names from its disk, or from a snapshot that is sent.
      follower = Enum.find([2, 3], &(&1 != leader(cluster)))
      kill(cluster, follower)
      started = now()
      boot(cluster, follower)
      heal(cluster)
      await_registers(cluster, [follower])
      back = now() - started
      name = call(cluster, 1, __MODULE__, :name_of, [@holders, 1])

      find = fn ->
        is_pid(call(cluster, follower, NativeRegistry, :whereis_name, [{cluster.registry, name}]))
      end

      eventually(find, "it finds the names", @limit)
      found = now() - started
      restart = watched(cluster, numbers() -- [follower])
      held = call(cluster, 1, Registry, :count, [cluster.registry])

      text =
        "#{names} names of one node, a lease of #{@lease} ms\n" <>
          line("registered in #{elem(registered, 0)} ms", elem(registered, 1)) <>
          line("until a snapshot of all of them was written", snapshot) <>
          line(
            "a follower was killed, registered again after #{back} ms, found the names after #{found} ms",
            restart
          )

      fenced? =
        Enum.any?(
          [elem(registered, 1), snapshot, restart],
          &Enum.any?(&1, fn watched -> watched.invalid end)
        )

      # The watcher's own name may be among them.
      if fenced? or held not in names..(names + 1),
        do:
          {:error, "a lease ran out, or names were lost: #{held} of #{names} are held\n" <> text},
        else: {:ok, text}
    catch
      {:fenced, text} -> {:error, text}
    after
      stop(cluster)
    end
  end

  # The holders are ended when a lease runs out.
  defp all_done?(cluster) do
    if Enum.any?(numbers(), &call(cluster, &1, __MODULE__, :invalid?, [])) do
      measured = line("a lease ran out", watched(cluster))
      throw({:fenced, measured})
    end

    call(cluster, 1, __MODULE__, :done, []) == @holders
  end

  defp line(what, watched) do
    parts =
      for %{node: node, longest: longest, left: left} <- watched,
          do: "node #{node} #{longest} ms and #{left} ms"

    "  #{what}: the longest registration, and the least that was left of the lease: #{Enum.join(parts, ", ")}\n"
  end

  defp watched(cluster, numbers \\ numbers()),
    do:
      for(
        number <- numbers,
        do: Map.put(call(cluster, number, __MODULE__, :watched, []), :node, number)
      )

  defp snapshot_index(cluster) do
    leader = leader(cluster)
    id = call(cluster, leader, Server, :id, [])
    %{snapshot_index: index} = call(cluster, leader, :ra, :key_metrics, [id])
    index
  end

  defp now, do: System.monotonic_time(:millisecond)

  ## On a node

  @watcher Module.concat(__MODULE__, Watcher)
  @done {__MODULE__, :done}
  @renew {__MODULE__, :renew}

  @doc "Registers a name and gives it back, again and again, and looks at the lease."
  def watch(registry, number) do
    {:ok, _pid} = Agent.start(fn -> nothing() end, name: @watcher)
    spawn(fn -> watch_lease(registry) end)

    spawn(fn ->
      Stream.repeatedly(fn ->
        start = now()

        with {:ok, _this} <- Registry.register(registry, {:watch, number}, nil),
             do: Registry.unregister(registry, {:watch, number})

        took = now() - start
        Agent.update(@watcher, &%{&1 | longest: max(&1.longest, took)})
        Process.sleep(5)
      end)
      |> Stream.run()
    end)

    :ok
  end

  defp watch_lease(registry) do
    left = div(Lease.left(), 1_000_000)
    valid? = Registry.lease_valid?(registry)
    Agent.update(@watcher, &%{&1 | left: min(&1.left, left), invalid: &1.invalid or not valid?})
    Process.sleep(5)
    watch_lease(registry)
  end

  defp nothing, do: %{longest: 0, left: @lease, invalid: false}

  def invalid?, do: Agent.get(@watcher, & &1.invalid)

  @doc "Since it was asked last."
  def watched, do: Agent.get_and_update(@watcher, &{&1, nothing()})

  def name_of(holder, number),
    do: {"9f1c7c1e-6a3f-4d0b-8f5e-#{holder}", "0d6e1f0a-52b7-4c7e-9d43-#{number}"}

  @doc "Starts holders that register all of the names between them."
  def register(registry, names) do
    :persistent_term.put(@done, :counters.new(1, []))
    each = div(names, @holders)

    for holder <- 1..@holders do
      count = if holder == @holders, do: names - each * (@holders - 1), else: each

      spawn(fn ->
        for number <- 1..count,
            do: {:ok, _} = Registry.register(registry, name_of(holder, number), nil)

        Process.register(self(), :"renew_#{holder}")
        :counters.add(:persistent_term.get(@done), 1, 1)
        receive do: (:renew -> renew(registry, holder, count, 1))
      end)
    end

    :ok
  end

  def done, do: :counters.get(:persistent_term.get(@done), 1)

  @doc "The holders give names back and take them again until they are told to stop."
  def renew do
    :counters.put(:persistent_term.get(@done), 1, 0)
    :persistent_term.put(@renew, true)
    for holder <- 1..@holders, do: send(:"renew_#{holder}", :renew)
    :ok
  end

  def stop_renewing, do: :persistent_term.put(@renew, false)

  defp renew(registry, holder, count, number) do
    if :persistent_term.get(@renew) do
      name = name_of(holder, rem(number, count) + 1)
      :ok = Registry.unregister(registry, name)
      {:ok, _} = Registry.register(registry, name, nil)
      renew(registry, holder, count, number + 1)
    else
      :counters.add(:persistent_term.get(@done), 1, 1)
      Process.sleep(:infinity)
    end
  end
end
