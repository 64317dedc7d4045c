defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Monitor do
  @moduledoc false
  # A process for each clustered registry. It monitors the registry's supervisor, with whose end the
  # registry ends; the engine's process, which may lose its names; and the nodes. Whenever the engine and
  # the table may differ, it has them reconciled.
  #
  # It runs under this application and not beside the registry's own process, as it has to outlive both
  # that process and its supervisor.

  use GenServer, restart: :transient

  alias WorkflowMetal.Registration.NativeRegistry.{Registry, Table}

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{
    Config,
    Deadlines,
    NameLock,
    Peers,
    Reconcile,
    Report,
    Shutdown,
    Tasks
  }

  # How long after a node came the engine should know its names, and how long further nodes may put off
  # the reconciliation, in milliseconds.
  @settled 2_000
  @longest 10_000

  # The pause before a reconciliation that failed is repeated, in milliseconds: the first, and the longest.
  @again 1_000
  @longest_pause 30_000

  # How often it looks for an engine that has ended, and how often it calls `attend/1` of one that runs, in
  # milliseconds.
  @look 100
  @attend 1_000

  # The characters of a registry's name that fit in the name of its monitor: an atom has 255 at most.
  @length 200

  defstruct [
    :registry,
    :supervisor,
    # The monitor of the supervisor.
    :monitor,
    :config,
    # The registered name of the engine's process, and its monitor: `:gone` while the process is awaited.
    :process,
    :following,
    # The name of this node.
    :node,
    # The process that reconciles, and its monitor.
    :reconciling,
    # The timer of the next reconciliation, and since when it has been put off.
    :timer,
    :since,
    # Names and holders of a registry that is suspended.
    :held,
    # Whether the engine's end was reported.
    down: false,
    # Whether the next reconciliation settles all names.
    all: false,
    # Whether another reconciliation has to follow the running one.
    waiting: false,
    failures: 0
  ]

  @spec start_link(Registry.registry()) :: GenServer.on_start()
  def start_link(registry), do: GenServer.start_link(__MODULE__, registry, name: name(registry))

  @doc """
  The name of a registry's monitor, the same on all nodes. `Foo` and `:Foo` are two registries, and have
  two monitors.
  """
  @spec name(Registry.registry()) :: atom
  def name(registry) do
    name = Atom.to_string(registry)
    name = if String.length(name) > @length, do: Base.encode16(:erlang.md5(name)), else: name
    :"#{name}.NativeRegistry.Cluster"
  end

  @doc """
  Makes this node part of the registry's cluster, until the supervisor ends. `{:error, :not_running}`
  when there is no monitor, or when it ends meanwhile: a registry of this name was just closed, say.
  """
  @spec open(Registry.registry(), pid, Config.t()) :: :ok | {:error, term}
  def open(registry, supervisor, config) do
    GenServer.call(name(registry), {:open, supervisor, config}, :infinity)
  catch
    :exit, {reason, _call} when reason in [:noproc, :normal, :shutdown, :killed] ->
      {:error, :not_running}
  end

  @doc "Closes the registry that the supervisor has open, and gives its names back to the engine."
  @spec close(Registry.registry(), pid) :: :ok
  def close(registry, supervisor) do
    GenServer.call(name(registry), {:close, supervisor}, :infinity)
  catch
    :exit, _reason -> Shutdown.close(registry, supervisor)
  end

  @doc "Suspends the registry that the supervisor has open."
  @spec suspend(Registry.registry(), pid) :: Table.suspended() | :no_registry
  def suspend(registry, supervisor) do
    GenServer.call(name(registry), {:suspend, supervisor}, :infinity)
  catch
    :exit, _reason -> Table.suspend(registry, supervisor)
  end

  @doc "Closes the registry if it is still suspended, and gives its names back to the engine."
  @spec close_suspended(Registry.registry(), pid, Table.suspended()) :: :ok
  def close_suspended(registry, supervisor, suspended) do
    GenServer.call(name(registry), {:close_suspended, supervisor, suspended}, :infinity)
  catch
    :exit, _reason ->
      _ = Table.close_suspended(registry, suspended)
      :ok
  end

  @doc "Has the engine and the table reconciled."
  @spec reconcile(Registry.registry()) :: :ok
  def reconcile(registry), do: GenServer.cast(name(registry), :reconcile)

  @impl GenServer
  def init(registry) do
    :ok = :net_kernel.monitor_nodes(true)
    state = %__MODULE__{registry: registry, node: node()}

    case Config.get(registry) do
      nil ->
        {:ok, state}

      # The monitor before this one was killed.
      %{supervisor: supervisor} = config ->
        {:ok, adopt(state, supervisor, config), {:continue, :take_over}}
    end
  end

  @impl GenServer
  def handle_continue(:take_over, state) do
    send(self(), :look)
    {:noreply, %{state | following: :gone}}
  end

  @impl GenServer
  def handle_call({:open, supervisor, config}, _from, state) do
    # Before the engine is started, which may have to decide a conflict at once.
    config = Map.put(config, :supervisor, supervisor)
    Config.put(state.registry, config)

    # Another supervisor had suspended the registry, and the table has forgotten what it held.
    if state.held && state.supervisor != supervisor,
      do: Shutdown.give_back_later(state.registry, state.held, state.config)

    state = adopt(%{state | held: nil}, supervisor, config)

    try do
      config.engine.start(state.registry, config.options)
    catch
      kind, reason -> {:reply, {:error, {kind, reason, __STACKTRACE__}}, state}
    else
      process -> {:reply, :ok, state |> follow(process) |> reconcile_soon()}
    end
  end

  def handle_call({:close, supervisor}, _from, %{supervisor: supervisor} = state) do
    Shutdown.close(state.registry, supervisor, state.held)
    {:stop, :normal, :ok, state}
  end

  # Of a supervisor that had the registry before this one opened it.
  def handle_call({:close, supervisor}, _from, state) do
    {:reply, Shutdown.close(state.registry, supervisor), state}
  end

  def handle_call({:suspend, supervisor}, _from, state) do
    # Before: the names of a suspended registry cannot be listed.
    held = Shutdown.held(state.registry)

    case Table.suspend(state.registry, supervisor) do
      :no_registry -> {:reply, :no_registry, state}
      suspended -> {:reply, suspended, %{state | held: held}}
    end
  end

  def handle_call({:close_suspended, supervisor, suspended}, _from, state) do
    if Table.close_suspended(state.registry, suspended) and state.supervisor == supervisor and
         state.held != nil do
      Shutdown.close(state.registry, supervisor, state.held)
      {:stop, :normal, :ok, state}
    else
      {:reply, :ok, state}
    end
  end

  @impl GenServer
  def handle_cast(:reconcile, state), do: {:noreply, reconcile_now(state)}

  @impl GenServer
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{monitor: monitor} = state) do
    Shutdown.close(state.registry, state.supervisor, state.held)
    {:stop, :normal, state}
  end

  def handle_info({:DOWN, following, :process, _pid, reason}, %{following: following} = state) do
    Report.engine_down(state.registry, state.config.engine, reason)
    Process.send_after(self(), :look, @look)
    {:noreply, %{state | following: :gone, down: true}}
  end

  def handle_info({:DOWN, monitor, :process, pid, reason}, %{reconciling: {pid, monitor}} = state) do
    state = %{state | reconciling: nil}

    cond do
      reason != :normal -> {:noreply, reconcile_again(%{state | waiting: false})}
      state.waiting -> {:noreply, reconcile_now(%{state | waiting: false, failures: 0})}
      true -> {:noreply, %{state | all: false, failures: 0}}
    end
  end

  def handle_info(:look, %{following: :gone} = state) do
    with true <- up?(state),
         {:ok, process} <- start(state) do
      if state.down, do: Report.engine_up(state.registry, state.config.engine)
      # It has lost the names of this node, and gets to know those of other nodes a moment later.
      state = follow(%{state | down: false}, process)
      {:noreply, state |> reconcile_now() |> reconcile_soon()}
    else
      _not_up ->
        Process.send_after(self(), :look, @look)
        {:noreply, state}
    end
  end

  def handle_info(:look, state), do: {:noreply, state}

  def handle_info(:attend, state) do
    Process.send_after(self(), :attend, @attend)
    %{engine: engine} = state.config
    attend? = is_reference(state.following) and function_exported?(engine, :attend, 1)
    if attend?, do: engine.attend(state.registry)
    NameLock.sweep()
    Deadlines.sweep()
    {:noreply, reconcile_if_renamed(state)}
  end

  # Often several nodes come at once, and the engine needs time for each.
  def handle_info({:nodeup, _node}, state),
    do: {:noreply, state |> reconcile_if_renamed() |> reconcile_soon()}

  # The node that has gone may have held a name that this node holds, if the two were not connected. The
  # other members have no holder for it now. They may not all see the node go, so they are told.
  def handle_info({:nodedown, _node}, %{config: %{engine: engine}} = state) do
    if function_exported?(engine, :retell, 4) do
      Peers.node_gone(name(state.registry))
      {:noreply, reconcile_soon(state)}
    else
      {:noreply, state}
    end
  end

  # From the monitor on another node, see `Remote`.
  def handle_info(:node_gone, %{config: %{}} = state), do: {:noreply, reconcile_soon(state)}

  def handle_info({:reconcile, timer}, %{timer: {timer, _reference}} = state) do
    {:noreply, reconcile_now(%{state | timer: nil, since: nil})}
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp adopt(%{supervisor: supervisor} = state, supervisor, config),
    do: %{state | config: config}

  defp adopt(state, supervisor, config) do
    _ =
      if state.monitor,
        do: Process.demonitor(state.monitor, [:flush]),
        else: Process.send_after(self(), :attend, @attend)

    monitor = Process.monitor(supervisor)
    %{state | supervisor: supervisor, monitor: monitor, config: config}
  end

  defp follow(state, process) do
    if is_reference(state.following), do: Process.demonitor(state.following, [:flush])
    following = if process, do: Process.monitor(process)
    %{state | process: process, following: following}
  end

  # The process is not known when the monitor before this one was killed.
  defp up?(%{process: nil}), do: true

  defp up?(%{process: process, config: %{engine: engine}}) do
    Process.whereis(process) != nil or (function_exported?(engine, :up?, 0) and engine.up?())
  end

  defp start(state) do
    {:ok, state.config.engine.start(state.registry, state.config.options)}
  catch
    # The engine has ended again.
    _kind, _reason -> :error
  end

  # Engines may keep the names of this node under the name that the node had when they were registered.
  defp reconcile_if_renamed(%{node: node} = state) do
    if node() == node,
      do: state,
      else: reconcile_now(%{state | node: node(), all: true})
  end

  defp reconcile_soon(state) do
    now = System.monotonic_time(:millisecond)
    since = state.since || now
    reconcile_after(%{state | since: since}, min(@settled, max(since + @longest - now, 0)))
  end

  defp reconcile_again(state) do
    failures = state.failures + 1
    reconcile_after(%{state | failures: failures}, min(@again * failures, @longest_pause))
  end

  defp reconcile_after(state, delay) do
    with {_timer, reference} <- state.timer, do: Process.cancel_timer(reference)
    timer = make_ref()
    %{state | timer: {timer, Process.send_after(self(), {:reconcile, timer}, delay)}}
  end

  defp reconcile_now(%{reconciling: {_pid, _monitor}} = state), do: %{state | waiting: true}
  defp reconcile_now(%{supervisor: nil} = state), do: state
  defp reconcile_now(%{config: %{exclusive?: true}} = state), do: state

  defp reconcile_now(%{registry: registry, all: all?} = state) do
    {:ok, pid} =
      Tasks.run(fn ->
        # Not logged as a crash, as it is repeated.
        if Reconcile.reconcile(registry, all?) != :ok, do: exit({:shutdown, :unsettled})
      end)

    %{state | reconciling: {pid, Process.monitor(pid)}}
  end
end
