defmodule WorkflowMetal.Registration.NativeRegistry.Child do
  @moduledoc false
  # Starting the process of a name under a supervisor, when it does not run yet. Others may start and
  # end the same process meanwhile, so a start that fails is tried again while that can be the reason.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Local, Registry, Table}

  @has_telemetry Code.ensure_loaded?(:telemetry)

  # How often a child is started again that was killed in its `init`, or whose name had a holder that
  # is gone. When others start and kill the same name without pause on busy processors, one start in
  # seven meets a holder that is gone.
  @killed 4
  @gone 9

  # How often it is started again after a conflict. A conflict ends with another process under the
  # name.
  @conflicts 100

  # The adapter's name is part of what is a via tuple. Nothing of the module is called from here.
  @adapter :"Elixir.WorkflowMetal.Registration.NativeRegistry"

  @typep registry :: Registry.registry()
  @typep name :: Registry.name()

  @typedoc """
  What the error of a start means: the process that has the name, an error for the caller, or that it
  is worth another try: the child was killed, the holder of the name is gone, or two nodes had a
  conflict over the name.
  """
  @type reading ::
          {:ok, pid}
          | {:error, term}
          | :killed
          | {:gone, holder :: pid | :undefined}
          | :conflict

  # telemetry may come to the code path, or leave it, after this was compiled.
  @doc false
  def __mix_recompile__?, do: Code.ensure_loaded?(:telemetry) != @has_telemetry

  @doc "The process that holds the name, or a new child of the supervisor."
  @spec start(registry, name, Supervisor.supervisor(), module | {module, keyword}) ::
          NativeRegistry.on_start_child()
  if @has_telemetry do
    def start(registry, name, supervisor, child_spec) do
      metadata = %{registry: registry, name: name, supervisor: supervisor}

      span = fn ->
        result = find_or_start(registry, name, supervisor, child_spec)
        {result, Map.put(metadata, :result, result)}
      end

      # By `apply`: Mix warns of a module that is no dependency, and without Hex there is none.
      apply(:telemetry, :span, [[:workflow_metal, :registry, :start_child], metadata, span])
    end
  else
    def start(registry, name, supervisor, child_spec) do
      find_or_start(registry, name, supervisor, child_spec)
    end
  end

  defp find_or_start(registry, name, supervisor, child_spec) do
    {module, arguments} = check!(child_spec)

    case Table.whereis(registry, name) do
      :undefined ->
        via = {:via, @adapter, {registry, name}}
        child = {module, Keyword.put(arguments, :name, via)}

        if Local.clustered?(registry) == true,
          do: start_in_cluster(registry, name, supervisor, child),
          else: start_here(registry, name, supervisor, child)

      pid ->
        {:ok, pid}
    end
  end

  defp start_here(registry, name, supervisor, child) do
    start = fn -> DynamicSupervisor.start_child(supervisor, child) end
    start_anew(registry, name, start, &refused(registry, name, &1))
  end

  # The errors of a cluster are read first, by `read`.
  defp start_in_cluster(registry, name, supervisor, child) do
    Cluster.start_child(registry, name, supervisor, child, fn start, read ->
      start_anew(registry, name, start, &(read.(&1) || refused(registry, name, &1)))
    end)
  end

  defp check!(module) when is_atom(module), do: {module, []}

  defp check!({module, arguments} = child_spec) when is_atom(module) do
    if Keyword.keyword?(arguments), do: child_spec, else: bad_child_spec!(child_spec)
  end

  defp check!(child_spec), do: bad_child_spec!(child_spec)

  @spec bad_child_spec!(term) :: no_return
  defp bad_child_spec!(child_spec) do
    raise ArgumentError,
          "expected a child spec that is a module or {module, keyword}, got: " <>
            inspect(child_spec)
  end

  @doc """
  What `start` answers, which is called again while there is a reason to. `refused` says what the error
  of a start means.
  """
  @spec start_anew(registry, name, start, refused :: (reason :: term -> reading)) ::
          NativeRegistry.on_start_child()
        when start: (() -> DynamicSupervisor.on_start_child())
  def start_anew(registry, name, start, refused) do
    start_anew({registry, name, start, refused}, {@killed, @gone, @conflicts}, nil)
  end

  # `last` is the holder that was gone the time before.
  defp start_anew({_registry, _name, start, refused} = job, attempts, last) do
    case start.() do
      {:ok, pid} -> {:ok, pid}
      {:ok, pid, _info} -> {:ok, pid}
      {:error, reason} -> failed(refused.(reason), reason, job, attempts, last)
      other -> other
    end
  end

  defp failed({:ok, pid}, _reason, _job, _attempts, _last), do: {:ok, pid}
  defp failed({:error, reason}, _reason, _job, _attempts, _last), do: {:error, reason}

  defp failed(:killed, _reason, job, {killed, gone, conflicts} = attempts, last)
       when killed > 0 do
    pause(attempts)
    find_or_start_anew(job, {killed - 1, gone, conflicts}, last)
  end

  # A registry does not name a process twice that has ended, so it is the child's own word.
  defp failed({:gone, last}, reason, _job, _attempts, last) when is_pid(last),
    do: {:error, reason}

  defp failed({:gone, holder}, _reason, job, {killed, gone, conflicts} = attempts, _last)
       when gone > 0 do
    pause(attempts)
    find_or_start_anew(job, {killed, gone - 1, conflicts}, holder)
  end

  defp failed(:conflict, _reason, job, {killed, gone, conflicts}, last) when conflicts > 0,
    do: find_or_start_anew(job, {killed, gone, conflicts - 1}, last)

  defp failed(_no_attempt_left, reason, _job, _attempts, _last), do: {:error, reason}

  # Another caller may have started the child during the pause. A lookup runs no `init`.
  defp find_or_start_anew({registry, name, _start, _refused} = job, attempts, last) do
    with :undefined <- Table.whereis(registry, name) do
      start_anew(job, attempts, last)
    else
      pid -> {:ok, pid}
    end
  end

  # No pause the first time. Afterwards whoever kills the child again and again gets time to do
  # something else.
  defp pause({@killed, @gone, _conflicts}), do: :ok
  defp pause({killed, gone, _conflicts}), do: Process.sleep(@killed - killed + @gone - gone)

  @doc "What the error of a start means in a registry that is this node's alone."
  @spec refused(registry, name, reason :: term) :: reading
  def refused(registry, name, {:already_started, holder} = reason) do
    case Table.whereis(registry, name) do
      pid when is_pid(pid) -> {:ok, pid}
      :undefined -> refused_by(holder, reason)
    end
  end

  # The child had the name already, and was killed before its `init` was done.
  def refused(_registry, _name, :killed), do: :killed
  def refused(_registry, _name, reason), do: {:error, reason}

  # A process of this node that lives has another name, which is why the child did not start. OTP says
  # `:undefined` when the holder has ended before it could be named.
  defp refused_by(holder, reason) when is_pid(holder) and node(holder) == node() do
    if Process.alive?(holder), do: {:error, reason}, else: {:gone, holder}
  end

  defp refused_by(holder, _reason) when is_pid(holder) or holder == :undefined,
    do: {:gone, holder}

  defp refused_by(_holder, reason), do: {:error, reason}
end
