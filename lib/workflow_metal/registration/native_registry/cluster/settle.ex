defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Settle do
  @moduledoc false
  # Makes the engine agree with this node's table about a name.
  #
  # A registration only claims a name with the engine. Whatever else is done about a name is done here,
  # by one process of this node at a time (`NameLock`), and by what the table says at that moment. So
  # what is late or done twice does no harm: a name that was registered again meanwhile stays.

  alias WorkflowMetal.Registration.NativeRegistry.{Registry, Table}

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{
    Config,
    Conflict,
    Deadlines,
    NameLock,
    Peers,
    Tasks
  }

  # How long the engine gets for an answer when no caller waits, and for how long it is asked again, in
  # milliseconds.
  @patience 60_000
  @give_up 300_000

  # The pause before the engine is asked again about a name, in milliseconds: while another node has to
  # do something about the name, and while only the engines' views differ.
  @pause 100
  @short_pause 10

  # A name that has changed while it was settled is looked at again, so many times.
  @looks 50

  @typedoc "How the engine is told of a holder: see the callbacks `register/4` and `retell/4`."
  @type tell :: :register | :retell

  @doc """
  Makes the engine agree with the table about a name. `suspects` are processes of this node that the
  engine may take for its holder. An error when that took longer than `timeout` milliseconds.
  """
  @spec settle(
          Registry.registry(),
          Registry.name(),
          [pid],
          timeout :: pos_integer,
          Config.t(),
          tell
        ) ::
          :ok | {:error, reason :: term}
  def settle(registry, name, suspects, timeout, config, tell \\ :register) do
    settling = %{registry: registry, name: name, timeout: timeout, config: config, tell: tell}

    case NameLock.lock(registry, name, now() + timeout) do
      :ok ->
        try do
          settle_locked(settling, suspects, @looks)
        after
          NameLock.unlock(registry, name)
        end

      :timeout ->
        {:error, :cluster_timeout}
    end
  end

  @doc """
  Does the same soon, in a process of its own, which asks the engine again when it does not answer.
  `late?` says that the engine has already missed a deadline.
  """
  @spec settle_later(Registry.registry(), Registry.name(), [pid], late? :: boolean) :: :ok
  def settle_later(registry, name, suspects, late? \\ false) do
    with config when config != nil <- Config.get(registry) do
      {:ok, pid} = Tasks.run(fn -> settle_until_done(registry, name, suspects, config) end)
      if late?, do: Deadlines.put_late(registry, pid)
    end

    :ok
  end

  @doc "Does the same until the engine has answered, at most for some minutes."
  @spec settle_until_done(Registry.registry(), Registry.name(), [pid], Config.t()) :: :ok
  def settle_until_done(registry, name, suspects, config) do
    settle_until(registry, name, suspects, config, now() + @give_up)
    Deadlines.delete_late(registry)
  end

  defp settle_until(registry, name, suspects, config, deadline) do
    case settle(registry, name, suspects, @patience, config) do
      {:error, reason} when reason in [:cluster_timeout, :unsettled] ->
        if now() < deadline do
          Process.sleep(@pause)
          settle_until(registry, name, suspects, config, deadline)
        end

      # Done; or the engine has ended, and has to be told of all names when it is back.
      _done ->
        :ok
    end
  end

  @doc "Tells the engine that a process has given a name back."
  @spec unregister(Registry.registry(), Registry.name(), pid) :: :ok
  def unregister(registry, name, pid) do
    case Config.get(registry) do
      nil ->
        :ok

      %{exclusive?: true, engine: engine, timeout: timeout} ->
        _ = engine.unregister(registry, name, pid, timeout)
        :ok

      %{timeout: timeout} = config ->
        with {:error, _reason} <- settle(registry, name, [pid], timeout, config),
             do: settle_later(registry, name, [pid], true)

        :ok
    end
  end

  @doc "Takes the name from the loser of a conflict, a process of this node, and ends it."
  @spec evict(Registry.registry(), Registry.name(), loser :: pid, winner :: pid) :: :ok
  def evict(registry, name, loser, winner) do
    with :evicted <- Conflict.evict(registry, name, loser, winner),
         %{engine: engine} <- Config.get(registry),
         # Most engines have given the name to the winner by themselves.
         ^loser <- engine.whereis(registry, name) do
      settle_later(registry, name, [loser])
    end

    :ok
  end

  defp settle_locked(_settling, _suspects, 0), do: {:error, :unsettled}

  defp settle_locked(settling, suspects, looks) do
    case holder(settling) do
      # Its holder cannot be seen until the registry is opened again or closed.
      :suspended -> {:error, :unsettled}
      holder -> settle_locked(settling, holder, suspects, looks)
    end
  end

  defp settle_locked(settling, holder, suspects, looks) do
    step =
      with :ok <- release(settling, suspects -- [holder]), do: ensure(settling, holder, looks)

    unless match?({:error, _reason}, step), do: Deadlines.delete_late(settling.registry)

    case step do
      :ok ->
        case holder(settling) do
          ^holder -> :ok
          _changed -> settle_locked(settling, List.wrap(holder), looks - 1)
        end

      {:release, pid} ->
        settle_locked(settling, [pid], looks - 1)

      {:again, pause} ->
        Process.sleep(pause)
        settle_locked(settling, suspects, looks - 1)

      {:error, reason} ->
        {:error, reason}
    end
  end

  # The holder by the table, as long as the registry still uses the engine that is asked.
  defp holder(%{registry: registry, name: name, config: %{engine: engine}}) do
    with %{engine: ^engine} <- Config.get(registry),
         pid when is_pid(pid) <- Table.here(registry, name),
         true <- Process.alive?(pid) do
      pid
    else
      # A suspended registry keeps its configuration, a closed one does not.
      :no_registry -> if Config.get(registry), do: :suspended
      _no_holder -> nil
    end
  end

  # A suspect is released even if it has ended: an answer shows that the engine answers again.
  defp release(%{registry: registry, name: name, config: %{engine: engine}} = settling, suspects) do
    Enum.reduce_while(suspects, :ok, fn suspect, :ok ->
      case engine.unregister(registry, name, suspect, settling.timeout) do
        {:error, reason} -> {:halt, {:error, reason}}
        :ok -> {:cont, :ok}
      end
    end)
  end

  defp ensure(_settling, nil, _looks), do: :ok

  defp ensure(
         %{registry: registry, name: name, config: %{engine: engine}} = settling,
         holder,
         looks
       ) do
    case apply(engine, settling.tell, [registry, name, holder, settling.timeout]) do
      :yes -> :ok
      :no -> contest(settling, holder, engine.whereis(registry, name), looks)
      {:error, reason} -> {:error, reason}
    end
  end

  # The engine has another holder than the table.
  defp contest(_settling, holder, holder, _looks), do: :ok
  defp contest(_settling, _holder, :undefined, _looks), do: {:again, @short_pause}

  # A process of this node that has given the name back.
  defp contest(_settling, _holder, other, _looks) when node(other) == node(),
    do: {:release, other}

  # The engine decided while this node was not connected, or has only now heard of the table's holder.
  # The same rule decides as when nodes meet.
  defp contest(%{registry: registry, name: name}, holder, other, looks) do
    connected? = node(other) in Node.list()

    cond do
      # The engine may not know yet that the node has gone.
      not connected? and looks > 1 ->
        {:again, @short_pause}

      connected? and Conflict.decide(registry, name, holder, other) == holder ->
        Peers.leave(registry, name, other, holder)
        {:again, @pause}

      true ->
        _ = Conflict.evict(registry, name, holder, other, 1)
        {:again, @short_pause}
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
