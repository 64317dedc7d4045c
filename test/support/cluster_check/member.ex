defmodule WorkflowMetal.Registration.NativeRegistry.ClusterCheck.Member do
  @moduledoc false
  # What runs on a node while the cluster is checked: a registry, supervisors, and workers that register, start,
  # unregister and crash. It also answers questions about the node's state. Nothing that it starts is linked to
  # the caller.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.ClusterCheck.Holder
  alias WorkflowMetal.Registration.NativeRegistry.Owner

  @history Module.concat(__MODULE__, History)
  @stop {__MODULE__, :stop}
  @strict {__MODULE__, :strict}

  # The names. The kind of a name says how it is registered. Workers never kill children of `:kept` supervisors,
  # whose restart intensity is the default and must not be reached; nor children that start slowly,
  # which would hardly ever finish.
  def names(count) do
    for number <- 1..count,
        kind <- [
          :transient,
          :permanent,
          :temporary,
          :slow,
          :bare,
          :own,
          :under,
          :kept,
          :kept_permanent
        ],
        do: {kind, number}
  end

  def supervisors, do: for(number <- 1..2, do: {:supervisor, number})

  # Starts what is checked. `options` are those of the registry. With `strict?`, no process with names of its own
  # ends, and none may be ended.
  def start(registry, options, strict? \\ false) do
    keep_history()
    :persistent_term.put(@stop, false)
    :persistent_term.put(@strict, strict?)

    children = [
      {NativeRegistry, [name: registry] ++ options},
      # Its children are killed again and again by the workers.
      {DynamicSupervisor, name: workers(registry), strategy: :one_for_one, max_restarts: 100_000},
      {DynamicSupervisor, name: slow(registry), strategy: :one_for_one, max_restarts: 100_000},
      {DynamicSupervisor, name: kept(registry), strategy: :one_for_one}
    ]

    # The owner is killed now and then.
    options = [strategy: :one_for_one, name: registry, max_restarts: 1_000]
    {:ok, pid} = Supervisor.start_link(children, options)
    Process.unlink(pid)

    # Must not end because of another process.
    for supervisor <- supervisors_of(registry) do
      {:ok, _pid} = DynamicSupervisor.start_child(supervisor, {Holder, []})
    end

    watch_conflicts(registry)

    :ok
  end

  # The processes that run at the start and have to run still at the end.
  def bystanders(registry) do
    for supervisor <- supervisors_of(registry) do
      holders = for pid <- Process.list(), nameless?(pid, supervisor), do: text(pid)
      {text(Process.whereis(supervisor)), holders}
    end
    |> List.insert_at(0, text(Process.whereis(registry)))
  end

  # Independent of the name of the node.
  defp text(nil), do: nil
  defp text(pid), do: :erlang.pid_to_list(pid)

  defp nameless?(pid, supervisor) do
    case Process.info(pid, :dictionary) do
      {:dictionary, dictionary} ->
        supervisor_pid = Process.whereis(supervisor)

        parents =
          for parent <- Keyword.get(dictionary, :"$ancestors", []) do
            if is_atom(parent), do: Process.whereis(parent), else: parent
          end

        Keyword.get(dictionary, :held) == [] and hd(parents ++ [nil]) == supervisor_pid

      nil ->
        false
    end
  end

  def workers(registry), do: Module.concat(registry, Workers)
  def kept(registry), do: Module.concat(registry, Kept)
  def slow(registry), do: Module.concat(registry, Slow)

  defp supervisors_of(registry), do: [workers(registry), slow(registry), kept(registry)]

  defp watch_conflicts(registry) do
    caller = self()

    watcher =
      spawn(fn ->
        NativeRegistry.Registry.subscribe(registry, :_)
        send(caller, {self(), :subscribed})
        note_conflicts()
      end)

    receive do
      {^watcher, :subscribed} -> :ok
    end
  end

  defp note_conflicts do
    receive do
      {:conflict, _registry, name, winner, loser} ->
        note(name, {:conflict, winner, loser})

        if :persistent_term.get(@strict) and match?({:own, _}, name),
          do: wrong!(name, {:conflict, winner, loser})

      _other ->
        :ok
    end

    note_conflicts()
  end

  defp keep_history do
    if :ets.whereis(@history) == :undefined do
      # A process that lives as long as the node.
      caller = self()

      spawn(fn ->
        :ets.new(@history, [:named_table, :public, :ordered_set, write_concurrency: true])
        send(caller, :history)
        Process.sleep(:infinity)
      end)

      receive do
        :history -> :ok
      end
    end
  end

  # One clock for all nodes: they are on one machine.
  def note(name, what) do
    :ets.insert(@history, {{:os.system_time(:microsecond), make_ref()}, name, self(), what})
  rescue
    ArgumentError -> false
  end

  # What was done with a name, in order of time. For `:wrong`: all wrong answers.
  def history(name) do
    for {{time, _reference}, ^name, pid, what} <- :ets.tab2list(@history),
        do: {time, node(), pid, what}
  end

  def wrong, do: for({_time, _node, _pid, what} <- history(:wrong), do: what)

  ## Workers

  def work(registry, names, workers, seed) do
    for number <- 1..workers do
      spawn(fn ->
        Process.register(self(), worker(number))
        :rand.seed(:exsss, {seed, number, 0})
        work_on(registry, List.to_tuple(names), own())
      end)
    end

    :ok
  end

  defp worker(number), do: :"checking_worker_#{number}"

  def stop_working, do: :persistent_term.put(@stop, true)

  # The workers that still work.
  def working do
    workers = for number <- 1..8, name <- [worker(number), slow_worker(number)], do: name
    for name <- workers, pid = Process.whereis(name), do: {pid, current(pid)}
  end

  defp current(pid) do
    with {:dictionary, dictionary} <- Process.info(pid, :dictionary), do: dictionary[:doing]
  end

  defp work_on(registry, names, own) do
    unless :persistent_term.get(@stop) do
      name = elem(names, :rand.uniform(tuple_size(names)) - 1)
      own = if Process.alive?(own), do: own, else: own()
      step(registry, name, own, :rand.uniform(100))
      Process.sleep(:rand.uniform(12) - 1)
      work_on(registry, names, own)
    end
  end

  defp step(registry, {kind, _number} = name, own, chance) do
    Process.put(:doing, {kind, name, chance})

    cond do
      chance <= 15 ->
        look(registry, name)

      kind == :own ->
        do_own(own, registry, name)

      kind == :slow ->
        slowly(name, fn -> step_slowly(registry, name, chance) end)

      chance <= 40 and kind not in [:kept, :kept_permanent, :supervisor] ->
        crash(registry, name)

      chance <= 48 and kind in [:transient, :permanent, :temporary] ->
        end_child(registry, name)

      chance <= 50 and kind == :supervisor ->
        crash(registry, name)

      true ->
        take(kind, registry, name)
    end
  end

  # In a process of its own, because a start takes longer than a worker may wait.
  defp slowly({:slow, number}, work) do
    doing = Process.get(:doing)

    unless Process.whereis(slow_worker(number)) do
      spawn(fn ->
        # Another worker may have been first.
        with true <- first?(slow_worker(number)) do
          Process.put(:doing, doing)
          work.()
        end
      end)
    end
  end

  defp first?(name) do
    Process.register(self(), name)
  rescue
    ArgumentError -> false
  end

  defp slow_worker(number), do: :"slow_checking_worker_#{number}"

  defp step_slowly(registry, name, chance) do
    if chance <= 50, do: end_child(registry, name), else: take(:slow, registry, name)
  end

  defp look(registry, name) do
    case NativeRegistry.whereis_name({registry, name}) do
      :undefined -> :ok
      pid when is_pid(pid) -> :ok
      other -> wrong!(name, {:whereis, other})
    end
  rescue
    ArgumentError -> :ok
  end

  defp take(:bare, registry, name) do
    via = {:via, NativeRegistry, {registry, name}}

    answer = caught(fn -> GenServer.start(Holder, [name: via] ++ holder(name), name: via) end)
    note(name, {:start, answer})

    case answer do
      {:ok, pid} when is_pid(pid) -> :ok
      {:error, {:already_started, pid}} when is_pid(pid) -> :ok
      # Another process has ended at the moment of the start.
      {:error, {:already_started, :undefined}} -> :ok
      {:error, {:shutdown, _reason}} -> :ok
      {:error, :killed} -> :ok
      {:caught, _kind, _reason} -> expected_exit!(name, answer)
      other -> wrong!(name, {:start, other})
    end
  end

  defp take(kind, registry, name) do
    supervisor =
      case {kind, name} do
        {:under, {_, number}} ->
          {:via, NativeRegistry, {registry, {:supervisor, rem(number, 2) + 1}}}

        {kept, _} when kept in [:kept, :kept_permanent] ->
          kept(registry)

        {:slow, _} ->
          slow(registry)

        _other ->
          workers(registry)
      end

    restart =
      case kind do
        :permanent -> Holder.Permanent
        :kept_permanent -> Holder.Permanent
        :temporary -> Holder.Temporary
        :supervisor -> Holder.Supervisor
        _other -> Holder
      end

    start = fn ->
      NativeRegistry.start_child(%{registry: registry}, name, supervisor, {restart, holder(name)})
    end

    answer = caught(start)
    note(name, {:start_child, answer})

    case answer do
      {:ok, pid} when is_pid(pid) -> :ok
      {:error, reason} when reason in [:cluster_timeout, :draining] -> :ok
      # syn has been stopped, or the node is about to get a name.
      {:error, {kind, _reason}} when kind in [:error, :exit, :engine] -> :ok
      {:caught, _kind, _reason} -> expected_exit!(name, answer)
      other -> wrong!(name, {:start_child, other})
    end
  end

  # Some trap exits.
  defp holder({kind, number} = name) do
    # Longer than its supervisor has to end a process that has lost its name.
    time = if kind == :slow, do: 2_500, else: 0
    [trap_exit: rem(number, 3) == 0, holds: name, starts_for: time]
  end

  defp caught(work) do
    work.()
  catch
    kind, reason -> {:caught, kind, reason}
  end

  # A supervisor that is not there, or has ended, or whose node has; the registry being restarted.
  defp expected_exit!(name, {:caught, kind, reason} = caught) do
    expected =
      case {kind, reason} do
        {:exit, {:noproc, _call}} -> true
        {:exit, {{:nodedown, _node}, _call}} -> true
        {:exit, {:killed, _call}} -> true
        {:exit, {:shutdown, _call}} -> true
        {:exit, {:normal, _call}} -> true
        {:exit, {{:shutdown, _reason}, _call}} -> true
        {:exit, {:noconnection, _call}} -> true
        {:error, %ArgumentError{message: "unknown registry" <> _}} -> true
        _other -> false
      end

    unless expected, do: wrong!(name, caught)
  end

  defp wrong!(name, what) do
    note(:wrong, {name, what})
    note(name, {:wrong, what})
  end

  defp crash(registry, name) do
    with pid when is_pid(pid) <- caught(fn -> NativeRegistry.whereis_name({registry, name}) end) do
      note(name, {:kill, pid})
      Process.exit(pid, :kill)
    end
  end

  # One of this node, whose supervisor restarts it.
  def crash_kept(registry, names) do
    kept = for {kind, _number} = name <- names, kind in [:kept, :kept_permanent], do: name

    Enum.find_value(kept, fn name ->
      with pid when is_pid(pid) and node(pid) == node() <-
             NativeRegistry.whereis_name({registry, name}) do
        note(name, {:kill, pid})
        Process.exit(pid, :kill)
      else
        _elsewhere -> nil
      end
    end)
  end

  defp end_child(registry, {kind, _number} = name) do
    supervisor = if kind == :slow, do: slow(registry), else: workers(registry)

    with pid when is_pid(pid) <- caught(fn -> NativeRegistry.whereis_name({registry, name}) end),
         true <- node(pid) == node() do
      note(name, {:terminate_child, pid})
      caught(fn -> DynamicSupervisor.terminate_child(supervisor, pid) end)
    end
  end

  ## A process that has names of its own

  defp own do
    spawn(fn ->
      Process.put(:own, true)
      Process.put(:held, [])
      serve()
    end)
  end

  defp do_own(own, registry, name) do
    monitor = Process.monitor(own)
    send(own, {:step, registry, name, :rand.uniform(10), self()})

    receive do
      {:stepped, ^own} -> Process.demonitor(monitor, [:flush])
      {:DOWN, ^monitor, :process, ^own, _reason} -> :ok
    end
  end

  defp serve do
    receive do
      :forget ->
        Process.put(:held, [])
        serve()

      {:step, registry, name, chance, from} ->
        held = Process.get(:held)

        cond do
          {registry, name} in held and chance <= 7 ->
            Process.put(:held, held -- [{registry, name}])

            note(
              name,
              {:unregister, caught(fn -> NativeRegistry.Registry.unregister(registry, name) end)}
            )

          chance == 10 and not :persistent_term.get(@strict) ->
            note(name, :end)
            exit(:normal)

          {registry, name} in held ->
            :ok

          true ->
            own_register(registry, name)
        end

        send(from, {:stepped, self()})
        serve()
    end
  end

  defp own_register(registry, name) do
    own = self()
    answer = caught(fn -> NativeRegistry.Registry.register(registry, name, {:value, name}) end)
    note(name, {:register, answer})

    case answer do
      {:ok, ^own} -> Process.put(:held, [{registry, name} | Process.get(:held)])
      {:error, {:already_registered, pid}} when is_pid(pid) and pid != own -> :ok
      {:error, reason} when reason in [:cluster_timeout, :draining] -> :ok
      {:error, {kind, _reason}} when kind in [:error, :exit, :engine] -> :ok
      {:caught, _kind, _reason} -> expected_exit!(name, answer)
      other -> wrong!(name, {:register, other})
    end
  end

  ## Trouble

  # Stops and starts it, while no worker works. Processes that it knew live on without their names,
  # where they are no children of its supervisors.
  def restart_registry(registry, options) do
    :ok = Supervisor.stop(registry)

    for pid <- Process.list(),
        {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
        [_ | _] <- [dictionary[:held]] do
      if dictionary[:own], do: send(pid, :forget), else: Process.exit(pid, :kill)
    end

    start(registry, options, :persistent_term.get(@strict))
  end

  def kill_owner(registry) do
    with pid when is_pid(pid) <- Process.whereis(Owner.name(registry)),
         do: Process.exit(pid, :kill)
  end

  # For a while. Callers wait.
  def suspend_engine(:global, _registry, time), do: suspend(:global_name_server, time)

  def suspend_engine(:syn, registry, time) do
    for process <- syn_processes(registry), do: suspend(process, time)
  end

  defp suspend(process, time) do
    spawn(fn ->
      with pid when is_pid(pid) <- Process.whereis(process) do
        :erlang.suspend_process(pid)
        Process.sleep(time)
        :erlang.resume_process(pid)
      end
    end)
  end

  # As a registered scope of one registry, or of all of them.
  defp syn_processes(_registry) do
    for name <- Process.registered(),
        String.starts_with?(Atom.to_string(name), "syn_registry_"),
        do: name
  end

  def restart_engine(:global, _registry), do: :ok

  def restart_engine(:syn, _registry) do
    Application.stop(:syn)
    {:ok, _started} = Application.ensure_all_started(:syn)
    :ok
  end

  def kill_engine(:global, _registry), do: :ok

  def kill_engine(:syn, registry) do
    for process <- syn_processes(registry),
        pid = Process.whereis(process),
        do: Process.exit(pid, :kill)

    :ok
  end

  def rename(name) do
    :net_kernel.stop()
    :ok = start_distribution(name)
  end

  def start_distribution(name) do
    {:ok, _pid} = :net_kernel.start([name, :longnames])
    true = :erlang.set_cookie(:workflow_metal_native_registry_check)
    :ok
  end

  def connect(node), do: :net_kernel.connect_node(node)

  ## What is true

  # Of this node: which process holds which name, by the processes themselves.
  def holders(registry) do
    for pid <- Process.list(),
        {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
        {^registry, name} <- held(dictionary, registry),
        Process.alive?(pid),
        do: {name, pid}
  end

  defp held(dictionary, registry) do
    case dictionary[:held] do
      nil -> []
      names -> for name <- names, do: if(match?({^registry, _}, name), do: name, else: nil)
    end
  end

  def report(registry, engine, names) do
    %{
      node: node(),
      # Read twice: a process that is in both has been there in between.
      holders: holders(registry),
      answers: Map.new(names, &{&1, NativeRegistry.whereis_name({registry, &1})}),
      values:
        for({:own, _} = name <- names, do: {name, NativeRegistry.Registry.lookup(registry, name)}),
      here:
        NativeRegistry.Registry.match_names(registry, :_)
        |> Enum.map(fn {name, pid, _} -> {name, pid} end),
      count: NativeRegistry.Registry.count(registry),
      engine: engine_names(engine, registry),
      nodes: Enum.sort(Node.list()),
      working: working(),
      wrong: wrong()
    }
  end

  defp engine_names(:global, registry) do
    for {NativeRegistry, ^registry, name} = global <- :global.registered_names(),
        pid = :global.whereis_name(global),
        pid != :undefined,
        do: {name, pid}
  end

  defp engine_names(:syn, registry),
    do: for({name, pid, _node} <- syn_names(registry), do: {name, pid})

  # By its tables: syn has no call that answers all names.
  defp syn_names(registry) do
    for table <- :ets.all(),
        table_name = :ets.info(table, :name),
        is_atom(table_name),
        String.starts_with?(Atom.to_string(table_name), "syn_registry_by_name"),
        {name, pid, _meta, _time, _monitor, node} <- tab2list(table),
        {:ok, name} <- [ours(table_name, name, registry)],
        do: {name, pid, node}
  end

  # Its process may be killed meanwhile.
  defp tab2list(table) do
    :ets.tab2list(table)
  rescue
    ArgumentError -> []
  end

  # Whether the engine has all names of this node under its present name: it tells other nodes of those
  # and no others.
  def engine_renamed?(:syn, registry) do
    Enum.all?(syn_names(registry), fn {_name, pid, node} ->
      node(pid) != node() or node == node()
    end)
  end

  defp ours(table, name, registry) do
    case name do
      {^registry, name} -> {:ok, name}
      name -> if String.ends_with?("#{table}", "#{registry}"), do: {:ok, name}, else: :error
    end
  end

  # What the engine itself says, for the report of a failed round.
  def engine_state(:global) do
    %{nodes: Node.list(), locks: :ets.tab2list(:global_locks), state: state_of_global()}
  end

  def engine_state(_engine), do: nil

  defp state_of_global do
    reference = make_ref()
    state = :gen_server.call(:global_name_server, :info, 1_000)
    locker = elem(state, 7)
    send(locker, {:get_state, self(), reference})

    receive do
      {^reference, where, locker_state} -> {state, where, locker_state}
    after
      1_000 -> {state, Process.info(locker, :current_stacktrace)}
    end
  catch
    :exit, reason -> reason
  end

  def alive(pids), do: for(pid <- pids, node(pid) == node(), Process.alive?(pid), do: pid)
end
