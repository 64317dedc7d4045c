defmodule WorkflowMetal.Registration.NativeRegistry.ContractTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  defmodule WithInfo do
    use GenServer, restart: :temporary

    def start_link(options) do
      {:ok, pid} = GenServer.start_link(__MODULE__, [], Keyword.take(options, [:name]))
      {:ok, pid, :info}
    end

    @impl GenServer
    def init([]), do: {:ok, nil}
  end

  defmodule NeverStarts do
    def child_spec(options) do
      %{id: __MODULE__, start: {__MODULE__, :start_link, [options]}, restart: :temporary}
    end

    def start_link(options), do: {:error, {:not_today, Keyword.keys(options)}}
  end

  # Its start is answered by the option `:start`.
  defmodule Answers do
    def child_spec(options) do
      %{id: __MODULE__, start: {__MODULE__, :start_link, [options]}, restart: :temporary}
    end

    def start_link(options), do: options[:start].()
  end

  @bad_child_specs [
    "a string",
    1,
    {Worker, :not_a_list},
    {Worker, %{a: 1}},
    {Worker, [1, 2]},
    {Worker, [{"key", 1}]},
    {Worker, [a: 1], :three},
    {Worker},
    {"Worker", []},
    [Worker],
    %{id: Worker, start: {Worker, :start_link, [[]]}}
  ]

  describe "child_spec/2" do
    test "answers a spec that starts under a supervisor and a meta for which names can be looked up" do
      assert {:ok, child_spec, meta} = NativeRegistry.child_spec(unique_registry(), [])
      {:ok, supervisor} = Supervisor.start_link([child_spec], strategy: :one_for_one)

      assert %{active: 1} = Supervisor.count_children(supervisor)
      assert NativeRegistry.whereis_name(meta, :name) == :undefined
    end

    test "answers specs that two applications start under one supervisor" do
      {:ok, one, _meta} = NativeRegistry.child_spec(unique_registry(), [])
      {:ok, another, _meta} = NativeRegistry.child_spec(unique_registry(), [])
      {:ok, supervisor} = Supervisor.start_link([one, another], strategy: :one_for_one)

      assert %{active: 2} = Supervisor.count_children(supervisor)
    end

    test "answers a meta that is a small map of atoms, as it is copied for every call", context do
      assert is_map(context.meta)
      assert Enum.all?(context.meta, fn {key, value} -> is_atom(key) and is_atom(value) end)
      assert :erts_debug.flat_size(context.meta) <= 16
    end

    test "answers a meta that stays valid when the registry's own process restarts", context do
      :yes = NativeRegistry.register_name({context.registry, :name}, self())

      kill(context.owner)
      assert NativeRegistry.whereis_name(context.meta, :name) == self()

      owner = eventually(fn -> Process.whereis(Owner.name(context.registry)) end)
      assert owner != context.owner
      assert NativeRegistry.whereis_name(context.meta, :name) == self()
    end

    test "refuses an unknown option, naming it and the known ones" do
      assert_raise ArgumentError, ~r/:colour.*the known options are: \[/, fn ->
        NativeRegistry.child_spec(unique_registry(), colour: :red)
      end
    end

    test "refuses an unknown option of the application environment, naming the application" do
      application = unique_registry()
      Application.put_env(:workflow_metal_native_registry, application, shape: :round)
      on_exit(fn -> Application.delete_env(:workflow_metal_native_registry, application) end)

      message = ~r/:shape.*#{Regex.escape(inspect(application))}.*the known options are: \[/

      assert_raise ArgumentError, message, fn ->
        NativeRegistry.child_spec(application, [])
      end
    end

    test "does not take the options of another application" do
      application = unique_registry()
      Application.put_env(:workflow_metal_native_registry, application, shape: :round)
      on_exit(fn -> Application.delete_env(:workflow_metal_native_registry, application) end)

      assert {:ok, _child_spec, _meta} = NativeRegistry.child_spec(unique_registry(), [])
    end
  end

  describe "child_spec/1" do
    test "answers a spec by which the module itself is a child of a supervisor" do
      registry = unique_registry()

      {:ok, supervisor} =
        Supervisor.start_link([{NativeRegistry, name: registry}], strategy: :one_for_one)

      assert NativeRegistry.register_name({registry, :name}, self()) == :yes
      assert NativeRegistry.whereis_name({registry, :name}) == self()
      assert GenServer.whereis({:via, NativeRegistry, {registry, :name}}) == self()

      :ok = Supervisor.stop(supervisor)
      assert_raise ArgumentError, fn -> NativeRegistry.whereis_name({registry, :name}) end
    end

    test "is the same child as that of child_spec/2", context do
      {:ok, child_spec, _meta} = NativeRegistry.child_spec(context.registry, [])
      assert NativeRegistry.child_spec(name: context.registry) == child_spec
    end

    test "refuses an unknown option, naming it and the known ones" do
      assert_raise ArgumentError, ~r/:colour.*the known options are: \[:name/, fn ->
        NativeRegistry.child_spec(name: unique_registry(), colour: :red)
      end
    end

    test "refuses a name that is no atom, or none" do
      for options <- [[], [name: nil], [name: true], [name: "name"], [name: {:a, :b}], [name: 1]] do
        assert_raise ArgumentError, ~r/expected :name to be an atom/, fn ->
          NativeRegistry.child_spec(options)
        end
      end
    end
  end

  describe "via_tuple/2" do
    test "answers a via tuple of the adapter", context do
      assert {:via, NativeRegistry, _term} = NativeRegistry.via_tuple(context.meta, :name)
    end

    test "holds nothing but atoms and the name, so it means the same on every node", context do
      name = {"a name", make_ref()}
      assert {:via, NativeRegistry, term} = NativeRegistry.via_tuple(context.meta, name)

      assert {parts, [^name]} = term |> Tuple.to_list() |> Enum.split_with(&is_atom/1)
      assert context.registry in parts
    end

    test "answers the same wherever it is called", context do
      via = NativeRegistry.via_tuple(context.meta, {:name, 1})
      {:ok, _child_spec, meta} = NativeRegistry.child_spec(context.registry, [])

      assert NativeRegistry.via_tuple(meta, {:name, 1}) === via
      assert elsewhere(fn -> NativeRegistry.via_tuple(context.meta, {:name, 1}) end) === via
    end

    test "answers different tuples for different names and different applications", context do
      %{meta: other_meta} = start_registry()

      vias =
        for meta <- [context.meta, other_meta], name <- [1, 1.0, "1"] do
          NativeRegistry.via_tuple(meta, name)
        end

      assert Enum.uniq(vias) == vias
    end

    test "answers a tuple that survives a restart of the registry", context do
      via = NativeRegistry.via_tuple(context.meta, :name)
      :ok = stop_supervised(context.id)
      %{meta: meta} = start_registry(context.registry)

      pid = start_supervised!({Worker, name: via})
      assert NativeRegistry.whereis_name(meta, :name) == pid
      assert GenServer.call(via, :pid) == pid
    end
  end

  describe "start_child/4" do
    setup do
      %{supervisor: start_dynamic_supervisor()}
    end

    test "starts a child under the supervisor and answers its pid", context do
      assert {:ok, pid} = start_child(context, :name, Worker)

      assert [{:undefined, ^pid, :worker, [Worker]}] =
               DynamicSupervisor.which_children(context.supervisor)

      assert NativeRegistry.whereis_name(context.meta, :name) == pid
    end

    test "answers the existing child when it is already started", context do
      assert {:ok, pid} = start_child(context, :name, Worker)
      assert {:ok, ^pid} = start_child(context, :name, Worker)
      assert {:ok, ^pid} = start_child(context, :name, {Worker, a: 1})
      assert %{workers: 1} = DynamicSupervisor.count_children(context.supervisor)
    end

    test "answers a process that was registered in another way", context do
      :yes = NativeRegistry.register_name({context.registry, :name}, self())

      assert start_child(context, :name, Worker) == {:ok, self()}
      assert %{workers: 0} = DynamicSupervisor.count_children(context.supervisor)
    end

    test "puts the via tuple into the keywords as `:name`, in place of any other", context do
      via = NativeRegistry.via_tuple(context.meta, :name)
      {:ok, pid} = start_child(context, :name, {Worker, a: 1, name: :not_this_one, b: 2})

      assert pid |> GenServer.call(:options) |> Enum.sort() == [a: 1, b: 2, name: via]
    end

    test "gives a child that is only a module the via tuple alone", context do
      {:ok, pid} = start_child(context, :name, Worker)

      assert GenServer.call(pid, :options) == [
               name: NativeRegistry.via_tuple(context.meta, :name)
             ]
    end

    test "starts one child for each name", context do
      pids =
        for id <- 1..50, name <- [{Worker, id}, {Worker, {id, id}}, {WithInfo, id}] do
          {:ok, pid} = start_child(context, name, {Worker, id: id})
          assert NativeRegistry.whereis_name(context.meta, name) == pid
          pid
        end

      assert Enum.uniq(pids) == pids
    end

    test "starts the child anew when the one before has ended", context do
      {:ok, pid} = start_child(context, :name, Worker)
      Process.exit(pid, :kill)

      assert {:ok, new_pid} = start_child(context, :name, Worker)
      assert new_pid != pid
      assert NativeRegistry.whereis_name(context.meta, :name) == new_pid
    end

    test "does not touch the supervisor for a running name", context do
      {:ok, pid} = start_child(context, :name, Worker)
      :ok = :sys.suspend(context.supervisor)
      gone = spawn(fn -> :ok end)
      kill(gone)

      for supervisor <- [context.supervisor, gone, :not_a_process, {:global, :not_a_process}] do
        context = %{context | supervisor: supervisor}
        assert elsewhere(fn -> start_child(context, :name, Worker) end) == {:ok, pid}
      end

      :ok = :sys.resume(context.supervisor)
    end

    test "exits as a call does when a new child's supervisor is not there", context do
      gone = spawn(fn -> :ok end)
      kill(gone)

      assert {:noproc, _call} =
               catch_exit(start_child(%{context | supervisor: gone}, :name, Worker))
    end

    test "accepts any kind of name for the supervisor", context do
      via = NativeRegistry.via_tuple(context.meta, DynamicSupervisor)
      supervisor = start_dynamic_supervisor(name: via)

      assert {:ok, pid} = start_child(%{context | supervisor: via}, :name, Worker)
      assert [{_id, ^pid, _type, _modules}] = DynamicSupervisor.which_children(supervisor)

      name = unique_registry()
      supervisor = start_dynamic_supervisor(name: name)
      assert {:ok, pid} = start_child(%{context | supervisor: name}, :another, Worker)
      assert [{_id, ^pid, _type, _modules}] = DynamicSupervisor.which_children(supervisor)
    end

    test "starts supervisors, too", context do
      assert {:ok, pid} =
               start_child(context, :supervisor, {DynamicSupervisor, strategy: :one_for_one})

      assert {:ok, ^pid} = start_child(context, :supervisor, DynamicSupervisor)
      via = NativeRegistry.via_tuple(context.meta, :supervisor)
      assert {:ok, child} = start_child(%{context | supervisor: via}, :child, Worker)
      assert [{_id, ^child, _type, _modules}] = DynamicSupervisor.which_children(pid)
    end

    test "refuses a child that is neither a module nor a module with keywords", context do
      for child_spec <- @bad_child_specs do
        error = assert_raise ArgumentError, fn -> start_child(context, :name, child_spec) end
        assert error.message =~ inspect(child_spec)
      end

      assert NativeRegistry.whereis_name(context.meta, :name) == :undefined
    end

    test "refuses a bad child spec for a running name, too", context do
      {:ok, _pid} = start_child(context, :name, Worker)

      for child_spec <- @bad_child_specs do
        assert_raise ArgumentError, fn -> start_child(context, :name, child_spec) end
      end
    end

    test "looks at all keywords only to start a child", context do
      for child_spec <- [{Worker, [{:a, 1}, :b]}, {Worker, [{:a, 1} | :b]}] do
        error = assert_raise ArgumentError, fn -> start_child(context, :name, child_spec) end
        assert error.message =~ inspect(child_spec)
        assert NativeRegistry.whereis_name(context.meta, :name) == :undefined
      end

      {:ok, pid} = start_child(context, :name, Worker)
      assert start_child(context, :name, {Worker, [{:a, 1}, :b]}) == {:ok, pid}
    end

    @tag crashes: ~r/Worker, :init.*({:exit, :reason|:a_while_ago|"no")/s
    test "passes the child's own error through", context do
      assert start_child(context, :name, NeverStarts) == {:error, {:not_today, [:name]}}

      for reason <- [
            :reason,
            {:shutdown, 1},
            :shutdown,
            :normal,
            {:already_started, :a_while_ago}
          ] do
        child_spec = {Worker, init: fn -> {:stop, reason} end}
        assert start_child(context, :name, child_spec) == {:error, reason}
      end

      child_spec = {Worker, init: fn -> raise "no" end}

      assert {:error, {%RuntimeError{message: "no"}, [_ | _]}} =
               start_child(context, :name, child_spec)

      assert NativeRegistry.whereis_name(context.meta, :name) == :undefined
      assert {:ok, _pid} = start_child(context, :name, Worker)
    end

    test "passes the supervisor's own error through", context do
      full = start_dynamic_supervisor(max_children: 0)
      context = %{context | supervisor: full}

      assert start_child(context, :name, Worker) == {:error, :max_children}
    end

    test "passes `:ignore` through", context do
      assert start_child(context, :name, {Worker, init: fn -> :ignore end}) == :ignore
      assert NativeRegistry.whereis_name(context.meta, :name) == :undefined
      assert {:ok, _pid} = start_child(context, :name, Worker)
    end

    test "answers the pid alone for a child that starts with additional information", context do
      assert {:ok, pid} = start_child(context, :name, WithInfo)
      assert {:ok, ^pid} = start_child(context, :name, WithInfo)
      assert NativeRegistry.whereis_name(context.meta, :name) == pid
    end

    test "starts the child again when another process kills it during its start", context do
      starts = :counters.new(1, [])

      init = fn ->
        :counters.add(starts, 1, 1)
        if :counters.get(starts, 1) < 5, do: Process.exit(self(), :kill)
        {:ok, []}
      end

      assert {:ok, pid} = start_child(context, :name, {Worker, init: init})
      assert NativeRegistry.whereis_name(context.meta, :name) == pid
      assert :counters.get(starts, 1) == 5
    end

    @tag crashes: ~r/Worker, :init.*:exit, {:already_started/s
    test "starts a child a few times at most, whatever error it answers",
         context do
      dead = idle()
      kill(dead)
      starts = :counters.new(1, [])

      hog = fn ->
        Process.flag(:max_heap_size, %{size: 10_000, kill: true, error_logger: false})
        {:ok, Enum.to_list(1..1_000_000)}
      end

      # What the child does, what is answered, and after how many starts.
      for {child_spec, reason, times} <- [
            {{Worker, init: fn -> Process.exit(self(), :kill) end}, :killed, 5},
            {{Worker, init: hog}, :killed, 5},
            {{Worker, init: fn -> {:stop, :killed} end}, :killed, 5},
            {{Answers, start: fn -> {:error, :killed} end}, :killed, 5},
            {{Answers, start: fn -> {:error, {:already_started, dead}} end},
             {:already_started, dead}, 2},
            {{Worker, init: fn -> {:stop, {:already_started, dead}} end},
             {:already_started, dead}, 2},
            {{Answers, start: fn -> {:error, {:already_started, :undefined}} end},
             {:already_started, :undefined}, 10},
            {{Answers, start: fn -> {:error, {:already_started, :a_while_ago}} end},
             {:already_started, :a_while_ago}, 1},
            {{Worker, init: fn -> {:stop, {:already_started, :a_while_ago}} end},
             {:already_started, :a_while_ago}, 1},
            {{Answers, start: fn -> {:error, :reason} end}, :reason, 1}
          ] do
        {module, [{option, function}]} = child_spec
        :counters.put(starts, 1, 0)

        counted = fn ->
          :counters.add(starts, 1, 1)
          function.()
        end

        assert start_child(context, :name, {module, [{option, counted}]}) == {:error, reason}
        assert :counters.get(starts, 1) == times
        assert NativeRegistry.whereis_name(context.meta, :name) == :undefined
      end

      assert {:ok, _pid} = start_child(context, :name, Worker)
    end

    test "starts a child ten times at most, however many holders are gone", context do
      starts = :counters.new(1, [])

      start = fn ->
        :counters.add(starts, 1, 1)
        gone = idle()
        kill(gone)
        {:error, {:already_started, gone}}
      end

      assert {:error, {:already_started, gone}} =
               start_child(context, :name, {Answers, start: start})

      refute Process.alive?(gone)
      assert :counters.get(starts, 1) == 10
    end

    test "does not take a process for the holder that does not have the name", context do
      {:ok, other} = start_child(context, :other, Worker)
      starts = :counters.new(1, [])

      start = fn ->
        :counters.add(starts, 1, 1)
        {:error, {:already_started, other}}
      end

      assert start_child(context, :name, {Answers, start: start}) ==
               {:error, {:already_started, other}}

      assert :counters.get(starts, 1) == 1
      assert NativeRegistry.whereis_name(context.meta, :name) == :undefined

      # The answer is the process that is there: it has started itself under the name.
      start = fn ->
        holder = idle()
        :yes = NativeRegistry.register_name({context.registry, :name}, holder)
        {:error, {:already_started, other}}
      end

      assert {:ok, holder} = start_child(context, :name, {Answers, start: start})
      assert NativeRegistry.whereis_name(context.meta, :name) == holder
    end

    test "raises for an application that was never started" do
      {:ok, _child_spec, meta} = NativeRegistry.child_spec(NeverStarted, [])

      assert_raise ArgumentError, ~r/NeverStarted/, fn ->
        NativeRegistry.start_child(meta, :name, self(), Worker)
      end
    end
  end

  describe "whereis_name/2" do
    test "answers `:undefined` for a name that is not registered", context do
      assert NativeRegistry.whereis_name(context.meta, :not_registered) == :undefined
    end

    test "answers the pid of a process that registered itself by its via tuple", context do
      via = NativeRegistry.via_tuple(context.meta, :registered)
      pid = start_supervised!({Worker, name: via})

      assert NativeRegistry.whereis_name(context.meta, :registered) == pid
      assert {:error, {:already_started, ^pid}} = Worker.start_link(name: via)
    end

    test "answers `:undefined` as soon as the process has ended", context do
      {:ok, pid} = Worker.start(name: NativeRegistry.via_tuple(context.meta, :name))
      GenServer.stop(pid)

      assert NativeRegistry.whereis_name(context.meta, :name) == :undefined
    end

    test "raises for an application that was never started, naming it" do
      {:ok, _child_spec, meta} = NativeRegistry.child_spec(NeverStarted, [])

      assert_raise ArgumentError, ~r/NeverStarted/, fn ->
        NativeRegistry.whereis_name(meta, :name)
      end
    end

    test "raises for an application that was stopped, naming it", context do
      :yes = NativeRegistry.register_name({context.registry, :name}, self())
      :ok = stop_supervised(context.id)

      assert_raise ArgumentError, ~r/#{Regex.escape(inspect(context.registry))}/, fn ->
        NativeRegistry.whereis_name(context.meta, :name)
      end
    end
  end

  describe "two applications" do
    setup do
      %{other: start_registry()}
    end

    test "do not share names", %{meta: meta, other: %{meta: other_meta}} do
      supervisor = start_dynamic_supervisor()
      {:ok, pid} = NativeRegistry.start_child(meta, :name, supervisor, Worker)
      assert NativeRegistry.whereis_name(other_meta, :name) == :undefined

      {:ok, other_pid} = NativeRegistry.start_child(other_meta, :name, supervisor, Worker)
      assert other_pid != pid
      assert NativeRegistry.whereis_name(meta, :name) == pid
      assert NativeRegistry.whereis_name(other_meta, :name) == other_pid

      kill(pid)
      assert NativeRegistry.whereis_name(meta, :name) == :undefined
      assert NativeRegistry.whereis_name(other_meta, :name) == other_pid
    end

    test "hold one process under one name each", %{registry: registry, other: other} do
      assert NativeRegistry.register_name({registry, :name}, self()) == :yes
      assert NativeRegistry.register_name({other.registry, :name}, self()) == :yes

      assert NativeRegistry.unregister_name({registry, :name}) == :ok
      assert NativeRegistry.whereis_name({registry, :name}) == :undefined
      assert NativeRegistry.whereis_name({other.registry, :name}) == self()
    end

    test "are stopped one by one", %{id: id, registry: registry, other: other} do
      :yes = NativeRegistry.register_name({registry, :name}, self())
      :yes = NativeRegistry.register_name({other.registry, :name}, self())
      :ok = stop_supervised(id)

      assert NativeRegistry.whereis_name(other.meta, :name) == self()
    end

    test "are told apart even if their names look alike" do
      base = unique_registry()

      registries =
        for suffix <- ["", "A", "AA", "B", "_"], do: :"#{base}#{suffix}" |> start_registry()

      for %{registry: registry} <- registries do
        assert NativeRegistry.register_name({registry, :name}, idle()) == :yes
      end

      pids = for %{meta: meta} <- registries, do: NativeRegistry.whereis_name(meta, :name)
      assert Enum.uniq(pids) == pids
    end
  end

  if Code.ensure_loaded?(WorkflowMetal.Registration.Adapter) do
    test "the behaviour is declared" do
      behaviours =
        for {:behaviour, modules} <- NativeRegistry.module_info(:attributes), do: modules

      assert WorkflowMetal.Registration.Adapter in List.flatten(behaviours)
    end
  end

  defp start_child(context, name, child_spec) do
    NativeRegistry.start_child(context.meta, name, context.supervisor, child_spec)
  end
end
