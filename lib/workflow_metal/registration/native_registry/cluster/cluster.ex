defmodule WorkflowMetal.Registration.NativeRegistry.Cluster do
  @moduledoc false
  # The only module of this folder that the rest of the project calls, and only for a clustered registry.
  #
  # The table has the names of this node's processes. The engine, which is `:global`, syn, ra or another
  # module with the behaviour `Engine`, knows the holder of each name in the cluster. What follows from
  # that is here, one module for each task:
  #
  #   Options, Config        the options, and the configuration that is kept of them
  #   Lookup                 finding the holder of a name
  #   Claim                  registering a name: engine, then table
  #   Settle, NameLock       making the engine agree with the table about one name
  #   Reconcile              the same for all names
  #   Conflict, Evictor      two holders of one name: which one stays, and how the other one ends
  #   StartChild             starting a child whose name another node may take
  #   Drain                  giving all names of this node to the other nodes
  #   Subscription           events of other nodes, which a Forwarder there sends
  #   Monitor, Shutdown      what happens when the supervisor, the engine or a node comes or goes
  #   Deadlines, Tasks       how long the engine is waited for, and the processes that wait
  #   Report                 log, telemetry and messages
  #   Peers, Remote          calls of other nodes, and what other nodes call here
  #   Global, Syn, Ra        the engines; GlobalLock repairs a lock of `:global`
  #   Supervisor, Monitors   the processes of all this

  alias WorkflowMetal.Registration.NativeRegistry.{Attempts, Registry, Table}

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{
    Claim,
    Config,
    Drain,
    Lookup,
    Monitor,
    Monitors,
    Options,
    Peers,
    Settle,
    StartChild,
    Subscription
  }

  @type t :: Config.t()

  @doc "The configuration that the options describe; `nil` without the option `:cluster`."
  @spec new!(Registry.registry(), keyword) :: t | nil
  defdelegate new!(registry, options), to: Options, as: :validate!

  @doc "How the table of this node is opened."
  @spec kind(t) :: :clustered | :leased
  def kind(config), do: if(config.exclusive?, do: :leased, else: :clustered)

  @doc """
  Makes this node part of the registry's cluster, as long as the supervisor runs. Without a configuration
  it ends the part of a clustered registry of this name that another supervisor has stopped.
  """
  @spec open(Registry.registry(), supervisor :: pid, t | nil) :: :ok
  def open(registry, _supervisor, nil) do
    with %{supervisor: other} <- Config.get(registry), do: Monitor.close(registry, other)
    :ok
  end

  def open(registry, supervisor, config) do
    {:ok, _started} = Application.ensure_all_started(:workflow_metal_native_registry)

    :ok = Monitors.start_monitor(registry)

    case Monitor.open(registry, supervisor, config) do
      :ok -> :ok
      {:error, :not_running} -> open(registry, supervisor, config)
      {:error, {kind, reason, stacktrace}} -> :erlang.raise(kind, reason, stacktrace)
    end
  end

  @doc """
  Closes the registry that the supervisor has open. Its names are given back to the engine, without
  waiting for that.
  """
  @spec close(Registry.registry(), supervisor :: pid) :: :ok
  defdelegate close(registry, supervisor), to: Monitor

  @doc "Suspends the registry that the supervisor has open. The engine keeps its names."
  @spec suspend(Registry.registry(), supervisor :: pid) :: Table.suspended() | :no_registry
  defdelegate suspend(registry, supervisor), to: Monitor

  @doc "Closes the registry if it is still suspended, and gives its names back to the engine."
  @spec close_suspended(Registry.registry(), supervisor :: pid, Table.suspended()) :: :ok
  defdelegate close_suspended(registry, supervisor, suspended), to: Monitor

  @doc "The holder of a name that no process of this node holds."
  @spec whereis(Registry.registry(), Registry.name()) :: pid | :undefined
  defdelegate whereis(registry, name), to: Lookup, as: :elsewhere

  @doc "The same holder with the name's value, for which the holder's node is asked."
  @spec lookup(Registry.registry(), Registry.name()) :: [{pid, Registry.value()}]
  defdelegate lookup(registry, name), to: Lookup

  @doc "The token with which the process holds the name; `nil` with an engine that has none."
  @spec token(Registry.registry(), Registry.name(), pid) :: pos_integer | nil
  defdelegate token(registry, name, pid), to: Lookup

  @doc "Claims a name for a process of this node; see `Claim.claim/5`."
  @spec claim(Registry.registry(), Registry.name(), pid, ended :: pid | nil, encoded :: term) ::
          :yes | {:held, pid} | :no | {:error, reason :: term}
  defdelegate claim(registry, name, pid, ended, encoded), to: Claim

  @doc "Registers a name for the calling process after `claim/5` has answered `:no`."
  @spec register(Registry.registry(), Registry.name(), encoded :: term) ::
          {:ok, pid} | {:error, {:already_registered, pid} | (reason :: term)}
  defdelegate register(registry, name, encoded), to: Claim

  @doc "Tells the engine that a process has given a name back."
  @spec unregister(Registry.registry(), Registry.name(), pid) :: :ok
  defdelegate unregister(registry, name, pid), to: Settle

  @doc "Starts a child with this name; see `StartChild.start_child/4`."
  @spec start_child(Registry.registry(), Registry.name(), Supervisor.supervisor(), child) ::
          Attempts.answer()
        when child: {module, keyword}
  defdelegate start_child(registry, name, supervisor, child), to: StartChild

  @doc "Asks all nodes; see `Peers.ask/4`."
  @spec ask(Registry.registry(), Peers.question(), (() -> answer), timeout) ::
          {[answer], missing :: [node]}
        when answer: term
  defdelegate ask(registry, question, here, timeout), to: Peers

  @doc """
  Subscribes the calling process to names on all other nodes. Answers the nodes that have not confirmed
  it within `timeout` milliseconds.
  """
  @spec follow(Registry.registry(), Registry.pattern(), timeout) :: missing :: [node]
  defdelegate follow(registry, pattern, timeout), to: Subscription

  @doc "Ends such a subscription of the calling process."
  @spec unfollow(Registry.registry(), Registry.pattern()) :: :ok
  defdelegate unfollow(registry, pattern), to: Subscription

  @doc "Gives this node's names to the other nodes; see `NativeRegistry.Registry.drain/2`."
  @spec drain(Registry.registry(), keyword) ::
          {drained :: [Registry.name()], remaining :: [Registry.name()]}
  defdelegate drain(registry, options), to: Drain
end
