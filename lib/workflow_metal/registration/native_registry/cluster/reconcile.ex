defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Reconcile do
  @moduledoc false
  # Makes the engine agree with this node's table about all names.
  #
  # An engine resolves conflicts when nodes meet, and reports each once: a node that was not connected at
  # that moment does not hear of it. An engine that was restarted knows no names.

  alias WorkflowMetal.Registration.NativeRegistry.{Registry, Table}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Peers, Report, Settle}

  @doc """
  Settles each name about which the engine and the table differ; with `all?` each name. Names that
  another member does not know are told to all members again, if the engine has `retell/4`.
  """
  @spec reconcile(Registry.registry(), all? :: boolean) :: :ok | {:error, reason :: term}
  def reconcile(registry, all? \\ false) do
    %{engine: engine} = config = Config.fetch!(registry)
    held = Table.held(registry)
    differing = for {name, pid} <- held, all? or engine.whereis(registry, name) != pid, do: name

    with :ok <- settle_all(registry, differing, config, :register),
         {:ok, unknown} <- retell_unknown(registry, held, config) do
      disagreed = length(differing) + unknown
      Report.reconciled(registry, %{names: length(held), disagreed: disagreed})
    end
  rescue
    # The registry was stopped.
    ArgumentError -> :ok
  end

  defp settle_all(registry, names, config, tell) do
    Enum.reduce_while(names, :ok, fn name, outcome ->
      case Settle.settle(registry, name, [], config.timeout, config, tell) do
        :ok -> {:cont, outcome}
        {:error, :unsettled} = error -> {:cont, error}
        # The engine would not answer about the next name either.
        {:error, _reason} = error -> {:halt, error}
      end
    end)
  end

  # This node's engine may agree with the table while the other members do not know the name: one link of
  # several was cut, the node at its other end took the name, the members believed that node, and it gave
  # the name back. When the link is back, only its two ends are told of each other.
  defp retell_unknown(registry, held, %{engine: engine} = config) do
    if function_exported?(engine, :retell, 4) do
      {outcome, unknown} = Peers.unknown(registry, engine, held, config.timeout)

      with :ok <- settle_all(registry, unknown, config, :retell),
           :ok <- outcome,
           do: {:ok, length(unknown)}
    else
      {:ok, 0}
    end
  end
end
