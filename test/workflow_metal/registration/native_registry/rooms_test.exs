defmodule WorkflowMetal.Registration.NativeRegistry.RoomsTest do
  # Alone, as it traces every process of the VM.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: false

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Names, Table}

  @application :workflow_metal_native_registry

  # The modules of test/support are part of the application, too.
  defp modules do
    {:ok, modules} = :application.get_key(@application, :modules)
    Enum.reject(modules, &(&1 |> source() |> String.contains?("test/support")))
  end

  defp source(module), do: to_string(module.module_info(:compile)[:source])

  defp cluster?(module), do: module |> Module.split() |> Enum.member?("Cluster")

  describe "a registry of one node alone" do
    test "calls no module of the cluster, whatever function is called" do
      traced = Enum.filter(modules(), &cluster?/1)
      assert Cluster in traced

      # What a test before this one has left to settle with an engine that hangs.
      for task <- Task.Supervisor.children(Cluster.Tasks),
          do: Task.Supervisor.terminate_child(Cluster.Tasks, task)

      for module <- traced do
        {:module, ^module} = Code.ensure_loaded(module)
        :erlang.trace_pattern({module, :_, :_}, true, [:local])
      end

      # A process does not trace itself.
      test = self()
      tracer = spawn_link(fn -> forward(test) end)
      :erlang.trace(:all, true, [:call, {:tracer, tracer}])

      on_exit(fn ->
        for module <- traced, do: :erlang.trace_pattern({module, :_, :_}, false, [:local])
      end)

      called = live_a_whole_life()
      # A call of the test's own process shows that calls are seen at all.
      assert Cluster.Config.get(:nothing) == nil
      delivered = :erlang.trace_delivered(:all)
      assert_receive {:trace_delivered, :all, ^delivered}, 30_000
      # The tracer hands on what it got before this.
      send(tracer, :all)
      assert_receive {:traced, :all}, 30_000
      called_there = for {:trace, pid, :call, call} <- traced(), do: {pid, call}
      assert {test, {Cluster.Config, :get, [:nothing]}} in called_there

      assert Enum.reject(called_there, &match?({^test, {Cluster.Config, _, [:nothing]}}, &1)) ==
               []

      :erlang.trace(:all, false, [:call])

      public =
        for module <- [NativeRegistry, Registry],
            {function, arity} <- module.__info__(:functions),
            function != :__mix_recompile__?,
            do: {module, function, arity}

      assert public -- called == []
    end

    defp forward(test) do
      receive do
        message -> send(test, {:traced, message})
      end

      forward(test)
    end

    defp traced do
      receive do
        {:traced, message} -> [message | traced()]
      after
        0 -> []
      end
    end

    # Calls every public function with every arity, and answers which those were.
    defp live_a_whole_life do
      registry = unique_registry()
      other = unique_registry()
      calls = :ets.new(:calls, [:set])

      call = fn module, function, arguments ->
        :ets.insert(calls, {{module, function, length(arguments)}})
        apply(module, function, arguments)
      end

      {:ok, spec, meta} = call.(NativeRegistry, :child_spec, [registry, []])
      supervisor = start_dynamic_supervisor()
      {:ok, owner} = DynamicSupervisor.start_child(supervisor, spec)
      %{} = call.(NativeRegistry, :child_spec, [[name: other]])
      {:ok, pid} = call.(NativeRegistry, :start_link, [[name: other]])
      GenServer.stop(pid)
      %{} = call.(Registry, :child_spec, [[name: other]])
      {:ok, pid} = call.(Registry, :start_link, [[name: other, keys: :unique]])
      GenServer.stop(pid)

      {:via, _module, via} = call.(NativeRegistry, :via_tuple, [meta, :child])
      arguments = [meta, :child, supervisor, Worker]
      {:ok, child} = call.(NativeRegistry, :start_child, arguments)
      {:ok, ^child} = call.(NativeRegistry, :start_child, arguments)
      ^child = call.(NativeRegistry, :whereis_name, [meta, :child])
      holder = idle()

      for module <- [NativeRegistry, Registry] do
        ^child = call.(module, :whereis_name, [via])
        ^child = call.(module, :send, [via, :message])
        :no = call.(module, :register_name, [via, self()])
        :yes = call.(module, :register_name, [{registry, {:of, module}}, holder])
        :ok = call.(module, :unregister_name, [{registry, :nobody}])
      end

      spec = [{{:_, :_, :"$1"}, [], [:"$1"]}]

      for {function, arguments} <- [
            subscribe: [],
            subscribe: [:_],
            subscribe: [:_, [cluster: true]],
            register: [:mine, :value],
            register: [:child, :value],
            lookup: [:mine],
            lookup: [:nobody],
            lookup: [:mine, [token: true]],
            lease_valid?: [],
            values: [:mine, self()],
            keys: [self()],
            update_value: [:mine, &{&1, 1}],
            match: [:mine, :_],
            match: [:mine, :_, []],
            count_match: [:mine, :_],
            count_match: [:mine, :_, []],
            dispatch: [:mine, fn _entries -> :ok end],
            dispatch: [:mine, fn _entries -> :ok end, []],
            select: [spec],
            count_select: [spec],
            match_names: [:_],
            match_names: [:_, [cluster: true]],
            count_names: [:_],
            count_names: [:_, [cluster: true]],
            count: [],
            count: [[cluster: true]],
            names: [],
            names: [[cluster: true]],
            put_meta: [:key, :value],
            meta: [:key],
            delete_meta: [:key],
            info: [],
            await: [:mine],
            await: [:nobody, 1],
            unregister_match: [:mine, :no],
            unregister_match: [:mine, :_, []],
            unregister: [:mine],
            unregister: [{:of, Registry}, holder],
            unsubscribe: [],
            unsubscribe: [:_]
          ],
          do: call.(Registry, function, [registry | arguments])

      assert_raise ArgumentError, fn -> call.(Registry, :drain, [registry]) end
      assert_raise ArgumentError, fn -> call.(Registry, :drain, [registry, []]) end

      # Holders that end, before and after it is noticed; a process that is killed; the end.
      kill(holder)
      :undefined = NativeRegistry.whereis_name({registry, {:of, NativeRegistry}})
      [] = Registry.lookup(registry, {:of, NativeRegistry})
      :yes = NativeRegistry.register_name({registry, {:of, NativeRegistry}}, self())
      kill(owner)
      eventually(fn -> Process.whereis(Owner.name(registry)) not in [nil, owner] end)
      {:ok, _pid} = Registry.register(registry, :after_a_restart, nil)
      :ok = DynamicSupervisor.stop(supervisor)
      assert_raise ArgumentError, fn -> Registry.lookup(registry, :mine) end
      for {called} <- :ets.tab2list(calls), do: called
    end
  end

  describe "the modules" do
    # `mix xref graph --format cycles` says the same of their files.
    test "call no module that calls them" do
      calls = Map.new(modules(), &{&1, called_by(&1)})

      for {module, _called} <- calls do
        refute module in reachable(calls, Map.fetch!(calls, module)), inspect(module)
      end
    end

    test "that call the native library are few, and of the cluster only two of the engine on ra" do
      speakers = for module <- modules(), Native in called_by(module), do: last(module)

      assert Enum.sort(speakers) ==
               ~w(Events Lease Meta Mirror Name Owner Records Table Value Waiting)
    end

    test "of the cluster are called through one only" do
      entered =
        for module <- modules(),
            not cluster?(module),
            called <- called_by(module),
            cluster?(called),
            uniq: true,
            do: called

      # The last one is for the public functions about the members of one engine.
      assert entered -- [Cluster, Cluster.Supervisor, Cluster.Ra.Members] == []
    end

    test "that a lookup passes through are the callback, the names, the table and the library" do
      assert Names in called_by(NativeRegistry)
      assert Table in called_by(Names)
      assert Native in called_by(Table)
      refute Table in called_by(NativeRegistry)
    end

    defp last(module), do: module |> Module.split() |> List.last()

    # The modules of this project whose functions a module calls by their names.
    defp called_by(module) do
      {:ok, {^module, [imports: imports]}} =
        module |> :code.which() |> :beam_lib.chunks([:imports])

      all = MapSet.new(modules())
      for {called, _, _} <- imports, called != module, called in all, uniq: true, do: called
    end

    defp reachable(calls, modules, seen \\ MapSet.new()) do
      Enum.reduce(modules, seen, fn module, seen ->
        if module in seen,
          do: seen,
          else: reachable(calls, Map.fetch!(calls, module), MapSet.put(seen, module))
      end)
    end
  end

  describe "the reasons of errors" do
    # Atoms that stand for an error inside this project only, and what engines say.
    @inside [:unsettled, :not_running, :no_library, :bad_name, :taken, :not_alive] ++
              [:enoent, :invalid, :not_there, :cluster_change_not_permitted, :unknown_log]

    test "that a caller may get are in named types, each listed once" do
      {:ok, types} = Code.Typespec.fetch_types(Registry)
      named = for {:type, {name, _definition, []}} <- types, do: name

      for name <- [:reason, :register_error, :refused_exit, :no_holder_exit],
          do: assert(name in named)

      {:reason, {:type, _, :union, members}, []} =
        Enum.find_value(types, fn {:type, type} -> if elem(type, 0) == :reason, do: type end)

      listed = for {:atom, _line, reason} <- members, do: reason
      assert Enum.sort(listed) == [:cluster_timeout, :draining, :no_quorum]

      # As they stand in the sources, of a cluster and of everything else.
      written = fn files ->
        for file <- files,
            [_all, reason] <- Regex.scan(~r/\{:error, :([a-z_]+)\}/, File.read!(file)),
            reason = String.to_atom(reason),
            reason not in @inside,
            uniq: true,
            do: reason
      end

      lib = Path.expand("../../../../lib/workflow_metal/registration", __DIR__)

      # Those of the build are for Mix alone.
      sources = lib |> Path.join("**/*.ex") |> Path.wildcard() |> Enum.reject(&(&1 =~ "/build/"))
      {cluster, here} = Enum.split_with(sources, &(&1 =~ "/cluster/"))

      assert written.(cluster) -- listed == []

      # Those of `await/3`, of a call that the registry's process does not know, and of `start_child/4`.
      assert Enum.sort(written.(here) -- listed) == [:timeout, :unknown_call]
    end
  end
end
