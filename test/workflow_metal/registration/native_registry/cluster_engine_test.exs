defmodule WorkflowMetal.Registration.NativeRegistry.ClusterEngineTest do
  # What needs no second node: the options, other engines, and that everything else is as without a cluster.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  import Bitwise

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, RegistryCase}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Monitor

  # A complete engine for a cluster of this node alone: an Agent keeps the holders of all names. For some
  # names, which are atoms, it answers otherwise.
  defmodule Engine do
    @moduledoc false
    @behaviour Cluster.Engine

    @impl true
    def requires, do: []

    @impl true
    def start(registry, []) do
      case Agent.start(fn -> %{} end, name: process(registry)) do
        {:ok, pid} -> pid
        {:error, {:already_started, pid}} -> pid
      end

      process(registry)
    end

    @impl true
    # Never answers.
    def register(registry, {:hangs, _number}, _pid, timeout) do
      tell(registry, {:asked, timeout})
      Process.sleep(timeout)
      {:error, :cluster_timeout}
    end

    def register(_registry, :fails, _pid, _timeout), do: {:error, :broken}

    # The first time it is settled, as for an attempt before, before this is answered.
    def register(registry, :settled, pid, timeout) do
      answer = take(registry, :settled, pid, timeout)

      unless Process.put(:settled, true) do
        :ok = Cluster.Settle.settle_later(registry, :settled, [pid])
        RegistryCase.eventually(fn -> whereis(registry, :settled) == :undefined end)
        RegistryCase.eventually(fn -> not Cluster.NameLock.locked?(registry, :settled) end)
      end

      answer
    end

    # The name is taken by a process that no node knows.
    def register(_registry, :refused, _pid, _timeout), do: :no

    def register(registry, name, pid, timeout), do: take(registry, name, pid, timeout)

    defp take(registry, name, pid, timeout) do
      ask(registry, timeout, fn names ->
        case names[name] do
          holder when is_pid(holder) and holder != pid ->
            if node(holder) != node() or Process.alive?(holder),
              do: {:no, names},
              else: {:yes, Map.put(names, name, pid)}

          _nobody ->
            tell(registry, {:registered, name})
            {:yes, Map.put(names, name, pid)}
        end
      end)
    end

    # The test that has started the registry.
    defp tell(registry, message) do
      with pid when is_pid(pid) <-
             Application.get_env(:workflow_metal_native_registry, registry),
           do: send(pid, message)
    end

    defp ask(registry, timeout, function) do
      Agent.get_and_update(process(registry), function, timeout)
    catch
      :exit, {:timeout, _call} -> {:error, :cluster_timeout}
    end

    @impl true
    def unregister(_registry, {:hangs, _number}, _pid, timeout) do
      Process.sleep(timeout)
      {:error, :cluster_timeout}
    end

    def unregister(registry, name, pid, timeout) do
      ask(registry, timeout, fn names ->
        tell(registry, {:freed, name})
        {:ok, if(names[name] == pid, do: Map.delete(names, name), else: names)}
      end)
    end

    @impl true
    def whereis(registry, name) do
      Agent.get(process(registry), &Map.get(&1, name, :undefined))
    end

    def hang(registry), do: :sys.suspend(process(registry))
    # How many questions it has yet to answer.
    def waiting(registry) do
      {:message_queue_len, waiting} =
        registry |> process() |> Process.whereis() |> Process.info(:message_queue_len)

      waiting
    end

    def go_on(registry), do: :sys.resume(process(registry))

    # As if another node had registered it.
    def put(registry, name, pid) do
      Agent.update(process(registry), &Map.put(&1, name, pid))
    end

    def process(registry), do: Module.concat(registry, Engine)
  end

  defmodule NeedsMore do
    @moduledoc false
    def requires, do: [{NoSuchEngine, "{:no_such_engine, \"~> 1.0\"}"}]
    def whereis(_registry, _name), do: :undefined
  end

  defp start_clustered(options) do
    registry = unique_registry()
    Application.put_env(:workflow_metal_native_registry, registry, self())
    options = Keyword.merge([name: registry, cluster: Engine], options)
    start_supervised!({NativeRegistry, options}, id: registry)
    %{registry: registry, meta: %{registry: registry}}
  end

  describe "the options" do
    test "name what is missing and how to add it" do
      error =
        assert_raise ArgumentError, fn ->
          NativeRegistry.child_spec(name: Some, cluster: NeedsMore)
        end

      assert error.message =~ "NoSuchEngine"
      assert error.message =~ "add {:no_such_engine, \"~> 1.0\"}"
      assert error.message =~ "Some"
    end

    unless Code.ensure_loaded?(:syn) do
      test "name syn when it is missing" do
        error =
          assert_raise ArgumentError, fn ->
            NativeRegistry.child_spec(name: Some, cluster: :syn)
          end

        assert error.message =~ "add {:syn, "
      end
    end

    test "are refused with an error that says what was expected" do
      for {option, value} <- [
            cluster: :nonsense,
            cluster: "global",
            cluster: String,
            cluster_timeout: 0,
            cluster_timeout: :infinity,
            on_conflict: String,
            on_conflict: {String, 3}
          ] do
        options = Keyword.merge([name: Some, cluster: :global], [{option, value}])
        error = assert_raise ArgumentError, fn -> NativeRegistry.child_spec(options) end
        assert error.message =~ inspect(option)
        assert error.message =~ inspect(value)
      end
    end

    test "of an application are read from the configuration" do
      registry = unique_registry()
      Application.put_env(:workflow_metal_native_registry, registry, cluster: Engine)
      start_registry(registry)
      assert %{engine: Engine, timeout: 5_000} = Cluster.Config.get(registry)
    end
  end

  for engine <- [Engine, :global] do
    describe "a registry with #{inspect(engine)} on a node that is alone" do
      @engine engine

      setup do
        start_clustered(cluster: @engine)
      end

      test "gives a name to one process", %{registry: registry, meta: meta} do
        assert NativeRegistry.Registry.register(registry, {"name", 1}, :value) == {:ok, self()}
        assert NativeRegistry.whereis_name(meta, {"name", 1}) == self()
        assert NativeRegistry.Registry.lookup(registry, {"name", 1}) == [{self(), :value}]
        assert NativeRegistry.Registry.keys(registry, self()) == [{"name", 1}]
        other = idle()
        assert NativeRegistry.register_name({registry, {"name", 1}}, other) == :no
        assert NativeRegistry.register_name({registry, {"name", 2}}, other) == :yes

        assert NativeRegistry.Registry.register(registry, {"name", 2}, nil) ==
                 {:error, {:already_registered, other}}

        assert NativeRegistry.Registry.unregister(registry, {"name", 1}) == :ok
        assert NativeRegistry.whereis_name(meta, {"name", 1}) == :undefined
        assert NativeRegistry.register_name({registry, {"name", 1}}, other) == :yes
      end

      test "takes names of every kind, many for one process", %{registry: registry, meta: meta} do
        names = [fn -> registry end, 1 <<< 90, <<1::3>>, %{a: 1.0}, %{a: 1}, {self(), make_ref()}]

        for name <- names,
            do: assert({:ok, _pid} = NativeRegistry.Registry.register(registry, name, name))

        for name <- names do
          assert NativeRegistry.whereis_name(meta, name) == self()
          assert NativeRegistry.Registry.lookup(registry, name) == [{self(), name}]
        end

        for name <- names, do: assert(NativeRegistry.Registry.unregister(registry, name) == :ok)
        for name <- names, do: assert(NativeRegistry.whereis_name(meta, name) == :undefined)
      end

      test "raises for a term that is no name, before it asks the engine", %{registry: registry} do
        large = String.duplicate("a", 70_000)

        assert_raise ArgumentError, fn ->
          NativeRegistry.Registry.register(registry, large, nil)
        end

        assert_raise ArgumentError, fn -> NativeRegistry.whereis_name({registry, large}) end

        assert_raise ArgumentError, fn ->
          NativeRegistry.register_name({registry, :name}, Terms.remote_pid(1))
        end
      end

      test "frees the names of a process at once when it ends", %{registry: registry, meta: meta} do
        for _round <- 1..200 do
          holder = idle()
          assert NativeRegistry.register_name({registry, :name}, holder) == :yes
          Process.exit(holder, :kill)
          assert NativeRegistry.whereis_name(meta, :name) == :undefined
          assert NativeRegistry.register_name({registry, :name}, self()) == :yes
          NativeRegistry.Registry.unregister(registry, :name)
        end
      end

      @tag crashes: ~r/Worker, :init.*:exit, :reason/s
      test "starts children, and passes on their answers", %{meta: meta} do
        supervisor = start_dynamic_supervisor()
        start = &NativeRegistry.start_child(meta, :name, supervisor, {Worker, init: &1})
        assert start.(fn -> :ignore end) == :ignore
        assert start.(fn -> {:stop, :reason} end) == {:error, :reason}
        assert {:ok, pid} = start.(fn -> {:ok, nil} end)
        assert start.(fn -> :ignore end) == {:ok, pid}
        assert NativeRegistry.whereis_name(meta, :name) == pid
      end

      test "starts one child for eight callers at once", %{meta: meta} do
        supervisors = for _supervisor <- 1..8, do: start_dynamic_supervisor()

        for round <- 1..50 do
          answers =
            supervisors
            |> Enum.map(
              &Task.async(fn -> NativeRegistry.start_child(meta, {:name, round}, &1, Worker) end)
            )
            |> Task.await_many(30_000)

          assert [{:ok, pid}] = Enum.uniq(answers)
          assert NativeRegistry.whereis_name(meta, {:name, round}) == pid
        end
      end

      test "goes on while its own process does not run", %{registry: registry, meta: meta} do
        assert NativeRegistry.Registry.register(registry, :name, nil) == {:ok, self()}
        owner = Process.whereis(Owner.name(registry))
        kill(owner)
        assert NativeRegistry.whereis_name(meta, :name) == self()
        assert NativeRegistry.Registry.register(registry, :other, nil) == {:ok, self()}
        eventually(fn -> Process.whereis(Owner.name(registry)) not in [nil, owner] end)
        assert NativeRegistry.whereis_name(meta, :name) == self()
      end

      test "keeps its names, in the engine as well, while its supervisor restarts it" do
        registry = unique_registry()
        name = {registry, :name}

        children = [
          Supervisor.child_spec({Agent, fn -> :sibling end}, id: :sibling),
          Supervisor.child_spec({NativeRegistry, name: registry, cluster: @engine}, id: :registry)
        ]

        {:ok, supervisor} =
          Supervisor.start_link(children, strategy: :rest_for_one, max_restarts: 100)

        child = fn id -> supervisor |> Supervisor.which_children() |> List.keyfind(id, 0) end
        :yes = NativeRegistry.register_name(name, self())

        for _time <- 1..10 do
          {:sibling, sibling, _type, _modules} = child.(:sibling)
          kill(sibling)

          eventually(fn -> elem(child.(:sibling), 1) not in [sibling, :restarting, :undefined] end)

          assert is_pid(elem(child.(:registry), 1))
          assert NativeRegistry.whereis_name(name) == self()
          assert Cluster.Config.get(registry).engine.whereis(registry, :name) == self()
        end

        engine = Cluster.Config.get(registry).engine
        :ok = Supervisor.terminate_child(supervisor, :registry)
        assert engine.whereis(registry, :name) == self()
        :ok = Supervisor.delete_child(supervisor, :registry)
        eventually(fn -> engine.whereis(registry, :name) == :undefined end)
      end

      test "has a new monitor when its monitor is killed", context do
        %{registry: registry, meta: meta} = context
        follower = Cluster.Monitor.name(registry)
        kill(Process.whereis(follower))
        assert NativeRegistry.Registry.register(registry, :name, nil) == {:ok, self()}

        eventually(fn ->
          # It has found the engine again.
          pid = Process.whereis(follower)
          pid && is_reference(:sys.get_state(pid).following)
        end)

        assert NativeRegistry.whereis_name(meta, :name) == self()
        :ok = stop_supervised(registry)
        eventually(fn -> Cluster.Config.get(registry) == nil end)
        eventually(fn -> Process.whereis(follower) == nil end)
      end

      test "does not run once it has been stopped, and its names are free", context do
        %{registry: registry} = context
        assert NativeRegistry.Registry.register(registry, :name, nil) == {:ok, self()}
        :ok = stop_supervised(registry)
        assert_raise ArgumentError, fn -> NativeRegistry.whereis_name({registry, :name}) end
        start_supervised!({NativeRegistry, name: registry, cluster: @engine}, id: registry)
        eventually(fn -> NativeRegistry.whereis_name({registry, :name}) == :undefined end)
        assert NativeRegistry.Registry.register(registry, :name, nil) == {:ok, self()}
      end
    end
  end

  describe "an answer of the engine" do
    setup do
      start_clustered(cluster_timeout: 100)
    end

    test "from another node is answered, and ends a wait", %{registry: registry, meta: meta} do
      remote = Terms.remote_pid(7)
      assert NativeRegistry.Registry.await(registry, :name, 20) == {:error, :timeout}
      wait = Task.async(fn -> NativeRegistry.Registry.await(registry, :name, :infinity) end)
      Engine.put(registry, :name, remote)
      assert NativeRegistry.whereis_name(meta, :name) == remote
      assert Task.await(wait, 30_000) == {:ok, remote}
      assert NativeRegistry.start_child(meta, :name, :no_supervisor, Worker) == {:ok, remote}

      assert NativeRegistry.Registry.register(registry, :name, nil) ==
               {:error, {:already_registered, remote}}
    end

    test "that comes late is an error, and is undone", %{registry: registry, meta: meta} do
      supervisor = start_dynamic_supervisor()

      assert NativeRegistry.start_child(meta, {:hangs, 1}, supervisor, Worker) ==
               {:error, :cluster_timeout}

      assert DynamicSupervisor.count_children(supervisor).specs == 0

      Engine.hang(registry)

      assert NativeRegistry.Registry.register(registry, :name, nil) ==
               {:error, :cluster_timeout}

      Engine.go_on(registry)
      assert_receive {:registered, :name}, 30_000
      assert_receive {:freed, :name}, 30_000
      assert NativeRegistry.whereis_name(meta, :name) == :undefined
    end

    test "is carried out for the process to register even if the caller is killed" do
      # The engine may hang for as long as a busy machine needs to kill the caller.
      %{registry: registry, meta: meta} = start_clustered(cluster_timeout: 30_000)
      holder = idle()
      Engine.hang(registry)
      caller = spawn(fn -> NativeRegistry.register_name({registry, :name}, holder) end)
      eventually(fn -> Engine.waiting(registry) > 0 end)
      kill(caller)
      Engine.go_on(registry)
      assert_receive {:registered, :name}, 30_000
      eventually(fn -> NativeRegistry.whereis_name(meta, :name) == holder end)
      assert NativeRegistry.Registry.keys(registry, holder) == [:name]
      assert Engine.whereis(registry, :name) == holder
    end

    test "that comes too late delays a supervisor once for all callers that wait for it" do
      %{meta: meta} = start_clustered(cluster_timeout: 2_000)
      supervisor = start_dynamic_supervisor()

      answers =
        for number <- 1..5 do
          Task.async(fn ->
            NativeRegistry.start_child(meta, {:hangs, number}, supervisor, Worker)
          end)
        end
        |> Task.await_many(60_000)

      assert Enum.uniq(answers) == [{:error, :cluster_timeout}]
      # All of them wait at the same time, not one after another.
      assert Enum.sum(asked()) < 3_000
    end

    defp asked do
      receive do
        {:asked, timeout} -> [timeout | asked()]
      after
        0 -> []
      end
    end

    test "is not waited for when this node held the name until a crash", context do
      %{registry: registry, meta: meta} = context
      holder = idle()
      assert NativeRegistry.register_name({registry, :name}, holder) == :yes
      kill(holder)
      Engine.hang(registry)
      assert NativeRegistry.Registry.register(registry, :name, nil) == {:ok, self()}
      assert NativeRegistry.Registry.register(registry, :other, nil) == {:error, :cluster_timeout}
      Engine.go_on(registry)
      assert NativeRegistry.whereis_name(meta, :name) == self()
      eventually(fn -> Engine.whereis(registry, :name) == self() end)
    end

    test "that is wrong when nodes come has the name registered again or its holder ended",
         context do
      %{registry: registry, meta: meta} = context
      [lost, taken] = for _holder <- 1..2, do: idle()
      assert NativeRegistry.register_name({registry, :lost}, lost) == :yes
      assert NativeRegistry.register_name({registry, :taken}, taken) == :yes
      remote = Terms.remote_pid(7)
      Engine.put(registry, :lost, :undefined)
      Engine.put(registry, :taken, remote)

      reference = Process.monitor(taken)
      Monitor.reconcile(registry)
      assert await_down(reference) == {:shutdown, {:name_conflict, :taken, remote}}
      assert NativeRegistry.whereis_name(meta, :taken) == remote
      eventually(fn -> Engine.whereis(registry, :lost) == lost end)
      assert Process.alive?(lost)
    end

    test "is asked for again when the name is settled before its holder is in the table",
         %{registry: registry} do
      assert NativeRegistry.Registry.register(registry, :settled, nil) == {:ok, self()}
      assert Engine.whereis(registry, :settled) == self()
    end

    test "with a holder that no node knows is asked for again, but not for ever", context do
      %{registry: registry} = context
      test = self()
      spawn_link(fn -> send(test, NativeRegistry.Registry.register(registry, :refused, nil)) end)
      assert_receive {:error, :cluster_timeout}, 30_000
    end

    test "that is a failure is an error", %{registry: registry} do
      assert NativeRegistry.Registry.register(registry, :fails, nil) == {:error, :broken}
    end
  end
end

defmodule WorkflowMetal.Registration.NativeRegistry.ClusterMonitorsTest do
  # Not at the same time as others: it ends what their registries use.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Monitor, Monitors}

  test "a registry has a monitor again when the supervisor of all monitors was killed" do
    registry = unique_registry()
    start_supervised!({NativeRegistry, name: registry, cluster: :global}, id: :clustered)
    assert NativeRegistry.Registry.register(registry, :name, nil) == {:ok, self()}

    for _time <- 1..20 do
      monitor = Process.whereis(Monitor.name(registry))
      reference = Process.monitor(monitor)
      kill(Process.whereis(Monitors.Dynamic))
      await_down(reference)
      eventually(fn -> Process.whereis(Monitor.name(registry)) not in [nil, monitor] end)
      assert NativeRegistry.whereis_name({registry, :name}) == self()
    end

    :ok = stop_supervised(:clustered)
    eventually(fn -> Config.get(registry) == nil end)
    eventually(fn -> Process.whereis(Monitor.name(registry)) == nil end)
  end
end
