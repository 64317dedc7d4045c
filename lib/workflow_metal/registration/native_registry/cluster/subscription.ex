defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Subscription do
  @moduledoc false
  # Subscribes a process of this node to the events of all other nodes: it has a `Forwarder` on each
  # connected node, starts one on each that comes, and sends `:nodedown` for a node that is gone. There is
  # one for each subscriber and registry; it ends with either.

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry.Registry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Peers}

  # How long a node may take to start a forwarder, and how long until it is asked again, as it may have
  # been busy or may not have had this project yet. In milliseconds.
  @patience 5_000
  @again 1_000

  @doc """
  Subscribes the calling process to names that match, on all other nodes. Answers the nodes that have not
  confirmed it within `timeout` milliseconds.
  """
  @spec follow(Registry.registry(), Registry.pattern(), timeout) :: missing :: [node]
  def follow(registry, pattern, timeout) do
    subscription = running(registry) || start(registry)
    reference = make_ref()
    send(subscription, {:follow, self(), reference, pattern})
    monitor = Process.monitor(subscription)
    missing = await_followed(subscription, monitor, reference, now() + timeout, Node.list())
    Process.demonitor(monitor, [:flush])
    missing
  end

  defp start(registry) do
    {:ok, subscription} = GenServer.start(__MODULE__, {registry, self()})
    Process.put(key(registry), subscription)
    subscription
  end

  # The caller is sent the nodes that are missing each time that a node confirms.
  defp await_followed(subscription, monitor, reference, deadline, missing) do
    receive do
      {^reference, []} ->
        []

      {^reference, missing} ->
        await_followed(subscription, monitor, reference, deadline, missing)

      {:DOWN, ^monitor, :process, ^subscription, _reason} ->
        missing
    after
      max(deadline - now(), 0) ->
        send(subscription, {:no_reply, reference})
        flush(reference, missing)
    end
  end

  defp flush(reference, missing) do
    receive do
      {^reference, missing} -> flush(reference, missing)
    after
      0 -> missing
    end
  end

  @doc "Ends the calling process's subscription to a pattern."
  @spec unfollow(Registry.registry(), Registry.pattern()) :: :ok
  def unfollow(registry, pattern) do
    with subscription when is_pid(subscription) <- running(registry),
         do: send(subscription, {:unfollow, pattern})

    :ok
  end

  # Only the subscriber itself calls it, so its dictionary has the pid.
  defp running(registry) do
    subscription = Process.get(key(registry))
    if subscription != nil and Process.alive?(subscription), do: subscription
  end

  defp key(registry), do: {__MODULE__, registry}

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
       # From a node to `{:starting, process}`, `{:forwarder, pid}`, or `:none` where there is none.
       nodes: %{},
       # The calls of `follow/3` that wait: from a reference to the caller and the nodes that are missing.
       waiting: %{}
     }}
  end

  @impl GenServer
  def handle_info({:follow, from, reference, pattern}, state) do
    state = start_forwarders(%{state | patterns: Enum.uniq([pattern | state.patterns])})
    forwarders = for {node, {:forwarder, pid}} <- state.nodes, do: {node, pid}
    for {_node, pid} <- forwarders, do: send(pid, {:patterns, reference, state.patterns})
    starting = for {node, {:starting, _process}} <- state.nodes, do: node
    missing = starting ++ for {node, _pid} <- forwarders, do: node
    send(from, {reference, missing})

    if missing == [],
      do: {:noreply, state},
      else: {:noreply, put_in(state.waiting[reference], {from, missing})}
  end

  def handle_info({:no_reply, reference}, state) do
    {:noreply, %{state | waiting: Map.delete(state.waiting, reference)}}
  end

  def handle_info({:unfollow, pattern}, state) do
    case List.delete(state.patterns, pattern) do
      [] ->
        {:stop, :normal, state}

      patterns ->
        for {_node, {:forwarder, pid}} <- state.nodes,
            do: send(pid, {:patterns, make_ref(), patterns})

        {:noreply, %{state | patterns: patterns}}
    end
  end

  def handle_info({:patterns, reference, forwarder}, state) do
    {:noreply, confirm(state, node(forwarder), [reference])}
  end

  def handle_info({:started, process, node, answer}, state) do
    if state.nodes[node] == {:starting, process},
      do: {:noreply, started(state, node, answer)},
      else: {:noreply, state}
  end

  def handle_info({:nodeup, _node}, state), do: {:noreply, start_forwarders(state)}

  def handle_info({:nodedown, node}, state) do
    case state.nodes[node] do
      # The forwarder's `:DOWN` comes as well.
      {:forwarder, _pid} -> {:noreply, state}
      _no_forwarder -> {:noreply, delete(state, node)}
    end
  end

  def handle_info({:DOWN, monitor, :process, _pid, _reason}, %{monitor: monitor} = state) do
    {:stop, :normal, state}
  end

  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state) do
    if state.nodes[node(pid)] == {:forwarder, pid} do
      send(state.subscriber, {:nodedown, state.registry, node(pid)})
      {:noreply, state |> delete(node(pid)) |> start_forwarders()}
    else
      {:noreply, state}
    end
  end

  def handle_info(:again, state) do
    Process.send_after(self(), :again, @again)

    if Config.get(state.registry) do
      nodes = for {node, status} <- state.nodes, status != :none, into: %{}, do: {node, status}
      {:noreply, start_forwarders(%{state | nodes: nodes})}
    else
      {:stop, :normal, state}
    end
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp delete(state, node) do
    state = %{state | nodes: Map.delete(state.nodes, node)}
    confirm(state, node, Map.keys(state.waiting))
  end

  # The callers that wait with one of the references do not wait for this node any more.
  defp confirm(state, node, references) do
    waiting =
      for reference <- references,
          {from, missing} <- [state.waiting[reference]],
          node in missing,
          reduce: state.waiting do
        waiting ->
          missing = List.delete(missing, node)
          send(from, {reference, missing})

          if missing == [],
            do: Map.delete(waiting, reference),
            else: %{waiting | reference => {from, missing}}
      end

    %{state | waiting: waiting}
  end

  defp start_forwarders(state) do
    for node <- Node.list(), not is_map_key(state.nodes, node), reduce: state do
      state -> put_in(state.nodes[node], {:starting, start_forwarder(state, node)})
    end
  end

  # In a process of its own, as a node may take long to answer.
  defp start_forwarder(%{registry: registry, subscriber: subscriber}, node) do
    subscription = self()

    spawn_link(fn ->
      answer = Peers.feed(node, registry, subscriber, subscription, @patience)
      send(subscription, {:started, self(), node, answer})
    end)
  end

  defp started(state, node, {:ok, forwarder}) do
    Process.monitor(forwarder)
    send(forwarder, {:patterns, make_ref(), state.patterns})

    # Its answers to these confirm the subscription to the callers that wait.
    for {reference, {_from, missing}} <- state.waiting, node in missing do
      send(forwarder, {:patterns, reference, state.patterns})
    end

    put_in(state.nodes[node], {:forwarder, forwarder})
  end

  # The node is asked again later. Callers wait for it unless it is clear that it has no registry.
  defp started(state, node, :no_answer), do: put_in(state.nodes[node], :none)

  defp started(state, node, :no_project) do
    state = put_in(state.nodes[node], :none)
    confirm(state, node, Map.keys(state.waiting))
  end

  defp now, do: System.monotonic_time(:millisecond)
end
