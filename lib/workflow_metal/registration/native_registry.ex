defmodule WorkflowMetal.Registration.NativeRegistry do
  @moduledoc """
  A process registry whose lookups and registrations are native code, as an adapter of WorkflowMetal.

  Each name is held by at most one process. Names are any term and are matched by `===`: `1` and
  `1.0` are two names, a map is the same name whatever way it was built. A name is free again as
  soon as its holder has ended, and no lookup answers a process that has.

  ## With WorkflowMetal

      defmodule MyApp.Workflows do
        use WorkflowMetal.Application, registry: WorkflowMetal.Registration.NativeRegistry
      end

  Start `MyApp.Workflows` in your supervision tree as before; everything else stays as it is.

  ## By itself

  A registry needs no WorkflowMetal. Start it under a supervisor and name processes by via tuples:

      iex> {:ok, _supervisor} =
      ...>   Supervisor.start_link(
      ...>     [{WorkflowMetal.Registration.NativeRegistry, name: MyApp.Names}],
      ...>     strategy: :one_for_one
      ...>   )
      iex> name = {:via, WorkflowMetal.Registration.NativeRegistry, {MyApp.Names, {"invoice", 17}}}
      iex> {:ok, pid} = Agent.start_link(fn -> 0 end, name: name)
      iex> Agent.get_and_update(name, fn count -> {count, count + 1} end)
      0
      iex> GenServer.whereis(name) == pid
      true

  ## What it survives

  The table of names belongs to the VM, not to a process. The registry's own process only says
  when it begins and ends: it may be killed and restarted at any time, while names are held,
  looked up and taken. The table goes when the supervisor of that process stops it, or ends
  itself; from then on functions that are given the registry raise `ArgumentError`.

  ## Limits

  A name may take up to 64 KiB in canonical form and be nested up to 256 levels deep; what is
  beyond raises `ArgumentError`. The canonical form has 4 bytes for an atom or a small integer
  (0 to 268,435,455), 9 for any other integer of 64 bits, 1 to 5 more than its contents for a
  binary or a tuple, and 17 for a UUID written in lower case.

  Holders are processes of this node.

  ## Options

  `child_spec/2` and `child_spec/1` know no options besides `:name` yet. Those for an application
  of WorkflowMetal, which takes none itself, stand in the configuration:

      config :workflow_metal_native_registry, MyApp.Workflows, []
  """

  alias WorkflowMetal.Registration.NativeRegistry.{Name, Native, Owner}

  @adapter WorkflowMetal.Registration.Adapter
  @has_adapter Code.ensure_loaded?(@adapter)

  if @has_adapter do
    @behaviour @adapter
  end

  # WorkflowMetal may come to the code path, or leave it, after this was compiled.
  @doc false
  def __mix_recompile__?, do: Code.ensure_loaded?(@adapter) != @has_adapter

  @typedoc "The name of a registry: for WorkflowMetal, that of the application."
  @type registry :: atom

  @typedoc "What the via tuple holds."
  @type via_name :: {registry, name :: term}

  @typedoc "What WorkflowMetal hands to every call of its adapter."
  @type adapter_meta :: %{registry: registry}

  @type on_start_child :: {:ok, pid} | {:error, term} | :ignore

  @options [:name]

  # How often `start_child/4` starts over when the holder it is told of is gone. Each time the
  # name was free for a moment and somebody else took it and died; a storm of that has ended long
  # before.
  @attempts 1_000

  @doc """
  The registry's process as a child of `application`, and what its other functions want to know.

  `config` goes before what the configuration of `:workflow_metal_native_registry` has for the
  application. An unknown option raises `ArgumentError`.
  """
  @spec child_spec(registry, keyword) :: {:ok, Supervisor.child_spec(), adapter_meta}
  def child_spec(application, config) when is_atom(application) do
    configured = Application.get_env(:workflow_metal_native_registry, application, [])
    options = configured |> Keyword.merge(config) |> Keyword.put(:name, application)
    {:ok, child_spec(options), %{registry: application}}
  end

  @doc """
  A registry as a child of a supervisor.

  The only option is `:name`, an atom, which is required: the name of the registry. An unknown
  option raises `ArgumentError`.
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    for {option, _value} <- options, option not in @options do
      raise ArgumentError,
            "unknown option #{inspect(option)} for the registry #{inspect(options[:name])}, " <>
              "the known options are: #{inspect(@options)}"
    end

    case Keyword.fetch(options, :name) do
      {:ok, name} when is_atom(name) and name not in [nil, true, false] ->
        %{id: Owner.name(name), start: {Owner, :start_link, [name]}}

      _missing ->
        raise ArgumentError, "expected :name to be an atom, got: #{inspect(options[:name])}"
    end
  end

  @doc """
  The via tuple of a name. It holds atoms and the name only, so it means the same on every node
  and whatever has been restarted.
  """
  @spec via_tuple(adapter_meta, term) :: {:via, module, via_name}
  def via_tuple(%{registry: registry}, name), do: {:via, __MODULE__, {registry, name}}

  @doc """
  The process that holds the name, or a new child of the DynamicSupervisor `supervisor`.

  A running process is answered without asking the supervisor. A new child is `module` or
  `{module, keyword}`, with the via tuple put in as `:name`. The child's own `{:error, reason}` and
  `:ignore` are passed on. When others start and end the same name meanwhile, it is tried again, so
  that the answer is a process that lives or has just ended.

  Raises `ArgumentError` when `child_spec` is neither a module nor `{module, keyword}`.
  """
  @spec start_child(
          adapter_meta,
          term,
          Supervisor.supervisor(),
          module | {module, keyword}
        ) :: on_start_child
  def start_child(%{registry: registry} = meta, name, supervisor, child_spec) do
    {module, arguments} = check_child_spec!(child_spec)

    case whereis(registry, name) do
      :undefined ->
        arguments = Keyword.put(arguments, :name, via_tuple(meta, name))
        start_child_anew(supervisor, {module, arguments}, @attempts)

      pid ->
        {:ok, pid}
    end
  end

  defp check_child_spec!(module) when is_atom(module), do: {module, []}

  defp check_child_spec!({module, arguments} = child_spec) when is_atom(module) do
    if Keyword.keyword?(arguments), do: child_spec, else: bad_child_spec!(child_spec)
  end

  defp check_child_spec!(child_spec), do: bad_child_spec!(child_spec)

  @spec bad_child_spec!(term) :: no_return
  defp bad_child_spec!(child_spec) do
    raise ArgumentError,
          "expected a child spec that is a module or {module, keyword}, got: " <>
            inspect(child_spec)
  end

  defp start_child_anew(supervisor, child_spec, attempts) do
    case DynamicSupervisor.start_child(supervisor, child_spec) do
      {:ok, pid} ->
        {:ok, pid}

      {:ok, pid, _info} ->
        {:ok, pid}

      {:error, {:already_started, pid}} = error ->
        cond do
          is_pid(pid) and (attempts == 1 or alive?(pid)) -> {:ok, pid}
          attempts == 1 -> error
          true -> start_child_anew(supervisor, child_spec, attempts - 1)
        end

      # The child had the name already and was killed before its `init` was done.
      {:error, :killed} when attempts > 1 ->
        start_child_anew(supervisor, child_spec, attempts - 1)

      other ->
        other
    end
  end

  defp alive?(pid), do: node(pid) != node() or Process.alive?(pid)

  @doc """
  The process that holds the name, or `:undefined`.

  A process that the caller has sent an exit signal, and that has ended of it, is not answered any
  more, as `Process.alive?/1` would see it.
  """
  @spec whereis_name(adapter_meta, term) :: pid | :undefined
  def whereis_name(%{registry: registry}, name), do: whereis(registry, name)

  @doc "The same by what the via tuple holds; called by OTP."
  @spec whereis_name(via_name) :: pid | :undefined
  def whereis_name({registry, name}), do: whereis(registry, name)

  @doc """
  Makes a process of this node the holder of a name; `:no` when a living process has it.

  The holder need not be the caller, and may hold any number of names. A name whose holder has
  ended is taken over at once. Raises `ArgumentError` for a pid of another node.
  """
  @spec register_name(via_name, pid) :: :yes | :no
  def register_name({registry, name}, pid) when is_pid(pid) do
    register(registry, name, pid, nil)
  end

  @doc """
  Frees a name of the calling process. Anybody else's stays as it is.
  """
  @spec unregister_name(via_name) :: :ok
  def unregister_name({registry, name}) do
    case Native.unregister(registry, name, self()) do
      refusal when refusal in [:yes, :no, :no_registry] -> :ok
      refusal -> unregister_name({registry, Name.prepare!(refusal, registry, name)})
    end
  end

  @doc """
  Sends a message to the holder of the name and answers its pid.

  As with `:global`, the caller exits with `{:badarg, {name, message}}` when there is none.
  """
  @spec send(via_name, message) :: pid when message: term
  def send({registry, name} = via_name, message) do
    case whereis(registry, name) do
      :undefined -> exit({:badarg, {via_name, message}})
      pid -> Kernel.send(pid, message) && pid
    end
  end

  defp whereis(registry, name) do
    case Native.whereis(registry, name) do
      # Only the VM knows of signals that are on their way to a process.
      pid when is_pid(pid) -> if Process.alive?(pid), do: pid, else: :undefined
      :undefined -> :undefined
      refusal -> whereis(registry, Name.prepare!(refusal, registry, name))
    end
  end

  defp register(registry, name, pid, ended) do
    case Native.register(registry, name, pid, ended) do
      :yes ->
        :yes

      :ended ->
        if node(pid) != node() do
          raise ArgumentError, "expected a pid of this node, got: #{inspect(pid)}"
        end

        :no

      holder when is_pid(holder) ->
        if Process.alive?(holder), do: :no, else: register(registry, name, pid, holder)

      refusal ->
        register(registry, Name.prepare!(refusal, registry, name), pid, ended)
    end
  end
end
