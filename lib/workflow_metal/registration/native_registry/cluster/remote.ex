defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Remote do
  @moduledoc false
  # A contract between versions: all that another node calls on this one. While a deployment is rolled
  # out, nodes of two versions are connected. So a function here keeps its name, arguments and answers;
  # a change is made as another function. `Peers` has the calls.
  #
  # What else other nodes, or a process of theirs, see of this node belongs to the same contract:
  #
  #   * via tuples, `{:via, NativeRegistry, {registry, name}}`, and so the functions of a via module;
  #   * the names in `:global`, `{NativeRegistry, registry, name}`, and the function `resolve/3` that
  #     `:global` keeps with each of them on all nodes;
  #   * for syn, the scope, which is the registry's name, and the meta data, which is a node, or
  #     `{node, integer}`;
  #   * the registered name of a registry's `Monitor`, to which the monitors of other nodes send
  #     `:node_gone`;
  #   * what a `Forwarder` and a `Subscription` of two nodes send each other, see `feed/3`;
  #   * the reasons with which a child ends, as the caller of `start_child/4` on another node reads them:
  #     `{:shutdown, {:name_conflict, name, winner}}` and
  #     `{:shutdown, {reason, {NativeRegistry, registry, name}}}`; and
  #     `{alias, {:error, reason}}`, which `start_link/1` sends to that caller.
  #
  # Engines call other nodes by contracts that are not this project's: `Global` and `GlobalLock` by that
  # of `:global_name_server`.
  #
  # A node where the registry does not run, or is not clustered, answers `:no_member`. One without this
  # project answers as `:erpc` does for an undefined function.

  alias WorkflowMetal.Registration.NativeRegistry.{Registry, Table}

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{
    Config,
    Conflict,
    Forwarder,
    Lookup,
    Peers,
    Ra,
    Settle
  }

  @doc "What this node's table answers to a question that is asked of all nodes."
  @spec answer(Registry.registry(), Peers.question()) :: {:ok, term} | :no_member
  def answer(registry, question) do
    if Config.get(registry), do: {:ok, answer_here(registry, question)}, else: :no_member
  rescue
    # The registry was stopped in between.
    ArgumentError -> :no_member
  end

  defp answer_here(registry, {:select, pattern}), do: Table.records(registry, pattern)
  defp answer_here(registry, {:count, :_}), do: Table.count(registry)
  defp answer_here(registry, {:count, pattern}), do: Table.count(registry, pattern)

  @doc "The holder of the name on this node, and its value."
  @spec lookup(Registry.registry(), Registry.name()) :: [{pid, Registry.value()}]
  def lookup(registry, name), do: Table.lookup_here(registry, name)

  @doc "The token with which this process of this node holds the name; `nil` when there is none."
  @spec token(Registry.registry(), Registry.name(), pid) :: pos_integer | nil
  def token(registry, name, pid), do: Lookup.token_here(registry, name, pid)

  @doc "The names that the engine of this node does not know as held by these processes."
  @spec unknown(Registry.registry(), engine :: module, [{Registry.name(), pid}]) ::
          {:ok, [Registry.name()]} | :no_member
  def unknown(registry, engine, held) do
    case Config.get(registry) do
      %{engine: ^engine} ->
        {:ok, for({name, pid} <- held, engine.whereis(registry, name) != pid, do: name)}

      _another_engine_or_none ->
        :no_member
    end
  end

  @doc "Which of two processes stays, by the configuration of this node; `nil` when it has none."
  @spec decide(Registry.registry(), Registry.name(), pid, pid) :: pid | nil
  def decide(registry, name, one, other),
    do: Conflict.decide_if_open(registry, name, one, other)

  @doc "Ends a process of this node, which has lost the name to another process."
  @spec leave(Registry.registry(), Registry.name(), loser :: pid, winner :: pid) :: :ok
  def leave(registry, name, loser, winner), do: Settle.evict(registry, name, loser, winner)

  @doc "Called by `:global`, on one of the nodes, when two parts of a cluster meet."
  @spec resolve({module, Registry.registry(), Registry.name()}, pid, pid) :: pid
  def resolve({_adapter, registry, name}, one, other) do
    winner = Conflict.decide(registry, name, one, other)
    Peers.leave(registry, name, if(winner == one, do: other, else: one), winner)
    winner
  end

  @doc """
  Starts a process that sends `subscriber`, a process of another node, the events of this node, as long
  as `subscription`, which is of that node too, is alive. Answers its pid.

  `subscription` sends it `{:patterns, reference, patterns}`, all patterns that are wanted from now on,
  and gets `{:patterns, reference, forwarder}` when they apply. `subscriber` gets the events that a
  process of this node gets, and `{:nodeup, registry, node}` and `{:nodedown, registry, node}` when the
  registry is found to run or to have stopped.
  """
  @spec feed(Registry.registry(), subscriber :: pid, subscription :: pid) :: {:ok, pid}
  def feed(registry, subscriber, subscription),
    do: Forwarder.start(registry, subscriber, subscription)

  @doc """
  Who the ra server of this node is, for a node that forms the cluster, joins it or changes its members:
  `%{phase: :offered, id: id, uid: uid, voters: nodes}` when it has never been started;
  `%{phase: :started, id: id, uid: uid, first: ids, members: ids, leader: id}` when it has, with the members
  that it was started with, those that it knows now, and its leader or `nil`;
  `:no_member` when no registry of this node uses the engine.
  """
  @spec ra_identity() :: Ra.Formation.answer()
  def ra_identity, do: Ra.Server.answer()

  # A supervisor may put arguments of its own before those of the child.
  for count <- 0..8 do
    extra = Macro.generate_arguments(count, __MODULE__)

    @doc """
    Starts a child under a supervisor of this node for the caller of `start_child/4`, which may be of
    another node; called again when the supervisor restarts the child.

    When the child does not run because its name is held or lost, or because this node is drained, the
    caller is sent the error, and the supervisor, which gets `:ignore`, does not try again.
    """
    def start_link(unquote_splicing(extra), {module, function, arguments, reply_to}) do
      case apply(module, function, unquote(extra) ++ arguments) do
        {:error, {:already_started, _pid}} = error -> ignore(reply_to, error)
        # It lost the name while its `init` ran.
        {:error, {:shutdown, {:name_conflict, _name, _pid}}} = error -> ignore(reply_to, error)
        # This node registers no name any more.
        {:error, {:shutdown, {:draining, _name}}} = error -> ignore(reply_to, error)
        {:error, {:shutdown, {:no_quorum, _name}}} = error -> ignore(reply_to, error)
        answer -> answer
      end
    end
  end

  defp ignore(reply_to, error) do
    # Sent by the supervisor, and so received before its answer.
    send(reply_to, {reply_to, error})
    :ignore
  end
end
