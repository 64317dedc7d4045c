defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Wide do
  @moduledoc false
  # Questions to all nodes at once. Members are the nodes that say so: an engine need not know.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Remote

  @timeout 5_000

  @doc """
  The timeout that the options of a call name when they ask for the whole cluster, else `nil`.
  Raises `ArgumentError` for bad options.
  """
  @spec timeout!(keyword) :: non_neg_integer | nil
  def timeout!(options) do
    unless Keyword.keyword?(options) and Keyword.keys(options) -- [:cluster, :timeout] == [] do
      raise ArgumentError,
            "expected a keyword list of :cluster and :timeout, got: #{inspect(options)}"
    end

    cluster? = Keyword.get(options, :cluster, false)
    timeout = Keyword.get(options, :timeout, @timeout)

    unless is_boolean(cluster?) do
      raise ArgumentError, "expected :cluster to be true or false, got: #{inspect(cluster?)}"
    end

    unless is_integer(timeout) and timeout >= 0 and timeout <= 4_294_967_295 do
      raise ArgumentError, "expected :timeout to be milliseconds, got: #{inspect(timeout)}"
    end

    if cluster?, do: timeout
  end

  @doc """
  What the registries of this and all connected nodes answer, and the nodes that did not within
  `timeout` milliseconds.
  """
  @spec ask(NativeRegistry.registry(), Remote.question(), answer, non_neg_integer) ::
          {[answer], [node]}
        when answer: term
  def ask(registry, question, own, timeout) do
    deadline = now() + timeout

    arguments = [registry, question]
    requests = for node <- others(registry), do: {node, request(node, Remote, :answer, arguments)}

    # While the others are at it.
    own = own.()

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

  @doc "The nodes that may be members, besides this one: of a registry of this node alone none."
  @spec others(NativeRegistry.registry()) :: [node]
  def others(registry), do: if(Cluster.config(registry), do: Node.list(), else: [])

  defp request(node, module, function, arguments) do
    :erpc.send_request(node, module, function, arguments)
  end

  @doc "What a node answers to one call by the deadline."
  @spec call(node, module, atom, [term], integer) :: {:ok, term} | :no_project | :no_answer
  def call(node, module, function, arguments, deadline) do
    response(node, request(node, module, function, arguments), deadline)
  end

  defp response(node, request, deadline) do
    {:ok, :erpc.receive_response(request, max(deadline - now(), 0))}
  rescue
    error in ErlangError ->
      case error.original do
        {:exception, :undef, [{Remote, _function, _arguments, _location} | _rest]} ->
          if has_project?(node, deadline), do: :no_answer, else: :no_project

        _other ->
          :no_answer
      end
  catch
    _kind, _reason -> :no_answer
  end

  # One that has it in another version, which cannot be asked this, may have a registry; one that
  # does not have it cannot.
  defp has_project?(node, deadline) do
    request = request(node, :code, :which, [NativeRegistry])
    :erpc.receive_response(request, max(deadline - now(), 0)) != :non_existing
  rescue
    ErlangError -> true
  catch
    _kind, _reason -> true
  end

  @doc "The VM's clock, in milliseconds."
  @spec now() :: integer
  def now, do: System.monotonic_time(:millisecond)
end
