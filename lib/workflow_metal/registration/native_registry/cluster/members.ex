defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Members do
  @moduledoc false
  # What the other members know of this node's names.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Remote

  # So many names go in one question, which the other node answers in about a millisecond: it is no
  # burden on the connection, and is answered within any timeout.
  @chunk 1_000

  @doc """
  Which of the names another connected member does not know as held by these processes.

  An error when a member has not answered a question within `timeout` milliseconds; then it is not
  asked about the rest.
  """
  @spec unknown(
          NativeRegistry.registry(),
          engine :: module,
          [{NativeRegistry.name(), pid}],
          timeout :: pos_integer
        ) :: {:ok | {:error, :cluster_timeout}, [NativeRegistry.name()]}
  def unknown(registry, engine, held, timeout) do
    {outcome, _nodes, unknown} =
      held
      |> Enum.chunk_every(@chunk)
      |> Enum.reduce({:ok, Node.list(), []}, fn chunk, {outcome, nodes, unknown} ->
        answers = ask(nodes, [registry, engine, chunk], timeout)
        members = for {node, {:ok, _names}} <- answers, do: node
        names = for {_node, {:ok, names}} <- answers, name <- names, uniq: true, do: name
        late? = Enum.any?(answers, &match?({_node, :late}, &1))
        outcome = if late?, do: {:error, :cluster_timeout}, else: outcome
        {outcome, members, [names | unknown]}
      end)

    {outcome, Enum.concat(unknown)}
  end

  defp ask(nodes, arguments, timeout) do
    deadline = now() + timeout

    requests =
      for node <- nodes, do: {node, :erpc.send_request(node, Remote, :unknown, arguments)}

    for {node, request} <- requests, do: {node, answer(request, deadline)}
  end

  defp answer(request, deadline) do
    :erpc.receive_response(request, max(deadline - now(), 0))
  rescue
    error in ErlangError ->
      # Anything else is the answer of a node without this project or with an earlier version.
      if error.original == {:erpc, :timeout}, do: :late, else: :no_member
  catch
    # It is gone, and is asked when it comes back.
    _kind, _reason -> :no_member
  end

  defp now, do: System.monotonic_time(:millisecond)
end
