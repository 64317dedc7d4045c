defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Evictor do
  @moduledoc false
  # Ends processes of this node that have lost a name to another node.
  #
  # A process that has a supervisor is ended by it: a supervisor neither restarts nor counts what it has
  # terminated itself. What runs beneath a supervisor ends with it, so of the losers in one tree only the
  # highest are ended.

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Tasks

  # How long losers are gathered, in milliseconds: those of one tree lose their names one after another.
  @gathering 20

  # How long a process may take to end, in milliseconds.
  @patience 5_000

  # How much of that time its supervisor gets first. A supervisor that is starting a child does nothing else
  # meanwhile, and the child may be the loser.
  @courtesy 1_000

  # How long a process may take to answer `Process.info/2`, in milliseconds.
  @question 200

  @spec start_link(term) :: GenServer.on_start()
  def start_link(_options), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Ends the process soon, with `reason` unless its supervisor does."
  @spec evict(pid, reason :: term) :: :ok
  def evict(pid, reason), do: GenServer.cast(__MODULE__, {:evict, pid, reason})

  @impl GenServer
  def init(nil), do: {:ok, %{}}

  # The state is a map of the gathered losers to their reasons.
  @impl GenServer
  def handle_cast({:evict, pid, reason}, losers) do
    _ = if losers == %{}, do: Process.send_after(self(), :end_all, @gathering)
    {:noreply, Map.put_new(losers, pid, reason)}
  end

  @impl GenServer
  def handle_info(:end_all, losers) do
    {:ok, _pid} = Tasks.run(fn -> end_all(losers) end)
    {:noreply, %{}}
  end

  def handle_info(_message, losers), do: {:noreply, losers}

  defp end_all(losers) when losers == %{}, do: :ok

  defp end_all(losers) do
    {beneath, highest} =
      losers
      |> Tasks.map(fn {pid, _reason} -> ancestors(pid) end, @question)
      |> Enum.zip(losers)
      |> Enum.split_with(fn {ancestors, {pid, _reason}} ->
        Enum.any?(ancestors || [], &(&1 != pid and is_map_key(losers, &1)))
      end)

    # Each of two processes may name the other as its ancestor: any process can write its dictionary.
    {beneath, highest} = if highest == [], do: {[], beneath}, else: {beneath, highest}
    highest = for {_ancestors, loser} <- highest, do: loser
    _ = Tasks.map(highest, fn {pid, reason} -> end_process(pid, reason) end, :infinity)

    end_all(
      for {_ancestors, {pid, reason}} <- beneath,
          Process.alive?(pid),
          into: %{},
          do: {pid, reason}
    )
  end

  @doc "The ancestors of a process of this node in its supervision tree, the nearest first."
  @spec ancestors(pid) :: [pid]
  def ancestors(pid) do
    ancestors = dictionary(pid, :"$ancestors")

    for ancestor <- if(is_list(ancestors), do: ancestors, else: []),
        ancestor = if(is_atom(ancestor), do: Process.whereis(ancestor), else: ancestor),
        is_pid(ancestor),
        do: ancestor
  end

  # It is killed when it has not ended within five seconds.
  defp end_process(pid, reason) do
    monitor = Process.monitor(pid)
    deadline = now() + @patience

    with :alive <- end_by_supervisor(pid, monitor),
         :alive <- end_by_itself(pid, reason, monitor, deadline) do
      Process.exit(pid, :kill)

      receive do
        {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
      end
    end

    :ok
  end

  # The order is in the supervisor's mailbox before the signal that the process has ended, whatever ends
  # it: the supervisor does not take it for a crash.
  defp end_by_supervisor(pid, monitor) do
    case Tasks.await(@question, fn -> supervisor(pid) end) do
      supervisor when is_pid(supervisor) ->
        {:ok, order} = Tasks.run(fn -> end_child(supervisor, pid) end)
        order_monitor = Process.monitor(order)

        receive do
          {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
          # It is no child of this supervisor, or the supervisor has ended.
          {:DOWN, ^order_monitor, :process, ^order, _reason} -> :alive
        after
          @courtesy -> :alive
        end

      _no_supervisor ->
        :alive
    end
  end

  defp end_by_itself(pid, reason, monitor, deadline) do
    # A process that traps exits would get an exit signal as a message.
    _ =
      case Tasks.await(@question, fn -> Process.info(pid, :trap_exit) end) do
        {:trap_exit, true} -> Tasks.run(fn -> shut_down(pid, reason) end)
        _other -> Process.exit(pid, reason)
      end

    receive do
      {:DOWN, ^monitor, :process, ^pid, _reason} -> :ok
    after
      max(deadline - now(), 0) -> :alive
    end
  end

  defp shut_down(pid, reason) do
    :sys.terminate(pid, reason, @patience)
  catch
    :exit, _reason -> :ok
  end

  @doc """
  Has the supervisor terminate and forget its child, which gets the time to shut down that its child
  specification says.
  """
  @spec end_child(supervisor :: pid, pid) :: :ok | (not_its_child :: term)
  # A DynamicSupervisor identifies its children by pid, and so does a Supervisor of the strategy
  # `:simple_one_for_one`; any other Supervisor by id. All take this first message. A DynamicSupervisor
  # would crash on the messages with an id, so they are sent only after it has refused the first.
  def end_child(supervisor, pid) do
    with {:error, _not_found} <- GenServer.call(supervisor, {:terminate_child, pid}, :infinity),
         children when is_list(children) <-
           GenServer.call(supervisor, :which_children, :infinity),
         {id, ^pid, _type, _modules} <- List.keyfind(children, pid, 1) do
      with :ok <- GenServer.call(supervisor, {:terminate_child, id}, :infinity) do
        # A supervisor that restarts its children together would start it again with the others, and it
        # would find its name taken.
        GenServer.call(supervisor, {:delete_child, id}, :infinity)
      end
    end
  catch
    :exit, _reason -> :gone
  end

  @doc """
  Has the supervisor terminate many of its children, without waiting for that. Those that it identifies by
  id it forgets as well.
  """
  @spec end_children(supervisor :: pid, [pid]) :: :ok
  # The orders by pid come first and in one go, as the children may be killed at any moment and the supervisor must
  # have read its order by then. Their answers go to an alias of no process. See `end_child/2`.
  @dialyzer {:no_improper_lists, end_children: 2}
  def end_children(supervisor, pids) do
    for pid <- pids do
      from = {self(), [:alias | make_ref()]}
      send(supervisor, {:"$gen_call", from, {:terminate_child, pid}})
    end

    for {id, pid, _type, _modules} <- GenServer.call(supervisor, :which_children, :infinity),
        id != :undefined and pid in pids,
        :ok <- [GenServer.call(supervisor, {:terminate_child, id}, :infinity)],
        do: GenServer.call(supervisor, {:delete_child, id}, :infinity)

    :ok
  catch
    # The supervisor has ended.
    :exit, _reason -> :ok
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

  # `nil` for a process that has ended, or runs on another node.
  defp dictionary(pid, key) when node(pid) == node() do
    with {:dictionary, entries} <- Process.info(pid, :dictionary) do
      List.keyfind(entries, key, 0, {key, nil}) |> elem(1)
    end
  end

  defp dictionary(_pid, _key), do: nil

  defp now, do: System.monotonic_time(:millisecond)
end
