defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Peers do
  @moduledoc false
  # Calls of `Remote` on other nodes. Nothing else of this project calls another node.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  # The module is called on other nodes only. By its name as an atom, it is no dependency of this one on
  # this node.
  @remote :"Elixir.WorkflowMetal.Registration.NativeRegistry.Cluster.Remote"

  # One question is about so many names at most. The other node answers it in about a millisecond, so it
  # neither blocks the connection for long nor misses a timeout.
  @chunk 1_000

  @type question :: {:select, Registry.pattern()} | {:count, Registry.pattern()}

  @doc "The holder of a name on another node, and its value; `[]` when the node does not answer."
  @spec lookup(node, Registry.registry(), Registry.name(), timeout) :: [{pid, Registry.value()}]
  def lookup(node, registry, name, timeout) do
    :erpc.call(node, @remote, :lookup, [registry, name], timeout)
  catch
    _kind, _reason -> []
  end

  @doc "The token with which a process of another node holds a name; `nil` when the node does not answer."
  @spec token(Registry.registry(), Registry.name(), pid, timeout) :: pos_integer | nil
  def token(registry, name, pid, timeout) do
    :erpc.call(node(pid), @remote, :token, [registry, name, pid], timeout)
  catch
    _kind, _reason -> nil
  end

  @doc "Which of two processes stays, as another node's configuration decides; `nil` if it does not."
  @spec decide(node, Registry.registry(), Registry.name(), pid, pid, timeout) :: pid | nil
  def decide(node, registry, name, one, other, timeout) do
    :erpc.call(node, @remote, :decide, [registry, name, one, other], timeout)
  catch
    _kind, _reason -> nil
  end

  @doc "Has the loser of a conflict ended on its own node, without waiting for that."
  @spec leave(Registry.registry(), Registry.name(), loser :: pid, winner :: pid) :: :ok
  def leave(registry, name, loser, winner) do
    :erpc.cast(node(loser), @remote, :leave, [registry, name, loser, winner])
  end

  @doc """
  The names that a connected member of the cluster does not know as held by these processes.

  An error when a member has not answered one of the questions within `timeout` milliseconds; it is not
  asked the rest.
  """
  @spec unknown(Registry.registry(), engine :: module, [{Registry.name(), pid}], timeout) ::
          {:ok | {:error, :cluster_timeout}, [Registry.name()]}
  def unknown(registry, engine, held, timeout) do
    {outcome, _nodes, unknown} =
      held
      |> Enum.chunk_every(@chunk)
      |> Enum.reduce({:ok, Node.list(), []}, fn chunk, {outcome, nodes, unknown} ->
        arguments = [registry, engine, chunk]
        answers = :erpc.multicall(nodes, @remote, :unknown, arguments, timeout)

        # A node that answers otherwise is no member: it has no registry of this name and engine, or has
        # not got this project. One that is gone is asked when it comes back.
        members = for {node, {:ok, {:ok, _names}}} <- Enum.zip(nodes, answers), do: node
        names = for {:ok, {:ok, names}} <- answers, name <- names, uniq: true, do: name
        late? = Enum.member?(answers, {:error, {:erpc, :timeout}})
        outcome = if late?, do: {:error, :cluster_timeout}, else: outcome
        {outcome, members, [names | unknown]}
      end)

    {outcome, Enum.concat(unknown)}
  end

  @doc """
  Asks all connected nodes and calls `here` meanwhile. The answers, that of `here` first, and the nodes
  that have not answered within `timeout` milliseconds.
  """
  @spec ask(Registry.registry(), question, (() -> answer), timeout) ::
          {[answer], missing :: [node]}
        when answer: term
  def ask(registry, question, here, timeout) do
    deadline = now() + timeout
    requests = for node <- Node.list(), do: {node, request(node, :answer, [registry, question])}

    own =
      try do
        here.()
      catch
        kind, reason ->
          # So that no response stays in the mailbox of the caller.
          Enum.each(requests, fn {node, request} -> response(node, request, now()) end)
          :erlang.raise(kind, reason, __STACKTRACE__)
      end

    {answers, missing} =
      Enum.reduce(requests, {[own], []}, fn {node, request}, {answers, missing} ->
        case response(node, request, deadline) do
          {:ok, {:ok, answer}} -> {[answer | answers], missing}
          {:ok, :no_member} -> {answers, missing}
          :no_project -> {answers, missing}
          :no_answer -> {answers, [node | missing]}
        end
      end)

    {Enum.reverse(answers), Enum.sort(missing)}
  end

  @doc "Starts a `Forwarder` on another node; see `Remote.feed/3`."
  @spec feed(node, Registry.registry(), subscriber :: pid, subscription :: pid, timeout) ::
          {:ok, pid} | :no_project | :no_answer
  def feed(node, registry, subscriber, subscription, timeout) do
    request = request(node, :feed, [registry, subscriber, subscription])

    with {:ok, started} <- response(node, request, now() + timeout), do: started
  end

  @doc """
  Who the ra servers of these nodes are. Nodes that are not connected are not asked, and so do not
  answer.
  """
  @spec ra_identities([node], timeout) :: %{node => Ra.Formation.answer()}
  def ra_identities(nodes, timeout) do
    connected = Node.list()
    {asked, others} = Enum.split_with(nodes, &(&1 in connected))
    answers = :erpc.multicall(asked, @remote, :ra_identity, [], timeout)

    answers =
      for {node, answer} <- Enum.zip(asked, answers), into: %{} do
        case answer do
          {:ok, answer} -> {node, answer}
          _failed -> {node, :no_answer}
        end
      end

    for node <- others, into: answers, do: {node, :no_answer}
  end

  @doc "Tells the registry's `Monitor` on all connected nodes that a node has gone."
  @spec node_gone(monitor :: atom) :: :ok
  def node_gone(monitor) do
    for node <- Node.list(), do: Process.send({monitor, node}, :node_gone, [:noconnect])
    :ok
  end

  defp request(node, function, arguments),
    do: :erpc.send_request(node, @remote, function, arguments)

  defp response(node, request, deadline) do
    {:ok, :erpc.receive_response(request, max(deadline - now(), 0))}
  rescue
    error in ErlangError ->
      case error.original do
        {:exception, :undef, [{@remote, _function, _arguments, _location} | _rest]} ->
          if has_project?(node, deadline), do: :no_answer, else: :no_project

        _other ->
          :no_answer
      end
  catch
    _kind, _reason -> :no_answer
  end

  # A node with another version of this project may have the registry, though it cannot be asked this.
  # A node without this project has none.
  defp has_project?(node, deadline) do
    project = :"Elixir.WorkflowMetal.Registration.NativeRegistry"
    :erpc.call(node, :code, :which, [project], max(deadline - now(), 0)) != :non_existing
  catch
    _kind, _reason -> true
  end

  defp now, do: System.monotonic_time(:millisecond)
end
