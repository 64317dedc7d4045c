defmodule WorkflowMetal.Registration.NativeRegistry.Owner do
  @moduledoc false
  # The registry's own process. It says when the table begins and when it ends; nothing else goes
  # through it. Should it be killed, the table stays as it is and the next owner under the same
  # supervisor finds it. Should the supervisor end, the NIF, which monitors it, closes the table; in a
  # cluster it is `Cluster.Follower` that does.
  #
  # A supervisor's order to stop does not say whether the child comes back: it is the same for a
  # restart by the strategy, for `terminate_child` and for the end of the supervisor. So the table is
  # only suspended: to its callers the registry is stopped, but it keeps what it holds. It is resumed
  # when the supervisor starts the same child again, and closed when the supervisor has ended or has
  # no such child any more, which a process asks it for (it cannot be asked by who stops or starts).

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Native}

  @has_telemetry Code.ensure_loaded?(:telemetry)

  # How often the backlog of events is told by telemetry, in milliseconds.
  @backlog 5_000

  # Between two questions to the supervisor whether it has deleted the child, in milliseconds: the
  # first time, and the longest it gets by doubling.
  @first_pause 5
  @longest_pause 100

  # The most characters of a name: an atom may have 255, and `Cluster.Follower` appends to it.
  @length 240

  @spec start_link(atom, [atom], Cluster.t() | nil) :: GenServer.on_start()
  def start_link(registry, listeners, cluster) do
    name = name(registry)

    case GenServer.start_link(__MODULE__, {registry, listeners, cluster}, name: name) do
      {:error, {:already_started, pid}} = error ->
        # It may be the supervisor that has the registry.
        if Process.whereis(name) != pid or owner?(pid),
          do: error,
          else: {:error, {name_in_use(registry, name, pid), []}}

      other ->
        other
    end
  end

  # As a supervisor prints an exception.
  defp name_in_use(registry, name, pid) do
    ArgumentError.exception(
      "the registry #{inspect(registry)} needs the name #{inspect(name)} for its own process, " <>
        "but #{inspect(pid)} is registered under it"
    )
  end

  # One that has just ended may have been one.
  defp owner?(pid) do
    case Process.info(pid, :dictionary) do
      {:dictionary, dictionary} -> dictionary[:"$initial_call"] == {__MODULE__, :init, 1}
      nil -> true
    end
  end

  @doc """
  The name of a registry's own process. No two registries have the same: `Foo` and `:Foo` are two
  atoms, and what is appended to them differs from nothing but the rest of the atom.
  """
  @spec name(atom) :: atom
  def name(registry) do
    name = "#{registry}.NativeRegistry"

    if String.length(name) > @length do
      :"#{Base.encode16(:erlang.md5(Atom.to_string(registry)))}.NativeRegistry"
    else
      :"#{name}"
    end
  end

  @impl GenServer
  def init({registry, listeners, cluster}) do
    # So that `terminate/2` is called.
    Process.flag(:trap_exit, true)
    supervisor = parent()
    start = start_by(supervisor)
    # What a deleted child of this supervisor held is not this one's.
    if start == :new_child, do: Cluster.close(registry, supervisor)

    case open(registry, supervisor, cluster != nil) do
      :ok ->
        :ok = Cluster.open(registry, supervisor, cluster)
        :ok = Native.listen(registry, listeners)
        if @has_telemetry, do: Process.send_after(self(), :backlog, @backlog)
        {:ok, %{registry: registry, supervisor: supervisor, may_return?: start != :no_return}}

      {:error, reason} ->
        {:stop, reason}
    end
  end

  # Nobody has a reason to talk to it; what comes all the same is no reason to end.
  @impl GenServer
  def handle_call(_message, _from, state), do: {:noreply, state}

  @impl GenServer
  def handle_cast(_message, state), do: {:noreply, state}

  @impl GenServer
  def handle_info(:backlog, %{registry: registry} = state) do
    with %{} = info <- Native.info(registry) do
      measurements = Map.take(info, [:backlog, :events_lost])
      event = [:workflow_metal, :registry, :backlog]
      # By `apply`: without Hex, telemetry is no dependency that Mix knows of, and it would warn.
      apply(:telemetry, :execute, [event, measurements, %{registry: registry}])
    end

    Process.send_after(self(), :backlog, @backlog)
    {:noreply, state}
  end

  def handle_info(_message, state), do: {:noreply, state}

  # Anything but the supervisor's order to stop is an accident, which must not cost a name.
  @impl GenServer
  def terminate(:shutdown, state), do: stop(state)
  def terminate({:shutdown, _reason}, state), do: stop(state)
  def terminate(_reason, _state), do: :ok

  defp stop(%{registry: registry, supervisor: supervisor, may_return?: true}) do
    with suspended when is_tuple(suspended) <- Cluster.suspend(registry, supervisor) do
      spawn(fn ->
        await_return(registry, supervisor, @first_pause)
        Cluster.close_suspended(registry, supervisor, suspended)
      end)
    end
  end

  defp stop(%{registry: registry, supervisor: supervisor}),
    do: Cluster.close(registry, supervisor)

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

  # Whether the supervisor has the registry as a child that does not run. It answers when it is done
  # with what it does: a restart, say.
  defp stopped_child?(registry, supervisor) do
    Enum.any?(Supervisor.which_children(supervisor), fn {id, child, _type, _modules} ->
      not is_pid(child) and
        match?(
          {:ok, %{start: {__MODULE__, :start_link, [^registry | _options]}}},
          :supervisor.get_childspec(supervisor, id)
        )
    end)
  catch
    # It has ended.
    :exit, _reason -> false
  end

  defp open(registry, supervisor, clustered?) do
    case Native.open(registry, supervisor, clustered?) do
      :ok ->
        :ok

      other ->
        if Process.alive?(other) do
          {:error, {:already_started, other}}
        else
          # Its notice is on the way; whoever closes first does.
          Cluster.close(registry, other)
          open(registry, supervisor, clustered?)
        end
    end
  end

  # Why the supervisor, which waits for us, starts us. `:new_child`: `Supervisor.start_child` has asked
  # for it. `:child`: it has us as a child, and may start us again after it has stopped us.
  # `:no_return`: it does not do that, as a DynamicSupervisor, or is no supervisor. Nothing but its
  # stack tells.
  defp start_by(supervisor) do
    {:current_stacktrace, stack} =
      Process.info(supervisor, :current_stacktrace) || {:current_stacktrace, []}

    functions = for {:supervisor, function, _arity, _location} <- stack, do: function

    cond do
      :handle_start_child in functions -> :new_child
      functions == [] or simple_one_for_one?(functions) -> :no_return
      true -> :child
    end
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
