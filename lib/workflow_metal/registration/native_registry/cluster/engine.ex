defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Engine do
  @moduledoc """
  What a registry wants of a distributed engine: which process of the cluster holds a name.

  The option `:cluster` takes `:global`, `:syn`, or any module with this behaviour. The engine only
  hears of registrations and of lookups that the own node cannot answer. When it finds that two
  processes hold one name, it asks `Cluster.decide/4` which one stays and hands the other to
  `Cluster.leave/4`; it removes the names of processes that have ended, and of nodes that are gone,
  by itself.

  The registry calls `register/4` and `unregister/4` again for a name whenever it is in doubt: when
  an answer came too late, when nodes have come, and when the engine's process has been restarted.
  """

  alias WorkflowMetal.Registration.NativeRegistry

  @doc "Modules that have to be there, each with the dependency that brings it."
  @callback requires() :: [{module, dependency :: String.t()}]

  @doc """
  Makes this node part of the registry's cluster; called again whenever the registry's process
  or the engine's starts.

  Answers the registered name of the process in which the engine keeps what it knows of the
  registry on this node, or `nil` if there is none. When that process ends and another comes, names
  are registered again.
  """
  @callback start(NativeRegistry.registry()) :: process :: atom

  @doc """
  Registers a name for a process of this node within the cluster.

  `:yes` also when the process has the name already, `:no` when another process of the cluster
  does. `{:error, :cluster_timeout}` when that cannot be said within `timeout` milliseconds. What it
  does too late is taken back by `unregister/4`, which is called then, unless the name has been
  registered again meanwhile; so what was asked first has to be done first.
  """
  @callback register(
              NativeRegistry.registry(),
              NativeRegistry.name(),
              pid,
              timeout :: pos_integer
            ) ::
              :yes | :no | {:error, reason :: term}

  @doc """
  Frees a name if it is this process of this node that holds it; looking and freeing is one step.

  An error when that has not been done within `timeout` milliseconds.
  """
  @callback unregister(
              NativeRegistry.registry(),
              NativeRegistry.name(),
              pid,
              timeout :: pos_integer
            ) :: :ok | {:error, reason :: term}

  @doc "Who holds the name, as far as this node knows: asks no other."
  @callback whereis(NativeRegistry.registry(), NativeRegistry.name()) :: pid | :undefined

  @doc """
  As `register/4`, and all other nodes are told of it, also when this node knew it before.

  Called for names that another member does not know after connections have come or gone. An engine
  of which all nodes always know the same does not need it.
  """
  @callback retell(
              NativeRegistry.registry(),
              NativeRegistry.name(),
              pid,
              timeout :: pos_integer
            ) :: :yes | :no | {:error, reason :: term}

  @doc "Called each second while the engine's process runs: puts right what others have changed."
  @callback attend(NativeRegistry.registry()) :: :ok

  @doc """
  Whether `start/1` may be called again after the engine's process has ended. Without this callback
  a process of that name has to come first.
  """
  @callback up?() :: boolean

  @doc "Called when no registry of this node uses the engine any more."
  @callback stop() :: :ok

  @optional_callbacks attend: 1, up?: 0, stop: 0, retell: 4
end
