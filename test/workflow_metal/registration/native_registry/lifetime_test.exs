defmodule WorkflowMetal.Registration.NativeRegistry.LifetimeTest do
  # Not async: some of these tests count what is left in the whole VM.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: false

  describe "the registry's own process" do
    setup context do
      pid = idle()
      :yes = NativeRegistry.register_name({context.registry, :name}, pid)
      %{pid: pid}
    end

    test "may be killed: the names stay, and so do the processes", context do
      for _kill <- 1..20 do
        kill(owner(context))

        assert NativeRegistry.whereis_name(context.meta, :name) == context.pid
        assert NativeRegistry.register_name({context.registry, :name}, self()) == :no
        assert NativeRegistry.register_name({context.registry, make_ref()}, self()) == :yes
      end

      assert owner(context) != context.owner
      assert Native.sizes(context.registry) == {21, 2}
    end

    @tag crashes: ~r/:oops|{:bad, :reason}/
    test "may be stopped by a process other than its supervisor: the names stay", context do
      for reason <- [:normal, :oops, {:bad, :reason}] do
        owner = owner(context)
        reference = Process.monitor(owner)
        GenServer.stop(owner, reason)
        await_down(reference)

        assert NativeRegistry.whereis_name(context.meta, :name) == context.pid
        assert owner(context) != owner
        assert NativeRegistry.whereis_name(context.meta, :name) == context.pid
      end
    end

    test "ignores messages and exits of other processes", context do
      send(context.owner, :a_message)
      Process.exit(context.owner, :shutdown)
      GenServer.cast(context.owner, :a_cast)
      assert GenServer.call(context.owner, :a_call) == {:error, :unknown_call}

      assert :sys.get_state(context.owner)
      assert owner(context) == context.owner
      assert NativeRegistry.whereis_name(context.meta, :name) == context.pid
    end

    test "is not needed for names of processes that end meanwhile", context do
      supervisor = test_supervisor(context.owner)
      :ok = :sys.suspend(supervisor)
      kill(context.owner)
      assert Process.whereis(Owner.name(context.registry)) == nil

      assert NativeRegistry.whereis_name(context.meta, :name) == context.pid
      kill(context.pid)
      assert NativeRegistry.whereis_name(context.meta, :name) == :undefined
      eventually(fn -> Native.sizes(context.registry) == {0, 0} end)
      assert NativeRegistry.register_name({context.registry, :name}, self()) == :yes

      :ok = :sys.resume(supervisor)
      assert owner(context) != context.owner
      assert NativeRegistry.whereis_name(context.meta, :name) == self()
    end
  end

  describe "a registry that is stopped" do
    test "forgets its names, and their holders live on", context do
      pid = idle()
      :yes = NativeRegistry.register_name({context.registry, :name}, pid)
      :yes = NativeRegistry.register_name({context.registry, :own}, self())
      :ok = stop_supervised(context.id)

      assert_unknown(context)
      assert Process.alive?(pid)

      context = start_registry(context.registry)
      assert Native.sizes(context.registry) == {0, 0}
      assert NativeRegistry.whereis_name(context.meta, :name) == :undefined
      assert NativeRegistry.whereis_name(context.meta, :own) == :undefined
    end

    test "is not told of the end of a process that held a name before", context do
      pid = idle()
      :yes = NativeRegistry.register_name({context.registry, :name}, pid)
      :ok = stop_supervised(context.id)
      context = start_registry(context.registry)

      :yes = NativeRegistry.register_name({context.registry, :name}, self())
      kill(pid)
      assert NativeRegistry.whereis_name(context.meta, :name) == self()
      assert Native.sizes(context.registry) == {1, 1}
    end

    test "is forgotten by every process that used it", context do
      test = self()
      :yes = NativeRegistry.register_name({context.registry, :name}, self())

      # As many as there are schedulers and more, as each remembers what it used last.
      users =
        for _user <- 1..32 do
          spawn_link(fn ->
            send(test, {:before, NativeRegistry.whereis_name(context.meta, :name)})

            receive do
              :again ->
                send(
                  test,
                  {:after, catch_error(NativeRegistry.whereis_name(context.meta, :name))}
                )
            end
          end)
        end

      for _user <- users, do: assert_receive({:before, ^test})
      :ok = stop_supervised(context.id)
      for user <- users, do: send(user, :again)
      for _user <- users, do: assert_receive({:after, %ArgumentError{}})
    end

    test "starts and stops while others look names up", context do
      lookups = :counters.new(4, [])

      # Of low priority: they are many, and each step of a stop and a start would wait for all of them.
      for user <- 1..4 do
        spawn_link(fn ->
          Process.flag(:priority, :low)
          look_up_always(context.registry, context.meta, lookups, user)
        end)
      end

      for _round <- 1..200 do
        :ok = stop_supervised(context.id)
        start_registry(context.registry)
        :yes = NativeRegistry.register_name({context.registry, :name}, self())
      end

      for user <- 1..4 do
        before = :counters.get(lookups, user)
        eventually(fn -> :counters.get(lookups, user) > before + 1 end)
      end

      assert NativeRegistry.whereis_name(context.meta, :name) == self()
    end

    # Fails the test for any answer but a name or the error that there is no such registry.
    defp look_up_always(registry, meta, lookups, user) do
      try do
        holder = NativeRegistry.whereis_name(meta, :name)
        true = holder == :undefined or is_pid(holder)
        NativeRegistry.register_name({registry, make_ref()}, spawn(fn -> :ok end))
      rescue
        error in ArgumentError -> true = error.message =~ inspect(registry)
      end

      :counters.add(lookups, user, 1)
      look_up_always(registry, meta, lookups, user)
    end
  end

  describe "a registry whose supervisor restarts it" do
    # Strategy, and what is killed.
    for {strategy, killed} <- [
          rest_for_one: :before,
          one_for_all: :before,
          one_for_all: :after,
          one_for_all: :registry,
          one_for_one: :registry
        ] do
      test "by #{inspect(strategy)}, as #{killed} is killed, comes back with what it held",
           _context do
        registry = unique_registry()
        supervisor = start_with_siblings(registry, unquote(strategy))
        meta = %{registry: registry}
        workers = start_dynamic_supervisor()

        pids =
          for number <- 1..100 do
            {:ok, pid} = NativeRegistry.start_child(meta, number, workers, Worker)
            pid
          end

        :yes = NativeRegistry.register_name({registry, :own, :value}, self())
        :ok = Registry.subscribe(registry, :own)

        for _time <- 1..5 do
          restart(supervisor, unquote(killed))

          for {number, pid} <- Enum.zip(1..100, pids) do
            assert NativeRegistry.start_child(meta, number, workers, Worker) == {:ok, pid}
          end

          assert Registry.lookup(registry, :own) == [{self(), :value}]
        end

        assert DynamicSupervisor.count_children(workers).active == 100

        # The ends of holders and of subscribers are noticed as always.
        kill(hd(pids))
        eventually(fn -> Native.sizes(registry) == {100, 100} end)
        :ok = Registry.unregister(registry, :own)
        assert_receive {:unregister, ^registry, :own, _pid}
      end
    end

    test "does not run meanwhile, and forgets holders that end", _context do
      registry = unique_registry()
      test = self()

      starts = :counters.new(1, [])

      # Starts at once, and again when it is told to.
      sibling = fn ->
        :counters.add(starts, 1, 1)

        if :counters.get(starts, 1) > 1 do
          send(test, {:starts, self()})
          receive(do: (:go -> :ok))
        end
      end

      children = [
        Supervisor.child_spec({Agent, sibling}, id: :before),
        {NativeRegistry, name: registry}
      ]

      {:ok, supervisor} = Supervisor.start_link(children, strategy: :rest_for_one)

      [stays, ends] = for _holder <- 1..2, do: idle()
      :yes = NativeRegistry.register_name({registry, :stays}, stays)
      :yes = NativeRegistry.register_name({registry, :ends}, ends)
      Process.exit(child(supervisor, :before), :kill)
      assert_receive {:starts, sibling}
      assert_unknown(%{meta: %{registry: registry}, registry: registry})
      kill(ends)
      send(sibling, :go)

      eventually(fn -> Native.sizes(registry) == {1, 1} end)
      assert NativeRegistry.whereis_name({registry, :stays}) == stays
      assert NativeRegistry.whereis_name({registry, :ends}) == :undefined
    end

    # Workers that start while the registry does not run.
    @tag crashes: ~r/unknown registry/
    test "again and again under load runs no name twice", _context do
      registry = unique_registry()
      meta = %{registry: registry}
      supervisor = start_with_siblings(registry, :rest_for_one)
      workers = start_dynamic_supervisor()
      rounds = :counters.new(4, [])

      callers =
        for caller <- 1..4 do
          spawn_link(fn -> start_for_ever(meta, workers, rounds, caller) end)
        end

      for _time <- 1..50, do: restart(supervisor, :before)

      for caller <- 1..4 do
        before = :counters.get(rounds, caller)
        eventually(fn -> :counters.get(rounds, caller) > before + 1 end)
      end

      for caller <- callers do
        Process.unlink(caller)
        kill(caller)
      end

      for number <- 1..10 do
        {:ok, _pid} = NativeRegistry.start_child(meta, number, workers, Worker)
      end

      assert DynamicSupervisor.count_children(workers).active == 10
    end

    defp start_for_ever(meta, workers, rounds, caller) do
      try do
        case NativeRegistry.start_child(meta, :rand.uniform(10), workers, Worker) do
          {:ok, _pid} -> :ok
          # The new child found no registry to register with.
          {:error, {%ArgumentError{}, _stack}} -> :ok
        end
      rescue
        error in ArgumentError -> true = error.message =~ inspect(meta.registry)
      end

      :counters.add(rounds, caller, 1)
      start_for_ever(meta, workers, rounds, caller)
    end

    test "comes back too after it was terminated, while it was not deleted", _context do
      registry = unique_registry()
      supervisor = start_with_siblings(registry, :one_for_one)
      pid = idle()
      :yes = NativeRegistry.register_name({registry, :name}, pid)

      for _time <- 1..20 do
        :ok = Supervisor.terminate_child(supervisor, :registry)
        assert_unknown(%{meta: %{registry: registry}, registry: registry})
        {:ok, _owner} = Supervisor.restart_child(supervisor, :registry)
        assert NativeRegistry.whereis_name({registry, :name}) == pid
      end
    end

    test "is forgotten when it is deleted, whatever is started then", _context do
      registry = unique_registry()
      other = start_dynamic_supervisor()
      supervisor = start_with_siblings(registry, :one_for_all)
      {:ok, spec} = :supervisor.get_childspec(supervisor, :registry)

      for round <- 1..40 do
        :yes = NativeRegistry.register_name({registry, :name}, idle())
        :ok = Supervisor.terminate_child(supervisor, :registry)
        :ok = Supervisor.delete_child(supervisor, :registry)
        assert_unknown(%{meta: %{registry: registry}, registry: registry})

        # The very same child, by this supervisor and by another.
        if rem(round, 2) == 0 do
          {:ok, _owner} = Supervisor.start_child(supervisor, spec)
          assert Native.sizes(registry) == {0, 0}
        else
          {:ok, owner} = DynamicSupervisor.start_child(other, spec)
          assert Native.sizes(registry) == {0, 0}
          :ok = DynamicSupervisor.terminate_child(other, owner)
          {:ok, _owner} = DynamicSupervisor.start_child(other, spec)
          assert Native.sizes(registry) == {0, 0}
          [{_id, owner, _type, _modules}] = DynamicSupervisor.which_children(other)
          :ok = DynamicSupervisor.terminate_child(other, owner)
          {:ok, _owner} = Supervisor.start_child(supervisor, spec)
        end
      end
    end

    test "is forgotten once it has been deleted, or its supervisor has ended", _context do
      for ending <- [
            fn supervisor -> :ok = Supervisor.delete_child(supervisor, :registry) end,
            fn supervisor -> :ok = Supervisor.stop(supervisor) end,
            fn supervisor -> kill(supervisor) end
          ] do
        registry = unique_registry()
        supervisor = start_with_siblings(registry, :one_for_one)
        :yes = NativeRegistry.register_name({registry, :name}, self())
        :ok = Registry.subscribe(registry, :never)

        waiting = Task.async(fn -> catch_error(Registry.await(registry, :late, :infinity)) end)

        eventually(fn -> Registry.info(registry).waiting == 1 end)

        :ok = Supervisor.terminate_child(supervisor, :registry)
        refute Task.yield(waiting, 50)
        ending.(supervisor)
        # Waiting callers get an answer when the registry is deleted.
        assert %ArgumentError{} = Task.await(waiting, 30_000)
      end
    end

    @tag crashes: ~r/reached_max_restart_intensity/
    test "is forgotten when its supervisor ends because of too many restarts", _context do
      registry = unique_registry()
      supervisor = start_with_siblings(registry, :rest_for_one, max_restarts: 2)
      reference = Process.monitor(supervisor)
      pid = idle()
      :yes = NativeRegistry.register_name({registry, :name}, pid)

      for _time <- 1..2 do
        restart(supervisor, :before)
        assert NativeRegistry.whereis_name({registry, :name}) == pid
      end

      kill(child(supervisor, :before))
      assert await_down(reference) == :shutdown
      assert_unknown(%{meta: %{registry: registry}, registry: registry})
      start_registry(registry)
      assert NativeRegistry.whereis_name({registry, :name}) == :undefined
    end

    test "belongs to that supervisor, however deep it is in the tree", _context do
      [outer_name, registry] = for _name <- 1..2, do: unique_registry()

      inner = %{
        id: :inner,
        type: :supervisor,
        start:
          {Supervisor, :start_link,
           [siblings(registry), [strategy: :rest_for_one, max_restarts: 100]]}
      }

      outer = start_with_siblings(outer_name, :one_for_all, [], [inner])
      pid = idle()
      :yes = NativeRegistry.register_name({registry, :name}, pid)
      :yes = NativeRegistry.register_name({outer_name, :name}, pid)
      restart(child(outer, :inner), :before)
      assert NativeRegistry.whereis_name({registry, :name}) == pid

      # The inner supervisor ends, and the registry with it.
      restart(outer, :before)
      assert NativeRegistry.whereis_name({outer_name, :name}) == pid
      eventually(fn -> Native.sizes(registry) == {0, 0} end)
    end

    test "that is one of many keeps and loses its names on its own", _context do
      name = unique_registry()

      start_supervised!(
        {PartitionSupervisor,
         child_spec: {DynamicSupervisor, max_restarts: 100}, name: name, partitions: 3}
      )

      for number <- 1..12 do
        registry = unique_registry()
        supervisor = {:via, PartitionSupervisor, {name, number}}
        {owner, meta} = start_one(registry, supervisor)
        pid = idle()
        :yes = NativeRegistry.register_name({registry, :name}, pid)
        kill(owner)
        owner = owner(%{registry: registry})
        assert NativeRegistry.whereis_name(meta, :name) == pid
        :ok = DynamicSupervisor.terminate_child(supervisor, owner)
        assert_unknown(%{meta: meta, registry: registry})
        start_one(registry, supervisor)
        assert Native.sizes(registry) == {0, 0}
      end
    end

    # A supervisor of `:before`, `:registry` and `:after`.
    defp start_with_siblings(registry, strategy, options \\ [], more \\ []) do
      options = Keyword.merge([strategy: strategy, max_restarts: 1_000], options)
      {:ok, supervisor} = Supervisor.start_link(siblings(registry) ++ more, options)
      Process.unlink(supervisor)
      on_exit(fn -> Process.exit(supervisor, :kill) end)
      supervisor
    end

    defp siblings(registry) do
      [
        Supervisor.child_spec({Agent, fn -> :before end}, id: :before),
        Supervisor.child_spec({NativeRegistry, name: registry}, id: :registry),
        Supervisor.child_spec({Agent, fn -> :after end}, id: :after)
      ]
    end

    defp child(supervisor, id) do
      {^id, pid, _type, _modules} = List.keyfind(Supervisor.which_children(supervisor), id, 0)
      pid
    end

    # The supervisor answers when it has restarted what it has to.
    defp restart(supervisor, id) do
      pid = child(supervisor, id)
      kill(pid)
      eventually(fn -> child(supervisor, id) not in [pid, :restarting, :undefined] end)
    end
  end

  describe "a supervisor that is killed" do
    setup do
      %{registry: unique_registry()}
    end

    test "ends its registry", %{registry: registry} do
      {supervisor, meta} = start_under_supervisor(registry)
      :yes = NativeRegistry.register_name({registry, :name}, self())
      kill(supervisor)

      eventually(fn -> Native.sizes(registry) == :no_registry end)
      assert_unknown(%{meta: meta, registry: registry})
    end

    test "ends it also when the registry's own process had ended before", context do
      %{registry: registry} = context
      {supervisor, meta} = start_under_supervisor(registry)
      :yes = NativeRegistry.register_name({registry, :name}, self())
      :ok = :sys.suspend(supervisor)
      registry |> Owner.name() |> Process.whereis() |> kill()
      assert NativeRegistry.whereis_name(meta, :name) == self()
      kill(supervisor)

      eventually(fn -> Native.sizes(registry) == :no_registry end)
      assert_unknown(%{meta: meta, registry: registry})
    end

    test "can be followed at once by another, whose registry is empty", %{registry: registry} do
      for _round <- 1..50 do
        {supervisor, meta} = start_under_supervisor(registry)
        assert NativeRegistry.whereis_name(meta, :name) == :undefined
        :yes = NativeRegistry.register_name({registry, :name}, self())
        assert NativeRegistry.whereis_name(meta, :name) == self()
        kill(supervisor)
      end
    end

    test "does not end the registry of the supervisor that followed it", %{registry: registry} do
      for _round <- 1..50 do
        {killed, _meta} = start_under_supervisor(registry)
        Process.exit(killed, :kill)
        {supervisor, meta} = start_under_supervisor(registry)
        :yes = NativeRegistry.register_name({registry, :name}, self())
        for _lookup <- 1..1_000, do: ^registry = registry_of_self(meta)
        :ok = DynamicSupervisor.stop(supervisor)
        assert_unknown(%{meta: meta, registry: registry})
      end
    end

    defp registry_of_self(meta) do
      if NativeRegistry.whereis_name(meta, :name) == self(), do: meta.registry
    end
  end

  describe "a registry that runs" do
    test "is not started a second time under its name", context do
      :yes = NativeRegistry.register_name({context.registry, :name}, self())
      supervisor = start_dynamic_supervisor()
      {:ok, child_spec, _meta} = NativeRegistry.child_spec(context.registry, [])

      assert {:error, {:already_started, pid}} =
               DynamicSupervisor.start_child(supervisor, child_spec)

      assert pid == context.owner
      assert NativeRegistry.whereis_name(context.meta, :name) == self()

      :ok = DynamicSupervisor.stop(supervisor)
      assert NativeRegistry.whereis_name(context.meta, :name) == self()
    end

    @tag crashes: ~r/Owner, :init.*:already_started/s
    test "cannot be opened by another supervisor while its own process restarts", context do
      :yes = NativeRegistry.register_name({context.registry, :name}, self())
      first = test_supervisor(context.owner)
      second = start_dynamic_supervisor()
      {:ok, child_spec, _meta} = NativeRegistry.child_spec(context.registry, [])

      :ok = :sys.suspend(first)
      kill(context.owner)

      assert {:error, {:already_started, ^first}} =
               DynamicSupervisor.start_child(second, child_spec)

      :ok = :sys.resume(first)
      assert Process.alive?(owner(context))
      assert NativeRegistry.whereis_name(context.meta, :name) == self()
    end
  end

  describe "the name of the registry's own process" do
    test "is another for each registry", _context do
      test = __MODULE__.Foo
      plain = :"#{inspect(test)}"
      long = for last <- ["a", "b"], do: :"#{String.duplicate("ä", 254)}#{last}"
      registries = [test, plain, :"Elixir.#{test}", :"#{plain}.NativeRegistry" | long]

      for registry <- registries do
        start_registry(registry)
        :yes = NativeRegistry.register_name({registry, :name, registry}, self())
      end

      for registry <- registries do
        assert Registry.lookup(registry, :name) == [{self(), registry}]
        assert Owner.name(registry) == Owner.name(registry)
      end

      assert length(Enum.uniq_by(registries, &Owner.name/1)) == length(registries)
    end

    test "in use by another process is an error that says so", _context do
      registry = unique_registry()
      {:ok, agent} = Agent.start_link(fn -> nil end, name: Owner.name(registry))
      supervisor = start_dynamic_supervisor()

      assert {:error, {%ArgumentError{message: message}, []}} =
               DynamicSupervisor.start_child(supervisor, {NativeRegistry, name: registry})

      assert message =~ inspect(registry)
      assert message =~ inspect(Owner.name(registry))
      assert message =~ inspect(agent)

      Agent.stop(agent)

      assert {:ok, _owner} =
               DynamicSupervisor.start_child(supervisor, {NativeRegistry, name: registry})
    end
  end

  describe "a supervisor with a name" do
    test "has a registry as any other", context do
      names = [
        unique_registry(),
        {:global, unique_registry()},
        NativeRegistry.via_tuple(context.meta, DynamicSupervisor)
      ]

      for name <- names do
        supervisor = start_dynamic_supervisor(name: name)
        registry = unique_registry()
        {owner, meta} = start_one(registry, supervisor)
        :yes = NativeRegistry.register_name({registry, :name}, self())

        kill(owner)
        assert owner(%{registry: registry}) != owner
        assert NativeRegistry.whereis_name(meta, :name) == self()

        :ok = DynamicSupervisor.stop(supervisor)
        assert_unknown(%{meta: meta, registry: registry})
      end
    end
  end

  describe "a thousand applications" do
    setup do
      # The names are made before anything is counted.
      %{
        registries: for(number <- 1..1_000, do: :"Elixir.ApplicationOfATest#{number}"),
        supervisor: start_dynamic_supervisor()
      }
    end

    test "run beside each other and hold their own names", context do
      %{registries: registries, supervisor: supervisor} = context

      started =
        for registry <- registries do
          {owner, meta} = start_one(registry, supervisor)
          :yes = NativeRegistry.register_name({registry, :name}, owner)
          {owner, meta}
        end

      for {owner, meta} <- started do
        assert NativeRegistry.whereis_name(meta, :name) == owner
        assert Native.sizes(meta.registry) == {1, 1}
      end

      for {owner, _meta} <- started, do: DynamicSupervisor.terminate_child(supervisor, owner)
      for registry <- registries, do: assert(Native.sizes(registry) == :no_registry)
    end

    test "leave nothing that grows once they are stopped", context do
      %{registries: registries, supervisor: supervisor} = context

      growth = least_growth(4, fn -> start_and_stop(registries, supervisor) end)

      assert growth.atoms == 0
      assert growth.processes <= 0
      assert growth.ports <= 0
      # A hundred bytes for each start.
      assert growth.system < 100_000
      # Ten kilobytes, where the operating system tells. An open one takes more.
      assert growth.resident < 10_000_000
      for registry <- registries, do: assert(Native.sizes(registry) == :no_registry)
    end

    test "make no atoms except their names", %{supervisor: supervisor} do
      growth =
        least_growth(3, fn ->
          start_and_stop(for(_application <- 1..100, do: unique_registry()), supervisor)
        end)

      # The application's and that of the registry's own process.
      assert growth.atoms == 200
    end

    defp start_and_stop(registries, supervisor) do
      for registry <- registries do
        {owner, _meta} = start_one(registry, supervisor)
        holder = idle()
        for number <- 1..10, do: :yes = NativeRegistry.register_name({registry, number}, holder)
        :yes = NativeRegistry.register_name({registry, :self}, self())
        :ok = DynamicSupervisor.terminate_child(supervisor, owner)
        kill(holder)
      end
    end
  end

  defp start_one(registry, supervisor) do
    {:ok, child_spec, meta} = NativeRegistry.child_spec(registry, [])
    {:ok, owner} = DynamicSupervisor.start_child(supervisor, child_spec)
    {owner, meta}
  end

  defp owner(context) do
    eventually(fn -> Process.whereis(Owner.name(context.registry)) end)
  end

  defp test_supervisor(owner) do
    {:dictionary, dictionary} = Process.info(owner, :dictionary)
    hd(dictionary[:"$ancestors"])
  end

  # Of its own, to be killed.
  defp start_under_supervisor(registry) do
    {:ok, supervisor} = DynamicSupervisor.start_link(strategy: :one_for_one)
    Process.unlink(supervisor)
    on_exit(fn -> Process.exit(supervisor, :kill) end)
    {:ok, child_spec, meta} = NativeRegistry.child_spec(registry, [])

    # The process of the registry before may not have heard yet that its supervisor has ended.
    eventually(fn ->
      match?({:ok, _owner}, DynamicSupervisor.start_child(supervisor, child_spec))
    end)

    {supervisor, meta}
  end

  defp assert_unknown(%{meta: meta, registry: registry}) do
    for call <- [
          fn -> NativeRegistry.whereis_name(meta, :name) end,
          fn -> NativeRegistry.register_name({registry, :name}, self()) end,
          fn -> NativeRegistry.send({registry, :name}, :message) end,
          fn -> NativeRegistry.start_child(meta, :name, self(), Worker) end
        ] do
      error = assert_raise ArgumentError, call
      assert error.message =~ inspect(registry)
    end

    assert NativeRegistry.unregister_name({registry, :name}) == :ok
  end
end
