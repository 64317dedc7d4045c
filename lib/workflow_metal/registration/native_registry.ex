defmodule WorkflowMetal.Registration.NativeRegistry do
  @moduledoc """
  A registration adapter for WorkflowMetal whose lookups and registrations are native code.

      defmodule MyApp.Workflows do
        use WorkflowMetal.Application,
          registry: WorkflowMetal.Registration.NativeRegistry,
          storage: WorkflowMetal.Storage.Adapters.InMemory
      end

  Start `MyApp.Workflows` in your supervision tree as before. Everything else stays as it is.

  It is also a `:via` module, with or without WorkflowMetal. Under a supervisor a registry is started by
  `{WorkflowMetal.Registration.NativeRegistry, name: MyApp.Names}`.

      iex> {:ok, _pid} = WorkflowMetal.Registration.NativeRegistry.start_link(name: MyApp.Names)
      iex> name = {:via, WorkflowMetal.Registration.NativeRegistry, {MyApp.Names, {"invoice", 17}}}
      iex> {:ok, pid} = Agent.start_link(fn -> 0 end, name: name)
      iex> Agent.get_and_update(name, fn count -> {count, count + 1} end)
      0
      iex> GenServer.whereis(name) == pid
      true

  All other functions, such as `lookup/2`, `match_names/3` and `subscribe/3`, are those of
  `WorkflowMetal.Registration.NativeRegistry.Registry`. They take the same registries: the name of the
  WorkflowMetal application, or the `:name` that a registry was started with.

  ## What it guarantees

    * At most one process of this node holds a name; with the option `:cluster`, one of all connected
      nodes. With the engine `:ra` it is one of all nodes, even during a netsplit; see [Names that never
      run twice](guides/names_that_never_run_twice.md). Names are compared by `===`.
    * A name is free as soon as its holder has ended, and no lookup answers a process that has ended.
    * If a name's process runs, `start_child/4` answers it without asking its supervisor.
    * The names survive the registry's own process, which may be killed and restarted at any time.

  ## Options

  WorkflowMetal passes no options to its registry. Set the options of an application in the configuration:

      config :workflow_metal_native_registry, MyApp.Workflows, listeners: [MyApp.Audit]

  The options are `:name`, an atom, which WorkflowMetal sets for its applications, and `:listeners`, `:cluster`,
  `:cluster_timeout` and `:on_conflict`, as of
  `WorkflowMetal.Registration.NativeRegistry.Registry.start_link/1`.

  Read on: [Moving from LocalRegistry](guides/moving_from_local_registry.md),
  [Names, values and patterns](guides/names_values_patterns.md),
  [Events and waiting](guides/events_and_waiting.md), [Several nodes](guides/several_nodes.md),
  [Names that never run twice](guides/names_that_never_run_twice.md),
  [Running it in production](guides/production.md), [Troubleshooting](guides/troubleshooting.md).
  """

  alias WorkflowMetal.Registration.NativeRegistry.{Child, Names, Options, Owner, Registry}

  @adapter WorkflowMetal.Registration.Adapter
  @has_adapter Code.ensure_loaded?(@adapter)

  if @has_adapter, do: @behaviour(@adapter)

  # WorkflowMetal may be added to the code path, or removed from it, after this module was compiled.
  @doc false
  def __mix_recompile__?, do: Code.ensure_loaded?(@adapter) != @has_adapter

  @typedoc "What WorkflowMetal passes to every call of its adapter."
  @type adapter_meta :: %{registry: Registry.registry()}

  @typedoc "The child's own answers, and the errors of a cluster."
  @type on_start_child :: {:ok, pid} | {:error, Registry.reason() | term} | :ignore

  @doc """
  The registry as a child of a WorkflowMetal application. `config` takes precedence over what the
  configuration of `:workflow_metal_native_registry` has for the application.
  """
  @doc since: "0.1.0"
  if @has_adapter, do: @impl(@adapter)
  @spec child_spec(Registry.registry(), keyword) :: {:ok, Supervisor.child_spec(), adapter_meta}
  def child_spec(application, config) when is_atom(application),
    do: {:ok, child_spec(Options.configured(application, config)), %{registry: application}}

  @doc "A registry as a child of a supervisor. Raises `ArgumentError` for an option it cannot use."
  @doc since: "0.1.0"
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options), do: options |> Options.adapter!() |> Owner.child_spec()

  @doc "Starts a registry that ends with the calling process."
  @doc since: "0.1.0"
  @spec start_link(keyword) :: GenServer.on_start()
  def start_link(options), do: options |> Options.adapter!() |> Owner.start_link()

  @doc "The via tuple of a name. It means the same on every node, and after any restart."
  @doc since: "0.1.0"
  if @has_adapter, do: @impl(@adapter)
  @spec via_tuple(adapter_meta, Registry.name()) :: {:via, module, Registry.via_name()}
  def via_tuple(%{registry: registry}, name), do: {:via, __MODULE__, {registry, name}}

  @doc """
  The process that holds the name, or a new child of the DynamicSupervisor `supervisor`.

  A new child is `module` or `{module, keyword}`, with the via tuple put in as `:name`. The child's own
  `{:error, reason}` and `:ignore` are passed on.

  The name is looked up first. If it runs, nothing else is done: the supervisor is not asked, and there is no
  telemetry. The start of a child is a telemetry span where telemetry is on the code path when this library is
  compiled; see the guide "Running it in production".

  When the start fails because another process has the name, that process is the answer. The child is
  started again when the holder has ended meanwhile, up to nine times, and when the child itself was
  killed during its `init`, up to four times. `{:error, {:already_started, pid}}` is the answer when
  that process does not have this name, but kept the child from starting for a reason of its own.
  """
  @doc since: "0.1.0"
  if @has_adapter, do: @impl(@adapter)

  @spec start_child(adapter_meta, Registry.name(), supervisor, module | {module, keyword}) ::
          on_start_child
        when supervisor: Supervisor.supervisor()
  def start_child(%{registry: registry}, name, supervisor, child_spec),
    do: Child.start(registry, name, supervisor, child_spec)

  @doc "The process that holds the name, or `:undefined`."
  @doc since: "0.1.0"
  if @has_adapter, do: @impl(@adapter)
  @spec whereis_name(adapter_meta, Registry.name()) :: pid | :undefined
  def whereis_name(%{registry: registry}, name), do: Names.whereis(registry, name)

  @doc "As `whereis_name/2`, with the content of a via tuple. OTP calls it."
  @doc since: "0.1.0"
  @spec whereis_name(Registry.via_name()) :: pid | :undefined
  def whereis_name({registry, name}), do: Names.whereis(registry, name)
  def whereis_name({registry, name, _value}), do: Names.whereis(registry, name)

  @doc """
  Makes a process of this node the holder of a name; `:no` when a living process has it.

  The holder need not be the caller. Raises `ArgumentError` for a pid of another node. Exits with
  `t:WorkflowMetal.Registration.NativeRegistry.Registry.refused_exit/0` when a cluster cannot say
  which process may have the name.
  """
  @doc since: "0.1.0"
  @spec register_name(Registry.via_name(), pid) :: :yes | :no
  def register_name({registry, name}, pid) when is_pid(pid),
    do: Names.register_name(registry, name, nil, pid)

  def register_name({registry, name, value}, pid) when is_pid(pid),
    do: Names.register_name(registry, name, value, pid)

  @doc "Frees a name of the calling process. The name of any other process stays as it is."
  @doc since: "0.1.0"
  @spec unregister_name(Registry.via_name()) :: :ok
  def unregister_name({registry, name}), do: Names.unregister_name(registry, name)
  def unregister_name({registry, name, _value}), do: Names.unregister_name(registry, name)

  @doc """
  Sends a message to the holder of the name and answers its pid. Exits with
  `{:badarg, {name, message}}` when there is none, as `:global` does.
  """
  @doc since: "0.1.0"
  @spec send(Registry.via_name(), message) :: pid when message: term
  def send(via_name, message), do: Names.send(via_name, message)
end
