defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Claim do
  @moduledoc false
  # Registers a name for a process of this node: the engine is asked for the name, the table takes it,
  # and the engine's answer is confirmed if the name was settled in between.

  alias WorkflowMetal.Registration.NativeRegistry.{Name, Registry, Table}

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{
    Config,
    Deadlines,
    Drain,
    Lookup,
    NameLock,
    Report,
    Settle,
    Shutdown,
    Tasks
  }

  # The pause before a registration is tried again, in milliseconds, and the longest with an exclusive engine.
  @pause 1
  @longest_pause 100

  @doc """
  Claims a name for a process of this node. `ended` is the name's holder in the table,
  which has ended.

  `:no` when a process of another node holds the name, `{:held, holder}` when one of this node does, and
  also when `pid` itself has ended.
  """
  @spec claim(Registry.registry(), Registry.name(), pid, ended :: pid | nil, term) ::
          :yes | {:held, pid} | :no | {:error, reason :: term}
  def claim(registry, name, pid, ended, value) when pid == self(),
    do: claim_unless_draining(registry, name, pid, ended, value)

  # When the caller is killed, its claim ends with it, and the engine frees what it has registered for
  # the caller. It would not free what it has registered for another process.
  def claim(registry, name, pid, ended, value),
    do: Tasks.complete(fn -> claim_unless_draining(registry, name, pid, ended, value) end)

  defp claim_unless_draining(registry, name, pid, ended, value) do
    config = Config.fetch!(registry)

    with false <- Drain.draining?(registry),
         :yes <- ask_and_hold(registry, name, pid, ended, value, config),
         # This is checked again: `drain/2` sees a name that the table took before draining began; a name
         # that it took later is given back here.
         true <- Drain.draining?(registry) do
      undo(registry, name, pid, config)
      {:error, :draining}
    else
      true -> {:error, :draining}
      false -> :yes
      refused -> refused
    end
  end

  # The engine alone says who may have the name.
  defp ask_and_hold(registry, name, pid, ended, value, %{exclusive?: true} = config) do
    %{engine: engine, timeout: timeout} = config

    case engine.claim(registry, name, pid, max(Deadlines.left(registry, name, timeout), 1)) do
      {:yes, epoch, grant} ->
        answer = Table.hold(registry, name, pid, ended, value, epoch)
        engine.settled(grant, answer == :yes)

        case answer do
          :no_lease -> {:error, :no_quorum}
          :ended -> {:held, pid}
          :no_registry -> Name.unknown_registry!(registry)
          yes_or_held -> yes_or_held
        end

      refused ->
        refused(registry, name, refused)
    end
  end

  # A name that this node held until a moment ago is registered even if the engine does not answer: it
  # cannot have given the name to another node. The engine is told when it answers again.
  defp ask_and_hold(registry, name, pid, ended, value, config) do
    case ask_in_time(registry, name, pid, ended != nil, config) do
      {:yes, version} ->
        with :yes <- hold(registry, name, pid, ended, value, config),
             do: confirm(registry, name, pid, version, config)

      :unsettled ->
        with :yes <- hold(registry, name, pid, ended, value, config) do
          Settle.settle_later(registry, name, [], true)
          :yes
        end

      refused ->
        refused(registry, name, refused)
    end
  end

  defp refused(registry, name, refused) do
    if refused == {:error, :cluster_timeout}, do: Report.timeout(registry, name)
    refused
  end

  # An engine that has missed a deadline is not asked about a name that this node held.
  defp ask_in_time(registry, name, pid, held?, %{timeout: timeout} = config) do
    cond do
      not Deadlines.late?(registry) ->
        ask(registry, name, pid, held?, timeout, config)

      held? or Table.was_held?(registry, name) ->
        :unsettled

      true ->
        ask(registry, name, pid, held?, Deadlines.left(registry, name, timeout), config)
    end
  end

  defp ask(registry, name, pid, held?, timeout, %{engine: engine}) do
    answer =
      with {:ok, version, left} <- await_settled(registry, name, timeout),
           do: {:answer, engine.register(registry, name, pid, left), version}

    case answer do
      {:answer, :yes, version} ->
        {:yes, version}

      {:answer, :no, _version} ->
        :no

      _error ->
        if held? or Table.was_held?(registry, name),
          do: :unsettled,
          else: refuse(registry, name, pid, answer)
    end
  end

  # The engine may still register the name, so it has to be settled.
  defp refuse(registry, name, pid, {:answer, {:error, reason}, _version}) do
    Settle.settle_later(registry, name, [pid], true)
    {:error, reason}
  end

  defp refuse(_registry, _name, _pid, :timeout), do: {:error, :cluster_timeout}

  # The name's version when it is not being settled, and the time that is left.
  defp await_settled(registry, name, timeout) do
    version = NameLock.version(registry, name)

    if NameLock.changed?(registry, name, version) do
      deadline = now() + timeout

      with :ok <- NameLock.await(registry, name, deadline) do
        left = deadline - now()
        if left > 0, do: {:ok, NameLock.version(registry, name), left}, else: :timeout
      end
    else
      if timeout > 0, do: {:ok, version, timeout}, else: :timeout
    end
  end

  # The engine has given the name to this node, or cannot answer and the name was this node's.
  defp hold(registry, name, pid, ended, value, config) do
    case Table.hold(registry, name, pid, ended, value, 0) do
      :yes ->
        :yes

      {:held, holder} ->
        if holder != pid, do: Settle.settle_later(registry, name, [pid])
        {:held, holder}

      # The process has ended, and the engine frees what it has registered for it.
      :ended ->
        {:held, pid}

      # It was stopped meanwhile.
      :no_registry ->
        Shutdown.give_back_later(registry, [{name, pid}], config)
        Name.unknown_registry!(registry)
    end
  end

  # The name may have been settled after the engine answered and before the table had the holder, and the
  # engine does not have it any more. A process that settles it from now on sees the holder.
  defp confirm(registry, name, pid, version, config) do
    with refused when refused != :yes <- ask_again(registry, name, pid, version, config) do
      undo(registry, name, pid, config)
      refused
    end
  end

  defp ask_again(registry, name, pid, version, %{engine: engine, timeout: timeout} = config) do
    if NameLock.changed?(registry, name, version) do
      with :ok <- NameLock.await(registry, name, now() + timeout) do
        version = NameLock.version(registry, name)

        with :yes <- engine.register(registry, name, pid, timeout),
             do: ask_again(registry, name, pid, version, config)
      else
        :timeout -> {:error, :cluster_timeout}
      end
    else
      :yes
    end
  end

  defp undo(registry, name, pid, config) do
    _ = Table.release(registry, name, pid)
    # An exclusive engine learns of it by the event.
    unless config.exclusive?, do: Settle.settle_later(registry, name, [pid])
  end

  @doc """
  Registers a name for the calling process after `claim/5` has answered `:no`: the holder is named, or
  the name is claimed again when its holder is not known or has given it back.
  """
  @spec register(Registry.registry(), Registry.name(), term) ::
          {:ok, pid} | {:error, {:already_registered, pid} | (reason :: term)}
  def register(registry, name, value),
    do: register_until(registry, name, value, now() + Config.fetch!(registry).timeout, @pause)

  defp register_until(registry, name, value, deadline, pause) do
    case Lookup.whereis(registry, name) do
      :undefined ->
        if now() < deadline do
          Process.sleep(pause)
          # The name may be blocked until a lease has run out, and each claim is written to a log.
          pause =
            if Config.fetch!(registry).exclusive?, do: min(2 * pause, @longest_pause), else: pause

          claim_again(registry, name, value, deadline, pause)
        else
          Report.timeout(registry, name)
          {:error, :cluster_timeout}
        end

      holder ->
        {:error, {:already_registered, holder}}
    end
  end

  defp claim_again(registry, name, value, deadline, pause) do
    answer =
      with {:elsewhere, ended} <- Table.claim(registry, name, self(), value),
           do: claim(registry, name, self(), ended, value)

    case answer do
      :yes -> {:ok, self()}
      :no -> register_until(registry, name, value, deadline, pause)
      {:held, holder} -> {:error, {:already_registered, holder}}
      {:error, reason} -> {:error, reason}
    end
  end

  defp now, do: System.monotonic_time(:millisecond)
end
