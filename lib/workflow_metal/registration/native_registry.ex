defmodule WorkflowMetal.Registration.NativeRegistry do
  @moduledoc """
  A process registry whose lookups and registrations are native code, as an adapter of WorkflowMetal.

  Each name is held by at most one process. Names are any term and are matched by `===`: `1` and
  `1.0` are two names, a map is the same name whatever way it was built. A name is free again as
  soon as its holder has ended, and no lookup answers a process that has. A process may hold many
  names.

  Wherever a function wants a registry, that is the atom it was started with: the name of the
  WorkflowMetal application, or the `:name` of one that was started by itself.

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

  A via tuple with three elements, `{registry, name, value}`, registers the name with a value.

  ## Seeing what runs

  `select/3` answers all names of a pattern, which is a name with `:_` in the places that may be
  anything, `count_select/3` how many there are. In a WorkflowMetal application

      NativeRegistry.select(MyApp.Workflows, {WorkflowMetal.Case.Case, {workflow_id, :_}})

  are the cases of one workflow, and

      pattern = {WorkflowMetal.Task.Task, {:_, :_, case_id, :_}}
      NativeRegistry.select(MyApp.Workflows, pattern)

  the tasks of one case. `keys/2` has the names of a process, `info/1` the state of the registry.

  ## Events

  A process that has called `subscribe/3` gets a message for each change of a name that matches:

    * `{:register, registry, name, pid, value}`
    * `{:unregister, registry, name, pid}`, whether the holder gave the name back, ended or was
      killed

  The processes named by the option `:listeners` get them of all names. There is exactly one message
  for each change, and those of one name come in the order of its changes. One thread sends them
  soon after the change, those of all registries in turn, so whoever registers a name does not wait
  for anybody. A change that nobody subscribed to costs next to nothing, however many subscribers
  there are; one that somebody did costs its message.

  Events that wait to be sent take 64 MiB at most in each registry, names and values included. When
  names change for longer and faster than messages can be sent, those beyond are dropped, until half
  of that has been sent. Each subscriber and each listener then gets

    * `{:events_lost, registry, count}`

  in the place of the dropped events. Some of these changes were of its names, or none: it has to look
  at what there is, by `select/2`. `info/1` shows both as `:backlog` and `:events_lost`. Calls of
  `await/3` are never forgotten.

  A subscriber that does not read its messages as fast as they come harms nobody else, but its mailbox
  grows, as with any message. Subscribe to no more than is needed.

  In a cluster the same processes, on the node where it happens, get these as well:

    * `{:conflict, registry, name, winner, loser}` - two processes held the name; the loser, of this
      node, is about to leave
    * `{:fenced, registry, name, pid, reason}` - the process has to give the name up, though no other
      holds it; the reason is `:draining` while `drain/2` runs
    * `{:cluster_timeout, registry, name}` - the engine did not say in time who may have the name

  and these, whatever the pattern:

    * `{:engine_down, registry, node, reason}` and `{:engine_up, registry, node}` - the engine cannot
      be asked on this node, and can be again
    * `{:reconciled, registry, node, counts}` - all `:names` of this node were compared with what the
      engine knows, and so many had `:disagreed`

  ## Waiting for a name

  `await/3` waits until somebody has registered the name, without asking again and again.

  ## In tests

  Give each test a registry of its own, and it can be `async`:

      setup context do
        registry = Module.concat(context.module, context.test)
        start_supervised!({WorkflowMetal.Registration.NativeRegistry, name: registry})
        %{registry: registry}
      end

  ## What it survives

  The table of names belongs to the VM, not to a process. The registry's own process only says
  when it begins and ends: it may be killed and restarted at any time, while names are held,
  looked up and taken.

  When its supervisor stops that process, the registry is stopped: functions that are given it
  raise `ArgumentError`. What it held is kept as long as the supervisor may start it again, and
  comes back with it:

    * after a restart by the strategy `:one_for_all` or `:rest_for_one`, because a sibling ended;
    * after `Supervisor.terminate_child/2`, when `Supervisor.restart_child/2` follows.

  Names of processes that end meanwhile are free, subscriptions and waits go on. It is forgotten when
  the supervisor has ended, by itself or because its own supervisor restarts it, and when the
  child has been removed for good: by `Supervisor.delete_child/2` or
  `DynamicSupervisor.terminate_child/2`. A registry of that name that is started then begins empty.

  ## Limits

  A name may take up to 64 KiB in canonical form and be nested up to 256 levels deep; what is
  beyond raises `ArgumentError`. The canonical form has 4 bytes for an atom or a small integer
  (0 to 268,435,455), 9 for any other integer of 64 bits, 1 to 5 more than its contents for a
  binary or a tuple, and 17 for a UUID written in lower case. Any part counts for at least 4 bytes,
  and a map or a reference for 32, so that no name takes long to read. Maps are put in order, which
  may move 256 KiB, a map within a map once more for each level. A value may take up to 1 MiB in
  external format.

  Names are of atoms, numbers, bitstrings, pids, ports, references, functions, tuples, lists and maps.
  A kind of term that a later release of the VM adds, as OTP 29 does with native records, raises
  `ArgumentError` as a name. As a value it is as good as any.

  ## What comes back

  Names and values come back `===` what was put in, and alive: also after the node has got a name,
  lost it or got another, and also if nothing but the registry refers to what a reference in them
  stands for, as those of `:counters.new/2` or `:ets.new/2` do. (An ETS table still goes with its
  owner.) A value of mere data, such as numbers, atoms, texts, and lists, tuples and maps of these, is
  kept in external format and takes about as much memory as that; one with a pid, a port, a reference
  or a function takes a kilobyte more, and so does a name with a reference or with a pid or port of
  another node.

  ## Across a cluster

  With the option `:cluster` the registries of one name, on all nodes that are connected, are one:
  each name runs once among them.

      config :workflow_metal_native_registry, MyApp.Workflows, cluster: :global

  `:global` is OTP's own and needs nothing else; of nodes that register a name at once exactly one
  wins. `:syn` needs the package of that name, is about forty times as fast at registering, and
  settles afterwards what two nodes registered at once. Any other module that implements
  `WorkflowMetal.Registration.NativeRegistry.Cluster.Engine` will do, too.

    * Names that processes of this node hold are answered from the table, as without a cluster.
      Those of other nodes come from what the engine knows on this node; no lookup asks another.
    * A registration asks the engine, for `:cluster_timeout` milliseconds at most. When there is no
      answer by then, `start_child/4` and `register/3` answer `{:error, :cluster_timeout}`, and
      `register_name/2`, whose contract knows no error, exits with
      `{:shutdown, {:cluster_timeout, {WorkflowMetal.Registration.NativeRegistry, registry, name}}}`.
      Callers of `start_child/4` that wait for one supervisor of this node wait at the same time, not
      one after another. What the engine does too late is taken back, unless the process has
      registered the name again meanwhile.
    * A name whose holder has ended less than 30 seconds ago is registered again also when the
      engine does not answer, as it has not given it to another node either: a supervisor can restart
      its children. The engine is told when it answers again.
    * After `start_child/4` a lookup on the same node finds the process, wherever it runs. When that
      cannot be said within `:cluster_timeout`, the answer is `{:error, :cluster_timeout}`, and the
      process runs.
    * A process of a node that is gone is answered until the engine has noticed, and may have ended
      by the time it is used, as any process of another node.
    * A netsplit leaves both sides at work. When it heals, a name that runs on both stays with the
      process of the node whose name comes first, or with the one of the two that the function
      `:on_conflict` answers, which is called with the registry, the name and the two pids. It is
      called on several nodes, has to say the same on all of them, and has a second to do so; the
      engine waits for it. The same decides when two nodes have registered a name at once.
    * The process that loses is ended by its supervisor, if it is a child of one: of a DynamicSupervisor
      as by `DynamicSupervisor.terminate_child/2`, so that its reason is `:shutdown`, it is not
      restarted whatever its `:restart` says, and the supervisor does not count it. A child of a
      Supervisor is also deleted from it: it would be started again with its siblings by a supervisor
      that restarts all of them, and fail, as its name runs elsewhere. When the winner's node goes,
      nobody starts the name again by itself; `start_child/4` does when it is called. Whoever has no
      supervisor leaves with `{:shutdown, {:name_conflict, name, winner}}`, as do processes whose
      supervisor is busy for more than a second; one that traps exits is terminated with that reason.
      Whoever has not ended after five seconds is killed. It is logged as a warning.
    * With a supervisor that loses its name all that runs beneath it ends, also what had no double:
      in WorkflowMetal, with a workflow its cases. They are opened again where the workflow runs.
    * `start_child/4` whose child loses the name while its `init` runs answers the winner.
    * A supervisor does not restart a child that `start_child/4` started, that has crashed and whose
      name another node has taken since: it forgets it. A child that was started otherwise would be
      restarted again and again, until its supervisor gives up.
    * `drain/2` gives the names of a node that is about to stop to the others.
    * `lookup/2` asks the holder's node for the value. `count/2`, `names/2`, `select/3`,
      `count_select/3` and `subscribe/3` tell of this node unless they are called with
      `cluster: true`; `keys/2` and `info/1` always do.
      `await/3` looks for names of other nodes every 50 milliseconds.
    * This node's processes are compared with what the engine knows two seconds after nodes have
      come, when the engine's process has been restarted, and when the node has got another name:
      whoever the engine has lost is registered again, and of two that hold one name one leaves.
      With `:syn` the other nodes are asked as well, also after a node has gone: names that one of
      them does not know are told to all again.
    * The registry ends with its supervisor, however that ends, and its names are given back to the
      engine, those of processes that live on, too.

  What each engine wants and leaves:

    * `:global` refuses a process a second name unless the parameter `global_multi_name_action` of
      the application kernel is `:allow`. A registry sets it, for the whole VM.
    * While one link of several is cut, `:global` by itself disconnects nodes until all that see each
      other see the same. It can only do without that (`prevent_overlapping_partitions` of the
      application kernel set to `false`) as long as no such cut happens: after one, some nodes may not
      find a name that runs. With `:syn` and that parameter off, a name that the two ends of the cut
      both hold is answered by the others as the one or the other process, or as neither, until the
      link is back or one of the two nodes is gone.
    * A node whose `:global` hangs while a connection is lost and made again can grant its lock to a
      process that has given it up, and then has no name registered or freed until it is disconnected.
      A registry frees such a lock after about three seconds, and logs a warning.
    * Two nodes that see each other tell each other their names a moment later, and could both
      register a name until then. A registration waits for that with `:global.sync/0`, within its
      time. What remains is the moment in which only one of the two sees the other; it ends like a
      netsplit.
    * For `:syn` each registry is a scope, and syn has one event handler: this project's. The handler
      that was there before, or that is set later, is called for all other scopes; for up to a second
      after one has been set, syn decides conflicts by it. When the last registry ends, it is put
      back.
    * syn has no call to leave a scope: five processes and four tables stay for each registry that
      was stopped, until syn stops. Registries with names made at run time are better not clustered.
    * `syn`'s strict mode may be on: a registry lets only processes of its own node be registered, by
      whom they like.

  ## What it does not do

  Only processes of this node can be registered. Names are unique: there are no duplicate keys, and
  no dispatch to many.

  ## Options

    * `:name` - an atom, the name of the registry; required, and given by WorkflowMetal for its
      applications
    * `:listeners` - a list of atoms, the names of processes that are told of all changes
    * `:cluster` - `:global`, `:syn` or the module of another engine; without it the registry is this
      node's alone
    * `:cluster_timeout` - how many milliseconds a registration waits for the engine, 5,000 unless
      said otherwise
    * `:on_conflict` - `{module, function}`, decides which process stays after a netsplit

  WorkflowMetal passes no options to its registry, so those for an application stand in the
  configuration:

      config :workflow_metal_native_registry, MyApp.Workflows, listeners: [MyApp.Audit]

  ## Telemetry

  Where `:telemetry` is on the code path when this is compiled, `start_child/4` is a span: the events
  `[:workflow_metal, :registry, :start_child, :start | :stop | :exception]` with the measurements
  `:system_time` and `:monotonic_time` at the start and `:duration` and `:monotonic_time` at the end,
  and with `:registry`, `:name` and `:supervisor` as metadata; `:result` too at the end, `:kind`,
  `:reason` and `:stacktrace` when it raised.

  Every 5 seconds the event `[:workflow_metal, :registry, :backlog]` has the measurements `:backlog` and
  `:events_lost`, as in `info/1`, and `:registry` as metadata.

  In a cluster there are also, wherever `:telemetry` runs, `[:workflow_metal, :registry, event]` for each
  `event` of `:conflict` (with `:name`, `:winner` and `:loser`), `:fenced` (`:name`, `:pid`, `:reason`),
  `:cluster_timeout` (`:name`), `:engine_down` (`:engine`, `:reason`), `:engine_up` (`:engine`) and `:reconciled`, whose
  measurements are `:names` and `:disagreed`. All have `:registry`, and the measurement `:system_time`.
  """

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Library, Name, Native, Owner, Value}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Drain, Wide, WideSubscription}

  @adapter WorkflowMetal.Registration.Adapter
  @has_adapter Code.ensure_loaded?(@adapter)
  @has_telemetry Code.ensure_loaded?(:telemetry)

  if @has_adapter do
    @behaviour @adapter
  end

  # WorkflowMetal and telemetry may come to the code path, or leave it, after this was compiled.
  @doc false
  def __mix_recompile__? do
    Code.ensure_loaded?(@adapter) != @has_adapter or
      Code.ensure_loaded?(:telemetry) != @has_telemetry
  end

  @typedoc "The name of a registry: for WorkflowMetal, that of the application."
  @type registry :: atom

  @typedoc "Any term, within the limits said above."
  @type name :: term

  @typedoc "Any term that is kept with a name."
  @type value :: term

  @typedoc "A name in which `:_` stands for any term, or for any tail of a list."
  @type pattern :: term

  @typedoc "Whether the whole cluster is asked, and for how many milliseconds; see `select/3`."
  @type wide :: [cluster: boolean, timeout: non_neg_integer]

  @typedoc "What the via tuple holds."
  @type via_name :: {registry, name} | {registry, name, value}

  @typedoc "What WorkflowMetal hands to every call of its adapter."
  @type adapter_meta :: %{registry: registry}

  @typedoc "What `info/1` answers."
  @type info :: %{
          names: non_neg_integer,
          processes: non_neg_integer,
          bytes: non_neg_integer,
          shards: pos_integer,
          shard_names: {non_neg_integer, non_neg_integer},
          subscribers: non_neg_integer,
          waiting: non_neg_integer,
          backlog: non_neg_integer,
          events_lost: non_neg_integer,
          uptime: non_neg_integer,
          terms: :direct | :documented
        }

  @type on_start_child :: {:ok, pid} | {:error, term} | :ignore

  @options [:name, :listeners, :cluster, :cluster_timeout, :on_conflict]

  # How often `start_child/4` has a child started again that was killed in its `init`, or whose name
  # had a holder that is gone. Others that start and kill the same name without pause, on processors
  # that are busy, have it meet a holder that is gone once in seven times.
  @killed 4
  @gone 9

  # How often it starts over after a conflict, which ends with another process under the name.
  @conflicts 100

  # How long the registry's process may take to end in a cluster, in milliseconds.
  @shutdown 60_000

  # How often `await/3` asks the engine of a cluster, in milliseconds.
  @poll 50

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

  The options are those of the module; `:name` is required. An unknown option raises
  `ArgumentError`.
  """
  @spec child_spec(keyword) :: Supervisor.child_spec()
  def child_spec(options) do
    for {option, _value} <- options, option not in @options do
      raise ArgumentError,
            "unknown option #{inspect(option)} for the registry #{inspect(options[:name])}, " <>
              "the known options are: #{inspect(@options)}"
    end

    name = Keyword.get(options, :name)
    listeners = Keyword.get(options, :listeners, [])

    unless is_atom(name) and name not in [nil, true, false] do
      raise ArgumentError, "expected :name to be an atom, got: #{inspect(name)}"
    end

    unless is_list(listeners) and Enum.all?(listeners, &is_atom/1) do
      raise ArgumentError, "expected :listeners to be a list of atoms, got: #{inspect(listeners)}"
    end

    Library.ensure_loaded!()
    cluster = Cluster.new!(name, options)
    spec = %{id: Owner.name(name), start: {Owner, :start_link, [name, listeners, cluster]}}
    # It ends when all its names have been listed, to be given back to the engine.
    if cluster, do: Map.put(spec, :shutdown, @shutdown), else: spec
  end

  @doc """
  The via tuple of a name. It holds atoms and the name only, so it means the same on every node
  and whatever has been restarted.
  """
  @spec via_tuple(adapter_meta, name) :: {:via, module, via_name}
  def via_tuple(%{registry: registry}, name), do: {:via, __MODULE__, {registry, name}}

  @doc """
  The process that holds the name, or a new child of the DynamicSupervisor `supervisor`.

  A running process is answered without asking the supervisor. A new child is `module` or
  `{module, keyword}`, with the via tuple put in as `:name`. The child's own `{:error, reason}` and
  `:ignore` are passed on.

  When the start fails because somebody else has the name, that process is the answer. When whoever
  had it has ended meanwhile, the child is started again, up to nine times; when the child itself was
  killed during its `init`, up to four times. Then the error is the answer. So is
  `{:already_started, pid}` of a process that does not have this name, but kept the child from
  starting for a reason of its own.

  Raises `ArgumentError` when `child_spec` is neither a module nor `{module, keyword}`.
  """
  @spec start_child(
          adapter_meta,
          name,
          Supervisor.supervisor(),
          module | {module, keyword}
        ) :: on_start_child
  if @has_telemetry do
    def start_child(%{registry: registry} = meta, name, supervisor, child_spec) do
      metadata = %{registry: registry, name: name, supervisor: supervisor}

      span = fn ->
        result = find_or_start(meta, name, supervisor, child_spec)
        {result, Map.put(metadata, :result, result)}
      end

      # By `apply`: without Hex, telemetry is no dependency that Mix knows of, and it would warn.
      apply(:telemetry, :span, [[:workflow_metal, :registry, :start_child], metadata, span])
    end
  else
    def start_child(meta, name, supervisor, child_spec) do
      find_or_start(meta, name, supervisor, child_spec)
    end
  end

  defp find_or_start(%{registry: registry} = meta, name, supervisor, child_spec) do
    {module, arguments} = check_child_spec!(child_spec)

    case whereis(registry, name) do
      :undefined ->
        child_spec = {module, Keyword.put(arguments, :name, via_tuple(meta, name))}

        if Cluster.config(registry) do
          Cluster.start_child(registry, name, fn start ->
            start_anew(fn -> start.(supervisor, child_spec) end, registry, name)
          end)
        else
          start = fn -> DynamicSupervisor.start_child(supervisor, child_spec) end
          start_anew(start, registry, name)
        end

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

  # `start` is called again while there are attempts left for what went wrong; `last` is the holder
  # that was gone the time before.
  defp start_anew(start, registry, name, attempts \\ {@killed, @gone, @conflicts}, last \\ nil) do
    case start.() do
      {:ok, pid} -> {:ok, pid}
      {:ok, pid, _info} -> {:ok, pid}
      {:error, reason} -> start_failed(reason, start, registry, name, attempts, last)
      other -> other
    end
  end

  defp start_failed(reason, start, registry, name, attempts, last) do
    case {refused(registry, name, reason), attempts} do
      {:killed, {killed, gone, conflicts}} when killed > 0 ->
        pause(attempts)
        find_or_start_anew(start, registry, name, {killed - 1, gone, conflicts}, last)

      # The registry does not name one again that has ended, so it is the child's own word.
      {{:gone, ^last}, _attempts} when last not in [nil, :undefined] ->
        {:error, Cluster.why_not_found(registry, last, reason)}

      {{:gone, holder}, {killed, gone, conflicts}} when gone > 0 ->
        pause(attempts)
        find_or_start_anew(start, registry, name, {killed, gone - 1, conflicts}, holder)

      {:conflict, {killed, gone, conflicts}} when conflicts > 0 ->
        Cluster.await_winner(registry, name)
        find_or_start_anew(start, registry, name, {killed, gone, conflicts - 1}, last)

      {{:ok, pid}, _attempts} ->
        {:ok, pid}

      {{:error, reason}, _attempts} ->
        {:error, reason}

      _no_attempt_left ->
        {:error, reason}
    end
  end

  # Another caller may have started it during the pause; a lookup runs no `init`.
  defp find_or_start_anew(start, registry, name, attempts, last) do
    with :undefined <- whereis(registry, name) do
      start_anew(start, registry, name, attempts, last)
    else
      pid -> {:ok, pid}
    end
  end

  # Not the first time. Whoever kills it again and again gets time to do something else.
  defp pause({@killed, @gone, _conflicts}), do: :ok
  defp pause({killed, gone, _conflicts}), do: Process.sleep(@killed - killed + @gone - gone)

  # What the error of a start means: the process that has the name, an error, or that whoever had the
  # name has ended meanwhile.
  defp refused(registry, name, {:already_started, holder} = reason) do
    case whereis(registry, name) do
      pid when is_pid(pid) -> {:ok, pid}
      :undefined -> refused_by(registry, name, holder, reason)
    end
  end

  # The child had the name already and was killed before its `init` was done.
  defp refused(_registry, _name, :killed), do: :killed

  defp refused(_registry, _name, reason) do
    case Cluster.why_ended(reason) do
      # It had lost the name before its `init` was done, or what it started lost a name of its own;
      # then this name is about to be lost, too, or was.
      {:conflict, _name, _winner} -> :conflict
      # From `register_name/2`, in the new process.
      {:refused, reason} -> {:error, reason}
      nil -> {:error, reason}
    end
  end

  # OTP says so when the holder has ended before it could be told.
  defp refused_by(_registry, _name, :undefined, _reason), do: {:gone, :undefined}

  defp refused_by(_registry, _name, holder, reason)
       when is_pid(holder) and node(holder) == node() do
    # One that lives has another name, and the child has not started because of that.
    if Process.alive?(holder), do: {:error, reason}, else: {:gone, holder}
  end

  # Of the other node's names this one may not have heard yet.
  defp refused_by(registry, name, holder, _reason) when is_pid(holder) do
    if Cluster.config(registry) && Cluster.lookup(registry, name, holder) != [],
      do: {:ok, holder},
      else: {:gone, holder}
  end

  defp refused_by(_registry, _name, _other, reason), do: {:error, reason}

  @doc """
  The process that holds the name, or `:undefined`.

  A process that the caller has sent an exit signal, and that has ended of it, is not answered any
  more, as `Process.alive?/1` would see it.
  """
  @spec whereis_name(adapter_meta, name) :: pid | :undefined
  def whereis_name(%{registry: registry}, name), do: whereis(registry, name)

  @doc "The same by what the via tuple holds; called by OTP."
  @spec whereis_name(via_name) :: pid | :undefined
  def whereis_name({registry, name}), do: whereis(registry, name)
  def whereis_name({registry, name, _value}), do: whereis(registry, name)

  @doc """
  Makes a process of this node the holder of a name; `:no` when a living process has it.

  The holder need not be the caller, and may hold any number of names. A name whose holder has
  ended is taken over at once. Raises `ArgumentError` for a pid of another node.
  """
  @spec register_name(via_name, pid) :: :yes | :no
  def register_name({registry, name}, pid) when is_pid(pid) do
    register_name({registry, name, nil}, pid)
  end

  def register_name({registry, name, value}, pid) when is_pid(pid) do
    case claim(registry, name, pid, Value.encode!(value)) do
      :yes -> :yes
      # The via contract knows no error. The new process, which is what calls this, ends without a
      # report.
      {:error, reason} -> exit({:shutdown, {reason, {__MODULE__, registry, name}}})
      _holder -> :no
    end
  end

  @doc "Frees a name of the calling process. Anybody else's stays as it is."
  @spec unregister_name(via_name) :: :ok
  def unregister_name({registry, name, _value}), do: unregister_name({registry, name})

  def unregister_name({registry, name}) do
    with :no_registry <- free(registry, name, name), do: :ok
  end

  # `opened` is the name in the form that the NIF takes.
  defp free(registry, opened, name) do
    case Native.unregister(registry, opened, self()) do
      answer when answer in [:yes, :no] -> :ok
      :elsewhere -> Cluster.unregister(registry, name, self())
      :no_registry -> :no_registry
      refusal -> free(registry, Name.prepare!(refusal, registry, opened), name)
    end
  end

  @doc """
  Sends a message to the holder of the name and answers its pid.

  As with `:global`, the caller exits with `{:badarg, {name, message}}` when there is none.
  """
  @spec send(via_name, message) :: pid when message: term
  def send(via_name, message) do
    case whereis_name(via_name) do
      :undefined ->
        exit({:badarg, {via_name, message}})

      pid ->
        Kernel.send(pid, message)
        pid
    end
  end

  @doc """
  Registers a name for the calling process, with a value.

      iex> registry = start_registry()
      iex> {:ok, _pid} = NativeRegistry.register(registry, {"invoice", 17}, :open)
      iex> NativeRegistry.lookup(registry, {"invoice", 17}) == [{self(), :open}]
      true
      iex> NativeRegistry.register(registry, {"invoice", 17}, :open)
      {:error, {:already_registered, self()}}
  """
  @spec register(registry, name, value) ::
          {:ok, pid} | {:error, {:already_registered, pid} | (reason :: term)}
  def register(registry, name, value) do
    register_until(registry, name, Value.encode!(value), :unknown)
  end

  defp register_until(registry, name, value, deadline) do
    case claim(registry, name, self(), value) do
      :yes -> {:ok, self()}
      {:error, reason} -> {:error, reason}
      :no -> already_registered(registry, name, value, deadline)
      holder -> {:error, {:already_registered, holder}}
    end
  end

  defp already_registered(registry, name, value, deadline) do
    case whereis(registry, name) do
      # Who has taken it on another node has lost it again.
      :undefined ->
        case Cluster.try_again(registry, name, deadline) do
          {:error, reason} -> {:error, reason}
          deadline -> register_until(registry, name, value, deadline)
        end

      holder ->
        {:error, {:already_registered, holder}}
    end
  end

  @doc """
  Frees a name of the calling process. Anybody else's stays as it is.

      iex> registry = start_registry()
      iex> {:ok, _pid} = NativeRegistry.register(registry, :clock, nil)
      iex> NativeRegistry.unregister(registry, :clock)
      :ok
      iex> NativeRegistry.lookup(registry, :clock)
      []
  """
  @spec unregister(registry, name) :: :ok
  def unregister(registry, name) do
    with :no_registry <- free(registry, name, name), do: Name.unknown_registry!(registry)
  end

  @doc """
  The holder of the name and its value as `[{pid, value}]`, or `[]`.

      iex> registry = start_registry()
      iex> NativeRegistry.lookup(registry, "nobody")
      []
      iex> {:ok, _pid} = NativeRegistry.register(registry, "me", %{since: 2024})
      iex> [{pid, %{since: 2024}}] = NativeRegistry.lookup(registry, "me")
      iex> pid == self()
      true
  """
  @spec lookup(registry, name) :: [{pid, value}]
  def lookup(registry, name) do
    with [] <- lookup_here(registry, name, name) do
      case whereis(registry, name) do
        pid when is_pid(pid) and node(pid) != node() -> Cluster.lookup(registry, name, pid)
        _nobody -> []
      end
    end
  end

  # `opened` is the name in the form that the NIF takes.
  @doc false
  @spec lookup_here(registry, term, name) :: [{pid, value}]
  def lookup_here(registry, opened, name) do
    answer =
      with :heavy <- Native.lookup(registry, opened), do: Native.lookup_heavy(registry, opened)

    case answer do
      {pid, value} when is_pid(pid) ->
        if Process.alive?(pid), do: [{pid, Value.decode(value)}], else: []

      answer when answer in [:undefined, :elsewhere] ->
        []

      refusal ->
        lookup_here(registry, Name.prepare!(refusal, registry, opened), name)
    end
  end

  @doc """
  Updates the value of a name of the calling process, by a function of the old one.

  Answers `{new, old}`, or `:error` when the caller does not hold the name. Only the holder changes
  a value, so nothing comes between reading and writing.

      iex> registry = start_registry()
      iex> {:ok, _pid} = NativeRegistry.register(registry, :counter, 1)
      iex> NativeRegistry.update_value(registry, :counter, &(&1 + 1))
      {2, 1}
      iex> NativeRegistry.update_value(registry, :another, &(&1 + 1))
      :error
  """
  @spec update_value(registry, name, (value -> value)) :: {value, value} | :error
  def update_value(registry, name, fun) when is_function(fun, 1) do
    caller = self()

    case lookup(registry, name) do
      [{^caller, old}] ->
        new = fun.(old)
        if update(registry, name, name, Value.encode!(new)) == :yes, do: {new, old}, else: :error

      _other ->
        :error
    end
  end

  def update_value(_registry, _name, fun) do
    raise ArgumentError, "expected a function of one argument, got: #{inspect(fun)}"
  end

  # `opened` is the name in the form that the NIF takes; `value` says what it is, once that differs.
  defp update(registry, opened, name, value) do
    answer =
      with :heavy <- Native.update(registry, opened, self(), value),
           do: Native.update_heavy(registry, opened, self(), value)

    case answer do
      answer when answer in [:yes, :no] ->
        answer

      refusal ->
        update(registry, Name.prepare!(refusal, registry, opened), name, {:name, name, value})
    end
  end

  @doc """
  The names that a process holds, in no order.

      iex> registry = start_registry()
      iex> {:ok, _pid} = NativeRegistry.register(registry, {"invoice", 17}, nil)
      iex> NativeRegistry.keys(registry, self())
      [{"invoice", 17}]
  """
  @spec keys(registry, pid) :: [name]
  def keys(registry, pid) when is_pid(pid) and node(pid) == node() do
    case Native.keys(registry, pid) do
      :no_registry -> Name.unknown_registry!(registry)
      # Those of a process that has ended may not all be free yet.
      names -> if Process.alive?(pid), do: names, else: []
    end
  end

  def keys(_registry, pid) do
    raise ArgumentError, "expected a pid of this node, got: #{inspect(pid)}"
  end

  @doc """
  How many names are held. Those of processes that have just ended may still count.

      iex> registry = start_registry()
      iex> {:ok, _pid} = NativeRegistry.register(registry, :clock, nil)
      iex> NativeRegistry.count(registry)
      1

  With `cluster: true`, those of all nodes and who did not answer; see `select/3`.
  """
  @spec count(registry, wide) :: non_neg_integer | {non_neg_integer, missing :: [node]}
  def count(registry, options \\ []) do
    wide(registry, {:count, :_}, options, fn -> count_here(registry) end, &Enum.sum/1)
  end

  defp count_here(registry) do
    case Native.sizes(registry) do
      {names, _processes} -> names
      :no_registry -> Name.unknown_registry!(registry)
    end
  end

  @doc """
  All names, in no order; see `select/3` for what may be missing, and for the options.

      iex> registry = start_registry()
      iex> {:ok, _pid} = NativeRegistry.register(registry, :clock, nil)
      iex> NativeRegistry.names(registry)
      [:clock]
  """
  @spec names(registry, wide) :: [name] | {[name], missing :: [node]}
  def names(registry, options \\ []) do
    case select(registry, :_, options) do
      {found, missing} -> {Enum.uniq(for({name, _pid, _value} <- found, do: name)), missing}
      found -> for {name, _pid, _value} <- found, do: name
    end
  end

  @doc """
  Every `{name, pid, value}` whose name matches the pattern, in no order.

  A pattern is a name; `:_` in it stands for any term, and as the tail of a list for any tail. It
  cannot stand in the key of a map. There are no other variables: `:"$1"` is an atom.

  The table is gone through in pieces, on the dirty schedulers; nobody waits for it for longer than
  it takes to copy a piece: a hundredth of the table, or all of one with few names. A name that is held all the while is found,
  once. Names that come and go meanwhile may be found or not; one that is freed and registered
  again may be found as it was before, or after. Processes that have ended are left out.

      iex> registry = start_registry()
      iex> for case <- 1..3, do: NativeRegistry.register(registry, {:case, {"loans", case}}, nil)
      iex> {:ok, _pid} = NativeRegistry.register(registry, {:case, {"claims", 1}}, :open)
      iex> Enum.sort(for {name, _, _} <- NativeRegistry.select(registry, {:case, {"loans", :_}}), do: name)
      [case: {"loans", 1}, case: {"loans", 2}, case: {"loans", 3}]
      iex> NativeRegistry.select(registry, {:_, {"claims", :_}}) == [{{:case, {"claims", 1}}, self(), :open}]
      true

  It tells of this node. With `cluster: true` every connected node whose registry of that name is part
  of the cluster tells, too, and the answer is `{found, missing}`: `missing` are the nodes that did
  not answer within `:timeout`, 5,000 milliseconds unless said otherwise. As long as a conflict is not
  settled, a name may be found on two nodes.

      {found, []} = NativeRegistry.select(MyApp.Workflows, pattern, cluster: true, timeout: 1_000)
  """
  @spec select(registry, pattern, wide) ::
          [{name, pid, value}] | {[{name, pid, value}], missing :: [node]}
  def select(registry, pattern, options \\ []) do
    prepared = pattern!(registry, pattern)
    here = fn -> select_from(registry, prepared, 0) end
    wide(registry, {:select, pattern}, options, here, &Enum.concat/1)
  end

  # What `here` answers, or what all nodes do, put together.
  defp wide(registry, question, options, here, put_together) do
    case Wide.timeout!(options) do
      nil ->
        here.()

      timeout ->
        {answers, missing} = Wide.ask(registry, question, here, timeout)
        {put_together.(answers), missing}
    end
  end

  defp select_from(_registry, _pattern, nil), do: []

  defp select_from(registry, pattern, from) do
    case Native.piece(registry, pattern, from) do
      {records, next} ->
        rest = select_from(registry, pattern, next)

        for {name, pid, value} <- records, Process.alive?(pid), reduce: rest do
          rest -> [{name, pid, Value.decode(value)} | rest]
        end

      :no_registry ->
        Name.unknown_registry!(registry)
    end
  end

  @doc """
  How many names match the pattern; see `select/3`, for the options as well. Those of processes that
  have just ended may still count.

      iex> registry = start_registry()
      iex> for case <- 1..3, do: NativeRegistry.register(registry, {:case, case}, nil)
      iex> NativeRegistry.count_select(registry, {:case, :_})
      3
  """
  @spec count_select(registry, pattern, wide) ::
          non_neg_integer | {non_neg_integer, missing :: [node]}
  def count_select(registry, pattern, options \\ []) do
    prepared = pattern!(registry, pattern)

    here = fn ->
      with :no_registry <- Native.count_matching(registry, prepared) do
        Name.unknown_registry!(registry)
      end
    end

    wide(registry, {:count, pattern}, options, here, &Enum.sum/1)
  end

  @doc """
  Has the calling process told of all changes, from now on, of names that match the pattern.

  However many of its patterns match, it gets one message a change. It is forgotten when it ends.

      iex> registry = start_registry()
      iex> NativeRegistry.subscribe(registry, {:case, :_})
      :ok
      iex> {:ok, _pid} = NativeRegistry.register(registry, {:case, 1}, :open)
      iex> receive do
      ...>   {:register, ^registry, {:case, 1}, pid, :open} when pid == self() -> :told
      ...> end
      :told
      iex> NativeRegistry.unregister(registry, {:case, 1})
      iex> receive do
      ...>   {:unregister, ^registry, {:case, 1}, pid} when pid == self() -> :told
      ...> end
      :told

  With `cluster: true` it is told of the changes on all nodes of the cluster, those that come later
  included, and the answer is `{:ok, missing}`: `missing` are the nodes that have not begun to tell
  within `:timeout`, 5,000 milliseconds unless said otherwise. They begin as soon as they can. There
  are two more messages then, of nodes other than the own: `{:nodeup, registry, node}` before the first change
  that is told of that node, and `{:nodedown, registry, node}` when its registry stopped, or the
  node is gone. What changed in between is not told: whoever has to know asks `select/3`. Changes on one node
  are told in their order, those on two nodes in any.

      {:ok, []} = NativeRegistry.subscribe(MyApp.Workflows, pattern, cluster: true)
  """
  @spec subscribe(registry, pattern, wide) :: :ok | {:ok, missing :: [node]}
  def subscribe(registry, pattern \\ :_, options \\ []) do
    timeout = Wide.timeout!(options)

    case Native.subscribe(registry, pattern!(registry, pattern), self()) do
      :ok when is_integer(timeout) -> {:ok, WideSubscription.follow(registry, pattern, timeout)}
      :ok -> :ok
      :no_thread -> no_thread!()
      # The caller lives, so this is a registry that is being stopped.
      refusal when refusal in [:ended, :no_registry] -> Name.unknown_registry!(registry)
    end
  end

  @doc """
  Takes back what `subscribe/3` with the same pattern asked for. Messages that are on their way
  still come.

      iex> registry = start_registry()
      iex> NativeRegistry.subscribe(registry)
      iex> NativeRegistry.unsubscribe(registry)
      :ok
  """
  @spec unsubscribe(registry, pattern) :: :ok
  def unsubscribe(registry, pattern \\ :_) do
    case Native.unsubscribe(registry, pattern!(registry, pattern), self()) do
      subscribed when is_boolean(subscribed) -> WideSubscription.unfollow(registry, pattern)
      :no_registry -> Name.unknown_registry!(registry)
    end
  end

  @doc """
  Waits until the name is registered and answers the holder's pid.

  `timeout` is in milliseconds, or `:infinity`. Raises `ArgumentError` when the registry is stopped
  meanwhile.

      iex> registry = start_registry()
      iex> NativeRegistry.await(registry, :clock, 10)
      {:error, :timeout}
      iex> clock = spawn_link(fn ->
      ...>   {:ok, _pid} = NativeRegistry.register(registry, :clock, nil)
      ...>   Process.sleep(:infinity)
      ...> end)
      iex> NativeRegistry.await(registry, :clock, 5_000) == clock
      true
  """
  @spec await(registry, name, timeout) :: pid | {:error, :timeout}
  def await(registry, name, timeout \\ 5_000)

  def await(registry, name, :infinity), do: await_until(registry, name, :infinity)

  def await(registry, name, timeout) when is_integer(timeout) and timeout >= 0 do
    await_until(registry, name, System.monotonic_time(:millisecond) + timeout)
  end

  def await(_registry, _name, timeout) do
    raise ArgumentError,
          "expected a timeout in milliseconds or :infinity, got: #{inspect(timeout)}"
  end

  # A name that is there already costs a lookup. Otherwise the registry is told to tell us, and
  # looked into once more: the name may have come in between.
  defp await_until(registry, name, deadline) do
    with :undefined <- whereis(registry, name) do
      number = wait(registry, name)

      case await_answer(registry, name, deadline, number) do
        {:told, :closed} ->
          Name.unknown_registry!(registry)

        {:told, pid} ->
          # It may have ended since; then the wait goes on.
          if Process.alive?(pid), do: pid, else: await_until(registry, name, deadline)

        answer ->
          stop_waiting(registry, number)
          answer
      end
    end
  end

  # Looking the name up raises when the registry has been stopped, and in a cluster for other reasons.
  defp await_answer(registry, name, deadline, number) do
    with :undefined <- whereis(registry, name) do
      receive_answer(registry, name, deadline, number)
    end
  catch
    kind, reason ->
      stop_waiting(registry, number)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp receive_answer(registry, name, deadline, number) do
    receive do
      {:workflow_metal_native_registry, ^number, answer} -> {:told, answer}
    after
      min(left(deadline), poll(registry)) ->
        case {whereis(registry, name), left(deadline)} do
          {:undefined, 0} -> {:error, :timeout}
          {:undefined, _left} -> receive_answer(registry, name, deadline, number)
          {pid, _left} -> pid
        end
    end
  end

  # Engines do not say when another node registers a name. An atom is more than any number.
  defp poll(registry), do: if(Cluster.config(registry), do: @poll, else: :infinity)

  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)

  defp wait(registry, name) do
    case Native.wait(registry, name, self()) do
      number when is_integer(number) -> number
      :no_thread -> no_thread!()
      refusal -> wait(registry, Name.prepare!(refusal, registry, name))
    end
  end

  # Leaves no message behind: what cannot be taken back any more is on its way, and is awaited. That a
  # registry is closed is told to each that waits, too, so it does not matter which one this is now.
  defp stop_waiting(registry, number) do
    if Native.stop_waiting(registry, self(), number) != true do
      receive do
        {:workflow_metal_native_registry, ^number, _pid} -> :ok
      end
    end
  end

  @doc """
  What there is to know of a registry. Cheap enough to be called each second.

    * `:names` - how many names are held
    * `:processes` - how many processes hold, have held or wait for names, or have subscribed, and
      still live
    * `:bytes` - memory of the registry: of its names, of the index of their holders and of the
      places of values; not that of the values themselves, of events to be told, or of the VM's
      monitors. When names are freed, so is their memory: a part of the table of which less than an
      eighth is used is replaced by a smaller one, and of a registry without names about forty
      kilobytes stay if it has had many, and ten if it has had a few
    * `:shards` - in how many parts each map of the table is locked when it has had more than 256 names,
      or two writers at once; before, all names lie in one
    * `:shard_names` - `{fewest, most}` names in any of them
    * `:subscribers` - how many processes have subscribed
    * `:waiting` - how many calls of `await/3` wait
    * `:backlog` - how many events are still to be sent; see "Events" above
    * `:events_lost` - how many events were dropped since the start, because too many were to be sent
    * `:uptime` - milliseconds since the registry was started
    * `:terms` - how the native code reads names: `:direct`, from the memory of the VM, whose layout
      it knows and has checked; or `:documented`, by the functions of the VM's interface alone, which
      takes longer, and copies a whole binary that does not begin where a byte does even if it is far
      too large for a name. The second where the check at load met anything unknown, or where the
      environment variable `WORKFLOW_METAL_NATIVE_REGISTRY_PORTABLE` is set

      iex> registry = start_registry()
      iex> {:ok, _pid} = NativeRegistry.register(registry, :clock, nil)
      iex> %{names: 1, processes: 1, subscribers: 0} = NativeRegistry.info(registry)
  """
  @spec info(registry) :: info
  def info(registry) do
    case Native.info(registry) do
      :no_registry -> Name.unknown_registry!(registry)
      info -> Map.put(info, :terms, if(Native.reads_words(), do: :direct, else: :documented))
    end
  end

  @doc """
  Gives this node's names to the others of the cluster, before it stops.

  From now on no name is registered on this node any more, until the registry is stopped and started:
  `register/3` and `start_child/4` answer `{:error, :draining}`, and `register_name/2` exits with
  `{:shutdown, {:draining, {WorkflowMetal.Registration.NativeRegistry, registry, name}}}`. Names of
  other nodes are found, and a child whose supervisor runs on another node is started there, as before.

  Every process of this node that holds a name is ended: a child of a supervisor by that supervisor,
  which gives it the time to shut down that its child specification says, does not restart it and does not count it; any other
  with `{:shutdown, :draining}`. The names are free then, and other nodes can start what had them. The
  calling process is left alone.

  Answers `{drained, remaining}`: the names that were given away, and those still held after
  `:timeout`, 30,000 milliseconds unless said otherwise. Raises `ArgumentError` when the registry is
  this node's alone.

      def prep_stop(state) do
        {_drained, []} = NativeRegistry.drain(MyApp.Workflows, timeout: 20_000)
        state
      end
  """
  @spec drain(registry, timeout: non_neg_integer) :: {drained :: [name], remaining :: [name]}
  def drain(registry, options \\ []), do: Drain.drain(registry, options)

  defp whereis(registry, name) do
    case Native.whereis(registry, name) do
      # Only the VM knows of signals that are on their way to a process.
      pid when is_pid(pid) -> if Process.alive?(pid), do: pid, else: ended(registry, name)
      answer -> whereis(registry, name, name, answer)
    end
  end

  # `opened` is the name in the form that the NIF takes.
  defp whereis(registry, opened, name, answer) do
    case answer do
      :undefined ->
        :undefined

      :elsewhere ->
        Cluster.whereis(registry, name)

      pid when is_pid(pid) ->
        if Process.alive?(pid), do: pid, else: ended(registry, name)

      refusal ->
        opened = Name.prepare!(refusal, registry, opened)
        whereis(registry, opened, name, Native.whereis(registry, opened))
    end
  end

  # A name whose holder here has ended may have a new one on another node.
  defp ended(registry, name) do
    if Cluster.config(registry), do: Cluster.whereis(registry, name), else: :undefined
  end

  # `:yes`; or the process of this node that has the name, which is `pid` itself when that has ended;
  # or `:no` when another node has it; or the error of a cluster that cannot say.
  defp claim(registry, name, pid, value), do: claim(registry, name, name, pid, nil, value)

  # `opened` is the name in the form that the NIF takes.
  defp claim(registry, opened, name, pid, ended, value) do
    answer =
      with :heavy <- Native.register(registry, opened, pid, ended, value),
           do: Native.register_heavy(registry, opened, pid, ended, value)

    case answer do
      :elsewhere ->
        Drain.guard(registry, name, pid, fn ->
          # Whoever has ended had the name until now.
          case Cluster.register(registry, name, pid, ended != nil) do
            {:yes, _since} = answer ->
              hold(registry, opened, name, pid, ended, value, answer)

            :unsettled ->
              hold(registry, opened, name, pid, ended, value, :unsettled)

            refused ->
              refused
          end
        end)

      holder when is_pid(holder) ->
        if Process.alive?(holder),
          do: holder,
          else: claim(registry, opened, name, pid, holder, value)

      answer when answer in [:yes, :ended] ->
        claimed(answer, pid)

      refusal ->
        opened = Name.prepare!(refusal, registry, opened)
        claim(registry, opened, name, pid, ended, {:name, name, value})
    end
  end

  # The engine has given us the name, or it cannot say, and the name was this node's.
  defp hold(registry, opened, name, pid, ended, value, answer) do
    held =
      with :heavy <- Native.hold(registry, opened, pid, ended, value),
           do: Native.hold_heavy(registry, opened, pid, ended, value)

    case held do
      holder when is_pid(holder) ->
        if Process.alive?(holder) do
          if holder != pid, do: Cluster.settle_later(registry, name, [pid], false)
          holder
        else
          hold(registry, opened, name, pid, holder, value, answer)
        end

      :yes when answer == :unsettled ->
        Cluster.settle_later(registry, name, [])
        :yes

      :yes ->
        {:yes, since} = answer
        confirm(registry, opened, name, pid, since)

      :no_registry ->
        Name.unknown_registry!(registry)

      :ended ->
        claimed(:ended, pid)
    end
  end

  defp confirm(registry, opened, name, pid, since) do
    with refused when refused != :yes <- Cluster.confirm(registry, name, pid, since) do
      Native.unregister(registry, opened, pid)
      Cluster.settle_later(registry, name, [pid], false)
      refused
    end
  end

  defp claimed(:yes, _pid), do: :yes
  defp claimed(:ended, pid) when node(pid) == node(), do: pid

  defp claimed(:ended, pid) do
    raise ArgumentError, "expected a pid of this node, got: #{inspect(pid)}"
  end

  defp pattern!(registry, pattern) do
    case Native.pattern(pattern) do
      binary when is_binary(binary) -> binary
      :bad_pattern -> Name.bad_pattern!(pattern)
      refusal -> pattern!(registry, Name.prepare!(refusal, registry, pattern))
    end
  end

  @spec no_thread!() :: no_return
  defp no_thread!, do: raise("the system has no thread left to tell of changes of names")
end
