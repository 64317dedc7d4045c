defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Engine do
  @moduledoc """
  The behaviour of a distributed engine, which knows the holder of each name in the cluster.

  The option `:cluster` of a registry takes `:global`, `:syn`, `:ra`, or a module with this behaviour;
  or `{engine, options}`. The registry asks the engine to register and free names of this node's processes,
  and to look up names that no process of this node holds.

  ## Engines that let two processes hold one name for a while

  The engine removes the names of processes that have ended, and of nodes that are gone, by itself. When
  it finds that two processes hold one name, it calls `decide/4` and then `leave/4` for the process that
  does not stay.

  The registry calls `c:register/4` and `c:unregister/4` again for a name whenever it is in doubt: when
  an answer came too late, when nodes have come, and when the engine's process has been restarted. The
  engine carries out the calls for one name in the order in which they were made.

  ## Engines that never do

  Such an engine has `c:claim/4`, `c:settled/2` and `c:give_back/2`, and neither `c:register/4` nor
  `c:retell/4`. Only the engine says who may have a name: nothing is registered without its answer, nothing is
  compared, and no conflict is decided. What it grants it grants under a lease, and the table takes no name
  under a lease that has ended.
  """

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Conflict, Peers}
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  @doc "Modules that the engine needs, each with the dependency that has it, as in mix.exs."
  @callback requires() :: [{module, dependency :: String.t()}]

  @doc """
  Makes this node part of the registry's cluster. Called again whenever the registry's process or the
  engine's process was restarted.

  Answers the registered name of the process that keeps what the engine knows of the registry on this
  node, or `nil` if there is none. When that process ends and is started again, the names of this node are
  registered again.
  """
  @callback start(Registry.registry(), options :: term) :: process :: atom

  @doc """
  Checks the options of `{engine, options}`, which are `[]` for an engine alone. The answer is given to
  `c:start/2`. Raises `ArgumentError` for an option that is unknown or missing, and names the known ones.

  An engine without this callback takes no options.
  """
  @callback options!(Registry.registry(), keyword) :: options :: term

  @doc """
  Claims a name for a process of this node. `{:yes, epoch, grant}` when the process may have it while the
  lease `epoch` lasts; `c:settled/2` follows, unless the caller is killed. `:no` when another process has
  the name, or may have it in a moment. An error when no name can be had, or not within `timeout`
  milliseconds.
  """
  @callback claim(Registry.registry(), Registry.name(), pid, timeout :: pos_integer) ::
              {:yes, epoch :: pos_integer, grant :: term} | :no | {:error, reason :: term}

  @doc "Says whether the table of this node has taken the name that was granted. If not, it is free."
  @callback settled(grant :: term, held? :: boolean) :: :ok

  @doc "Frees the names of a registry that was closed on this node."
  @callback give_back(Registry.registry(), [{Registry.name(), pid}]) :: :ok

  @doc """
  The token of a name that this process of this node holds: it grows with each grant of any name. `nil` when
  it is not known within `timeout` milliseconds.
  """
  @callback token(Registry.registry(), Registry.name(), pid, timeout) :: pos_integer | nil

  @doc """
  Registers a name for a process of this node.

  `:yes` also when the process holds the name already, `:no` when another process of the cluster does.
  `{:error, :cluster_timeout}` when the engine cannot answer within `timeout` milliseconds. It may still
  register the name later: the registry calls `c:unregister/4` then, unless it has registered the name
  again meanwhile.
  """
  @callback register(Registry.registry(), Registry.name(), pid, timeout :: pos_integer) ::
              :yes | :no | {:error, reason :: term}

  @doc """
  Frees a name if this process of this node holds it. No other process can get the name between the look
  and the release.

  An error when that has not been done within `timeout` milliseconds.
  """
  @callback unregister(Registry.registry(), Registry.name(), pid, timeout :: pos_integer) ::
              :ok | {:error, reason :: term}

  @doc "The holder of the name as far as this node knows. Asks no other node."
  @callback whereis(Registry.registry(), Registry.name()) :: pid | :undefined

  @doc """
  As `c:register/4`, and all other nodes are told of the holder even if this node knows it already.

  Called for names that another member of the cluster does not know after connections were made or lost.
  An engine whose nodes always know the same names does not need it.
  """
  @callback retell(Registry.registry(), Registry.name(), pid, timeout :: pos_integer) ::
              :yes | :no | {:error, reason :: term}

  @doc "Called each second while the engine's process runs, to repair what others have changed."
  @callback attend(Registry.registry()) :: :ok

  @doc """
  Whether `c:start/2` may be called after the engine's process has ended. Without this callback it is
  called when a process of that name runs again.
  """
  @callback up?() :: boolean

  @doc "Called when no registry of this node uses the engine any more."
  @callback stop() :: :ok

  @optional_callbacks attend: 1,
                      up?: 0,
                      stop: 0,
                      options!: 2,
                      register: 4,
                      retell: 4,
                      claim: 4,
                      settled: 2,
                      give_back: 2,
                      token: 4

  @doc """
  Decides which of two processes keeps the name that both hold. The answer is the same on every node.

  The option `:on_conflict` of the registry decides or, without it, the names of the nodes. It takes a
  second at most.
  """
  @spec decide(Registry.registry(), Registry.name(), pid, pid) :: pid
  defdelegate decide(registry, name, one, other), to: Conflict

  @doc "Ends the process that has lost its name to another one. Does not wait for its end."
  @spec leave(Registry.registry(), Registry.name(), loser :: pid, winner :: pid) :: :ok
  defdelegate leave(registry, name, loser, winner), to: Peers
end
