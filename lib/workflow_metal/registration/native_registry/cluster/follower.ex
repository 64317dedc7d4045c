defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Follower do
  @moduledoc false
  # One for each registry that is part of a cluster. It follows the registry's supervisor, whose end
  # is the registry's; the engine's process, which may lose what it knew; and the nodes that come.
  # Whatever has the engine and the table disagree, it has the two compared again.
  #
  # It runs under this application and not beside the registry's own process: it has to outlive both.

  use GenServer, restart: :transient

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Native, Owner}

  # How long after a node has come the engine should know what it has, and how long nodes that come
  # one after another put that off, in milliseconds.
  @settled 2_000
  @longest 10_000

  # Between two attempts when the engine has not answered: at first, and at most, in milliseconds.
  @again 1_000
  @rarest 30_000

  # Between two looks for an engine that has ended, and at one that runs, in milliseconds.
  @look 100
  @attend 1_000

  defstruct [
    :registry,
    :supervisor,
    :monitor,
    :cluster,
    :process,
    :following,
    :node,
    :reconciling,
    :timer,
    :since,
    # Names and holders of a registry that is suspended.
    :held,
    down: false,
    rewrite: false,
    waiting: false,
    failures: 0
  ]

  @spec start_link(NativeRegistry.registry()) :: GenServer.on_start()
  def start_link(registry), do: GenServer.start_link(__MODULE__, registry, name: name(registry))

  # As `Owner.name/1`, from which it differs by its end.
  defp name(registry), do: :"#{Owner.name(registry)}.Cluster"

  @doc "Makes this node part of the registry's cluster, until the supervisor ends."
  @spec open(NativeRegistry.registry(), pid, Cluster.t()) :: :ok | {:error, term}
  def open(registry, supervisor, cluster) do
    case DynamicSupervisor.start_child(Cluster.Followers, {__MODULE__, registry}) do
      {:ok, _pid} -> :ok
      {:error, {:already_started, _pid}} -> :ok
    end

    GenServer.call(name(registry), {:open, supervisor, cluster}, :infinity)
  catch
    # The one of the registry before has just ended.
    :exit, {reason, _call} when reason in [:noproc, :normal] ->
      open(registry, supervisor, cluster)
  end

  @doc "Closes the registry that the supervisor has open, and gives its names back to the engine."
  @spec close(NativeRegistry.registry(), pid) :: :ok
  def close(registry, supervisor) do
    GenServer.call(name(registry), {:close, supervisor}, :infinity)
  catch
    :exit, _reason -> Cluster.close_here(registry, supervisor)
  end

  @doc "Suspends the registry that the supervisor has open."
  @spec suspend(NativeRegistry.registry(), pid) :: Native.suspended() | :no_registry
  def suspend(registry, supervisor) do
    GenServer.call(name(registry), {:suspend, supervisor}, :infinity)
  catch
    :exit, _reason -> Native.suspend(registry, supervisor)
  end

  @doc "Closes the registry if it is still suspended, and gives its names back to the engine."
  @spec close_suspended(NativeRegistry.registry(), pid, Native.suspended()) :: :ok
  def close_suspended(registry, supervisor, suspended) do
    GenServer.call(name(registry), {:close_suspended, supervisor, suspended}, :infinity)
  catch
    :exit, _reason ->
      Native.close_suspended(registry, suspended)
      :ok
  end

  @doc "Has the engine and the table compared."
  @spec reconcile(NativeRegistry.registry()) :: :ok
  def reconcile(registry), do: GenServer.cast(name(registry), :reconcile)

  @impl GenServer
  def init(registry) do
    :ok = :net_kernel.monitor_nodes(true)
    # A follower that was killed left what it had been told.
    state = %__MODULE__{registry: registry, node: node()}

    case Cluster.config(registry) do
      nil ->
        {:ok, state}

      %{supervisor: supervisor} = cluster ->
        {:ok, adopt(state, supervisor, cluster), {:continue, :take_over}}
    end
  end

  @impl GenServer
  def handle_continue(:take_over, state) do
    send(self(), :look)
    {:noreply, %{state | following: :gone}}
  end

  @impl GenServer
  def handle_call({:open, supervisor, cluster}, _from, state) do
    # To put what is there already costs nothing; anything else has all processes looked through.
    # Before the engine, which may have to decide at once.
    cluster = Map.put(cluster, :supervisor, supervisor)
    Cluster.put_config(state.registry, cluster)

    # Another supervisor had suspended it, and what it held has been forgotten.
    if state.held && state.supervisor != supervisor,
      do: Cluster.give_back_later(state.registry, state.held, state.cluster)

    state = adopt(%{state | held: nil}, supervisor, cluster)

    try do
      cluster.engine.start(state.registry)
    catch
      kind, reason -> {:reply, {:error, {kind, reason, __STACKTRACE__}}, state}
    else
      process -> {:reply, :ok, state |> follow(process) |> soon()}
    end
  end

  def handle_call({:close, supervisor}, _from, %{supervisor: supervisor} = state) do
    Cluster.close_here(state.registry, supervisor, state.held)
    {:stop, :normal, :ok, state}
  end

  def handle_call({:suspend, supervisor}, _from, state) do
    # Before: the names of a suspended registry cannot be listed.
    held = Cluster.held(state.registry)

    case Native.suspend(state.registry, supervisor) do
      suspended when is_tuple(suspended) -> {:reply, suspended, %{state | held: held}}
      other -> {:reply, other, state}
    end
  end

  def handle_call({:close_suspended, supervisor, suspended}, _from, state) do
    if Native.close_suspended(state.registry, suspended) and state.supervisor == supervisor and
         state.held != nil do
      Cluster.close_here(state.registry, supervisor, state.held)
      {:stop, :normal, :ok, state}
    else
      {:reply, :ok, state}
    end
  end

  # A registry that was closed before this one was opened.
  def handle_call({:close, supervisor}, _from, state) do
    {:reply, Cluster.close_here(state.registry, supervisor), state}
  end

  @impl GenServer
  def handle_cast(:reconcile, state), do: {:noreply, reconcile_now(state)}

  @impl GenServer
  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{monitor: monitor} = state) do
    Cluster.close_here(state.registry, state.supervisor, state.held)
    {:stop, :normal, state}
  end

  def handle_info({:DOWN, following, :process, _pid, reason}, %{following: following} = state) do
    Cluster.Report.engine_down(state.registry, state.cluster.engine, reason)
    Process.send_after(self(), :look, @look)
    {:noreply, %{state | following: :gone, down: true}}
  end

  def handle_info({:DOWN, monitor, :process, pid, reason}, %{reconciling: {pid, monitor}} = state) do
    state = %{state | reconciling: nil}

    cond do
      reason != :normal -> {:noreply, %{state | waiting: false} |> failed() |> again()}
      state.waiting -> {:noreply, reconcile_now(%{state | waiting: false, failures: 0})}
      true -> {:noreply, %{state | rewrite: false, failures: 0}}
    end
  end

  # The engine's process is awaited.
  def handle_info(:look, %{following: :gone} = state) do
    with true <- up?(state),
         {:ok, process} <- start(state) do
      if state.down, do: Cluster.Report.engine_up(state.registry, state.cluster.engine)
      # It has lost what it knew of this node, and has yet to hear of others.
      state = %{state | down: false}
      {:noreply, state |> follow(process) |> reconcile_now() |> soon()}
    else
      _gone ->
        Process.send_after(self(), :look, @look)
        {:noreply, state}
    end
  end

  def handle_info(:look, state), do: {:noreply, state}

  def handle_info(:attend, state) do
    Process.send_after(self(), :attend, @attend)
    %{engine: engine} = state.cluster
    attends? = is_reference(state.following) and function_exported?(engine, :attend, 1)
    if attends?, do: engine.attend(state.registry)
    Cluster.Marks.sweep()
    {:noreply, renamed(state)}
  end

  # Nodes come in numbers, and the engine has its own work with each.
  def handle_info({:nodeup, _node}, state), do: {:noreply, state |> renamed() |> soon()}

  # A member that has gone may have had a name that this node has, if the two did not see each other;
  # the other members have nothing for it now. So they tell those who may not have seen it go.
  def handle_info({:nodedown, _node}, %{cluster: %{engine: engine}} = state) do
    if function_exported?(engine, :retell, 4) do
      follower = name(state.registry)
      for node <- Node.list(), do: Process.send({follower, node}, :node_gone, [:noconnect])
      {:noreply, soon(state)}
    else
      {:noreply, state}
    end
  end

  def handle_info(:node_gone, %{cluster: %{}} = state), do: {:noreply, soon(state)}

  def handle_info({:reconcile, timer}, %{timer: {timer, _reference}} = state) do
    {:noreply, reconcile_now(%{state | timer: nil, since: nil})}
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp adopt(%{supervisor: supervisor} = state, supervisor, cluster),
    do: %{state | cluster: cluster}

  defp adopt(state, supervisor, cluster) do
    _ =
      if state.monitor,
        do: Process.demonitor(state.monitor, [:flush]),
        else: Process.send_after(self(), :attend, @attend)

    monitor = Process.monitor(supervisor)
    %{state | supervisor: supervisor, monitor: monitor, cluster: cluster}
  end

  defp follow(state, process) do
    if is_reference(state.following), do: Process.demonitor(state.following, [:flush])
    following = if process, do: Process.monitor(process)
    %{state | process: process, following: following}
  end

  # A follower that was killed knew the process.
  defp up?(%{process: nil}), do: true

  defp up?(%{process: process, cluster: %{engine: engine}}) do
    Process.whereis(process) != nil or (function_exported?(engine, :up?, 0) and engine.up?())
  end

  defp start(state) do
    {:ok, state.cluster.engine.start(state.registry)}
  catch
    # It ends again.
    _kind, _reason -> :error
  end

  # This node has got a name, or another: engines may have kept what they know by the one before.
  defp renamed(%{node: node} = state) do
    if node() == node,
      do: state,
      else: reconcile_now(%{state | node: node(), rewrite: true})
  end

  defp soon(state) do
    now = System.monotonic_time(:millisecond)
    since = state.since || now
    later(%{state | since: since}, min(@settled, max(since + @longest - now, 0)))
  end

  defp failed(state), do: %{state | failures: state.failures + 1}
  defp again(state), do: later(state, min(@again * state.failures, @rarest))

  defp later(state, delay) do
    with {_timer, reference} <- state.timer, do: Process.cancel_timer(reference)
    timer = make_ref()
    %{state | timer: {timer, Process.send_after(self(), {:reconcile, timer}, delay)}}
  end

  defp reconcile_now(%{reconciling: {_pid, _monitor}} = state), do: %{state | waiting: true}
  defp reconcile_now(%{supervisor: nil} = state), do: state

  defp reconcile_now(%{registry: registry, rewrite: rewrite} = state) do
    {:ok, pid} =
      Cluster.Application.run(fn ->
        # Not an error: it is done again.
        if Cluster.reconcile(registry, rewrite) != :ok, do: exit({:shutdown, :unsettled})
      end)

    %{state | reconciling: {pid, Process.monitor(pid)}}
  end
end
