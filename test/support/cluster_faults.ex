defmodule WorkflowMetal.Registration.NativeRegistry.ClusterFaults do
  @moduledoc false
  # What runs on a node in the tests of faults in a cluster. Nothing that it starts is linked to the caller.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, ClusterNode, ClusterWorker}

  # The process of the engine on this node.
  def engine(:global, _registry), do: :global_name_server
  def engine(:syn, registry), do: :"syn_registry_#{registry}"

  def kill(name) when is_atom(name), do: name |> Process.whereis() |> kill()

  def kill(pid) do
    monitor = Process.monitor(pid)
    Process.exit(pid, :kill)

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    end
  end

  # Whether nothing is left to settle with the engine on this node.
  def settled? do
    Task.Supervisor.children(Cluster.Tasks) == []
  end

  # A permanent child under a supervisor that allows no restart, and a sibling; or a process without
  # a supervisor.
  def start_under(kind, registry, name) do
    via = {:via, NativeRegistry, {registry, name}}
    child = {ClusterWorker.Permanent, name: via}
    sibling = Supervisor.child_spec({Agent, fn -> nil end}, id: :sibling)
    options = [strategy: :one_for_one, max_restarts: 0]

    {supervisor, pid} =
      case kind do
        :none ->
          {:ok, pid} = GenServer.start(ClusterWorker, [name: via], name: via)
          {nil, pid}

        kind when kind in [:one_for_one, :one_for_all] ->
          options = Keyword.put(options, :strategy, kind)
          {:ok, supervisor} = Supervisor.start_link([sibling, child], options)
          {supervisor, NativeRegistry.whereis_name({registry, name})}

        :dynamic ->
          {:ok, supervisor} = DynamicSupervisor.start_link(options)
          start_two(supervisor, supervisor, sibling, child)

        :partition ->
          partitions = Module.concat(registry, "Partitions#{inspect(name)}")
          options = [child_spec: {DynamicSupervisor, options}, name: partitions, partitions: 1]
          {:ok, supervisor} = PartitionSupervisor.start_link(options)
          start_two(supervisor, {:via, PartitionSupervisor, {partitions, 1}}, sibling, child)
      end

    if supervisor, do: Process.unlink(supervisor)
    {supervisor, pid}
  end

  defp start_two(supervisor, parent, sibling, child) do
    {:ok, _pid} = DynamicSupervisor.start_child(parent, sibling)
    {:ok, pid} = DynamicSupervisor.start_child(parent, child)
    {supervisor, pid}
  end

  # All processes below a supervisor, and the supervisor.
  def tree(supervisor) do
    beneath =
      for {_id, pid, type, _modules} when is_pid(pid) <- Supervisor.which_children(supervisor),
          one <- if(type == :supervisor, do: tree(pid), else: [pid]),
          do: one

    [supervisor | beneath]
  end

  # A process for each name that tries to register it until it gets an answer. It tells when
  # it has had to try again.
  def register_patiently(registry, names) do
    caller = self()

    for name <- names do
      spawn(fn ->
        answer = register_patiently(registry, name, caller, 0)
        send(caller, {self(), answer})
        Process.sleep(:infinity)
      end)
    end
  end

  defp register_patiently(registry, name, caller, tries) do
    if tries == 1, do: send(caller, {self(), :again})

    with {:error, :cluster_timeout} <- NativeRegistry.Registry.register(registry, name, nil) do
      register_patiently(registry, name, caller, tries + 1)
    end
  end

  # Suspends the engine while processes register names, and resumes it when each of them has had to try again. Returns
  # the pids and their answers.
  def register_meanwhile(registry, engine, names) do
    :ok = :sys.suspend(engine)
    pids = register_patiently(registry, names)
    for pid <- pids, do: receive(do: ({^pid, :again} -> :ok))
    :ok = :sys.resume(engine)
    for pid <- pids, do: receive(do: ({^pid, answer} -> {pid, answer}))
  end

  # The same for a process that has the name, gives it back meanwhile, and wants it again.
  def give_back_meanwhile(registry, engine, names) do
    caller = self()

    holders =
      for name <- names do
        spawn(fn ->
          {:ok, _pid} = NativeRegistry.Registry.register(registry, name, nil)
          send(caller, {self(), :held})
          receive do: (:give_back -> :ok = NativeRegistry.Registry.unregister(registry, name))
          answer = register_patiently(registry, name, caller, 0)
          send(caller, {self(), answer})
          Process.sleep(:infinity)
        end)
      end

    for pid <- holders, do: receive(do: ({^pid, :held} -> :ok))
    :ok = :sys.suspend(engine)
    for pid <- holders, do: send(pid, :give_back)
    for pid <- holders, do: receive(do: ({^pid, :again} -> :ok))
    :ok = :sys.resume(engine)
    for pid <- holders, do: receive(do: ({^pid, answer} -> {pid, answer}))
  end

  # Stops a registry and starts it again, and has its holder register all of its names again at
  # once.
  def restart_registry(registry, options, holder, names) do
    :ok = ClusterNode.stop_registry(registry)
    :ok = ClusterNode.start_registry(registry, options)
    ClusterNode.run(holder, __MODULE__, :register_all, [registry, names])
  end

  def register_all(registry, names) do
    for name <- names, do: NativeRegistry.Registry.register(registry, name, nil)
  end

  def unregister_all(registry, names) do
    for name <- names, do: :ok = NativeRegistry.Registry.unregister(registry, name)
    :ok
  end

  # Pairs of processes that pass a name to each other until they get a message to stop.
  def hand_around(registry, names) do
    for name <- names do
      one = spawn(fn -> hand_over(registry, name) end)
      other = spawn(fn -> hand_over(registry, name) end)
      send(one, {:take, other})
      {one, other}
    end
  end

  defp hand_over(registry, name) do
    receive do
      {:take, other} ->
        take(registry, name)

        receive do
          :stop -> Process.sleep(:infinity)
        after
          0 ->
            :ok = NativeRegistry.Registry.unregister(registry, name)
            send(other, {:take, self()})
        end
    end

    hand_over(registry, name)
  end

  # The engine may be asked about the process before at this moment.
  defp take(registry, name) do
    with {:error, _taken} <- NativeRegistry.Registry.register(registry, name, nil) do
      Process.sleep(1)
      take(registry, name)
    end
  end

  # Reconciles again and again while names are passed around.
  def reconcile(registry, times) do
    for _time <- 1..times, do: Cluster.Reconcile.reconcile(registry)
    :ok
  end

  def stop_handing(pairs) do
    for {one, other} <- pairs, pid <- [one, other], do: send(pid, :stop)
    for {one, other} <- pairs, pid <- [one, other], do: Process.alive?(pid)
  end

  # A child whose `init` waits.
  def start_gated(registry, name) do
    NativeRegistry.start_child(
      %{registry: registry},
      name,
      ClusterNode.workers(registry),
      {__MODULE__.Gated, []}
    )
  end

  def pass_gate(registry, name) do
    send(NativeRegistry.whereis_name({registry, name}), :pass)
    :ok
  end

  # A process that traps exits and is kept from doing anything else.
  def start_busy(registry, name) do
    {:ok, pid} =
      NativeRegistry.start_child(
        %{registry: registry},
        name,
        ClusterNode.workers(registry),
        {__MODULE__.Busy, []}
      )

    send(pid, {:occupy, self()})

    receive do
      {^pid, :occupied} -> pid
    end
  end

  defmodule Gated do
    @moduledoc false
    use GenServer, restart: :transient

    def start_link(options), do: GenServer.start_link(__MODULE__, nil, options)

    @impl GenServer
    def init(nil) do
      receive do
        :pass -> {:ok, nil}
      end
    end
  end

  defmodule Busy do
    @moduledoc false
    use GenServer

    def start_link(options), do: GenServer.start_link(__MODULE__, nil, options)

    @impl GenServer
    def init(nil) do
      Process.flag(:trap_exit, true)
      {:ok, nil}
    end

    @impl GenServer
    def handle_info({:occupy, from}, nil) do
      send(from, {self(), :occupied})
      Process.sleep(:infinity)
    end
  end
end
