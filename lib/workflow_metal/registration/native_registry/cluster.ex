defmodule WorkflowMetal.Registration.NativeRegistry.Cluster do
  @moduledoc false
  # The part of a registry that reaches beyond this node. The table has the names of this node's
  # processes and nothing else is asked about them; this is about all others, and about who may have
  # a name. What no engine need know of is here: the rule of conflicts, how a process leaves, and how
  # long anybody waits.

  require Logger

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Name, Native}

  @type t :: %{
          engine: module,
          timeout: pos_integer,
          on_conflict: {module, atom} | nil,
          mirrors: atom
        }

  @engines %{global: Cluster.Global, syn: Cluster.Syn}

  @timeout 5_000

  # How long a process that traps exits gets to leave, in milliseconds.
  @patience 5_000

  # Between two looks at what the engine says, in milliseconds.
  @pause 1

  # How long the function of a configuration may take to decide a conflict.
  @decision 1_000

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
        %{engine: engine, timeout: timeout, on_conflict: on_conflict, mirrors: nil}
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

  @doc "Makes this node part of the registry's cluster."
  @spec open(NativeRegistry.registry(), t | nil) :: :ok
  def open(_registry, nil), do: :ok

  def open(registry, cluster) do
    # The engine's events want to know whose they are.
    if config(registry) == nil, do: :persistent_term.put(key(registry), cluster)
    # To put what is there already costs nothing; anything else has all processes looked through.
    :persistent_term.put(key(registry), %{cluster | mirrors: cluster.engine.start(registry)})
  end

  @doc "Gives names back to the engine, without anybody waiting for it."
  @spec close(NativeRegistry.registry(), [{NativeRegistry.name(), pid}]) :: :ok
  def close(registry, held) do
    Cluster.Drain.forget(registry)

    with %{engine: engine, timeout: timeout} <- config(registry) do
      :persistent_term.erase(key(registry))

      spawn(fn -> for {name, pid} <- held, do: engine.unregister(registry, name, pid, timeout) end)
    end

    :ok
  end

  @doc "What was configured for the registry; `nil` when it is this node's alone."
  @spec config(NativeRegistry.registry()) :: t | nil
  def config(registry), do: :persistent_term.get(key(registry), nil)

  defp config!(registry), do: config(registry) || Name.unknown_registry!(registry)

  defp key(registry), do: {__MODULE__, registry}

  @doc "Who holds a name that no process of this node does by the table."
  @spec whereis(NativeRegistry.registry(), NativeRegistry.name()) :: pid | :undefined
  def whereis(registry, name) do
    case config!(registry).engine.whereis(registry, name) do
      pid when is_pid(pid) -> if alive?(pid), do: pid, else: :undefined
      :undefined -> :undefined
    end
  end

  @doc "The same when the mirror says it is `pid`."
  @spec whereis(NativeRegistry.registry(), NativeRegistry.name(), pid) :: pid | :undefined
  def whereis(registry, name, pid) do
    # Without the process that mirrors, nobody tells of what has gone meanwhile.
    if Process.whereis(config!(registry).mirrors), do: pid, else: whereis(registry, name)
  end

  @doc "Whether a process runs, as far as this node can tell."
  @spec alive?(pid) :: boolean
  def alive?(pid), do: node(pid) != node() or Process.alive?(pid)

  @doc "The engine's word on who may have the name."
  @spec register(NativeRegistry.registry(), NativeRegistry.name(), pid) ::
          :yes | :no | {:error, reason :: term}
  def register(registry, name, pid) do
    %{engine: engine, timeout: timeout} = config!(registry)
    engine.register(registry, name, pid, timeout)
  end

  @doc "Tells the engine that the process has given the name back."
  @spec unregister(NativeRegistry.registry(), NativeRegistry.name(), pid) :: :ok
  def unregister(registry, name, pid) do
    case config(registry) do
      nil -> :ok
      %{engine: engine, timeout: timeout} -> engine.unregister(registry, name, pid, timeout)
    end
  end

  @doc "The value of a name that another node's process holds; asks that node."
  @spec lookup(NativeRegistry.registry(), NativeRegistry.name(), pid) ::
          [{pid, NativeRegistry.value()}]
  def lookup(registry, name, pid) do
    arguments = [registry, name, name]
    :erpc.call(node(pid), NativeRegistry, :lookup_here, arguments, config!(registry).timeout)
  catch
    # It is gone, or about to be.
    _kind, _reason -> []
  end

  @doc """
  What `work` answers; `{:error, :cluster_timeout}` when that takes longer than `timeout`, and then
  `undo` is called with what it answers in the end. `{:error, reason}` when it fails.
  """
  @spec within(pos_integer, (() -> answer), (answer -> term)) ::
          answer | {:error, reason :: term}
        when answer: term
  def within(timeout, work, undo \\ fn _answer -> :ok end) do
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
        Kernel.send(worker, {reply_to, :late})
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
      {:DOWN, ^monitor, :process, ^caller, _reason} -> undo.(answer)
    end
  end

  @doc """
  Starts a child that registers the name, so that the supervisor outlives the loss of it.

  A supervisor that restarts a child whose name another node has taken meanwhile fails, again and
  again until it gives up. Such a child is left out of the supervisor instead.
  """
  @spec start_child(Supervisor.supervisor(), {module, keyword}) ::
          DynamicSupervisor.on_start_child()
  def start_child(supervisor, child) do
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
        # A supervisor that restarts what may not be started here would do so until it gives up.
        {:error, {:shutdown, {:draining, _name}}} = error ->
          Kernel.send(reply_to, {reply_to, error})
          :ignore

        {:error, {:already_started, _pid}} = error ->
          # It comes before the supervisor's answer, as that has the same sender.
          Kernel.send(reply_to, {reply_to, error})
          :ignore

        other ->
          other
      end
    end
  end

  @doc """
  The same answer, of a start, when a lookup on this node finds what was started, or that has ended.

  A child may have been started on another node, of which the engine has yet to hear here.
  """
  @spec await_own_view(NativeRegistry.registry(), NativeRegistry.name(), answer) :: answer
        when answer: NativeRegistry.on_start_child()
  def await_own_view(registry, name, {:ok, pid} = answer) when node(pid) != node() do
    monitor = Process.monitor(pid)
    await_own_view(registry, name, monitor, now() + config!(registry).timeout)
    Process.demonitor(monitor, [:flush])
    answer
  end

  def await_own_view(_registry, _name, answer), do: answer

  defp await_own_view(registry, name, monitor, deadline) do
    if NativeRegistry.whereis_name({registry, name}) == :undefined and now() < deadline do
      receive do
        {:DOWN, ^monitor, :process, _pid, _reason} -> :ok
      after
        @pause -> await_own_view(registry, name, monitor, deadline)
      end
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  @doc """
  Makes the engine and this node's processes agree again, after nodes have come.

  An engine decides conflicts as nodes meet, and tells of it once: who was cut off at that moment
  has not heard. So a name that the engine does not know is registered again, and a process whose
  name it gave to another leaves.
  """
  @spec reconcile(NativeRegistry.registry()) :: :ok
  def reconcile(registry) do
    for {name, pid, _value} <- NativeRegistry.select(registry, :_),
        do: reconcile(registry, name, pid)

    :ok
  rescue
    # The registry has been stopped.
    ArgumentError -> :ok
  end

  defp reconcile(registry, name, pid) do
    engine = config!(registry).engine

    with true <- Process.alive?(pid),
         true <- engine.whereis(registry, name) == pid or register(registry, name, pid) == :no,
         other when is_pid(other) and other != pid <- engine.whereis(registry, name) do
      leave(registry, name, pid, other)
    end
  end

  @doc "Called by an engine: a process of another node holds the name."
  @spec mirror(NativeRegistry.registry(), NativeRegistry.name(), pid) :: :ok
  def mirror(registry, name, pid), do: tell(&Native.mirror/3, registry, name, pid)

  @doc "Called by an engine: it does not any more."
  @spec unmirror(NativeRegistry.registry(), NativeRegistry.name(), pid) :: :ok
  def unmirror(registry, name, pid), do: tell(&Native.unmirror/3, registry, name, pid)

  defp tell(native, registry, name, pid) do
    case native.(registry, name, :erlang.term_to_binary(pid)) do
      :ok -> :ok
      :no_registry -> :ok
      refusal -> tell(native, registry, Name.prepare!(refusal, registry, name), pid)
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

    with %{on_conflict: {module, function}} <- config(registry) do
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
    else
      _no_function -> first
    end
  end

  @doc "Called by an engine: the process has lost the name to another, and ends."
  @spec leave(NativeRegistry.registry(), NativeRegistry.name(), loser :: pid, winner :: pid) ::
          :ok
  def leave(registry, name, loser, winner) do
    # On its own node, where one can see whether it did.
    :erlang.spawn(node(loser), __MODULE__, :leave_here, [registry, name, loser, winner])
    :ok
  end

  @doc false
  def leave_here(registry, name, loser, winner) do
    # Before it ends, so that nobody finds it here any more.
    forget(registry, name, loser)

    Logger.warning(
      "the name #{inspect(name)} of #{inspect(registry)} was held twice in the cluster: " <>
        "#{inspect(winner)} of #{node(winner)} stays, #{inspect(loser)} of #{node(loser)} leaves"
    )

    monitor = Process.monitor(loser)
    reason = {:shutdown, {:name_conflict, name, winner}}

    # A process that traps exits takes a signal of ours for a message.
    case Process.info(loser, :trap_exit) do
      {:trap_exit, true} -> terminate(loser, reason)
      _other -> Process.exit(loser, reason)
    end

    receive do
      {:DOWN, ^monitor, :process, ^loser, _reason} -> :ok
    after
      @patience -> Process.exit(loser, :kill)
    end
  end

  defp terminate(loser, reason) do
    :sys.terminate(loser, reason, @patience)
  catch
    :exit, _reason -> :ok
  end

  defp forget(registry, name, pid) do
    case Native.unregister(registry, name, pid) do
      answer when answer in [:yes, :no, :elsewhere, :no_registry] -> :ok
      refusal -> forget(registry, Name.prepare!(refusal, registry, name), pid)
    end
  end
end
