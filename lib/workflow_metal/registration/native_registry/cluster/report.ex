defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Report do
  @moduledoc false
  # What happens to a registry in a cluster besides changes of names: a line in the log where a
  # person should know, a telemetry event where telemetry is there, and a message to those on this
  # node who are told of the name. What is of no single name goes to everybody who is told of any.
  #
  # Called by whatever process it happens in, an engine's own among them: nothing here waits, and
  # nothing raises, whether or not the registry is open.

  require Logger

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Name, Native}

  @doc "Two processes held the name; the loser, which is of this node, is about to leave."
  @spec conflict(NativeRegistry.registry(), NativeRegistry.name(), winner :: pid, loser :: pid) ::
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
  A process of this node has to leave, though no other holds its name: the node is `:draining`. Nothing
  is logged, as whoever drains a node knows.
  """
  @spec fenced(NativeRegistry.registry(), NativeRegistry.name(), pid, reason :: term) :: :ok
  def fenced(registry, name, pid, reason) do
    execute(:fenced, %{}, %{registry: registry, name: name, pid: pid, reason: reason})
    tell_audience(registry, name, {:fenced, registry, name, pid, reason})
  end

  @doc """
  This node's names were compared with what the engine knows: so many were looked at, of so many the
  engine said something else or had to be told anew.
  """
  @spec reconciled(NativeRegistry.registry(), %{
          names: non_neg_integer,
          disagreed: non_neg_integer
        }) :: :ok
  def reconciled(registry, counts) do
    execute(:reconciled, counts, %{registry: registry})
    # A message for each node that comes would tell nobody anything.
    if counts.disagreed > 0, do: tell_everybody(registry, {:reconciled, registry, node(), counts})
    :ok
  end

  @doc "The engine of the registry cannot be asked on this node."
  @spec engine_down(NativeRegistry.registry(), engine :: module, reason :: term) :: :ok
  def engine_down(registry, engine, reason) do
    Logger.error(
      "#{inspect(engine)}, the engine of #{inspect(registry)}, is down: #{inspect(reason)}"
    )

    execute(:engine_down, %{}, %{registry: registry, engine: engine, reason: reason})
    tell_everybody(registry, {:engine_down, registry, node(), reason})
  end

  @doc "It can be asked again."
  @spec engine_up(NativeRegistry.registry(), engine :: module) :: :ok
  def engine_up(registry, engine) do
    Logger.info("#{inspect(engine)}, the engine of #{inspect(registry)}, is up again")
    execute(:engine_up, %{}, %{registry: registry, engine: engine})
    tell_everybody(registry, {:engine_up, registry, node()})
  end

  @doc "The engine did not say within the registry's `cluster_timeout` who may have the name."
  @spec timeout(NativeRegistry.registry(), NativeRegistry.name()) :: :ok
  def timeout(registry, name) do
    execute(:cluster_timeout, %{}, %{registry: registry, name: name})
    tell_audience(registry, name, {:cluster_timeout, registry, name})
  end

  # Without Hex, telemetry is no dependency that Mix knows of. It may also be there and not run, for
  # which it raises.
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

  defp tell_audience(registry, name, message) do
    case Native.audience(registry, name) do
      audience when is_list(audience) -> tell(audience, message)
      :no_registry -> :ok
      refusal -> tell_audience(registry, Name.prepare!(refusal, registry, name), message)
    end
  end

  defp tell_everybody(registry, message) do
    case Native.everybody(registry) do
      everybody when is_list(everybody) -> tell(everybody, message)
      :no_registry -> :ok
    end
  end

  # A listener's name may belong to nobody at the moment.
  defp tell(audience, message) do
    for recipient <- audience, do: tell_one(recipient, message)
    :ok
  end

  defp tell_one(pid, message) when is_pid(pid), do: send(pid, message)

  defp tell_one(listener, message) do
    with pid when is_pid(pid) <- Process.whereis(listener), do: send(pid, message)
  end
end
