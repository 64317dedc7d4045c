defmodule WorkflowMetal.Registration.NativeRegistry.ClusterNode do
  @moduledoc false
  # What runs on a node in the tests of clusters. Nothing that it starts is linked to the caller.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{ClusterWorker, CrashLog}

  @log Module.concat(__MODULE__, Log)

  # Keeps what is logged instead of printing it.
  def start do
    {:ok, log} = Agent.start(fn -> [] end, name: @log)
    :ok = CrashLog.start()
    :ok = :logger.add_handler(@log, __MODULE__, %{config: %{log: log}})
  end

  def forget_logged, do: Agent.update(@log, fn _events -> [] end)

  def log(event, %{config: %{log: log}}), do: Agent.cast(log, &[event | &1])

  def logged do
    for %{level: level, msg: message} <- Agent.get(@log, & &1) do
      case message do
        {:string, string} -> {level, IO.chardata_to_string(string)}
        other -> {level, inspect(other)}
      end
    end
  end

  # An event handler of syn, as a user may have one. It keeps its calls.
  def on_process_registered(scope, name, pid, meta, _reason) do
    Agent.update(@log, &[%{level: :registered, msg: {scope, name, pid, meta}} | &1])
  end

  # A process that is registered with syn itself.
  def register_with_syn(scope, name) do
    caller = self()

    pid =
      spawn(fn ->
        answer = apply(:syn, :register, [scope, name, self(), :meta])
        send(caller, {self(), answer})
        Process.sleep(:infinity)
      end)

    receive do
      {^pid, :ok} -> pid
    end
  end

  # Those that have been started here since the last time.
  def forget_registries do
    registries = :persistent_term.get({__MODULE__, :registries}, [])
    :persistent_term.erase({__MODULE__, :registries})
    registries
  end

  def start_registry(registry, options) do
    :persistent_term.put({__MODULE__, :registries}, [registry | forget_registries()])
    {restarts, options} = Keyword.pop(options, :max_restarts, 3)

    children = [
      {NativeRegistry, [name: registry] ++ options},
      # Children are killed again and again, and no supervisor may give up because of that.
      {DynamicSupervisor, name: workers(registry), strategy: :one_for_one, max_restarts: restarts}
    ]

    with {:ok, pid} <- Supervisor.start_link(children, strategy: :one_for_one, name: registry) do
      Process.unlink(pid)
      :ok
    end
  end

  def stop_registry(registry), do: Supervisor.stop(registry)

  def workers(registry), do: Module.concat(registry, Workers)

  def start_child(registry, name, options \\ [], supervisor \\ nil) do
    NativeRegistry.start_child(
      %{registry: registry},
      name,
      supervisor || workers(registry),
      {ClusterWorker, options}
    )
  end

  # A supervisor that holds a name itself.
  def start_supervisor(registry, name) do
    child = {ClusterWorker.Supervisor, []}
    NativeRegistry.start_child(%{registry: registry}, name, workers(registry), child)
  end

  # A permanent process.
  def start_permanent(registry, name) do
    child = {ClusterWorker.Permanent, []}
    NativeRegistry.start_child(%{registry: registry}, name, workers(registry), child)
  end

  # The answer, and that of a lookup right after it.
  def start_and_look(registry, name, supervisor) do
    {start_child(registry, name, [], supervisor), whereis(registry, name)}
  end

  def start_children(registry, names, options \\ []) do
    for name <- names, do: start_child(registry, name, options)
  end

  def whereis(registry, name), do: NativeRegistry.whereis_name({registry, name})
  def whereis_all(registry, names), do: for(name <- names, do: whereis(registry, name))

  # Leaves all other nodes. OTP before 25.1 has no function for it.
  def leave do
    if Code.ensure_loaded?(:global) and function_exported?(:global, :disconnect, 0) do
      :global.disconnect()
    else
      for node <- Node.list(), do: Node.disconnect(node)
    end
  end

  # A process with some names of its own.
  def register(registry, names, value) do
    caller = self()

    holder =
      spawn(fn ->
        answers = for name <- names, do: NativeRegistry.Registry.register(registry, name, value)
        send(caller, {self(), answers})
        serve()
      end)

    receive do
      {^holder, answers} -> {holder, answers}
    end
  end

  # Runs a function in the process that `register/3` answered.
  def run(holder, module, function, arguments) do
    reference = make_ref()
    send(holder, {:run, self(), reference, module, function, arguments})

    receive do
      {^reference, answer} -> answer
    end
  end

  defp serve do
    receive do
      {:run, from, reference, module, function, arguments} ->
        send(from, {reference, apply(module, function, arguments)})
    end

    serve()
  end

  # The reasons with which the processes end, in their order; gathered by a process of its own.
  def watch_ends(pids) do
    spawn(fn ->
      references = for pid <- pids, do: Process.monitor(pid)
      gather(references)
    end)
  end

  defp gather(references) do
    receive do
      {:ends, from, reference} ->
        reasons =
          for monitor <- references do
            receive do
              {:DOWN, ^monitor, :process, _pid, reason} -> reason
            end
          end

        send(from, {reference, reasons})
    end
  end

  def ends(watcher) do
    reference = make_ref()
    send(watcher, {:ends, self(), reference})

    receive do
      {^reference, reasons} -> reasons
    end
  end

  # Decides conflicts in the tests: for the process of the node whose name comes last.
  def last(_registry, _name, one, other), do: Enum.max_by([one, other], &node/1)
  def nonsense(_registry, _name, _one, _other), do: :nonsense

  # Registers and starts names at random, and kills some holders, for `rounds` rounds. Returns what went wrong.
  def hammer(registry, names, seed, rounds) do
    :rand.seed(:exsss, seed)

    for _round <- 1..rounds,
        name = Enum.random(names),
        wrong <- [start_and_maybe_kill(registry, name)],
        wrong != :ok,
        do: wrong
  end

  defp start_and_maybe_kill(registry, name) do
    case start_child(registry, name) do
      {:ok, pid} when is_pid(pid) ->
        if :rand.uniform(4) == 1, do: Process.exit(pid, :kill)
        :ok

      other ->
        other
    end
  end
end

defmodule WorkflowMetal.Registration.NativeRegistry.ClusterWorker do
  @moduledoc false
  use GenServer, restart: :transient

  def start_link(options) do
    GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))
  end

  defmodule Permanent do
    @moduledoc false
    def child_spec(options) do
      %{
        id: __MODULE__,
        start: {WorkflowMetal.Registration.NativeRegistry.ClusterWorker, :start_link, [options]}
      }
    end
  end

  defmodule Supervisor do
    @moduledoc false
    use DynamicSupervisor

    def start_link(options), do: DynamicSupervisor.start_link(__MODULE__, nil, options)

    @impl DynamicSupervisor
    def init(_options), do: DynamicSupervisor.init(strategy: :one_for_one)
  end

  @impl GenServer
  def init(options) do
    Process.flag(:trap_exit, Keyword.get(options, :trap_exit, false))
    {:ok, options}
  end

  @impl GenServer
  def handle_call(:pid, _from, options), do: {:reply, self(), options}

  @impl GenServer
  def handle_cast({:tell, pid, message}, options) do
    send(pid, {self(), message})
    {:noreply, options}
  end

  @impl GenServer
  def handle_info(_message, options), do: {:noreply, options}
end
