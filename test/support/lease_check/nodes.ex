defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Nodes do
  @moduledoc false
  # Three real nodes on 127.0.0.1 with a registry of the engine `:ra`, and what happens to them. They are
  # controlled through standard input and output, and numbered.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra

  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.{
    Checks,
    History,
    Later,
    Member,
    Mutants
  }

  alias WorkflowMetal.Registration.NativeRegistry.{CrashLog, OtherVM}

  @patience 60_000
  # How long the cluster may take for what it does by itself. Only a failing check waits that long.
  @settles 120_000
  @numbers [1, 2, 3]
  @cookie :workflow_metal_native_registry_check

  # Of what is done to the nodes here.
  @expected [
    ~r/Connection attempt (from|to).*rejected|Connection attempt from disallowed node/s,
    ~r/the engine of .* is down: :(killed|shutdown)/,
    ~r/The ra server of the registry has ended: :killed/,
    # The answer to a node's session that was killed with the node.
    ~r/Discarding message .*ra_event.* in an old incarnation/s
  ]

  @enforce_keys [:agent, :registry, :folder, :lease, :timeout]
  defstruct [:agent, :registry, :folder, :lease, :timeout]

  @doc "Starts the nodes and waits until each of them registers names. `options` are `:lease` and `:mutant`."
  def start(options \\ []) do
    unique = "#{System.pid()}_#{System.unique_integer([:positive])}"
    start_epmd()

    # Not linked, so that it is there when a test has ended, and its nodes have to.
    {:ok, agent} =
      Agent.start(fn ->
        %{nodes: %{}, names: %{}, paused: [], history: %{}, boots: 0, all: [], wrong: []}
      end)

    cluster = %__MODULE__{
      agent: agent,
      registry: :"lease_check_#{unique}",
      folder: Path.join(System.tmp_dir!(), "lease_check_#{unique}"),
      lease: options[:lease] || 2_000,
      timeout: options[:timeout] || 2_000
    }

    names = Map.new(@numbers, &{&1, :"lease_check_#{unique}_#{&1}@127.0.0.1"})
    Agent.update(agent, &%{&1 | names: names})

    try do
      together(@numbers, &boot(cluster, &1, options))
      await_registers(cluster)
      cluster
    catch
      kind, reason ->
        stop(cluster)
        :erlang.raise(kind, reason, __STACKTRACE__)
    end
  end

  @doc "Ends the nodes, and removes what they have written."
  def stop(cluster) do
    for {peer, os} <- Agent.get(cluster.agent, & &1.all), do: OtherVM.kill(peer, os)
    Agent.stop(cluster.agent)
    File.rm_rf!(cluster.folder)
  end

  def boot(cluster, number, options \\ []) do
    {:ok, peer, name} =
      :peer.start(%{
        name:
          cluster
          |> name(number)
          |> Atom.to_string()
          |> String.split("@")
          |> hd()
          |> String.to_atom(),
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        wait_boot: @patience,
        args:
          ~w(-kernel dist_auto_connect never -kernel inet_dist_use_interface {127,0,0,1})
          |> Enum.concat(
            ~w(-kernel logger_level emergency -kernel prevent_overlapping_partitions false)
          )
          |> Enum.concat(~w(-setcookie #{@cookie} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none))
          |> Enum.map(&String.to_charlist/1)
      })

    os = peer |> :peer.call(:os, :getpid, [], @patience) |> to_string()

    Agent.update(cluster.agent, fn state ->
      node = %{peer: peer, os: os, number: number, name: name, boot: state.boots, bystanders: nil}
      nodes = Map.put(state.nodes, number, node)
      %{state | nodes: nodes, boots: state.boots + 1, all: [{peer, os} | state.all]}
    end)

    call(cluster, number, :code, :add_paths, [:code.get_path()])

    {:ok, _} =
      call(cluster, number, :application, :ensure_all_started, [:workflow_metal_native_registry])

    :ok = call(cluster, number, Member, :prepare, [])
    if options[:mutant], do: mutate(cluster, number, options[:mutant])
    if options[:later], do: load(cluster, number, Later.sources())
    open(cluster, number)
  end

  @doc "Starts the registry of the node."
  def open(%{registry: registry} = cluster, number) do
    :ok = call(cluster, number, Member, :start, [registry, options(cluster)])
    bystanders = call(cluster, number, Member, :bystanders, [registry])
    Agent.update(cluster.agent, &put_in(&1.nodes[number].bystanders, bystanders))
  end

  @doc "Stops the registry of the node, and with it the engine."
  def close(%{registry: registry} = cluster, number) do
    Agent.update(cluster.agent, &put_in(&1.nodes[number].bystanders, nil))
    call(cluster, number, Member, :stop, [registry])
  end

  defp options(cluster) do
    ra = [
      nodes: for(number <- @numbers, do: name(cluster, number)),
      data_dir: cluster.folder,
      lease: cluster.lease,
      # Neither a VM that is killed nor one that is stopped loses what the operating system has.
      fsync: false
    ]

    [cluster: {:ra, ra}, cluster_timeout: cluster.timeout]
  end

  @doc "Removes what the node's member has written, as an empty disk would."
  def wipe(cluster, number) do
    [cluster.folder, "native_registry", Atom.to_string(name(cluster, number))]
    |> Path.join()
    |> File.rm_rf!()
  end

  @doc "Changes the code of the node."
  def mutate(cluster, number, mutant), do: load(cluster, number, Mutants.sources(mutant))

  defp load(cluster, number, sources) do
    for {source, file} <- sources, do: call(cluster, number, Member, :load, [source, file])
    :ok
  end

  def mutate(cluster, mutant), do: together(@numbers, &mutate(cluster, &1, mutant))

  def numbers, do: @numbers
  def name(cluster, number), do: Agent.get(cluster.agent, & &1.names[number])

  @doc "The nodes that run and are not paused."
  def awake(cluster), do: Agent.get(cluster.agent, &(Map.keys(&1.nodes) -- &1.paused))

  def dead(cluster), do: Agent.get(cluster.agent, &(@numbers -- Map.keys(&1.nodes)))

  def call(cluster, number, module, function, arguments) do
    %{peer: peer} = Agent.get(cluster.agent, & &1.nodes[number])
    :peer.call(peer, module, function, arguments, @patience)
  end

  def together(numbers, function) do
    numbers |> Enum.map(&Task.async(fn -> function.(&1) end)) |> Task.await_many(@settles * 2)
  end

  ## What happens to them

  @doc "Cuts the connections of each of these nodes with each of those."
  def cut(cluster, numbers, others) do
    for one <- numbers,
        other <- others,
        one != other,
        number <- awake(cluster),
        number == one or number == other do
      far = if number == one, do: other, else: one
      call(cluster, number, Member, :cut, [name(cluster, far)])
    end

    :ok
  end

  def isolate(cluster, number), do: cut(cluster, [number], @numbers -- [number])

  def heal(cluster, number, other) do
    call(cluster, other, Member, :uncut, [name(cluster, number)])
    call(cluster, number, Member, :heal, [name(cluster, other)])
  end

  def heal(cluster) do
    for one <- awake(cluster),
        other <- awake(cluster),
        one != other,
        do: call(cluster, one, Member, :uncut, [name(cluster, other)])

    for one <- awake(cluster),
        other <- awake(cluster),
        one != other,
        do: call(cluster, one, Member, :heal, [name(cluster, other)])

    :ok
  end

  @doc "Pauses the node's VM."
  def pause(cluster, number) do
    pull(cluster, number)
    OtherVM.pause(os(cluster, number))
    Agent.update(cluster.agent, &%{&1 | paused: [number | &1.paused]})
  end

  def resume(cluster, number) do
    OtherVM.resume(os(cluster, number))
    Agent.update(cluster.agent, &%{&1 | paused: List.delete(&1.paused, number)})
  end

  @doc "Kills the node's VM."
  def kill(cluster, number) do
    if number in awake(cluster), do: pull(cluster, number)
    %{peer: peer} = Agent.get(cluster.agent, & &1.nodes[number])
    OtherVM.kill(peer, os(cluster, number))

    Agent.update(
      cluster.agent,
      &%{&1 | nodes: Map.delete(&1.nodes, number), paused: List.delete(&1.paused, number)}
    )
  end

  defp os(cluster, number), do: Agent.get(cluster.agent, & &1.nodes[number].os)

  ## What is awaited

  @doc "The number of the leader, when the nodes that are awake know the same one."
  def leader(cluster) do
    eventually(
      fn -> with(leader when not is_integer(leader) <- leader_now(cluster), do: nil) end,
      "one leader"
    )
  end

  def leader_now(cluster) do
    with [leader] <- cluster |> awake() |> Enum.map(&leader_of(cluster, &1)) |> Enum.uniq(),
         do: leader
  end

  @doc "The number of the leader, as this node knows it."
  def leader_of(cluster, number) do
    with {{_server, node}, _members} <- call(cluster, number, Ra.System, :known, []),
         do: Enum.find(@numbers, &(name(cluster, &1) == node))
  end

  @doc "Waits until each of the nodes registers a name."
  def await_registers(cluster, numbers \\ @numbers) do
    for number <- numbers do
      eventually(
        fn ->
          call(cluster, number, Member, :probe, [cluster.registry, {:probe, number}]) == :ok
        end,
        "node #{number} registers a name"
      )
    end

    :ok
  end

  @doc "Starts a process that registers the name, and waits until it has it."
  def hold(cluster, number, name, options \\ []) do
    pid = spawn_holder(cluster, number, name, options)
    await_hold(cluster, number, pid)
    pid
  end

  def spawn_holder(cluster, number, name, options) do
    options = Keyword.merge([life: :infinity, patient: true], options)
    call(cluster, number, Member, :hold, [cluster.registry, name, options])
  end

  def await_hold(cluster, number, pid) do
    eventually(
      fn -> number in awake(cluster) and holds?(cluster, number, pid) end,
      "#{inspect(pid)} has its name"
    )
  end

  @doc "Whether the process has a name, and has noted that it held it."
  def holds?(cluster, number, pid) do
    for({{:hold, _}, _, _, ^pid, _, _, _, vf, _, _, _, _} <- rows(cluster, number), do: vf)
    |> Enum.any?()
  end

  def eventually(condition, text, limit \\ @settles) do
    with :error <- within(condition, limit), do: raise("was awaited, and did not come: #{text}")
  end

  @doc "What the condition answers when it is true, or `:error` after the time."
  def within(condition, limit, start \\ now()) do
    cond do
      answer = condition.() ->
        answer

      now() - start > limit ->
        :error

      true ->
        Process.sleep(20)
        within(condition, limit, start)
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  ## The history

  defp rows(cluster, number), do: call(cluster, number, History, :rows, [])

  # What a node noted before it is killed, and what it notes after a pause, are one history.
  defp pull(cluster, number) do
    %{boot: boot} = Agent.get(cluster.agent, & &1.nodes[number])
    rows = Map.new(rows(cluster, number), &{{number, boot, elem(&1, 0)}, &1})
    Agent.update(cluster.agent, &%{&1 | history: Map.merge(&1.history, rows)})
  end

  def history(cluster) do
    for number <- awake(cluster), do: pull(cluster, number)

    for {{number, boot, _key}, row} <- Agent.get(cluster.agent, & &1.history),
        do: {{number, boot}, row}
  end

  @doc "Something that the check itself has found."
  def wrong(cluster, kind, name, text) do
    violation = %{kind: kind, name: name, text: text}
    Agent.update(cluster.agent, &%{&1 | wrong: [violation | &1.wrong]})
  end

  @doc "All that does not hold."
  def violations(cluster) do
    history = history(cluster)
    Agent.get(cluster.agent, & &1.wrong) ++ Checks.violations(history)
  end

  @doc "Forgets what happened before."
  def forget(cluster) do
    for number <- awake(cluster), do: call(cluster, number, History, :forget, [])
    Agent.update(cluster.agent, &%{&1 | history: %{}, wrong: []})
  end

  ## The end of a round

  @doc "Heals all, restarts the nodes that were killed, and checks what has to hold then."
  def settle(cluster) do
    recover(cluster)
    for number <- @numbers, do: call(cluster, number, Member, :stop_working, [])
    find_held(cluster)
    end_holders(cluster)
    find_blocked(cluster)
    find_dead(cluster)
    find_errors(cluster)
  end

  @doc "Heals all, restarts the nodes that were killed, and waits until each of them registers names."
  def recover(cluster) do
    for number <- @numbers -- dead(cluster),
        number not in awake(cluster),
        do: resume(cluster, number)

    together(dead(cluster), &boot(cluster, &1))
    heal(cluster)

    # A node that was paused may have missed it.
    case within(fn -> heal(cluster) == :ok and all_register?(cluster) end, @settles) do
      :error ->
        wrong(cluster, :does_not_register, nil, "a node does not register after all was healed")

      _registers ->
        :ok
    end
  end

  @doc "Whether each node registers a name now."
  def all_register?(cluster) do
    Enum.all?(@numbers, fn number ->
      call(cluster, number, Member, :probe, [cluster.registry, {:probe, number}]) == :ok
    end)
  end

  # Each name that a living process holds is found by all nodes.
  defp find_held(%{registry: registry} = cluster) do
    lost = fn ->
      for number <- @numbers,
          {name, pid} <- call(cluster, number, Member, :held, [registry]),
          other <- @numbers,
          found = call(cluster, other, Member, :whereis, [registry, name]),
          found != pid,
          # It may have ended meanwhile.
          pid in call(cluster, number, Member, :holders, []),
          do:
            {name,
             "#{inspect(pid)} of node #{number} holds it, and node #{other} finds #{inspect(found)}"}
    end

    # Mirrors may be late.
    with :error <- within(fn -> lost.() == [] end, 10_000),
         do: for({name, text} <- lost.(), do: wrong(cluster, :not_found, name, text))
  end

  def end_holders(cluster) do
    ended = fn ->
      for number <- awake(cluster), do: call(cluster, number, Member, :finish, [])
      Enum.all?(awake(cluster), &(call(cluster, &1, Member, :holders, []) == []))
    end

    eventually(ended, "the holders end")

    for number <- awake(cluster) do
      eventually(
        fn -> call(cluster, number, Member, :working, []) == [] end,
        "the workers of #{number} end"
      )
    end
  end

  # No process holds a name any more, so each node can have each name: now, or after the time in which a
  # session ends by itself.
  defp find_blocked(cluster) do
    names = for {_node, {{:attempt, _}, name, _, _, _}} <- history(cluster), uniq: true, do: name

    free = fn number, name ->
      call(cluster, number, Member, :probe, [cluster.registry, name]) == :ok
    end

    together(@numbers, fn number ->
      for name <- names,
          within(fn -> free.(number, name) end, blocked_limit(cluster)) == :error do
        text = "no process has it, and node #{number} does not get it"
        wrong(cluster, :blocked, name, text)
      end
    end)
  end

  @doc "How long a name that no living process has may be blocked, in milliseconds."
  def blocked_limit(%{lease: lease}), do: 2 * Ra.Machine.expiry(lease) + 5_000

  defp find_dead(cluster) do
    for number <- @numbers do
      before = Agent.get(cluster.agent, & &1.nodes[number].bystanders)
      now = call(cluster, number, Member, :bystanders, [cluster.registry])

      if before not in [nil, now],
        do:
          wrong(
            cluster,
            :supervisor_ended,
            nil,
            "on node #{number}: #{inspect(before)}, now #{inspect(now)}"
          )
    end
  end

  defp find_errors(cluster) do
    for number <- @numbers,
        text <- call(cluster, number, CrashLog, :take, []),
        not Enum.any?(@expected, &(text =~ &1)),
        do:
          wrong(cluster, :error_logged, nil, "on node #{number}: #{String.slice(text, 0, 2_000)}")
  end

  @doc "The violations as text, with the history of the first name."
  def report(cluster, violations) do
    shown =
      for %{kind: kind, name: name, text: text} <- Enum.take(violations, 20),
          do: "  #{kind} #{inspect(name)}: #{text}\n"

    name = Enum.find_value(violations, & &1.name)
    history = cluster |> history() |> Checks.history_of(name) |> Enum.take(-80)
    "#{length(violations)} things do not hold\n#{shown}  history of #{inspect(name)}\n#{history}"
  end

  defp start_epmd do
    epmd =
      System.find_executable("epmd") ||
        hd(Path.wildcard("#{:code.root_dir()}/{bin,erts-*/bin}/epmd"))

    {_output, 0} = System.cmd(epmd, ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])
  end
end
