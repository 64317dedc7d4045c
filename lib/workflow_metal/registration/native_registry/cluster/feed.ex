defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Feed do
  @moduledoc false
  # A process that subscribes on this node for one of another, and hands on what it is told. All that
  # the subscriber gets of this node comes from here, so it comes in order: that the registry runs
  # before its first change, that it stopped after its last. `Remote.feed/4` says what is sent.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster

  # A registry says to nobody when it is opened or closed: it is looked at so often, in milliseconds.
  @look 250

  # How long it waits for a follower that has given up on it meanwhile, in milliseconds.
  @unwanted 60_000

  @spec start(NativeRegistry.registry(), pid, pid) :: {:ok, pid}
  def start(registry, subscriber, follower) do
    feed = %{registry: registry, subscriber: subscriber, follower: follower}

    pid =
      spawn(fn ->
        monitor = Process.monitor(follower)
        feed = Map.merge(feed, %{monitor: monitor, patterns: [], since: nil})

        # Two of them would tell everything twice, so none tells before it is asked for.
        receive do
          {:patterns, _reference, _patterns} = asked ->
            send(self(), asked)
            schedule()
            hand_on(feed)

          {:DOWN, ^monitor, :process, ^follower, _reason} ->
            :ok
        after
          @unwanted -> :ok
        end
      end)

    {:ok, pid}
  end

  defp schedule, do: Process.send_after(self(), {__MODULE__, :look}, @look)

  defp hand_on(%{monitor: monitor, follower: follower} = feed) do
    receive do
      {:DOWN, ^monitor, :process, ^follower, _reason} ->
        :ok

      {__MODULE__, :look} ->
        schedule()
        feed |> look() |> hand_on()

      {:patterns, reference, patterns} ->
        feed = feed |> change(patterns) |> look()
        send(follower, {:patterns, reference, self()})
        hand_on(feed)

      event ->
        tell(feed, event)
        hand_on(feed)
    end
  end

  defp tell(feed, message), do: send(feed.subscriber, message)

  # Whether the registry runs, and whether it is still the one that was subscribed to.
  defp look(feed) do
    case {opened(feed.registry), feed.since} do
      {nil, nil} ->
        feed

      {nil, _since} ->
        down(feed)

      {_opened, nil} ->
        up(feed)

      # A millisecond, as neither figure is finer.
      {opened, since} when opened > since + 1 ->
        feed |> down() |> up()

      _the_same ->
        feed
    end
  end

  defp opened(registry) do
    if Cluster.config(registry), do: now() - NativeRegistry.info(registry).uptime
  rescue
    ArgumentError -> nil
  end

  defp up(feed) do
    Enum.each(feed.patterns, &NativeRegistry.subscribe(feed.registry, &1))
    # Whatever changes from now on is told, and is told after this: it waits in the mailbox.
    tell(feed, {:nodeup, feed.registry, node()})
    %{feed | since: now()}
  rescue
    # Stopped in between.
    ArgumentError -> feed
  end

  defp down(feed) do
    flush(feed)
    tell(feed, {:nodedown, feed.registry, node()})
    %{feed | since: nil}
  end

  # What was told before it stopped.
  defp flush(%{registry: registry} = feed) do
    receive do
      event
      when is_tuple(event) and elem(event, 0) != __MODULE__ and elem(event, 1) == registry ->
        tell(feed, event)
        flush(feed)
    after
      0 -> :ok
    end
  end

  defp change(%{since: nil} = feed, patterns), do: %{feed | patterns: patterns}

  defp change(feed, patterns) do
    Enum.each(patterns -- feed.patterns, &NativeRegistry.subscribe(feed.registry, &1))

    for pattern <- feed.patterns -- patterns,
        do: NativeRegistry.unsubscribe(feed.registry, pattern)

    %{feed | patterns: patterns}
  rescue
    ArgumentError -> down(%{feed | patterns: patterns})
  end

  defp now, do: System.monotonic_time(:millisecond)
end
