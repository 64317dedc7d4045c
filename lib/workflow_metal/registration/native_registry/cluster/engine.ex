defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Engine do
  @moduledoc """
  What a registry wants of a distributed engine: which process of the cluster holds a name.

  The option `:cluster` takes `:global`, `:syn`, or any module with this behaviour. The engine only
  hears of registrations and of lookups that the own node cannot answer. When it finds that two
  processes hold one name, it asks `Cluster.decide/4` which one stays and hands the other to
  `Cluster.leave/4`; it removes the names of processes that have ended, and of nodes that are gone,
  by itself.
  """

  alias WorkflowMetal.Registration.NativeRegistry

  @doc "Modules that have to be there, each with the dependency that brings it."
  @callback requires() :: [{module, dependency :: String.t()}]

  @doc """
  Makes this node part of the registry's cluster; called again whenever the registry's process
  starts.

  Answers the registered name of the process that calls `Cluster.mirror/3` and
  `Cluster.unmirror/3` as names of other nodes come and go; what it mirrored is not believed while
  there is no such process. `nil` for an engine that cannot tell.
  """
  @callback start(NativeRegistry.registry()) :: process :: atom

  @doc """
  Registers a name for a process of this node within the cluster.

  `:no` when another process of the cluster has it. `{:error, :cluster_timeout}` when that cannot be
  said within `timeout` milliseconds; then the name is not registered later either, unless the
  process has ended, which frees it anyway.
  """
  @callback register(
              NativeRegistry.registry(),
              NativeRegistry.name(),
              pid,
              timeout :: pos_integer
            ) ::
              :yes | :no | {:error, reason :: term}

  @doc "Frees a name that the process holds, within `timeout` or, when the engine hangs, later."
  @callback unregister(
              NativeRegistry.registry(),
              NativeRegistry.name(),
              pid,
              timeout :: pos_integer
            ) :: :ok

  @doc "Who holds the name, as far as this node knows: asks no other."
  @callback whereis(NativeRegistry.registry(), NativeRegistry.name()) :: pid | :undefined
end
