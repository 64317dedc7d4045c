defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Leaving do
  @moduledoc false
  # How processes of this node end that have lost a name to another node.
  #
  # By their supervisor's hand where they have one: what a supervisor ends it does not restart, and
  # does not count. With a supervisor that leaves, so do those beneath it, so only the highest of
  # those who have to leave are ended.

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry.Cluster

  # How long losers are gathered, in milliseconds: those of a tree lose their names one after
  # another.
  @gathering 20

  # All that a process gets to leave, in milliseconds.
  @patience 5_000

  # How long its supervisor gets of that to begin with. One that is starting a child, maybe this
  # one, does nothing else meanwhile.
  @courtesy 1_000

  # How long a process may take to say something about itself, in milliseconds.
  @question 200

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Has the process ended, of `reason` if it has no supervisor, soon."
  @spec leave(pid, reason :: term) :: :ok
  def leave(pid, reason), do: GenServer.cast(__MODULE__, {:leave, pid, reason})

  @impl GenServer
  def init(nil), do: {:ok, %{}}

  @impl GenServer
  def handle_cast({:leave, pid, reason}, leaving) do
    _ = if leaving == %{}, do: Process.send_after(self(), :end_all, @gathering)
    {:noreply, Map.put_new(leaving, pid, reason)}
  end

  @impl GenServer
  def handle_info(:end_all, leaving) do
    {:ok, _pid} = Cluster.Application.run(fn -> end_all(leaving) end)
    {:noreply, %{}}
  end

  def handle_info(_message, leaving), do: {:noreply, leaving}

  defp end_all(leaving) when leaving == %{}, do: :ok

  defp end_all(leaving) do
    {beneath, highest} =
      leaving
      |> in_parallel(fn {pid, _reason} -> ancestors(pid) end, @question)
      |> Enum.zip(leaving)
      |> Enum.split_with(fn {ancestors, {pid, _reason}} ->
        Enum.any?(ancestors || [], &(&1 != pid and is_map_key(leaving, &1)))
      end)

    # Processes may say what they like of their ancestors, each other for one.
    {beneath, highest} = if highest == [], do: {[], beneath}, else: {beneath, highest}
    highest = for {_ancestors, one} <- highest, do: one
    _ = in_parallel(highest, fn {pid, reason} -> end_process(pid, reason) end, :infinity)

    end_all(
      for {_ancestors, {pid, reason}} <- beneath,
          Process.alive?(pid),
          into: %{},
          do: {pid, reason}
    )
  end

  defp in_parallel(all, function, timeout) do
    options = [timeout: timeout, on_timeout: :kill_task, max_concurrency: 64]

    for answer <- Task.Supervisor.async_stream_nolink(Cluster.Tasks, all, function, options) do
      case answer do
        {:ok, answer} -> answer
        {:exit, _reason} -> nil
      end
    end
  end

  @doc "Those above a process of this node in its tree, the nearest first."
  @spec ancestors(pid) :: [pid]
  def ancestors(pid) do
    ancestors = dictionary(pid, :"$ancestors")

    for ancestor <- if(is_list(ancestors), do: ancestors, else: []),
        ancestor = if(is_atom(ancestor), do: Process.whereis(ancestor), else: ancestor),
        is_pid(ancestor),
        do: ancestor
  end

  @doc """
  Ends a process of this node: by its supervisor, or else with `reason`. It is killed when it has not
  ended after five seconds.
  """
  @spec end_process(pid, reason :: term) :: :ok
  def end_process(pid, reason) do
    monitor = Process.monitor(pid)
    deadline = now() + @patience

    with :still <- end_by_supervisor(pid, monitor),
         :still <- end_by_itself(pid, reason, monitor, deadline) do
      Process.exit(pid, :kill)

      receive do
        {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
      end
    end

    :ok
  end

  # Whatever comes later, the supervisor's order is first in its mailbox, before the notice of the
  # process's end: it never takes it for a crash.
  defp end_by_supervisor(pid, monitor) do
    case Cluster.within(@question, fn -> supervisor(pid) end) do
      supervisor when is_pid(supervisor) ->
        {:ok, order} = Cluster.Application.run(fn -> end_child(supervisor, pid) end)
        order_monitor = Process.monitor(order)

        receive do
          {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
          # It is no child of this supervisor, or that has ended.
          {:DOWN, ^order_monitor, :process, ^order, _reason} -> :still
        after
          @courtesy -> :still
        end

      _none ->
        :still
    end
  end

  defp end_by_itself(pid, reason, monitor, deadline) do
    # A process that traps exits takes a signal of ours for a message.
    _ =
      case Cluster.within(@question, fn -> Process.info(pid, :trap_exit) end) do
        {:trap_exit, true} -> Cluster.Application.run(fn -> terminate_itself(pid, reason) end)
        _other -> Process.exit(pid, reason)
      end

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    after
      max(deadline - now(), 0) -> :still
    end
  end

  defp terminate_itself(pid, reason) do
    :sys.terminate(pid, reason, @patience)
  catch
    :exit, _reason -> :ok
  end

  @doc "Has the supervisor end its child, in the time that it gives it, and forget it."
  @spec end_child(supervisor :: pid, pid) :: :ok | (not_its_child :: term)
  # A DynamicSupervisor knows its children by their pids, and so does a Supervisor whose children
  # are all of one kind; others by ids. Both take the same message, and no other is sent, as what a
  # DynamicSupervisor does not know it ends of.
  def end_child(supervisor, pid) do
    with {:error, _not_found} <- GenServer.call(supervisor, {:terminate_child, pid}, :infinity),
         children when is_list(children) <-
           GenServer.call(supervisor, :which_children, :infinity),
         {id, ^pid, _type, _modules} <- List.keyfind(children, pid, 1) do
      with :ok <- GenServer.call(supervisor, {:terminate_child, id}, :infinity) do
        # Or it would be started again with its siblings, where they are restarted together, and
        # find its name taken.
        GenServer.call(supervisor, {:delete_child, id}, :infinity)
      end
    end
  catch
    :exit, _reason -> :gone
  end

  @doc "The supervisor of a process of this node."
  @spec supervisor(pid) :: pid | nil
  def supervisor(pid) do
    with [parent | _rest] <- dictionary(pid, :"$ancestors"),
         parent when is_pid(parent) <-
           if(is_atom(parent), do: Process.whereis(parent), else: parent),
         {:supervisor, _module, _arity} <- dictionary(parent, :"$initial_call") do
      parent
    else
      _other -> nil
    end
  end

  # `nil` for a process that has ended, and what another node's does not tell.
  defp dictionary(pid, key) when node(pid) == node() do
    with {:dictionary, entries} <- Process.info(pid, :dictionary) do
      List.keyfind(entries, key, 0, {key, nil}) |> elem(1)
    end
  end

  defp dictionary(_pid, _key), do: nil

  defp now, do: System.monotonic_time(:millisecond)
end
