defmodule WorkflowMetal.Registration.NativeRegistry.Owner do
  @moduledoc false
  # The registry's own process. It opens the table when it starts and closes it when its
  # supervisor stops it; nothing else goes through it. Should it be killed, the table stays as it
  # is and the next owner under the same supervisor finds it. Should the supervisor end without
  # stopping it, the NIF, which monitors the supervisor, closes the table.

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Native}

  @has_telemetry Code.ensure_loaded?(:telemetry)

  # How often the backlog of events is told by telemetry, in milliseconds.
  @backlog 5_000

  # How long after a node has come the engine should know what it has, in milliseconds.
  @settled 2_000

  @spec start_link(atom, [atom], Cluster.t() | nil) :: GenServer.on_start()
  def start_link(registry, listeners, cluster) do
    GenServer.start_link(__MODULE__, {registry, listeners, cluster}, name: name(registry))
  end

  @spec name(atom) :: atom
  def name(registry), do: Module.concat(registry, NativeRegistry)

  @impl GenServer
  def init({registry, listeners, cluster}) do
    # So that `terminate/2` is called.
    Process.flag(:trap_exit, true)
    supervisor = parent()

    case open(registry, supervisor, cluster != nil) do
      :ok ->
        :ok = Cluster.open(registry, cluster)
        :ok = Native.listen(registry, listeners)
        if cluster, do: :ok = :net_kernel.monitor_nodes(true)
        if @has_telemetry, do: Process.send_after(self(), :backlog, @backlog)
        {:ok, {registry, supervisor}}

      {:error, reason} ->
        {:stop, reason}
    end
  end

  # Nodes come in numbers, and the engine has its own work with each.
  @impl GenServer
  def handle_info({:nodeup, _node}, state) do
    Process.send_after(self(), :reconcile, @settled)
    {:noreply, state}
  end

  def handle_info(:reconcile, {registry, _supervisor} = state) do
    spawn(fn -> Cluster.reconcile(registry) end)
    {:noreply, state}
  end

  def handle_info(:backlog, {registry, _supervisor} = state) do
    with %{} = info <- Native.info(registry) do
      measurements = Map.take(info, [:backlog, :events_lost])
      event = [:workflow_metal, :registry, :backlog]
      # By `apply`: without Hex, telemetry is no dependency that Mix knows of, and it would warn.
      apply(:telemetry, :execute, [event, measurements, %{registry: registry}])
    end

    Process.send_after(self(), :backlog, @backlog)
    {:noreply, state}
  end

  def handle_info(_message, state), do: {:noreply, state}

  # Anything but the supervisor's order to stop is an accident, which must not cost a name.
  @impl GenServer
  def terminate(:shutdown, state), do: close(state)
  def terminate({:shutdown, _reason}, state), do: close(state)
  def terminate(_reason, _state), do: :ok

  defp close({registry, supervisor}) do
    held = if Cluster.config(registry), do: held(registry), else: []
    Native.close(registry, supervisor)
    Cluster.close(registry, held)
  end

  defp held(registry) do
    for {name, pid, _value} <- NativeRegistry.select(registry, :_), do: {name, pid}
  end

  defp open(registry, supervisor, clustered?) do
    case Native.open(registry, supervisor, clustered?) do
      :ok ->
        :ok

      other ->
        if Process.alive?(other) do
          {:error, {:already_started, other}}
        else
          # Its notice is on the way; whoever closes first does.
          Native.close(registry, other)
          open(registry, supervisor, clustered?)
        end
    end
  end

  defp parent do
    case Process.get(:"$ancestors") do
      [pid | _rest] when is_pid(pid) -> pid
      [name | _rest] when is_atom(name) -> Process.whereis(name)
    end
  end
end
