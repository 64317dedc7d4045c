defmodule WorkflowMetal.Registration.NativeRegistry.Owner do
  @moduledoc false
  # The registry's own process. It opens the table when it starts and closes it when its
  # supervisor stops it; nothing else goes through it. Should it be killed, the table stays as it
  # is and the next owner under the same supervisor finds it. Should the supervisor end without
  # stopping it, the NIF, which monitors the supervisor, closes the table; in a cluster it is
  # `Cluster.Follower` that does.

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Native}

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
        :ok = Cluster.open(registry, supervisor, cluster)
        :ok = Native.listen(registry, listeners)
        {:ok, {registry, supervisor}}

      {:error, reason} ->
        {:stop, reason}
    end
  end

  # Nobody has a reason to talk to it; what comes all the same is no reason to end.
  @impl GenServer
  def handle_call(_message, _from, state), do: {:noreply, state}

  @impl GenServer
  def handle_cast(_message, state), do: {:noreply, state}

  @impl GenServer
  def handle_info(_message, state), do: {:noreply, state}

  # Anything but the supervisor's order to stop is an accident, which must not cost a name.
  @impl GenServer
  def terminate(:shutdown, state), do: close(state)
  def terminate({:shutdown, _reason}, state), do: close(state)
  def terminate(_reason, _state), do: :ok

  defp close({registry, supervisor}), do: Cluster.close(registry, supervisor)

  defp open(registry, supervisor, clustered?) do
    case Native.open(registry, supervisor, clustered?) do
      :ok ->
        :ok

      other ->
        if Process.alive?(other) do
          {:error, {:already_started, other}}
        else
          # Its notice is on the way; whoever closes first does.
          Cluster.close(registry, other)
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
