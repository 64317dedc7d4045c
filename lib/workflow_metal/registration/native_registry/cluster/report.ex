defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Report do
  @moduledoc false
  # Reports what happens to a clustered registry besides changes of names: by the log, by telemetry and
  # by a message to the subscribers and listeners on this node. An event about a name goes to the
  # processes that are told of the name, any other event to all.
  #
  # Any process may call it, an engine's own among them, whether the registry runs or not: no function
  # here blocks or raises.

  require Logger

  alias WorkflowMetal.Registration.NativeRegistry.{Events, Registry}

  @doc "Two processes held the name. The loser, which runs on this node, is about to be ended."
  @spec conflict(Registry.registry(), Registry.name(), winner :: pid, loser :: pid) ::
          :ok
  def conflict(registry, name, winner, loser) do
    Logger.warning(
      "the name #{inspect(name)} of #{inspect(registry)} was held twice in the cluster: " <>
        "#{inspect(winner)} of #{node(winner)} stays, #{inspect(loser)} of #{node(loser)} leaves"
    )

    metadata = %{registry: registry, name: name, winner: winner, loser: loser}
    execute(:conflict, %{}, metadata)
    tell_audience(registry, name, {:conflict, registry, name, winner, loser})
  end

  @doc """
  A process of this node has to give up its name though no other process holds it: the node is
  `:draining`. It is not logged, as a node is drained on purpose.
  """
  @spec fenced(Registry.registry(), Registry.name(), pid, reason :: term) :: :ok
  def fenced(registry, name, pid, reason) do
    execute(:fenced, %{}, %{registry: registry, name: name, pid: pid, reason: reason})
    tell_audience(registry, name, {:fenced, registry, name, pid, reason})
  end

  @doc """
  The engine and this node's table were reconciled: how many names there were, and about how many the
  two disagreed.
  """
  @spec reconciled(Registry.registry(), %{
          names: non_neg_integer,
          disagreed: non_neg_integer
        }) :: :ok
  def reconciled(registry, counts) do
    execute(:reconciled, counts, %{registry: registry})
    # Not told after each node that comes, but only if something disagreed.
    if counts.disagreed > 0, do: tell_everybody(registry, {:reconciled, registry, node(), counts})
    :ok
  end

  @doc "The engine of the registry does not run on this node any more."
  @spec engine_down(Registry.registry(), engine :: module, reason :: term) :: :ok
  def engine_down(registry, engine, reason) do
    Logger.error(
      "#{inspect(engine)}, the engine of #{inspect(registry)}, is down: #{inspect(reason)}"
    )

    execute(:engine_down, %{}, %{registry: registry, engine: engine, reason: reason})
    tell_everybody(registry, {:engine_down, registry, node(), reason})
  end

  @doc "The engine runs again."
  @spec engine_up(Registry.registry(), engine :: module) :: :ok
  def engine_up(registry, engine) do
    Logger.info("#{inspect(engine)}, the engine of #{inspect(registry)}, is up again")
    execute(:engine_up, %{}, %{registry: registry, engine: engine})
    tell_everybody(registry, {:engine_up, registry, node()})
  end

  @doc "The engine has not answered within the registry's `:cluster_timeout`."
  @spec timeout(Registry.registry(), Registry.name()) :: :ok
  def timeout(registry, name) do
    execute(:cluster_timeout, %{}, %{registry: registry, name: name})
    tell_audience(registry, name, {:cluster_timeout, registry, name})
  end

  # By `apply/3`: without Hex, telemetry is no dependency that Mix knows of, and the compiler would warn.
  # It raises where it is loaded and not started.
  defp execute(event, measurements, metadata) do
    if Code.ensure_loaded?(:telemetry) do
      measurements = Map.put(measurements, :system_time, System.system_time())
      arguments = [[:workflow_metal, :registry, event], measurements, metadata]

      try do
        apply(:telemetry, :execute, arguments)
      rescue
        ArgumentError -> :ok
      end
    end

    :ok
  end

  defp tell_audience(registry, name, message),
    do: tell(Events.audience(registry, name), message)

  defp tell_everybody(registry, message), do: tell(Events.everybody(registry), message)

  defp tell(:no_registry, _message), do: :ok

  defp tell(recipients, message) do
    for recipient <- recipients,
        pid = if(is_atom(recipient), do: Process.whereis(recipient), else: recipient),
        is_pid(pid),
        do: send(pid, message)

    :ok
  end
end
