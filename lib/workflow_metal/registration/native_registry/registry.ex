defmodule WorkflowMetal.Registration.NativeRegistry.Registry do
  @moduledoc ~S'''
  A process registry whose lookups and registrations are native code, with the functions of Elixir's
  `Registry` with unique keys.

      iex> alias WorkflowMetal.Registration.NativeRegistry.Registry
      iex> {:ok, _pid} = Registry.start_link(keys: :unique, name: MyApp.Registry)
      iex> {:ok, pid} = Agent.start_link(fn -> 0 end, name: {:via, Registry, {MyApp.Registry, "agent", :idle}})
      iex> Registry.lookup(MyApp.Registry, "agent") == [{pid, :idle}]
      true
      iex> Registry.register(MyApp.Registry, "agent", :mine)
      {:error, {:already_registered, pid}}

  Under a supervisor it is the child `{Registry, keys: :unique, name: MyApp.Registry}`. All examples
  assume the alias. A registry that WorkflowMetal has started for an application has the name of the
  application, and is used in the same way.

  ## What it guarantees

    * At most one process of this node holds a name, which Elixir calls a key. Names are compared by
      `===`: `1` and `1.0` are two names, and a map is the same name whatever way it was built.
    * A name is free as soon as its holder has ended, and no lookup answers a process that has ended.
    * A name or value that is read is `===` the one that was stored.
    * The table belongs to the VM: the registry's own process may be killed and restarted while names
      are held, looked up and taken. Nothing is linked to it.
    * When its supervisor stops the registry, every function raises `ArgumentError` for it.
      What it held comes back when the supervisor starts the same child again.
    * There is exactly one event for each change of a name, and those of one name come in order.

  With the option `:cluster` each name runs once among all connected nodes; with the engine `:ra` among all
  nodes, even during a netsplit.

  ## What differs from Elixir's `Registry`

    * Keys are unique; there are no `:duplicate` ones.
    * `register/3` answers `{:ok, self()}`. A registration links the caller to nothing.
    * `register_name/2` also registers a process other than the caller, if it is of this node.
    * Listeners are also told of names that are free because their holder has ended.
    * A call with a registry that does not run, or is no atom, raises `ArgumentError`.
    * A name may have 64 KiB in canonical form, and a value 1 MiB in external format.
    * There is no `lock/3`; `:global.trans/3` with `[node()]` does the same.

  This module adds `match_names/3`, `count_names/3` and `names/2`, events, `await/3`, `info/1`, `drain/2`,
  `lookup/3` and `lease_valid?/1`.

  ## Where to read on

    * [Moving from LocalRegistry](guides/moving_from_local_registry.md)
    * [Names, values and patterns](guides/names_values_patterns.md)
    * [Events and waiting](guides/events_and_waiting.md)
    * [Several nodes](guides/several_nodes.md)
    * [Names that never run twice](guides/names_that_never_run_twice.md)
    * [Running it in production](guides/production.md)
    * [Troubleshooting](guides/troubleshooting.md)
  '''

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Meta, Names, Options, Owner, Records, Table}
  alias WorkflowMetal.Registration.NativeRegistry.{Waiting, Wide}

  ## Types

  @typedoc "The name of a registry; for WorkflowMetal, that of the application."
  @type registry :: atom

  @typedoc "Any term of at most 64 KiB in canonical form that is nested at most 256 levels deep."
  @type name :: term

  @typedoc "Any term of at most 1 MiB in external format."
  @type value :: term

  @typedoc "What a via tuple holds."
  @type via_name :: {registry, name} | {registry, name, value}

  @typedoc "A name in which `:_` stands for any term, or for any tail of a list; see `match_names/3`."
  @type pattern :: term

  @typedoc "A pattern for a value, as in `:ets.match/2`."
  @type match_pattern :: term

  @typedoc "A guard of a match specification."
  @type guard :: atom | tuple

  @typedoc "The guards of a match specification, all of which have to be true."
  @type guards :: [guard]

  @typedoc "What a clause of a match specification answers."
  @type body :: [term]

  @typedoc "A match specification whose heads are `{name, pid, value}`."
  @type spec :: [{match_pattern, guards, body}]

  @typedoc "What `dispatch/4` calls with the entries of a name."
  @type dispatcher :: (entries :: [{pid, value}] -> term) | {module, atom, [term]}

  @typedoc "The key of what is kept with a registry as a whole."
  @type meta_key :: atom | tuple

  @typedoc "What is kept with a registry as a whole; limited as a value."
  @type meta_value :: term

  @typedoc """
  Whether all nodes of a cluster are asked, and for how many milliseconds: 5,000 unless `:timeout` says
  otherwise. The nodes that did not answer by then are the second element of the answer.
  """
  @type wide :: [cluster: boolean, timeout: non_neg_integer]

  @typedoc "A distributed engine; a module has the behaviour `WorkflowMetal.Registration.NativeRegistry.Cluster.Engine`."
  @type engine :: :global | :syn | :ra | module

  @typedoc """
  Grows with each grant of any name of a cluster with the engine `:ra`. A storage that keeps the highest token that
  it has seen can refuse a write with a lower one, which comes from a former holder.
  """
  @type token :: pos_integer

  @typedoc "What a registry is started with; see `start_link/1`."
  @type start_option ::
          {:name, registry}
          | {:keys, :unique}
          | {:listeners, [atom]}
          | {:meta, [{meta_key, meta_value}]}
          | {:partitions, pos_integer}
          | {:compressed, boolean}
          | {:cluster, engine | {engine, keyword}}
          | {:cluster_timeout, pos_integer}
          | {:on_conflict, {module, atom}}

  @typedoc """
  Why a name cannot be registered although no process holds it. Only a registry of a cluster
  answers it.

    * `:cluster_timeout` - the engine has not said within `:cluster_timeout` milliseconds which process
      may have the name, or the process that has it cannot be seen from here
    * `:no_quorum` - this node has no contact with a majority of the members of `:ra`, so that no process of it
      may hold a name
    * `:draining` - `drain/2` gives the names of this node away
    * any other - an error of the engine; the reason with which its process ended, for instance
  """
  @type reason :: :cluster_timeout | :no_quorum | :draining | (engine_error :: term)

  @typedoc "Why `register/3` did not register the name."
  @type register_error :: {:already_registered, pid} | reason

  @typedoc """
  The exit reason of `register_name/2` when it can answer neither `:yes` nor `:no`, as the contract of via
  modules knows no error. A process that starts with such a name ends without a report.
  """
  @type refused_exit :: {:shutdown, {reason, {NativeRegistry, registry, name}}}

  @typedoc "The exit reason of `send/2` when no process holds the name."
  @type no_holder_exit :: {:badarg, {via_name, message :: term}}

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

  @typedoc """
  What listeners and subscribers of this node are told of a name: it was registered, or it is free.
  """
  @type change ::
          {:register, registry, name, pid, value}
          | {:unregister, registry, name, pid}

  @typedoc """
  What listeners and subscribers are told besides changes: that events were dropped because too many waited, and,
  in a cluster, what concerns the cluster; see [Events and waiting](guides/events_and_waiting.md).
  """
  @type notice ::
          {:events_lost, registry, pos_integer}
          | {:conflict, registry, name, winner :: pid, loser :: pid}
          | {:fenced, registry, name, pid, :draining | :no_quorum}
          | {:cluster_timeout, registry, name}
          | {:engine_down, registry, node, reason :: term}
          | {:engine_up, registry, node}
          | {:reconciled, registry, node, %{names: non_neg_integer, disagreed: non_neg_integer}}
          | {:nodeup, registry, node}
          | {:nodedown, registry, node}

  ## Starting

  @doc """
  Starts a registry, whose process is registered under its name.

  It ends with the calling process. Usually that is a supervisor, which has the child
  `{Registry, keys: :unique, name: MyApp.Registry}`.

    * `:name` - an atom, the name of the registry; required
    * `:keys` - `:unique`, which is also the default
    * `:listeners` - a list of atoms, the names of processes that are told of all changes
    * `:meta` - a keyword list of what is kept with the registry; see `meta/2`
    * `:cluster` - `:global`, `:syn`, `{:ra, options}` or the module of another engine, or `{engine, options}`
      of one that takes options; without it the registry is this node's alone. The options of `:ra` are
      `:nodes` and `:data_dir`, both required, `:lease` and `:fsync`; see [Names that never run
      twice](guides/names_that_never_run_twice.md)
    * `:cluster_timeout` - how many milliseconds a registration waits for the engine, 5,000 unless said
      otherwise
    * `:on_conflict` - `{module, function}`, which decides which of two processes stays after a netsplit; with
      `:ra` there is nothing to decide
    * `:partitions`, `:compressed` - accepted as those of Elixir's `Registry`, without an effect

  Raises `ArgumentError` for any other option, and for one that cannot be used.

      iex> {:ok, pid} = Registry.start_link(keys: :unique, name: MyApp.Started)
      iex> Process.whereis(MyApp.Started) == pid
      true
  """
  @doc since: "0.1.0"
  @spec start_link([start_option]) :: GenServer.on_start()
  def start_link(options), do: options |> Options.registry!() |> Owner.start_link()

  @doc "A registry as a child of a supervisor. The options are those of `start_link/1`."
  @doc since: "0.1.0"
  @spec child_spec([start_option]) :: Supervisor.child_spec()
  def child_spec(options), do: Owner.child_spec(__MODULE__, options)

  ## One name

  @doc """
  Registers a name for the calling process, with a value.

      iex> Registry.start_link(keys: :unique, name: MyApp.Register)
      iex> {:ok, pid} = Registry.register(MyApp.Register, {"invoice", 17}, :open)
      iex> pid == self()
      true
      iex> Registry.register(MyApp.Register, {"invoice", 17}, :open)
      {:error, {:already_registered, self()}}
  """
  @doc since: "0.1.0"
  @spec register(registry, name, value) :: {:ok, pid} | {:error, register_error}
  def register(registry, name, value), do: Names.register(registry, name, value)

  @doc """
  Frees a name of the calling process. The name of any other process stays as it is.

      iex> Registry.start_link(keys: :unique, name: MyApp.Unregister)
      iex> Registry.register(MyApp.Unregister, :clock, nil)
      iex> Registry.unregister(MyApp.Unregister, :clock)
      :ok
      iex> Registry.lookup(MyApp.Unregister, :clock)
      []
  """
  @doc since: "0.1.0"
  @spec unregister(registry, name) :: :ok
  def unregister(registry, name), do: Names.unregister(registry, name, self())

  @doc """
  Frees a name of the given process, which has to be of this node. So a name that was registered for
  another process by `register_name/2` can be taken back. The name of any other process stays as it is.

  Raises `ArgumentError` for a pid of another node, whose names only that node can free.

      iex> Registry.start_link(keys: :unique, name: MyApp.TakenBack)
      iex> pid = spawn_link(fn -> Process.sleep(:infinity) end)
      iex> Registry.register_name({MyApp.TakenBack, :worker}, pid)
      :yes
      iex> Registry.unregister(MyApp.TakenBack, :worker, pid)
      :ok
      iex> Registry.lookup(MyApp.TakenBack, :worker)
      []
  """
  @doc since: "0.1.0"
  @spec unregister(registry, name, pid) :: :ok
  def unregister(registry, name, pid), do: Names.unregister(registry, name, pid)

  @doc """
  The holder of the name and its value as `[{pid, value}]`, or `[]`.

  In a cluster the holder's node is asked for the value of a name that is held there.

      iex> Registry.start_link(keys: :unique, name: MyApp.Lookup)
      iex> Registry.lookup(MyApp.Lookup, "nobody")
      []
      iex> Registry.register(MyApp.Lookup, "me", %{since: 2024})
      iex> Registry.lookup(MyApp.Lookup, "me")
      [{self(), %{since: 2024}}]
  """
  @doc since: "0.1.0"
  @spec lookup(registry, name) :: [{pid, value}]
  def lookup(registry, name), do: Names.lookup(registry, name)

  @doc """
  As `lookup/2`; with `token: true` the answer is `[{pid, value, token}]`.

  The token is a number with the engine `:ra`, and `nil` with any other and without a cluster. The members of
  the cluster know it, so that such a lookup takes longer than one without.

      iex> Registry.start_link(keys: :unique, name: MyApp.Token)
      iex> Registry.register(MyApp.Token, "me", :idle)
      iex> Registry.lookup(MyApp.Token, "me", token: true)
      [{self(), :idle, nil}]
  """
  @doc since: "0.1.0"
  @spec lookup(registry, name, token: boolean) ::
          [{pid, value}] | [{pid, value, token | nil}]
  def lookup(registry, name, options), do: Names.lookup(registry, name, options)

  @doc """
  Whether the processes of this node may act as holders of their names.

  In a cluster with the engine `:ra` it is true while the lease of this node lasts: at no instant do two processes
  hold one name and get `true` from this function on their nodes. A holder that is about to do what must not be done
  twice asks here first. Without that engine it is always true, and promises nothing.

      iex> Registry.start_link(keys: :unique, name: MyApp.LeaseValid)
      iex> Registry.lease_valid?(MyApp.LeaseValid)
      true
  """
  @doc since: "0.1.0"
  @spec lease_valid?(registry) :: boolean
  def lease_valid?(registry), do: Table.lease_valid?(registry)

  @doc """
  The value of a name as `[value]` if this process holds the name, or `[]`.

      iex> Registry.start_link(keys: :unique, name: MyApp.Values)
      iex> Registry.register(MyApp.Values, "me", :idle)
      iex> Registry.values(MyApp.Values, "me", self())
      [:idle]
  """
  @doc since: "0.1.0"
  @spec values(registry, name, pid) :: [value]
  def values(registry, name, pid),
    do: for({^pid, value} <- Names.lookup(registry, name), do: value)

  @doc """
  Replaces the value of a name of the calling process by what the function answers for it.

  Answers `{new, old}`, or `:error` when the caller does not hold the name. Only the holder changes a
  value, so nothing comes between reading and writing.

      iex> Registry.start_link(keys: :unique, name: MyApp.UpdateValue)
      iex> Registry.register(MyApp.UpdateValue, :counter, 1)
      iex> Registry.update_value(MyApp.UpdateValue, :counter, &(&1 + 1))
      {2, 1}
      iex> Registry.update_value(MyApp.UpdateValue, :another, &(&1 + 1))
      :error
  """
  @doc since: "0.1.0"
  @spec update_value(registry, name, (value -> value)) :: {new :: value, old :: value} | :error
  def update_value(registry, name, fun), do: Table.update_value(registry, name, fun)

  @doc """
  The names that a process of this node holds, in no order.

      iex> Registry.start_link(keys: :unique, name: MyApp.Keys)
      iex> Registry.register(MyApp.Keys, {"invoice", 17}, nil)
      iex> Registry.keys(MyApp.Keys, self())
      [{"invoice", 17}]
  """
  @doc since: "0.1.0"
  @spec keys(registry, pid) :: [name]
  def keys(registry, pid), do: Table.keys(registry, pid)

  @doc """
  As `lookup/2`, if the value matches the pattern and the guards.

  Pattern and guards are those of a match specification: `:_` stands for any term, `:"$1"` for any term
  that guards can refer to.

      iex> Registry.start_link(keys: :unique, name: MyApp.Match)
      iex> Registry.register(MyApp.Match, "order", {:open, 3})
      iex> Registry.match(MyApp.Match, "order", {:open, :_})
      [{self(), {:open, 3}}]
      iex> Registry.match(MyApp.Match, "order", {:_, :"$1"}, [{:>, :"$1", 5}])
      []
  """
  @doc since: "0.1.0"
  @spec match(registry, name, match_pattern, guards) :: [{pid, value}]
  def match(registry, name, pattern, guards \\ []) when is_list(guards),
    do: Records.match(registry, name, pattern, guards)

  @doc "How many entries `match/4` finds."
  @doc since: "0.1.0"
  @spec count_match(registry, name, match_pattern, guards) :: 0 | 1
  def count_match(registry, name, pattern, guards \\ []) when is_list(guards),
    do: Records.count_match(registry, name, pattern, guards)

  @doc """
  As `unregister/2`, if the value matches as by `match/4`.

      iex> Registry.start_link(keys: :unique, name: MyApp.UnregisterMatch)
      iex> Registry.register(MyApp.UnregisterMatch, "order", {:open, 3})
      iex> Registry.unregister_match(MyApp.UnregisterMatch, "order", {:closed, :_})
      iex> Registry.count(MyApp.UnregisterMatch)
      1
      iex> Registry.unregister_match(MyApp.UnregisterMatch, "order", {:open, :_})
      iex> Registry.count(MyApp.UnregisterMatch)
      0
  """
  @doc since: "0.1.0"
  @spec unregister_match(registry, name, match_pattern, guards) :: :ok
  def unregister_match(registry, name, pattern, guards \\ []) when is_list(guards),
    do: Records.unregister_match(registry, name, pattern, guards)

  @doc """
  Calls the function with `[{pid, value}]` of the name, in the calling process. It is not called when
  there is none. The options of Elixir's `Registry` are accepted, and have no effect.

      iex> Registry.start_link(keys: :unique, name: MyApp.Dispatch)
      iex> Registry.register(MyApp.Dispatch, "me", :idle)
      iex> Registry.dispatch(MyApp.Dispatch, "me", fn [{pid, :idle}] -> send(pid, :work) end)
      :ok
      iex> receive do: (:work -> :done)
      :done
  """
  @doc since: "0.1.0"
  @spec dispatch(registry, name, dispatcher, keyword) :: :ok
  def dispatch(registry, name, dispatcher, options \\ [])

  def dispatch(registry, name, dispatcher, _options)
      when is_function(dispatcher, 1) or tuple_size(dispatcher) == 3,
      do: Records.dispatch(registry, name, dispatcher)

  ## Via

  @doc "The process that holds the name, or `:undefined`."
  @doc since: "0.1.0"
  @spec whereis_name(via_name) :: pid | :undefined
  def whereis_name({registry, name}), do: Names.whereis(registry, name)
  def whereis_name({registry, name, _value}), do: Names.whereis(registry, name)

  @doc """
  Makes a process of this node the holder of a name; `:no` when a living process has it.

  Exits with `t:refused_exit/0` when a cluster cannot say which process may have the name.
  """
  @doc since: "0.1.0"
  @spec register_name(via_name, pid) :: :yes | :no
  def register_name({registry, name}, pid) when is_pid(pid),
    do: Names.register_name(registry, name, nil, pid)

  def register_name({registry, name, value}, pid) when is_pid(pid),
    do: Names.register_name(registry, name, value, pid)

  @doc "Frees a name of the calling process, if the registry runs."
  @doc since: "0.1.0"
  @spec unregister_name(via_name) :: :ok
  def unregister_name({registry, name}), do: Names.unregister_name(registry, name)
  def unregister_name({registry, name, _value}), do: Names.unregister_name(registry, name)

  @doc """
  Sends a message to the holder of the name and answers its pid. Exits with `t:no_holder_exit/0` when
  there is none.
  """
  @doc since: "0.1.0"
  @spec send(via_name, message) :: pid when message: term
  def send(via_name, message), do: Names.send(via_name, message)

  ## All names

  @doc """
  What the match specification answers for the records of this node, in no order.

  Heads are `{name, pid, value}`. In guards and bodies `:"$_"` stands for `{name, {pid, value}}`, as in
  Elixir's `Registry`. Raises `ArgumentError` for a term that is no match specification.

  The table is read as by `match_names/3`. A name without variables or maps in the only clause is
  looked up instead. A map matches every map with these pairs.

      iex> Registry.start_link(keys: :unique, name: MyApp.Select)
      iex> for n <- 1..3, do: Registry.register(MyApp.Select, {:case, n}, n * 10)
      iex> Registry.select(MyApp.Select, [{{{:case, :"$1"}, :_, :"$2"}, [{:>, :"$2", 20}], [:"$1"]}])
      [3]
  """
  @doc since: "0.1.0"
  @spec select(registry, spec) :: [term]
  def select(registry, spec) when is_list(spec), do: Records.select(registry, spec)

  @doc """
  The number of records of this node for which the match specification answers `true`.

      iex> Registry.start_link(keys: :unique, name: MyApp.CountSelect)
      iex> for n <- 1..3, do: Registry.register(MyApp.CountSelect, {:case, n}, n * 10)
      iex> Registry.count_select(MyApp.CountSelect, [{{:_, :_, :"$1"}, [{:<, :"$1", 30}], [true]}])
      2
  """
  @doc since: "0.1.0"
  @spec count_select(registry, spec) :: non_neg_integer
  def count_select(registry, spec) when is_list(spec), do: Records.count_select(registry, spec)

  @doc """
  Every `{name, pid, value}` whose name matches the pattern, in no order.

  A pattern is a name; `:_` in it stands for any term, and as the tail of a list for any tail. It
  cannot stand in the key of a map. There are no other variables: `:"$1"` is an atom.

  The table is read in pieces, on the dirty schedulers. A registration waits for at most one piece: a
  hundredth of the table, or all of a table with few names. A name that is held all the while is found,
  once. A name that is registered or freed meanwhile may be found or not; one that is freed and
  registered again may be found as it was before, or after. Processes that have ended are left out.

      iex> Registry.start_link(keys: :unique, name: MyApp.MatchNames)
      iex> for n <- 1..3, do: Registry.register(MyApp.MatchNames, {:case, {"loans", n}}, nil)
      iex> Registry.register(MyApp.MatchNames, {:case, {"claims", 1}}, :open)
      iex> found = Registry.match_names(MyApp.MatchNames, {:case, {"loans", :_}})
      iex> Enum.sort(for {name, _pid, _value} <- found, do: name)
      [case: {"loans", 1}, case: {"loans", 2}, case: {"loans", 3}]
      iex> Registry.match_names(MyApp.MatchNames, {:_, {"claims", :_}})
      [{{:case, {"claims", 1}}, self(), :open}]

  It answers for this node. With `cluster: true` it answers for all connected nodes whose registry of that name is
  part of the cluster, and the answer is `{found, missing}`: `missing` are the nodes that did not answer
  within `:timeout` milliseconds. As long as a conflict is not settled, a name may be found on two
  nodes.

      {found, []} = Registry.match_names(MyApp.Registry, pattern, cluster: true, timeout: 1_000)
  """
  @doc since: "0.1.0"
  @spec match_names(registry, pattern, wide) ::
          [{name, pid, value}] | {[{name, pid, value}], missing :: [node]}
  def match_names(registry, pattern, options \\ []),
    do: Wide.match_names(registry, pattern, options)

  @doc """
  How many names match the pattern; see `match_names/3`, for the options as well. Names of processes
  that have just ended may still count.

      iex> Registry.start_link(keys: :unique, name: MyApp.CountNames)
      iex> for n <- 1..3, do: Registry.register(MyApp.CountNames, {:case, n}, nil)
      iex> Registry.count_names(MyApp.CountNames, {:case, :_})
      3
  """
  @doc since: "0.1.0"
  @spec count_names(registry, pattern, wide) ::
          non_neg_integer | {non_neg_integer, missing :: [node]}
  def count_names(registry, pattern, options \\ []),
    do: Wide.count_names(registry, pattern, options)

  @doc """
  How many names are held. Names of processes that have just ended may still count.

  With `cluster: true` it counts those of all nodes, as `match_names/3` does.

      iex> Registry.start_link(keys: :unique, name: MyApp.Count)
      iex> Registry.register(MyApp.Count, :clock, nil)
      iex> Registry.count(MyApp.Count)
      1
  """
  @doc since: "0.1.0"
  @spec count(registry, wide) :: non_neg_integer | {non_neg_integer, missing :: [node]}
  def count(registry, options \\ []), do: Wide.count(registry, options)

  @doc """
  All names, in no order; see `match_names/3` for what may be missing, and for the options.

      iex> Registry.start_link(keys: :unique, name: MyApp.Names)
      iex> Registry.register(MyApp.Names, :clock, nil)
      iex> Registry.names(MyApp.Names)
      [:clock]
  """
  @doc since: "0.1.0"
  @spec names(registry, wide) :: [name] | {[name], missing :: [node]}
  def names(registry, options \\ []), do: Wide.names(registry, options)

  ## The registry as a whole

  @doc """
  What is kept with the registry under the key, as `{:ok, value}`, or `:error`.

  It stays as long as the registry, whatever happens to the registry's process.

      iex> Registry.start_link(keys: :unique, name: MyApp.Meta, meta: [colour: :red])
      iex> Registry.meta(MyApp.Meta, :colour)
      {:ok, :red}
      iex> Registry.meta(MyApp.Meta, :shape)
      :error
  """
  @doc since: "0.1.0"
  @spec meta(registry, meta_key) :: {:ok, meta_value} | :error
  def meta(registry, key) when is_atom(key) or is_tuple(key), do: Meta.get(registry, key)

  @doc """
  Keeps the value with the registry, under the key.

      iex> Registry.start_link(keys: :unique, name: MyApp.PutMeta)
      iex> Registry.put_meta(MyApp.PutMeta, {:custom, 1}, "value")
      :ok
      iex> Registry.meta(MyApp.PutMeta, {:custom, 1})
      {:ok, "value"}
  """
  @doc since: "0.1.0"
  @spec put_meta(registry, meta_key, meta_value) :: :ok
  def put_meta(registry, key, value) when is_atom(key) or is_tuple(key),
    do: Meta.put(registry, key, value)

  @doc """
  Deletes what is kept with the registry under the key.

      iex> Registry.start_link(keys: :unique, name: MyApp.DeleteMeta, meta: [colour: :red])
      iex> Registry.delete_meta(MyApp.DeleteMeta, :colour)
      :ok
      iex> Registry.meta(MyApp.DeleteMeta, :colour)
      :error
  """
  @doc since: "0.1.0"
  @spec delete_meta(registry, meta_key) :: :ok
  def delete_meta(registry, key) when is_atom(key) or is_tuple(key),
    do: Meta.delete(registry, key)

  @doc """
  The figures of a registry on this node. The call is cheap enough to be made each second.

    * `:names` - how many names are held
    * `:processes` - how many processes that live hold, have held or wait for names, or have subscribed
    * `:bytes` - memory of the names, of the index of their holders and of the places of values; not
      that of the values themselves, of events that wait, or of the VM's monitors
    * `:shards` - in how many parts each map of the table is locked when it has had more than 256
      names, or two writers at once; before, all names lie in one
    * `:shard_names` - `{fewest, most}` names in any of them
    * `:subscribers` - how many processes have subscribed
    * `:waiting` - how many calls of `await/3` wait
    * `:backlog` - how many events wait to be sent
    * `:events_lost` - how many events were dropped since the start, because too many waited
    * `:uptime` - milliseconds since the registry was started
    * `:terms` - how the native code reads names: `:direct`, from the memory of the VM; or
      `:documented`, by the functions of the VM's interface alone, which takes longer

  See [Running it in production](guides/production.md).

      iex> Registry.start_link(keys: :unique, name: MyApp.Info)
      iex> Registry.register(MyApp.Info, :clock, nil)
      iex> %{names: 1, processes: 1, subscribers: 0} = Registry.info(MyApp.Info)
  """
  @doc since: "0.1.0"
  @spec info(registry) :: info
  def info(registry), do: Table.info(registry)

  ## Events and waiting

  @doc """
  Has the calling process told of all changes, from now on, of names that match the pattern; see
  `t:change/0` and `t:notice/0`.

  However many of its patterns match, it gets one message a change. It is forgotten when it ends.

      iex> Registry.start_link(keys: :unique, name: MyApp.Subscribe)
      iex> Registry.subscribe(MyApp.Subscribe, {:case, :_})
      :ok
      iex> Registry.register(MyApp.Subscribe, {:case, 1}, :open)
      iex> receive do
      ...>   {:register, MyApp.Subscribe, {:case, 1}, pid, :open} when pid == self() -> :told
      ...> end
      :told
      iex> Registry.unregister(MyApp.Subscribe, {:case, 1})
      iex> receive do
      ...>   {:unregister, MyApp.Subscribe, {:case, 1}, pid} when pid == self() -> :told
      ...> end
      :told

  With `cluster: true` it is told of the changes on all nodes of the cluster, those that come later
  included. The answer is `{:ok, missing}` then: `missing` are the nodes that have not begun to tell
  within `:timeout` milliseconds, and begin as soon as they can. For every other node the
  subscriber gets `{:nodeup, registry, node}` before the node's first change, and
  `{:nodedown, registry, node}` when its registry has stopped or the node is gone. It is not told of
  changes between `:nodedown` and the next `:nodeup`; `match_names/3` answers the names that are held.
  The changes on one node are told in their order, those on two nodes in any.

      {:ok, []} = Registry.subscribe(MyApp.Registry, pattern, cluster: true)
  """
  @doc since: "0.1.0"
  @spec subscribe(registry, pattern, wide) :: :ok | {:ok, missing :: [node]}
  def subscribe(registry, pattern \\ :_, options \\ []),
    do: Wide.subscribe(registry, pattern, options)

  @doc """
  Ends the subscription that `subscribe/3` made with the same pattern. Messages that are on their way
  still arrive.

      iex> Registry.start_link(keys: :unique, name: MyApp.Unsubscribe)
      iex> Registry.subscribe(MyApp.Unsubscribe)
      iex> Registry.unsubscribe(MyApp.Unsubscribe)
      :ok
  """
  @doc since: "0.1.0"
  @spec unsubscribe(registry, pattern) :: :ok
  def unsubscribe(registry, pattern \\ :_), do: Wide.unsubscribe(registry, pattern)

  @doc """
  Waits until a process has registered the name, and answers it.

  `timeout` is in milliseconds, or `:infinity`. Raises `ArgumentError` when the registry is stopped
  meanwhile.

      iex> Registry.start_link(keys: :unique, name: MyApp.Await)
      iex> Registry.await(MyApp.Await, :clock, 10)
      {:error, :timeout}
      iex> clock = spawn_link(fn ->
      ...>   Registry.register(MyApp.Await, :clock, nil)
      ...>   Process.sleep(:infinity)
      ...> end)
      iex> Registry.await(MyApp.Await, :clock) == {:ok, clock}
      true
  """
  @doc since: "0.1.0"
  @spec await(registry, name, timeout) :: {:ok, pid} | {:error, :timeout}
  def await(registry, name, timeout \\ 5_000), do: Waiting.await(registry, name, timeout)

  @doc """
  Gives this node's names to the other nodes of a cluster, before this node stops.

  From now on no name is registered on this node, until the registry is stopped and started:
  `register/3` and `start_child/4` answer `{:error, :draining}`, and `register_name/2` exits with
  `t:refused_exit/0`. Names of other nodes are found, and a child whose supervisor runs on another node
  is started there, as before.

  Every process of this node that holds a name is ended: a child of a supervisor by that supervisor,
  which gives it the time to shut down that its child specification says, and neither restarts nor
  counts it; any other with `{:shutdown, :draining}`. Then the names are free, and other nodes can
  start processes under them. The calling process is left alone.

  Answers `{drained, remaining}`: the names that were given away, and those still held after
  `:timeout`, 30,000 milliseconds unless said otherwise. Raises `ArgumentError` when the registry is
  this node's alone.

      def prep_stop(state) do
        {_drained, []} = Registry.drain(MyApp.Registry, timeout: 20_000)
        state
      end
  """
  @doc since: "0.1.0"
  @spec drain(registry, timeout: non_neg_integer) :: {drained :: [name], remaining :: [name]}
  def drain(registry, options \\ []), do: Owner.drain(registry, options)
end
