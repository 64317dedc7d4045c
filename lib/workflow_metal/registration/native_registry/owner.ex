defmodule WorkflowMetal.Registration.NativeRegistry.Owner do
  @moduledoc false
  # The registry's own process. It says when the table begins and when it ends; nothing else goes
  # through it. When it is killed, the table stays as it is, and the next owner under the same
  # supervisor finds it. When the supervisor ends, the native library, which monitors it, closes the
  # table; in a cluster `Cluster` closes it.
  #
  # A supervisor's order to stop does not say whether the child comes back: it is the same for a
  # restart by the strategy, for `terminate_child` and for the end of the supervisor. So the table is
  # only suspended: for its callers the registry is stopped, but it keeps what it holds. It is resumed
  # when the supervisor starts the same child again. It is closed when the supervisor has ended or does
  # not have that child any more. A process asks the supervisor for that, because it cannot be asked
  # while it starts or stops a child.

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Events, Meta, Native, Registry, Table}

  @has_telemetry Code.ensure_loaded?(:telemetry)

  # How often telemetry is told of the backlog of events, in milliseconds.
  @backlog 5_000

  # The time between two questions whether the supervisor still has the child, at first and, as it
  # doubles, at most, in milliseconds.
  @first_pause 5
  @longest_pause 100

  # An atom has at most 255 characters. The processes of a cluster append to this name.
  @length 240

  @typedoc "`process` is the name of the registry's own process."
  @type options :: %{
          registry: Registry.registry(),
          process: atom,
          listeners: [atom],
          meta: keyword,
          cluster: Cluster.t() | nil
        }

  # How long the registry's process may take to end in a cluster, in milliseconds: it lists its names,
  # to give them back to the engine.
  @shutdown 60_000

  @doc "The child that is started with these options."
  @spec child_spec(options) :: Supervisor.child_spec()
  def child_spec(%{process: process, cluster: cluster} = options),
    do: child_spec(process, {__MODULE__, :start_link, [options]}, cluster)

  @doc "The child that the module starts with these options, which are checked then."
  @spec child_spec(module, keyword) :: Supervisor.child_spec()
  def child_spec(module, options) do
    start = {module, :start_link, [options]}
    child_spec(Keyword.get(options, :name, module), start, Keyword.get(options, :cluster))
  end

  defp child_spec(id, start, nil), do: %{id: id, start: start}
  defp child_spec(id, start, _cluster), do: %{id: id, start: start, shutdown: @shutdown}

  @spec start_link(options) :: GenServer.on_start()
  def start_link(%{registry: registry, process: process} = options) do
    case GenServer.start_link(__MODULE__, options, name: process) do
      {:error, {:already_started, pid}} = error ->
        # The process may be the supervisor that has the registry.
        if Process.whereis(process) != pid or owner?(pid),
          do: error,
          else: {:error, {name_in_use(registry, process, pid), []}}

      other ->
        other
    end
  end

  # In the form in which a supervisor prints an exception.
  defp name_in_use(registry, process, pid) do
    ArgumentError.exception(
      "the registry #{inspect(registry)} needs the name #{inspect(process)} for its own process, " <>
        "but #{inspect(pid)} is registered under it"
    )
  end

  # A process that has just ended may have been one.
  defp owner?(pid) do
    case Process.info(pid, :dictionary) do
      {:dictionary, dictionary} -> dictionary[:"$initial_call"] == {__MODULE__, :init, 1}
      nil -> true
    end
  end

  @doc """
  The name of the process of a registry whose own name may be that of another process. No two
  registries have the same: `Foo` and `:Foo` are two atoms, and what is appended to them differs from
  nothing but the rest of the atom.
  """
  @spec name(Registry.registry()) :: atom
  def name(registry) do
    name = "#{registry}.NativeRegistry"

    if String.length(name) > @length do
      :"#{Base.encode16(:erlang.md5(Atom.to_string(registry)))}.NativeRegistry"
    else
      :"#{name}"
    end
  end

  @doc "Gives the names of this node to the other nodes of the cluster."
  @spec drain(Registry.registry(), timeout: non_neg_integer) ::
          {drained :: [Registry.name()], remaining :: [Registry.name()]}
  def drain(registry, options) do
    unless Table.clustered?(registry) do
      # Raises for a registry that does not run.
      _names = Table.count(registry)

      raise ArgumentError,
            "expected a registry with the option :cluster, whose names others can take, " <>
              "got: #{inspect(registry)}"
    end

    Cluster.drain(registry, options)
  end

  @impl GenServer
  def init(%{registry: registry, listeners: listeners, meta: meta, cluster: cluster}) do
    # So that `terminate/2` is called.
    Process.flag(:trap_exit, true)
    supervisor = parent()
    start = start_by(supervisor)
    # What a deleted child of this supervisor held is not this child's.
    if start == :new_child, do: close(registry, supervisor)

    case open(registry, supervisor, cluster) do
      :ok ->
        :ok = Events.listen(registry, listeners)
        # The registry may be one that was suspended, or whose owner was killed.
        for {key, value} <- meta, do: Meta.put_new(registry, key, value)
        if @has_telemetry, do: Process.send_after(self(), :backlog, @backlog)
        {:ok, %{registry: registry, supervisor: supervisor, start: start}}

      {:error, reason} ->
        {:stop, reason}
    end
  end

  # A call that is not answered would make its caller wait for ever.
  @impl GenServer
  def handle_call(_request, _from, state), do: {:reply, {:error, :unknown_call}, state}

  @impl GenServer
  def handle_cast(_request, state), do: {:noreply, state}

  @impl GenServer
  def handle_info(:backlog, %{registry: registry} = state) do
    with %{} = info <- Native.info(registry) do
      measurements = Map.take(info, [:backlog, :events_lost])
      event = [:workflow_metal, :registry, :backlog]
      # By `apply`: without Hex telemetry is no dependency, and Mix would warn of the call.
      apply(:telemetry, :execute, [event, measurements, %{registry: registry}])
    end

    Process.send_after(self(), :backlog, @backlog)
    {:noreply, state}
  end

  def handle_info(_message, state), do: {:noreply, state}

  # Every reason but a supervisor's order to stop is an accident, which must not cost a name. A
  # registry without a supervisor is stopped by its caller.
  @impl GenServer
  def terminate(reason, state) do
    case {reason, state.start} do
      {:normal, :no_supervisor} -> close(state.registry, state.supervisor)
      {:shutdown, start} -> stop(start, state)
      {{:shutdown, _reason}, start} -> stop(start, state)
      _accident -> :ok
    end
  end

  defp stop(start, %{registry: registry, supervisor: supervisor})
       when start in [:new_child, :child] do
    with suspended when is_tuple(suspended) <- suspend(registry, supervisor) do
      spawn(fn ->
        await_return(registry, supervisor, @first_pause)
        close_suspended(registry, supervisor, suspended)
      end)
    end
  end

  defp stop(_start, %{registry: registry, supervisor: supervisor}),
    do: close(registry, supervisor)

  # Returns when the child runs again, or has been deleted, or the supervisor has ended.
  defp await_return(registry, supervisor, pause) do
    if stopped_child?(registry, supervisor) do
      monitor = Process.monitor(supervisor)

      receive do
        {:DOWN, ^monitor, :process, ^supervisor, _reason} -> :ok
      after
        pause ->
          Process.demonitor(monitor, [:flush])
          await_return(registry, supervisor, min(2 * pause, @longest_pause))
      end
    end
  end

  # Whether the supervisor has the registry as a child that does not run. The supervisor answers when
  # it has finished what it does, a restart for instance.
  defp stopped_child?(registry, supervisor) do
    Enum.any?(Supervisor.which_children(supervisor), fn {id, child, _type, _modules} ->
      not is_pid(child) and
        with {:ok, %{start: start}} <- :supervisor.get_childspec(supervisor, id),
             do: starts?(start, registry)
    end)
  catch
    # The supervisor has ended.
    :exit, _reason -> false
  end

  defp starts?({__MODULE__, :start_link, [%{registry: registry}]}, registry), do: true

  # The start of a child of `Registry` or of the adapter.
  defp starts?({_module, :start_link, [options]}, registry) when is_list(options),
    do: Keyword.keyword?(options) and Keyword.get(options, :name) == registry

  defp starts?(_start, _registry), do: false

  defp open(registry, supervisor, cluster) do
    kind = if cluster, do: Cluster.kind(cluster), else: :local

    case Table.open(registry, supervisor, kind) do
      :ok ->
        if cluster || clustered?(registry),
          do: Cluster.open(registry, supervisor, cluster),
          else: :ok

      other ->
        if Process.alive?(other) do
          {:error, {:already_started, other}}
        else
          # Its end closes the registry, too, but that may take a moment longer.
          close(registry, other)
          open(registry, supervisor, cluster)
        end
    end
  end

  defp close(registry, supervisor) do
    if clustered?(registry),
      do: Cluster.close(registry, supervisor),
      else: Table.close(registry, supervisor)
  end

  defp suspend(registry, supervisor) do
    if clustered?(registry),
      do: Cluster.suspend(registry, supervisor),
      else: Table.suspend(registry, supervisor)
  end

  defp close_suspended(registry, supervisor, suspended) do
    if clustered?(registry),
      do: Cluster.close_suspended(registry, supervisor, suspended),
      else: Table.close_suspended(registry, suspended)
  end

  # Whether a registry of this name is part of a cluster, or was and has not been closed there yet. The
  # table cannot tell of one that is suspended. `Cluster.Config` has this term; it is read here so that
  # a registry of this node alone enters no module of the cluster.
  defp clustered?(registry), do: :persistent_term.get({Cluster.Config, registry}, nil) != nil

  # What made the supervisor, which waits for this process, start it:
  #
  #   * `:new_child`: a call of `Supervisor.start_child/2`;
  #   * `:child`: it has this child, and may start it again after it has stopped it;
  #   * `:no_return`: a DynamicSupervisor, which does not do that;
  #   * `:no_supervisor`: it is a process of another kind.
  #
  # Only its stack tells.
  defp start_by(supervisor) do
    {:current_stacktrace, stack} =
      Process.info(supervisor, :current_stacktrace) || {:current_stacktrace, []}

    functions = for {:supervisor, function, _arity, _location} <- stack, do: function

    cond do
      :handle_start_child in functions -> :new_child
      functions == [] -> if dynamic?(stack), do: :no_return, else: :no_supervisor
      simple_one_for_one?(functions) -> :no_return
      true -> :child
    end
  end

  defp dynamic?(stack) do
    Enum.any?(stack, fn {module, _function, _arity, _location} -> module == DynamicSupervisor end)
  end

  defp simple_one_for_one?(functions) do
    :do_start_child_i in functions and :do_start_child not in functions
  end

  defp parent do
    case Process.get(:"$ancestors") do
      [pid | _rest] when is_pid(pid) -> pid
      [name | _rest] when is_atom(name) -> Process.whereis(name)
    end
  end
end
