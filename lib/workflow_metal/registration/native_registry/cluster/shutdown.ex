defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Shutdown do
  @moduledoc false
  # Ends this node's part in the cluster of a registry.

  alias WorkflowMetal.Registration.NativeRegistry.{Registry, Table}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Drain, Settle, Tasks}

  @type held :: [{Registry.name(), pid}]

  @doc """
  Closes the registry that the supervisor has open. Its names are given back to the engine, without
  waiting for that.

  `held` are the names of a registry that is suspended, which cannot be listed.
  """
  @spec close(Registry.registry(), supervisor :: pid, held | nil) :: :ok
  def close(registry, supervisor, held \\ nil) do
    case Config.get(registry) do
      %{supervisor: ^supervisor} = config ->
        # From now on a registration raises, so that no name comes after those that are listed here.
        Config.delete(registry)
        held = held || held(registry)
        Table.close(registry, supervisor)
        Drain.stop(registry)
        give_back_later(registry, held, config)

      _closed_or_opened_by_another ->
        Table.close(registry, supervisor)
    end

    :ok
  end

  @doc "The names and holders of this node; none when the registry does not run."
  @spec held(Registry.registry()) :: held
  def held(registry) do
    Table.held(registry)
  rescue
    ArgumentError -> []
  end

  @doc """
  Gives names back to the engine, soon. A holder that has registered its name again meanwhile, in a
  registry that uses the same engine, keeps it.
  """
  @spec give_back_later(Registry.registry(), held, Config.t()) :: :ok
  def give_back_later(registry, held, config) do
    {:ok, _pid} = Tasks.run(fn -> give_back(registry, held, config) end)
    :ok
  end

  defp give_back(registry, held, %{engine: engine} = config) do
    if config.exclusive? do
      engine.give_back(registry, held)
    else
      for {name, pid} <- held, do: Settle.settle_until_done(registry, name, [pid], config)
    end

    if function_exported?(engine, :stop, 0) and not Config.engine_used?(engine), do: engine.stop()
  end
end
