defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.WideSubscription do
  @moduledoc false
  # Sees to it that a process of this node is told of the changes on all others: it has a feed on each
  # connected node, starts one on each that comes, and tells of those that are gone. One for each
  # subscriber and registry; it ends with either.

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Remote, Wide}

  # How long a node may take to start a feed, and how long until it is asked again: it may have been
  # busy, or may not have had this project yet. In milliseconds.
  @patience 5_000
  @again 1_000

  @doc """
  Has the calling process told of names that match on all other nodes. Answers the nodes that have not
  said within `timeout` milliseconds that they do.
  """
  @spec follow(NativeRegistry.registry(), NativeRegistry.pattern(), non_neg_integer) :: [node]
  def follow(registry, pattern, timeout) do
    if Cluster.config(registry), do: follow_others(registry, pattern, timeout), else: []
  end

  defp follow_others(registry, pattern, timeout) do
    follower =
      case running(registry) do
        nil ->
          {:ok, follower} = GenServer.start(__MODULE__, {registry, self()})
          Process.put(key(registry), follower)
          follower

        follower ->
          follower
      end

    reference = make_ref()
    send(follower, {:follow, self(), reference, pattern})
    monitor = Process.monitor(follower)
    missing = followed(follower, monitor, reference, Wide.now() + timeout)
    Process.demonitor(monitor, [:flush])
    missing
  end

  # It tells which nodes are left as it goes, so that a deadline finds them named.
  defp followed(follower, monitor, reference, deadline, missing \\ Node.list()) do
    receive do
      {^reference, []} -> []
      {^reference, missing} -> followed(follower, monitor, reference, deadline, missing)
      {:DOWN, ^monitor, :process, ^follower, _reason} -> missing
    after
      max(deadline - Wide.now(), 0) ->
        send(follower, {:no_reply, reference})
        forget_replies(reference, missing)
    end
  end

  defp forget_replies(reference, missing) do
    receive do
      {^reference, missing} -> forget_replies(reference, missing)
    after
      0 -> missing
    end
  end

  @doc "Takes it back for a pattern."
  @spec unfollow(NativeRegistry.registry(), NativeRegistry.pattern()) :: :ok
  def unfollow(registry, pattern) do
    with follower when is_pid(follower) <- running(registry) do
      send(follower, {:unfollow, pattern})
    end

    :ok
  end

  # Only the subscriber itself asks.
  defp running(registry) do
    follower = Process.get(key(registry))
    if follower != nil and Process.alive?(follower), do: follower
  end

  defp key(registry), do: {__MODULE__, registry}

  ## The process

  @impl GenServer
  def init({registry, subscriber}) do
    monitor = Process.monitor(subscriber)
    :ok = :net_kernel.monitor_nodes(true)
    Process.send_after(self(), :again, @again)

    {:ok,
     %{
       registry: registry,
       subscriber: subscriber,
       monitor: monitor,
       patterns: [],
       # Node to `{:starting, process}`, `{:feed, pid}` or, where there is nothing to follow, `:none`.
       nodes: %{},
       # Who waits for an answer: reference to process and to the nodes that have not followed yet.
       waiting: %{}
     }}
  end

  @impl GenServer
  def handle_info({:follow, from, reference, pattern}, state) do
    state = start_feeds(%{state | patterns: Enum.uniq([pattern | state.patterns])})
    feeds = for {node, {:feed, feed}} <- state.nodes, do: {node, feed}
    for {_node, feed} <- feeds, do: send(feed, {:patterns, reference, state.patterns})
    starting = for {node, {:starting, _process}} <- state.nodes, do: node
    nodes = starting ++ for {node, _feed} <- feeds, do: node
    send(from, {reference, nodes})

    if nodes == [],
      do: {:noreply, state},
      else: {:noreply, put_in(state.waiting[reference], {from, nodes})}
  end

  def handle_info({:no_reply, reference}, state) do
    {:noreply, %{state | waiting: Map.delete(state.waiting, reference)}}
  end

  def handle_info({:unfollow, pattern}, state) do
    case List.delete(state.patterns, pattern) do
      [] ->
        {:stop, :normal, state}

      patterns ->
        for {_node, {:feed, feed}} <- state.nodes,
            do: send(feed, {:patterns, make_ref(), patterns})

        {:noreply, %{state | patterns: patterns}}
    end
  end

  def handle_info({:patterns, reference, feed}, state) do
    {:noreply, followed_by(state, node(feed), [reference])}
  end

  def handle_info({:started, process, node, answer}, state) do
    if state.nodes[node] == {:starting, process},
      do: {:noreply, started(state, node, answer)},
      else: {:noreply, state}
  end

  def handle_info({:nodeup, _node}, state), do: {:noreply, start_feeds(state)}

  # Of a node that has a feed its end tells.
  def handle_info({:nodedown, node}, state) do
    case state.nodes[node] do
      {:feed, _feed} -> {:noreply, state}
      _no_feed -> {:noreply, gone(state, node)}
    end
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{monitor: monitor} = state) do
    {:stop, :normal, state}
  end

  def handle_info({:DOWN, _monitor, :process, feed, _reason}, state) do
    if state.nodes[node(feed)] == {:feed, feed} do
      send(state.subscriber, {:nodedown, state.registry, node(feed)})
      {:noreply, state |> gone(node(feed)) |> start_feeds()}
    else
      {:noreply, state}
    end
  end

  def handle_info(:again, state) do
    Process.send_after(self(), :again, @again)

    if Cluster.config(state.registry) do
      nodes = for {node, what} <- state.nodes, what != :none, into: %{}, do: {node, what}
      {:noreply, start_feeds(%{state | nodes: nodes})}
    else
      {:stop, :normal, state}
    end
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp gone(state, node) do
    state = %{state | nodes: Map.delete(state.nodes, node)}
    followed_by(state, node, Map.keys(state.waiting))
  end

  # Those who wait do not wait for this node any more.
  defp followed_by(state, node, references) do
    waiting =
      for reference <- references,
          {from, nodes} <- [state.waiting[reference]],
          node in nodes,
          reduce: state.waiting do
        waiting ->
          nodes = List.delete(nodes, node)
          send(from, {reference, nodes})

          if nodes == [],
            do: Map.delete(waiting, reference),
            else: %{waiting | reference => {from, nodes}}
      end

    %{state | waiting: waiting}
  end

  defp start_feeds(state) do
    for node <- Node.list(), not is_map_key(state.nodes, node), reduce: state do
      state -> put_in(state.nodes[node], {:starting, start_feed(state, node)})
    end
  end

  # Asked by a process of its own, as a node may be slow.
  defp start_feed(state, node) do
    follower = self()
    arguments = [state.registry, state.subscriber, follower]

    spawn_link(fn ->
      answer = Wide.call(node, Remote, :feed, arguments, Wide.now() + @patience)
      send(follower, {:started, self(), node, answer})
    end)
  end

  defp started(state, node, {:ok, {:ok, feed}}) do
    Process.monitor(feed)
    send(feed, {:patterns, make_ref(), state.patterns})

    # Those who wait are answered when it follows.
    for {reference, {_from, nodes}} <- state.waiting, node in nodes do
      send(feed, {:patterns, reference, state.patterns})
    end

    put_in(state.nodes[node], {:feed, feed})
  end

  # It is asked again later; those who wait need not, if it is clear that there is nothing.
  defp started(state, node, :no_project) do
    state = put_in(state.nodes[node], :none)
    followed_by(state, node, Map.keys(state.waiting))
  end

  defp started(state, node, :no_answer), do: put_in(state.nodes[node], :none)
end
