defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Monitors do
  @moduledoc false
  # Supervises the monitors of all clustered registries of this node.

  use Supervisor

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Monitor}
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  @dynamic __MODULE__.Dynamic

  @spec start_link(term) :: Supervisor.on_start()
  def start_link(restarts), do: Supervisor.start_link(__MODULE__, restarts, name: __MODULE__)

  @doc "Starts the monitor of a registry unless it runs."
  @spec start_monitor(Registry.registry()) :: :ok
  def start_monitor(registry) do
    case DynamicSupervisor.start_child(@dynamic, {Monitor, registry}) do
      {:ok, _pid} -> :ok
      {:error, {:already_started, _pid}} -> :ok
    end
  end

  @impl Supervisor
  def init(restarts) do
    children = [
      {DynamicSupervisor, name: @dynamic, strategy: :one_for_one, max_restarts: restarts},
      # The monitors of a DynamicSupervisor that was killed are gone, and their registries are not.
      Supervisor.child_spec({Task, &restore/0}, restart: :transient)
    ]

    Supervisor.init(children, strategy: :rest_for_one, max_restarts: restarts)
  end

  defp restore do
    for registry <- Config.registries() do
      with pid when is_pid(pid) <- Process.whereis(Monitor.name(registry)), do: await_orphan(pid)
      start_monitor(registry)
    end
  end

  # A monitor of the DynamicSupervisor that was killed ends as well, and may still have its name.
  defp await_orphan(pid) do
    children =
      for {_id, child, _type, _modules} <- DynamicSupervisor.which_children(@dynamic), do: child

    unless pid in children do
      monitor = Process.monitor(pid)

      receive do
        {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
      end
    end
  end
end
