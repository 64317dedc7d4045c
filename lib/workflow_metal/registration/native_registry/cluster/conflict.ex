defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Conflict do
  @moduledoc false
  # Two processes hold one name: which of them stays, and how the other one loses the name.

  require Logger

  alias WorkflowMetal.Registration.NativeRegistry.{Registry, Table}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Evictor, Peers, Report, Tasks}

  # How long the function `:on_conflict` may take, in milliseconds.
  @decision 1_000

  # A loser may be told of the conflict before its own registration is complete. The table is
  # searched for it so many times, with this pause, in milliseconds.
  @looks 10
  @pause 100

  @doc """
  Which of two processes stays. Every node has to answer the same for the same two processes.

  It is the process of the node whose name comes first, unless the configuration has a function that
  decides otherwise.
  """
  @spec decide(Registry.registry(), Registry.name(), pid, pid) :: pid
  def decide(registry, name, one, other) do
    [first, second] = Enum.sort_by([one, other], &{node(&1), &1})

    case Config.get(registry) do
      %{on_conflict: nil} -> first
      %{on_conflict: function} -> decide_by(function, registry, name, first, second)
      # An engine may ask on a node where the registry does not run.
      nil -> decide_there(registry, name, first, second)
    end
  end

  defp decide_by({module, function}, registry, name, first, second) do
    decision = fn -> apply(module, function, [registry, name, first, second]) end

    case Tasks.await(@decision, decision) do
      winner when winner in [first, second] ->
        winner

      other ->
        Logger.error(
          "expected #{inspect({module, function})} to decide for one of #{inspect([first, second])} " <>
            "in the conflict about the name #{inspect(name)} of #{inspect(registry)}, " <>
            "got: #{inspect(other)}"
        )

        first
    end
  end

  defp decide_there(registry, name, first, second) do
    nodes = for pid <- [first, second], node(pid) != node(), do: node(pid)
    Enum.find_value(nodes, first, &Peers.decide(&1, registry, name, first, second, @decision))
  end

  @doc "The decision if the registry runs on this node, else `nil`."
  @spec decide_if_open(Registry.registry(), Registry.name(), pid, pid) :: pid | nil
  def decide_if_open(registry, name, one, other) do
    if Config.get(registry), do: decide(registry, name, one, other)
  end

  @doc """
  Takes the name from the loser, a process of this node, and ends it. Answers whether it had the name.

  A loser that does not hold the name is left alone: it has given it back.
  """
  @spec evict(Registry.registry(), Registry.name(), loser :: pid, winner :: pid, looks) ::
          :evicted | :not_held
        when looks: non_neg_integer
  def evict(registry, name, loser, winner, looks \\ @looks)

  def evict(_registry, _name, _loser, _winner, 0), do: :not_held

  def evict(registry, name, loser, winner, looks) do
    # The name is freed before the process ends, so that no lookup finds the loser any more.
    case Table.release(registry, name, loser) do
      :elsewhere ->
        Report.conflict(registry, name, winner, loser)
        Evictor.evict(loser, {:shutdown, {:name_conflict, name, winner}})
        :evicted

      _not_held ->
        if looks > 1 and Process.alive?(loser) and Config.get(registry) != nil do
          Process.sleep(@pause)
          evict(registry, name, loser, winner, looks - 1)
        else
          :not_held
        end
    end
  end
end
