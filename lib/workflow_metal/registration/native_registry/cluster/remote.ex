defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Remote do
  @moduledoc false
  # What one node asks of another: a contract between versions. While a deployment rolls, nodes of
  # two versions are connected, so a function here keeps its name, its arguments and its answers; what
  # changes comes as another function. Nothing else of this project is called from another node.
  #
  # A node whose registry of that name does not run, or is no part of a cluster, answers `:no_member`.
  # One that does not have this project answers as `:erpc` does for a function there is not.
  #
  # Besides, the registry's `Follower` of each node takes the message `:node_gone` from the others.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Feed

  @typedoc "What is asked of each node."
  @type question :: {:select, NativeRegistry.pattern()} | {:count, NativeRegistry.pattern()}

  @doc "What this node's table says."
  @spec answer(NativeRegistry.registry(), question) :: {:ok, term} | :no_member
  def answer(registry, question) do
    if Cluster.config(registry), do: {:ok, answer_here(registry, question)}, else: :no_member
  rescue
    # Stopped in between.
    ArgumentError -> :no_member
  end

  defp answer_here(registry, {:select, pattern}), do: NativeRegistry.select(registry, pattern)
  defp answer_here(registry, {:count, :_}), do: NativeRegistry.count(registry)

  defp answer_here(registry, {:count, pattern}),
    do: NativeRegistry.count_select(registry, pattern)

  @doc "Who of this node holds the name, and its value."
  @spec lookup(NativeRegistry.registry(), NativeRegistry.name()) :: [
          {pid, NativeRegistry.value()}
        ]
  def lookup(registry, name), do: NativeRegistry.lookup_here(registry, name, name)

  @doc "Which of the names the engine of this node does not know as held by these processes."
  @spec unknown(NativeRegistry.registry(), engine :: module, [{NativeRegistry.name(), pid}]) ::
          {:ok, [NativeRegistry.name()]} | :no_member
  def unknown(registry, engine, held) do
    case Cluster.config(registry) do
      %{engine: ^engine} ->
        {:ok, for({name, pid} <- held, engine.whereis(registry, name) != pid, do: name)}

      _another_or_none ->
        :no_member
    end
  end

  @doc "Which of two processes stays, as this node's configuration has it; `nil` when it has none."
  @spec decide(NativeRegistry.registry(), NativeRegistry.name(), pid, pid) :: pid | nil
  def decide(registry, name, one, other), do: Cluster.decide_if_open(registry, name, one, other)

  @doc "A process of this node has lost the name to another, and ends."
  @spec leave(NativeRegistry.registry(), NativeRegistry.name(), loser :: pid, winner :: pid) ::
          :ok
  def leave(registry, name, loser, winner) do
    Cluster.leave_here(registry, name, loser, winner)
  end

  @doc """
  Starts a process that tells `subscriber`, a process of another node, of this node's changes, for as
  long as `follower`, of that node too, lives. Answers its pid.

  The follower sends it `{:patterns, reference, patterns}`, all that it should follow from now on, and
  gets `{:patterns, reference, feed}` once it does. The subscriber is sent what one of this node gets,
  and `{:nodeup, registry, node}` and `{:nodedown, registry, node}` as the registry is found to run
  here or to have stopped.
  """
  @spec feed(NativeRegistry.registry(), subscriber :: pid, follower :: pid) :: {:ok, pid}
  def feed(registry, subscriber, follower), do: Feed.start(registry, subscriber, follower)
end
