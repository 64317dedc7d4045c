defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Lookup do
  @moduledoc false
  # Finds the holder of a name in the cluster.

  alias WorkflowMetal.Registration.NativeRegistry.{Registry, Table}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Peers}

  @doc "The holder of the name: by the table of this node, or else by the engine."
  @spec whereis(Registry.registry(), Registry.name()) :: pid | :undefined
  def whereis(registry, name) do
    Table.whereis(registry, name, &elsewhere/2)
  end

  @doc "The holder of a name that no process of this node holds, by the engine."
  @spec elsewhere(Registry.registry(), Registry.name()) :: pid | :undefined
  def elsewhere(registry, name) do
    with pid when is_pid(pid) <- Config.fetch!(registry).engine.whereis(registry, name) do
      # Another node's process is taken to be alive until the engine says otherwise.
      if node(pid) != node() or Process.alive?(pid), do: pid, else: :undefined
    end
  end

  @doc "The same holder with the name's value, for which the holder's node is asked."
  @spec lookup(Registry.registry(), Registry.name()) :: [{pid, Registry.value()}]
  def lookup(registry, name) do
    case elsewhere(registry, name) do
      :undefined -> []
      # It has registered the name since the table was looked at.
      pid when node(pid) == node() -> Table.lookup_here(registry, name)
      pid -> Peers.lookup(node(pid), registry, name, Config.fetch!(registry).timeout)
    end
  end

  @doc """
  The token with which the process holds the name: it grows with each grant of any name. `nil` with an engine that has
  none.
  """
  @spec token(Registry.registry(), Registry.name(), pid) :: pos_integer | nil
  def token(registry, name, pid) do
    if node(pid) == node(),
      do: token_here(registry, name, pid),
      else: Peers.token(registry, name, pid, Config.fetch!(registry).timeout)
  end

  @doc "The same for a process of this node."
  @spec token_here(Registry.registry(), Registry.name(), pid) :: pos_integer | nil
  def token_here(registry, name, pid) do
    with %{engine: engine, timeout: timeout} <- Config.get(registry),
         true <- function_exported?(engine, :token, 4) do
      engine.token(registry, name, pid, timeout)
    else
      _no_token -> nil
    end
  end
end
