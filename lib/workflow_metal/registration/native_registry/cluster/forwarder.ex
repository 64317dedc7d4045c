defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Forwarder do
  @moduledoc false
  # Forwards the events of this node to a subscriber on another node, for its `Subscription` there. The
  # subscriber gets all messages about this node from one process, and so in order: `:nodeup` before the
  # first event, `:nodedown` after the last. `Remote.feed/3` says what is sent.

  alias WorkflowMetal.Registration.NativeRegistry.{Events, Registry, Table}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Config

  # How often it looks whether the registry was opened or closed, in milliseconds.
  @look 250

  # How long it waits for the first patterns: the subscription may have given up on this node. In
  # milliseconds.
  @unused 60_000

  @spec start(Registry.registry(), subscriber :: pid, subscription :: pid) :: {:ok, pid}
  def start(registry, subscriber, subscription) do
    state = %{registry: registry, subscriber: subscriber, subscription: subscription}

    # Not by `Tasks`, as the application may not have been started on this node yet.
    pid =
      spawn(fn ->
        monitor = Process.monitor(subscription)
        state = Map.merge(state, %{monitor: monitor, patterns: [], since: nil})

        # Of two forwarders that were started for one subscription only one is used.
        receive do
          {:patterns, _reference, _patterns} = message ->
            send(self(), message)
            schedule()
            forward(state)

          {:DOWN, ^monitor, :process, ^subscription, _reason} ->
            :ok
        after
          @unused -> :ok
        end
      end)

    {:ok, pid}
  end

  defp schedule, do: Process.send_after(self(), {__MODULE__, :look}, @look)

  defp forward(%{monitor: monitor, subscription: subscription} = state) do
    receive do
      {:DOWN, ^monitor, :process, ^subscription, _reason} ->
        :ok

      {__MODULE__, :look} ->
        schedule()
        state |> look() |> forward()

      {:patterns, reference, patterns} ->
        state = state |> change(patterns) |> look()
        send(subscription, {:patterns, reference, self()})
        forward(state)

      event ->
        tell(state, event)
        forward(state)
    end
  end

  defp tell(state, message), do: send(state.subscriber, message)

  # Whether the registry runs, and whether it is still the one that was subscribed to.
  defp look(state) do
    case {opened_at(state.registry), state.since} do
      {nil, nil} ->
        state

      {nil, _since} ->
        down(state)

      {_opened_at, nil} ->
        up(state)

      # The times are whole milliseconds, and may be one apart.
      {opened_at, since} when opened_at > since + 1 ->
        state |> down() |> up()

      _the_same ->
        state
    end
  end

  defp opened_at(registry) do
    if Config.get(registry), do: now() - Table.info(registry).uptime
  rescue
    ArgumentError -> nil
  end

  defp up(state) do
    Enum.each(state.patterns, &Events.subscribe(state.registry, &1))
    # Events that come from now on wait in the mailbox, and are forwarded after this message.
    tell(state, {:nodeup, state.registry, node()})
    %{state | since: now()}
  rescue
    # The registry was stopped in between.
    ArgumentError -> state
  end

  defp down(state) do
    forward_rest(state)
    tell(state, {:nodedown, state.registry, node()})
    %{state | since: nil}
  end

  # The events that were sent before the registry stopped.
  defp forward_rest(%{registry: registry} = state) do
    receive do
      event
      when is_tuple(event) and elem(event, 0) != __MODULE__ and elem(event, 1) == registry ->
        tell(state, event)
        forward_rest(state)
    after
      0 -> :ok
    end
  end

  defp change(%{since: nil} = state, patterns), do: %{state | patterns: patterns}

  defp change(state, patterns) do
    Enum.each(patterns -- state.patterns, &Events.subscribe(state.registry, &1))
    Enum.each(state.patterns -- patterns, &Events.unsubscribe(state.registry, &1))
    %{state | patterns: patterns}
  rescue
    ArgumentError -> down(%{state | patterns: patterns})
  end

  defp now, do: System.monotonic_time(:millisecond)
end
