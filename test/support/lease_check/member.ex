defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Member do
  @moduledoc false
  # What runs on a node: a registry, a supervisor of holders, and workers that register names. Nothing that it
  # starts is linked to the caller.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{ClusterNode, ClusterWorker}
  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.{History, Holder}
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  @stop {__MODULE__, :stop}

  def prepare do
    # Nothing is printed before, and nothing afterwards.
    :ok = ClusterNode.start()
    :ok = :logger.set_primary_config(:level, :error)
    :ok = History.start()
  end

  @doc "Changes the code of this node."
  def load(source, file) do
    Code.put_compiler_option(:ignore_module_conflict, true)
    [{module, _binary}] = Code.compile_string(source, file)
    module
  end

  def start(registry, options) do
    children = [
      {NativeRegistry, [name: registry] ++ options},
      # With the default intensity: the end of holders by the fence must not count.
      {DynamicSupervisor, name: children(registry), strategy: :one_for_one}
    ]

    {:ok, pid} = Supervisor.start_link(children, strategy: :one_for_one, name: registry)
    Process.unlink(pid)
    # Has no name, so it must not end.
    {:ok, _pid} = DynamicSupervisor.start_child(children(registry), {ClusterWorker, []})
    :ok
  end

  def stop(registry), do: Supervisor.stop(registry)

  @doc "Has the supervisor end the registry, which keeps its names until `restart/1`."
  def terminate(registry), do: :ok = Supervisor.terminate_child(registry, child(registry))

  def restart(registry) do
    {:ok, _pid} = Supervisor.restart_child(registry, child(registry))
    :ok
  end

  defp child(registry) do
    ids = for {id, _pid, _type, _modules} <- Supervisor.which_children(registry), do: id
    [id] = ids -- [children(registry)]
    id
  end

  defp children(registry), do: Module.concat(registry, Children)

  @doc "What has to be the same in the end."
  def bystanders(registry) do
    nameless = for {_id, pid, _type, [ClusterWorker]} <- supervised(children(registry)), do: pid

    {Process.whereis(registry), Process.whereis(children(registry)), nameless}
  end

  defp supervised(supervisor) do
    DynamicSupervisor.which_children(supervisor)
  catch
    :exit, _reason -> []
  end

  def hold(registry, name, options), do: Holder.spawn(registry, name, options)

  @doc "Registers a name and gives it back at once."
  def probe(registry, name) do
    {pid, monitor} =
      spawn_monitor(fn ->
        answer =
          with {:ok, _this} <- Registry.register(registry, name, nil) do
            # So that no holder is left when this has answered.
            Registry.unregister(registry, name)
          end

        exit({:answer, answer})
      end)

    receive do
      {:DOWN, ^monitor, :process, ^pid, {:answer, answer}} -> answer
      {:DOWN, ^monitor, :process, ^pid, reason} -> {:error, reason}
    end
  end

  ## Workers

  def work(registry, names, workers, seed) do
    :persistent_term.put(@stop, false)

    for number <- 1..workers do
      spawn(fn ->
        Process.register(self(), worker(number))
        :rand.seed(:exsss, {seed, number, 0})
        work_on(registry, List.to_tuple(names))
      end)
    end

    :ok
  end

  def stop_working, do: :persistent_term.put(@stop, true)

  def working, do: for(number <- 1..8, Process.whereis(worker(number)) != nil, do: number)

  defp worker(number), do: :"lease_check_worker_#{number}"

  defp work_on(registry, names) do
    unless :persistent_term.get(@stop) do
      name = elem(names, :rand.uniform(tuple_size(names)) - 1)
      life = life()

      case :rand.uniform(10) do
        # Several processes of this node at the same time.
        chance when chance <= 2 ->
          for _ <- 1..3, do: Holder.spawn(registry, name, life: life)

        chance when chance <= 5 ->
          Holder.start_child(registry, name, children(registry), life: life)

        chance when chance <= 7 ->
          Holder.spawn(registry, name, life: div(life, 3), again: 2)

        8 ->
          Holder.spawn(registry, name, life: life, stubborn: true)

        9 ->
          Holder.spawn(registry, name, life: div(life, 3), again: 2, ends: true)

        _other ->
          Holder.spawn(registry, name, life: life)
      end

      Process.sleep(:rand.uniform(80))
      work_on(registry, names)
    end
  end

  # Some only for a moment, most for long enough that another node could hold the name at the same time.
  defp life,
    do: Enum.random([:rand.uniform(50), :rand.uniform(1_000), 1_000 + :rand.uniform(3_000)])

  ## Holders

  def holders do
    for pid <- Process.list(),
        {:dictionary, dictionary} <- [Process.info(pid, :dictionary)],
        dictionary[:lease_check_holder],
        do: pid
  end

  @doc "Ends all holders that end by themselves; the others are killed."
  def finish do
    for pid <- holders() do
      case Process.info(pid, :trap_exit) do
        {:trap_exit, true} -> Process.exit(pid, :kill)
        _ends -> send(pid, :finish)
      end
    end

    :ok
  end

  ## Trouble

  @doc "Keeps a process of this node from running until `resume/1`; `nil` if there is none."
  def suspend(name) do
    caller = self()
    pid = Process.whereis(name)

    {keeper, monitor} =
      spawn_monitor(fn ->
        :erlang.suspend_process(pid)
        send(caller, {self(), :suspended})

        receive do
          # It may have been killed.
          :resume -> if Process.alive?(pid), do: :erlang.resume_process(pid)
        end
      end)

    receive do
      {^keeper, :suspended} ->
        Process.demonitor(monitor, [:flush])
        keeper

      {:DOWN, ^monitor, :process, ^keeper, _reason} ->
        nil
    end
  end

  def kill(name),
    do: with(pid when is_pid(pid) <- Process.whereis(name), do: Process.exit(pid, :kill))

  def resume(keeper) do
    send(keeper, :resume)
    :ok
  end

  # Nodes with different cookies for each other cannot connect.
  def cut(node) do
    :erlang.set_cookie(node, :"cut by #{node()}")
    :erlang.disconnect_node(node)
  end

  def uncut(node), do: :erlang.set_cookie(node, :erlang.get_cookie())

  def heal(node) do
    uncut(node)
    Node.connect(node)
  end

  ## What is true

  def whereis(registry, name), do: NativeRegistry.whereis_name({registry, name})

  @doc "The names of living holders of this node, as its table has them."
  def held(registry) do
    for {name, pid, _value} <- Registry.match_names(registry, :_),
        node(pid) == node(),
        Process.alive?(pid),
        do: {name, pid}
  end

  def in_flight do
    case :sys.get_state(WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Session) do
      %{sent: {_correlation, command, _first_sent, _timer}} -> command
      _none -> nil
    end
  end
end
