defmodule WorkflowMetal.Registration.NativeRegistry.Cluster do
  @moduledoc false
  # The part of a registry that reaches beyond this node. The table has the names of this node's
  # processes and nothing else is asked about them; this is about all others, and about who may have
  # a name. What no engine need know of is here: the rule of conflicts, and how long anybody waits.

  require Logger

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Name, Native}

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{
    Follower,
    Leaving,
    Marks,
    Members,
    Remote,
    Report
  }

  @type t :: %{
          optional(:supervisor) => pid,
          optional(:retell) => true,
          engine: module,
          timeout: pos_integer,
          on_conflict: {module, atom} | nil
        }

  @engines %{global: Cluster.Global, syn: Cluster.Syn}

  @timeout 5_000

  # Between two looks at what the engine says, in milliseconds.
  @pause 1

  # How long the function of a configuration may take to decide a conflict.
  @decision 1_000

  # How long the engine gets for what nobody waits for any more, and for how long it is asked again,
  # in milliseconds.
  @late 60_000
  @latest 300_000

  # How often one name is looked at again while it changes, and how long between two looks, in
  # milliseconds.
  @looks 50
  @short 10

  # How long a name that a process has lost before it got it is waited for, by so many looks.
  @not_yet 100
  @looks_for_holder 10

  @doc """
  The cluster that the options name; `nil` for none. Raises `ArgumentError` for bad options.
  """
  @spec new!(NativeRegistry.registry(), keyword) :: t | nil
  def new!(registry, options) do
    timeout = Keyword.get(options, :cluster_timeout, @timeout)
    on_conflict = Keyword.get(options, :on_conflict)

    unless is_integer(timeout) and timeout > 0 do
      bad_option!(registry, :cluster_timeout, "milliseconds, at least 1", timeout)
    end

    unless on_conflict == nil or match?({m, f} when is_atom(m) and is_atom(f), on_conflict) do
      bad_option!(registry, :on_conflict, "{module, function}", on_conflict)
    end

    case Keyword.get(options, :cluster) do
      nil ->
        nil

      cluster ->
        engine = engine!(registry, cluster)
        for required <- engine.requires(), do: require!(registry, cluster, required)
        %{engine: engine, timeout: timeout, on_conflict: on_conflict}
    end
  end

  defp engine!(registry, cluster) do
    engine = Map.get(@engines, cluster, cluster)

    if is_atom(engine) and Code.ensure_loaded?(engine) and function_exported?(engine, :whereis, 2) do
      engine
    else
      bad_option!(registry, :cluster, ":global, :syn or a module that is an engine", cluster)
    end
  end

  defp require!(registry, cluster, {module, dependency}) do
    unless Code.ensure_loaded?(module) do
      raise ArgumentError,
            "cluster: #{inspect(cluster)} of the registry #{inspect(registry)} needs the module " <>
              "#{inspect(module)}, which is not there; add #{dependency} to the dependencies in mix.exs"
    end
  end

  @spec bad_option!(term, atom, String.t(), term) :: no_return
  defp bad_option!(registry, option, wanted, value) do
    raise ArgumentError,
          "expected #{inspect(option)} of the registry #{inspect(registry)} to be #{wanted}, " <>
            "got: #{inspect(value)}"
  end

  @doc "Makes this node part of the registry's cluster, as long as the supervisor runs."
  @spec open(NativeRegistry.registry(), supervisor :: pid, t | nil) :: :ok
  def open(registry, _supervisor, nil) do
    # One of this name that was in a cluster, and was stopped by another supervisor.
    with %{supervisor: other} <- config(registry), do: Follower.close(registry, other)
    :ok
  end

  def open(registry, supervisor, cluster) do
    {:ok, _started} = Application.ensure_all_started(:workflow_metal_native_registry)

    case Follower.open(registry, supervisor, cluster) do
      :ok -> :ok
      {:error, {kind, reason, stacktrace}} -> :erlang.raise(kind, reason, stacktrace)
    end
  end

  @doc """
  Closes the registry if this supervisor has it open. Its names are given back to the engine, without
  anybody waiting for that.
  """
  @spec close(NativeRegistry.registry(), supervisor :: pid) :: :ok
  def close(registry, supervisor) do
    if config(registry),
      do: Follower.close(registry, supervisor),
      else: close_here(registry, supervisor)
  end

  @doc """
  Suspends the registry if this supervisor has it open; see `Native.suspend/2`. Its names stay with the
  engine.
  """
  @spec suspend(NativeRegistry.registry(), supervisor :: pid) :: Native.suspended() | :no_registry
  def suspend(registry, supervisor) do
    if config(registry),
      do: Follower.suspend(registry, supervisor),
      else: Native.suspend(registry, supervisor)
  end

  @doc """
  Closes a registry that was suspended, unless it has been opened again. Its names are given back to
  the engine.
  """
  @spec close_suspended(NativeRegistry.registry(), supervisor :: pid, Native.suspended()) :: :ok
  def close_suspended(registry, supervisor, suspended) do
    if config(registry),
      do: Follower.close_suspended(registry, supervisor, suspended),
      else: Native.close_suspended(registry, suspended)

    :ok
  end

  @doc false
  # `held` are the names of a registry that is suspended: they cannot be listed any more.
  @spec close_here(
          NativeRegistry.registry(),
          supervisor :: pid,
          [{NativeRegistry.name(), pid}] | nil
        ) ::
          :ok
  def close_here(registry, supervisor, held \\ nil) do
    case config(registry) do
      %{supervisor: ^supervisor} = cluster ->
        # Whoever registers from now on is told that there is no registry, so that no name comes
        # after these.
        :persistent_term.erase(key(registry))
        held = held || held(registry)
        Native.close(registry, supervisor)
        Cluster.Drain.forget(registry)
        give_back_later(registry, held, cluster)

      _closed_or_alone ->
        Native.close(registry, supervisor)
    end

    :ok
  end

  @doc false
  @spec give_back_later(NativeRegistry.registry(), [{NativeRegistry.name(), pid}], t) :: :ok
  def give_back_later(registry, held, cluster) do
    {:ok, _pid} = Cluster.Application.run(fn -> give_back(registry, held, cluster) end)
    :ok
  end

  @doc false
  @spec held(NativeRegistry.registry()) :: [{NativeRegistry.name(), pid}]
  def held(registry) do
    for {name, pid, _value} <- NativeRegistry.select(registry, :_), do: {name, pid}
  rescue
    ArgumentError -> []
  end

  # Who holds one of the names in a registry that has been opened since, and is in the same cluster,
  # keeps it.
  defp give_back(registry, held, %{engine: engine} = cluster) do
    for {name, pid} <- held, do: settle_until_done(registry, name, [pid], cluster)

    in_use? =
      Enum.any?(:persistent_term.get(), &match?({{__MODULE__, _}, %{engine: ^engine}}, &1))

    if not in_use? and function_exported?(engine, :stop, 0), do: engine.stop()
  end

  @doc "What was configured for the registry; `nil` when it is this node's alone."
  @spec config(NativeRegistry.registry()) :: t | nil
  def config(registry), do: :persistent_term.get(key(registry), nil)

  defp config!(registry), do: config(registry) || Name.unknown_registry!(registry)

  @doc false
  @spec put_config(NativeRegistry.registry(), t) :: :ok
  def put_config(registry, cluster), do: :persistent_term.put(key(registry), cluster)

  defp key(registry), do: {__MODULE__, registry}

  @doc "Who holds a name that no process of this node does by the table."
  @spec whereis(NativeRegistry.registry(), NativeRegistry.name()) :: pid | :undefined
  def whereis(registry, name) do
    case config!(registry).engine.whereis(registry, name) do
      pid when is_pid(pid) -> if alive?(pid), do: pid, else: :undefined
      :undefined -> :undefined
    end
  end

  @doc "Whether a process runs, as far as this node can tell."
  @spec alive?(pid) :: boolean
  def alive?(pid), do: node(pid) != node() or Process.alive?(pid)

  @doc """
  The engine's word on who may have the name. `held?` says that a process of this node had it until it
  ended.

  `{:yes, since}` has to be confirmed once the name stands in the table. `:unsettled` is the word of this node
  alone: the engine has not answered, so it has not given the name to another node either. When it
  stands in the table, the engine has to be told by `settle_later/3`.
  """
  @spec register(NativeRegistry.registry(), NativeRegistry.name(), pid, held? :: boolean) ::
          {:yes, Marks.since()} | :no | :unsettled | {:error, reason :: term}
  def register(registry, name, pid, held?) do
    with {:error, :cluster_timeout} = refused <- register_in_time(registry, name, pid, held?) do
      Report.timeout(registry, name)
      refused
    end
  end

  defp register_in_time(registry, name, pid, held?) do
    %{timeout: timeout} = cluster = config!(registry)

    cond do
      not Marks.late?(registry) -> register(registry, name, pid, held?, timeout, cluster)
      held? or was_held?(registry, name) -> :unsettled
      # Who starts a child waits no longer because others wait for the same supervisor.
      true -> register(registry, name, pid, held?, Marks.left(registry, name, timeout), cluster)
    end
  end

  defp register(registry, name, pid, held?, timeout, %{engine: engine}) do
    answer =
      case since_when_settled(registry, name, timeout) do
        {since, left} when left > 0 -> {:asked, ask(engine, registry, name, pid, left), since}
        _none -> {:error, :cluster_timeout}
      end

    case answer do
      {:asked, :yes, since} ->
        {:yes, since}

      {:asked, :no, _since} ->
        :no

      _error ->
        cond do
          held? or was_held?(registry, name) ->
            :unsettled

          match?({:asked, _error, _since}, answer) ->
            # It may do it yet.
            settle_later(registry, name, [pid])
            elem(answer, 1)

          true ->
            answer
        end
    end
  end

  # When nobody is making the engine agree with the table about the name, and what is left of the time.
  defp since_when_settled(registry, name, timeout) do
    since = Marks.since(registry, name)

    if Marks.settled_since?(registry, name, since) do
      deadline = now() + timeout

      case Marks.await(registry, name, deadline) do
        :ok -> {Marks.since(registry, name), deadline - now()}
        :timeout -> :timeout
      end
    else
      {since, timeout}
    end
  end

  # A process that ends takes what it has asked for with it; what it asked for another does not go.
  defp ask(engine, registry, name, pid, timeout) when pid == self() do
    engine.register(registry, name, pid, timeout)
  end

  defp ask(engine, registry, name, pid, timeout) do
    undo = fn _answer -> settle_later(registry, name, [pid], false) end
    within(timeout + @late, fn -> engine.register(registry, name, pid, timeout) end, undo)
  end

  defp was_held?(registry, name), do: was_held?(registry, name, name)

  # `opened` is the name in the form that the NIF takes.
  defp was_held?(registry, opened, name) do
    case Native.was_held(registry, opened) do
      answer when is_boolean(answer) -> answer
      :no_registry -> false
      refusal -> was_held?(registry, Name.prepare!(refusal, registry, opened), name)
    end
  end

  @doc """
  Whether the engine still has what it was asked for, now that the name stands in the table. From
  here on nobody takes it back.
  """
  @spec confirm(NativeRegistry.registry(), NativeRegistry.name(), pid, Marks.since()) ::
          :yes | :no | {:error, reason :: term}
  def confirm(registry, name, pid, since) do
    if Marks.settled_since?(registry, name, since) do
      %{engine: engine, timeout: timeout} = config!(registry)

      case Marks.await(registry, name, now() + timeout) do
        :ok ->
          # From here on whoever settles it sees who holds it.
          since = Marks.since(registry, name)

          with :yes <- ask(engine, registry, name, pid, timeout),
               do: confirm(registry, name, pid, since)

        :timeout ->
          {:error, :cluster_timeout}
      end
    else
      :yes
    end
  end

  @doc "Tells the engine that the process has given the name back."
  @spec unregister(NativeRegistry.registry(), NativeRegistry.name(), pid) :: :ok
  def unregister(registry, name, pid) do
    with %{timeout: timeout} = cluster <- config(registry),
         {:error, _reason} <- settle(registry, name, [pid], timeout, cluster) do
      settle_later(registry, name, [pid])
    end

    :ok
  end

  @doc """
  Makes the engine agree with this node's table about a name, soon. `suspects` are processes of this
  node that the engine may take for its holder; `late?` says that it has not answered in time.
  """
  @spec settle_later(NativeRegistry.registry(), NativeRegistry.name(), [pid], late? :: boolean) ::
          :ok
  def settle_later(registry, name, suspects, late? \\ true) do
    with cluster when cluster != nil <- config(registry) do
      {:ok, pid} =
        Cluster.Application.run(fn -> settle_until_done(registry, name, suspects, cluster) end)

      if late?, do: Marks.late(registry, pid)
    end

    :ok
  end

  defp settle_until_done(registry, name, suspects, cluster) do
    settle_until(registry, name, suspects, cluster, now() + @latest)
    Marks.answered(registry, self())
  end

  defp settle_until(registry, name, suspects, cluster, deadline) do
    case settle(registry, name, suspects, @late, cluster) do
      # An engine that has ended knows nothing any more; when it is back, all names are looked at.
      {:error, reason} when reason in [:cluster_timeout, :unsettled] ->
        if now() < deadline do
          Process.sleep(@not_yet)
          settle_until(registry, name, suspects, cluster, deadline)
        end

      _done ->
        :ok
    end
  end

  # All that is done with the engine about a name but to claim it is done here, by one process of this
  # node at a time, and by what the table says at that moment; see `Marks` for those who claim it
  # meanwhile.
  defp settle(registry, name, suspects, timeout, cluster) do
    case Marks.lock(registry, name, now() + timeout) do
      :ok ->
        try do
          settle_locked(registry, name, suspects, timeout, cluster, @looks)
        after
          Marks.unlock(registry, name)
        end

      :timeout ->
        {:error, :cluster_timeout}
    end
  end

  defp settle_locked(_registry, _name, _suspects, _timeout, _cluster, 0),
    do: {:error, :unsettled}

  defp settle_locked(registry, name, suspects, timeout, cluster, looks) do
    case holder(registry, name, cluster) do
      # Its holder cannot be seen until the registry is opened again or closed.
      :suspended -> {:error, :unsettled}
      holder -> settle_locked(registry, name, holder, suspects, timeout, cluster, looks)
    end
  end

  defp settle_locked(registry, name, holder, suspects, timeout, cluster, looks) do
    step =
      with :ok <- release(registry, name, suspects -- [holder], timeout, cluster),
           do: ensure(registry, name, holder, timeout, cluster, looks)

    unless match?({:error, _reason}, step), do: Marks.answered(registry, self())

    case step do
      :ok ->
        case holder(registry, name, cluster) do
          ^holder -> :ok
          _other -> settle_locked(registry, name, [holder], timeout, cluster, looks - 1)
        end

      {:release, suspect} ->
        settle_locked(registry, name, [suspect], timeout, cluster, looks - 1)

      {:again, pause} ->
        Process.sleep(pause)
        settle_locked(registry, name, suspects, timeout, cluster, looks - 1)

      {:error, reason} ->
        {:error, reason}
    end
  end

  # Who holds the name by the table of a registry that is in this very cluster.
  defp holder(registry, name, %{engine: engine}) do
    with %{engine: ^engine} <- config(registry),
         pid when is_pid(pid) <- held_by(registry, name),
         true <- Process.alive?(pid) do
      pid
    else
      # It has a configuration as long as it is not closed.
      :no_registry -> if config(registry), do: :suspended
      _nobody -> nil
    end
  end

  defp held_by(registry, opened) do
    case Native.whereis(registry, opened) do
      pid when is_pid(pid) -> pid
      answer when answer in [:undefined, :elsewhere] -> nil
      :no_registry -> :no_registry
      refusal -> held_by(registry, Name.prepare!(refusal, registry, opened))
    end
  end

  defp release(registry, name, suspects, timeout, %{engine: engine}) do
    Enum.reduce_while(suspects, :ok, fn suspect, :ok ->
      # Also one that has ended: when this is answered, the engine is known to answer again.
      with true <- is_pid(suspect),
           {:error, _reason} = error <- engine.unregister(registry, name, suspect, timeout) do
        {:halt, error}
      else
        _free -> {:cont, :ok}
      end
    end)
  end

  defp ensure(_registry, _name, nil, _timeout, _cluster, _looks), do: :ok

  defp ensure(registry, name, holder, timeout, %{engine: engine} = cluster, looks) do
    answer =
      if Map.has_key?(cluster, :retell),
        do: engine.retell(registry, name, holder, timeout),
        else: engine.register(registry, name, holder, timeout)

    case answer do
      :yes -> :ok
      :no -> contest(registry, name, holder, engine.whereis(registry, name), looks)
      {:error, reason} -> {:error, reason}
    end
  end

  defp contest(_registry, _name, holder, holder, _looks), do: :ok
  defp contest(_registry, _name, _holder, :undefined, _looks), do: {:again, @short}

  # It had the name before, and gave it back.
  defp contest(_registry, _name, _holder, other, _looks) when node(other) == node(),
    do: {:release, other}

  # The engine decided when it could not reach us, or has only just heard of our process; the rule
  # is the same as when nodes meet.
  defp contest(registry, name, holder, other, looks) do
    connected? = node(other) in Node.list()

    cond do
      # The engine may not have noticed yet that the node has gone.
      not connected? and looks > 1 ->
        {:again, @short}

      connected? and decide(registry, name, holder, other) == holder ->
        leave(registry, name, other, holder)
        {:again, @not_yet}

      true ->
        leave_here(registry, name, holder, other, 1)
        {:again, @short}
    end
  end

  @doc "The value of a name that another node's process holds; asks that node."
  @spec lookup(NativeRegistry.registry(), NativeRegistry.name(), pid) ::
          [{pid, NativeRegistry.value()}]
  def lookup(registry, name, pid) do
    :erpc.call(node(pid), Remote, :lookup, [registry, name], config!(registry).timeout)
  catch
    # It is gone, or about to be.
    _kind, _reason -> []
  end

  @doc """
  What `work` answers; `{:error, :cluster_timeout}` when that takes longer than `timeout`. Then `undo`
  is called with what it answers in the end; without an `undo` it is killed. `{:error, reason}` when
  it fails.
  """
  @spec within(pos_integer, (() -> answer), (answer -> term) | nil) ::
          answer | {:error, reason :: term}
        when answer: term
  def within(timeout, work, undo \\ nil) do
    caller = self()
    reply_to = :erlang.alias([:reply])
    {worker, monitor} = spawn_monitor(fn -> work_for(caller, reply_to, work, undo) end)

    answer =
      receive do
        {^reply_to, answer} -> {:ok, answer}
        {:DOWN, ^monitor, :process, ^worker, reason} -> {:ok, {:error, reason}}
      after
        timeout -> answer_just_come(reply_to)
      end

    Process.demonitor(monitor, [:flush])

    case answer do
      {:ok, answer} ->
        Kernel.send(worker, {reply_to, :taken})
        answer

      :none ->
        if undo, do: Kernel.send(worker, {reply_to, :late}), else: Process.exit(worker, :kill)
        {:error, :cluster_timeout}
    end
  end

  defp answer_just_come(reply_to) do
    :erlang.unalias(reply_to)

    receive do
      {^reply_to, answer} -> {:ok, answer}
    after
      0 -> :none
    end
  end

  defp work_for(caller, reply_to, work, undo) do
    monitor = Process.monitor(caller)

    answer =
      try do
        work.()
      catch
        kind, reason -> {:error, {kind, reason}}
      end

    Kernel.send(reply_to, {reply_to, answer})

    receive do
      {^reply_to, :taken} -> :ok
      {^reply_to, :late} -> undo.(answer)
      {:DOWN, ^monitor, :process, ^caller, _reason} -> undo && undo.(answer)
    end
  end

  @doc """
  What `start` answers, which is given the function that starts a child under a supervisor.

  The engine gets no more time for the child than the caller waits, also when the supervisor had
  others to start first.
  """
  @spec start_child(NativeRegistry.registry(), NativeRegistry.name(), (function -> answer)) ::
          answer
        when answer: NativeRegistry.on_start_child()
  def start_child(registry, name, start) do
    deadline = now() + config!(registry).timeout
    Marks.expect(registry, name, deadline)

    try do
      await_own_view(registry, name, start.(&start_child/2))
    after
      Marks.unexpect(registry, name, deadline)
    end
  end

  # A supervisor that restarts a child whose name another node has taken meanwhile fails, again and
  # again until it gives up. Such a child is left out of the supervisor instead.
  defp start_child(supervisor, child) do
    reply_to = :erlang.alias()

    spec =
      with %{start: {module, function, arguments}} = spec <- Supervisor.child_spec(child, []) do
        start = {__MODULE__, :start_link, [{module, function, arguments, reply_to}]}
        spec |> Map.put_new(:modules, [module]) |> Map.put(:start, start)
      end

    try do
      DynamicSupervisor.start_child(supervisor, spec)
    else
      :ignore -> already_started(reply_to)
      other -> other
    after
      :erlang.unalias(reply_to)
    end
  end

  # What a supervisor is told and what it hands on to us are two things.
  defp already_started(reply_to) do
    receive do
      {^reply_to, error} -> error
    after
      0 -> :ignore
    end
  end

  # A supervisor may put arguments of its own before those of the child.
  for extra <- 0..8 do
    extra = Macro.generate_arguments(extra, __MODULE__)
    @doc false
    def start_link(unquote_splicing(extra), {module, function, arguments, reply_to}) do
      case apply(module, function, unquote(extra) ++ arguments) do
        {:error, {:already_started, _pid}} = error -> ignored(reply_to, error)
        # It lost the name while its `init` ran.
        {:error, {:shutdown, {:name_conflict, _name, _pid}}} = error -> ignored(reply_to, error)
        # No name is taken on this node any more.
        {:error, {:shutdown, {:draining, _name}}} = error -> ignored(reply_to, error)
        other -> other
      end
    end
  end

  defp ignored(reply_to, error) do
    # It comes before the supervisor's answer, as that has the same sender.
    Kernel.send(reply_to, {reply_to, error})
    :ignore
  end

  @doc """
  Whether a reason with which a start failed is one of this project's, the starts of a supervisor's
  children included: `{:conflict, name, winner}`, or `{:refused, reason}` for what `register_name/2`
  could not say otherwise.
  """
  @spec why_ended(term) ::
          {:conflict, NativeRegistry.name(), pid} | {:refused, reason :: term} | nil
  def why_ended({:shutdown, {:name_conflict, name, winner}}), do: {:conflict, name, winner}
  def why_ended({:shutdown, {reason, {NativeRegistry, _registry, _name}}}), do: {:refused, reason}

  def why_ended({:shutdown, {:failed_to_start_child, _id, {:already_started, pid}}})
      when is_pid(pid) and node(pid) != node(),
      do: {:conflict, nil, pid}

  def why_ended({:shutdown, {:failed_to_start_child, _id, reason}}), do: why_ended(reason)
  def why_ended(_its_own), do: nil

  @doc """
  By when a registration that another node's process stood against, of which nobody knows any more, is
  tried again; `{:error, :cluster_timeout}` once that is past. `:unknown` is the first attempt's deadline.
  """
  @spec try_again(NativeRegistry.registry(), NativeRegistry.name(), deadline) ::
          deadline | {:error, :cluster_timeout}
        when deadline: integer | :unknown
  def try_again(registry, _name, :unknown), do: now() + config!(registry).timeout

  def try_again(registry, name, deadline) do
    if now() < deadline do
      # The engine says two things, for which it has its time.
      Process.sleep(@pause)
      deadline
    else
      Report.timeout(registry, name)
      {:error, :cluster_timeout}
    end
  end

  @doc """
  Why a start that met `holder` failed, which is not found from here: its `reason`, or that the holder
  cannot be seen. Another node, whose supervisor was to start the child, may see more than this one.
  """
  @spec why_not_found(NativeRegistry.registry(), pid, reason :: term) :: reason :: term
  def why_not_found(registry, holder, reason) do
    if config(registry) == nil or node(holder) in [node() | Node.list()],
      do: reason,
      else: :cluster_timeout
  end

  @doc "Gives the winner of a conflict a moment to be seen from here."
  @spec await_winner(NativeRegistry.registry(), NativeRegistry.name()) :: :ok
  def await_winner(registry, name) do
    if NativeRegistry.whereis_name({registry, name}) == :undefined, do: Process.sleep(@short)
    :ok
  end

  # The same answer when a lookup on this node finds what was started, or that has ended: a child
  # may have been started on another node, of which the engine has yet to hear here.
  defp await_own_view(registry, name, {:ok, pid} = answer) when node(pid) != node() do
    monitor = Process.monitor(pid)
    seen? = seen?(registry, name, monitor, now() + config!(registry).timeout)
    Process.demonitor(monitor, [:flush])
    # It runs, and is found when it is asked for again.
    if seen?, do: answer, else: {:error, :cluster_timeout}
  end

  defp await_own_view(_registry, _name, answer), do: answer

  defp seen?(registry, name, monitor, deadline) do
    cond do
      NativeRegistry.whereis_name({registry, name}) != :undefined ->
        true

      now() >= deadline ->
        false

      true ->
        receive do
          {:DOWN, ^monitor, :process, _pid, _reason} -> true
        after
          @pause -> seen?(registry, name, monitor, deadline)
        end
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  @doc """
  Makes the engine and this node's table agree again.

  An engine decides conflicts as nodes meet, and tells of it once: who was cut off at that moment
  has not heard. It may also have been restarted, and know nothing. `rewrite?` has it told of all
  names, also of those that it seems to know. An engine with `retell/4` is told again of those that
  another member does not know.
  """
  @spec reconcile(NativeRegistry.registry(), rewrite? :: boolean) ::
          :ok | {:error, reason :: term}
  def reconcile(registry, rewrite? \\ false) do
    %{engine: engine} = cluster = config!(registry)
    records = NativeRegistry.select(registry, :_)

    differing =
      for {name, pid, _value} <- records,
          rewrite? or engine.whereis(registry, name) != pid,
          do: name

    with :ok <- settle_all(registry, differing, cluster),
         {:ok, unknown} <- retell_unknown(registry, records, cluster) do
      disagreed = length(differing) + unknown
      Report.reconciled(registry, %{names: length(records), disagreed: disagreed})
    end
  rescue
    # The registry has been stopped.
    ArgumentError -> :ok
  end

  defp settle_all(registry, names, cluster) do
    Enum.reduce_while(names, :ok, fn name, outcome ->
      case settle(registry, name, [], cluster.timeout, cluster) do
        :ok -> {:cont, outcome}
        {:error, :unsettled} = error -> {:cont, error}
        # One that does not answer will not answer about the next name either.
        {:error, _reason} = error -> {:halt, error}
      end
    end)
  end

  # How many names had to be told to the other members again. A node's engine agrees with its table and
  # the other members still know nothing of a name when only one link of several was cut: the node at
  # the link's other end took the name, the members believed it, and it gave the name back. When the
  # link is back, only its two ends hear of each other.
  defp retell_unknown(registry, records, %{engine: engine} = cluster) do
    if function_exported?(engine, :retell, 4) do
      held = for {name, pid, _value} <- records, do: {name, pid}
      {outcome, unknown} = Members.unknown(registry, engine, held, cluster.timeout)

      with :ok <- settle_all(registry, unknown, Map.put(cluster, :retell, true)),
           :ok <- outcome,
           do: {:ok, length(unknown)}
    else
      {:ok, 0}
    end
  end

  @doc """
  Called by an engine: which of two processes stays.

  Every node has to say the same of the same two, so it is that of the node whose name comes first,
  unless the configuration knows better.
  """
  @spec decide(NativeRegistry.registry(), NativeRegistry.name(), pid, pid) :: pid
  def decide(registry, name, one, other) do
    [first, second] = Enum.sort_by([one, other], &{node(&1), &1})

    case config(registry) do
      %{on_conflict: nil} -> first
      %{on_conflict: function} -> decide(function, registry, name, first, second)
      # An engine may ask a node where the registry does not run.
      nil -> decide_there(registry, name, first, second)
    end
  end

  defp decide({module, function}, registry, name, first, second) do
    case within(@decision, fn -> apply(module, function, [registry, name, first, second]) end) do
      winner when winner in [first, second] ->
        winner

      other ->
        Logger.error(
          "#{inspect({module, function})} was to answer one of #{inspect([first, second])} for " <>
            "the name #{inspect(name)} of #{inspect(registry)}, it answered: #{inspect(other)}"
        )

        first
    end
  end

  defp decide_there(registry, name, first, second) do
    nodes = for pid <- [first, second], node(pid) != node(), do: node(pid)

    Enum.find_value(nodes, first, fn node ->
      try do
        :erpc.call(node, Remote, :decide, [registry, name, first, second], @decision)
      catch
        _kind, _reason -> nil
      end
    end)
  end

  @doc "What `decide/4` says where the registry runs, else `nil`."
  @spec decide_if_open(NativeRegistry.registry(), NativeRegistry.name(), pid, pid) :: pid | nil
  def decide_if_open(registry, name, one, other) do
    if config(registry), do: decide(registry, name, one, other)
  end

  @doc "Called by an engine: the process has lost the name to another, and ends."
  @spec leave(NativeRegistry.registry(), NativeRegistry.name(), loser :: pid, winner :: pid) ::
          :ok
  def leave(registry, name, loser, winner) do
    # On its own node, where one can see whether it did.
    :erlang.spawn(node(loser), Remote, :leave, [registry, name, loser, winner])
    :ok
  end

  @doc "The same on the loser's own node."
  @spec leave_here(NativeRegistry.registry(), NativeRegistry.name(), pid, pid) :: :ok
  def leave_here(registry, name, loser, winner) do
    leave_here(registry, name, loser, winner, @looks_for_holder)
  end

  defp leave_here(_registry, _name, _loser, _winner, 0), do: :ok

  defp leave_here(registry, name, loser, winner, looks) do
    # Before it ends, so that nobody finds it here any more.
    case forget(registry, name, loser) do
      :held ->
        Report.conflict(registry, name, winner, loser)

        give_up(registry, name, loser)
        Leaving.leave(loser, {:shutdown, {:name_conflict, name, winner}})

      # It has given the name back, and nothing is to be held against it; or it is about to be told
      # that it has it.
      :not_held ->
        if Process.alive?(loser) and config(registry) != nil do
          Process.sleep(@not_yet)
          leave_here(registry, name, loser, winner, looks - 1)
        end
    end

    :ok
  end

  # Most engines have done that themselves.
  defp give_up(registry, name, loser) do
    with %{engine: engine} <- config(registry),
         ^loser <- engine.whereis(registry, name) do
      settle_later(registry, name, [loser], false)
    end
  end

  defp forget(registry, name, pid) do
    case Native.unregister(registry, name, pid) do
      :elsewhere -> :held
      answer when answer in [:yes, :no, :no_registry] -> :not_held
      refusal -> forget(registry, Name.prepare!(refusal, registry, name), pid)
    end
  end
end
