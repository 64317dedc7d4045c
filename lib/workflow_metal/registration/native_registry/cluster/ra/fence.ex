defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Fence do
  @moduledoc false
  # Ends the holders of this node when the lease has run out.
  #
  # It does nothing else, and has the highest priority, because the machine gives the names away a fixed
  # time after the lease: see `Machine.expiry/1`. From the deadline on the native library answers no
  # process of this node to a lookup, and the table takes no name. The holders get a part of the fence's
  # time to end politely, by their supervisors; then they are killed.
  #
  # Only this process begins and ends a lease, so that no lease begins while holders of the one before live.

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Ending, Lease, Options}

  # The holders get a tenth of a lease to end politely. `Machine.expiry/1` counts on a quarter for all.
  @polite 10

  # It looks at the clock so many times in a lease, as timers stand still while the machine sleeps and
  # the lease's clock does not. At least each so many milliseconds.
  @looks 32
  @longest 250

  # The epoch of the lease that runs, 0 if none does. Only this process writes it.
  @epoch {__MODULE__, :epoch}

  # The pause between two looks at what has not ended, in milliseconds.
  @pause 1

  @doc "Starts it. `session` is the name of the process that is sent `:fenced` by a cast after all holders have ended."
  @spec start_link({Options.t(), session :: atom}) :: GenServer.on_start()
  def start_link(arguments), do: GenServer.start_link(__MODULE__, arguments, name: __MODULE__)

  @doc """
  Begins the lease of a session. The holders of a session that was resumed keep their names, but what was
  granted before is taken by the table no more.
  """
  @spec begin_lease(epoch :: pos_integer, deadline :: integer, resumed? :: boolean) :: integer
  def begin_lease(epoch, deadline, resumed?),
    do: GenServer.call(__MODULE__, {:begin, epoch, deadline, resumed?}, :infinity)

  @doc """
  Ends all holders, as the cluster has ended the session; of this lease only, unless its epoch is not known.
  """
  @spec fence_now(epoch :: pos_integer | nil) :: :ok
  def fence_now(epoch), do: GenServer.cast(__MODULE__, {:fence_now, epoch})

  @doc "Ends the lease if there is no holder left. Answers whether it did."
  @spec finish_if_idle() :: boolean
  def finish_if_idle, do: GenServer.call(__MODULE__, :finish_if_idle, :infinity)

  @impl GenServer
  def init({%{lease: lease}, session}) do
    Process.flag(:priority, :max)
    # The process before this one may have been killed while it ended the holders.
    state = %{lease: lease, session: session, epoch: :persistent_term.get(@epoch, 0)}
    if state.epoch == 0, do: end_holders(state)
    {:ok, state, pause(state)}
  end

  @impl GenServer
  def handle_call({:begin, epoch, deadline, resumed?}, _from, state) do
    end_lease(state)
    unless resumed?, do: end_holders(state)
    :persistent_term.put(@epoch, epoch)
    :ok = Lease.begin(epoch, deadline)
    state = %{state | epoch: epoch}
    {:reply, deadline, state, pause(state)}
  end

  def handle_call(:finish_if_idle, _from, state) do
    if holders() == [] do
      end_lease(state)
      # One may have come before the lease ended.
      end_holders(state)
      {:reply, true, %{state | epoch: 0}}
    else
      {:reply, false, state, pause(state)}
    end
  end

  @impl GenServer
  def handle_cast({:fence_now, epoch}, state) when epoch in [nil, state.epoch], do: fence(state)
  def handle_cast({:fence_now, _of_another}, state), do: {:noreply, state, pause(state)}

  @impl GenServer
  def handle_info(:timeout, %{epoch: 0} = state), do: {:noreply, state}

  def handle_info(:timeout, state) do
    if Lease.left() <= 0, do: fence(state), else: {:noreply, state, pause(state)}
  end

  def handle_info(_message, state), do: {:noreply, state, pause(state)}

  defp pause(%{epoch: 0}), do: :infinity

  defp pause(%{lease: lease}) do
    left = div(Lease.left(), 1_000_000) + 1
    left |> min(div(lease, @looks)) |> min(@longest) |> max(1)
  end

  defp fence(state) do
    end_lease(state)
    end_holders(state)
    GenServer.cast(state.session, :fenced)
    {:noreply, %{state | epoch: 0}}
  end

  # Afterwards no `hold` of this lease succeeds, and none is under way.
  defp end_lease(%{epoch: epoch}) do
    if epoch != 0, do: Lease.finish(epoch)
    :persistent_term.put(@epoch, 0)
    await_no_hold()
  end

  defp await_no_hold do
    if Lease.holds() > 0 do
      Process.sleep(@pause)
      await_no_hold()
    end
  end

  defp end_holders(state) do
    case holders() do
      [] ->
        :ok

      holders ->
        monitors = Map.new(holders, &{Process.monitor(&1), &1})
        {:ok, polite} = Ending.start(holders)
        left = await_ends(monitors, now() + div(state.lease, @polite))
        for {_monitor, pid} <- left, do: Process.exit(pid, :kill)
        %{} = await_ends(left, :infinity)
        Process.exit(polite, :kill)
        # A process that gets a name from another one may not have been found.
        end_holders(state)
    end
  end

  # A process that has ended is found until the table has freed its names.
  defp holders, do: Enum.filter(Lease.holders(), &Process.alive?/1)

  defp await_ends(monitors, _deadline) when monitors == %{}, do: monitors

  defp await_ends(monitors, deadline) do
    receive do
      {:DOWN, monitor, :process, _pid, _reason} when is_map_key(monitors, monitor) ->
        await_ends(Map.delete(monitors, monitor), deadline)
    after
      if(deadline == :infinity, do: :infinity, else: max(deadline - now(), 0)) -> monitors
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
