defmodule WorkflowMetal.Registration.NativeRegistry.LifetimeTest do
  # Alone on the machine: some of these count what is left in the whole VM.
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
    test "may be stopped by anybody but its supervisor: the names stay", context do
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

    test "does not mind messages and exits of others", context do
      send(context.owner, :a_message)
      Process.exit(context.owner, :shutdown)
      GenServer.cast(context.owner, :a_cast)
      catch_exit(GenServer.call(context.owner, :a_call, 10))

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
    test "forgets its names, not those that held them", context do
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

    test "does not hear of the end of a process that it knew before", context do
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

      for _user <- users, do: assert_receive({:before, ^test}, 5_000)
      :ok = stop_supervised(context.id)
      for user <- users, do: send(user, :again)
      for _user <- users, do: assert_receive({:after, %ArgumentError{}}, 5_000)
    end

    test "starts and stops while others look names up", context do
      lookups = :counters.new(4, [])

      for user <- 1..4 do
        spawn_link(fn -> look_up_always(context.registry, context.meta, lookups, user) end)
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

    # Takes the test with it if anything but a name or the error for want of a registry comes back.
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

  describe "a supervisor that is killed" do
    setup do
      %{registry: unique_registry()}
    end

    test "takes its registry with it", %{registry: registry} do
      {supervisor, meta} = start_under_supervisor(registry)
      :yes = NativeRegistry.register_name({registry, :name}, self())
      kill(supervisor)

      eventually(fn -> Native.sizes(registry) == :no_registry end)
      assert_unknown(%{meta: meta, registry: registry})
    end

    test "takes it also when the registry's own process had ended before", context do
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

    test "can be followed at once by another, which starts empty", %{registry: registry} do
      for _round <- 1..50 do
        {supervisor, meta} = start_under_supervisor(registry)
        assert NativeRegistry.whereis_name(meta, :name) == :undefined
        :yes = NativeRegistry.register_name({registry, :name}, self())
        assert NativeRegistry.whereis_name(meta, :name) == self()
        kill(supervisor)
      end
    end

    test "does not take the registry of the one that followed it", %{registry: registry} do
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
    test "is not taken by another supervisor while its own process restarts", context do
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

    test "make no atoms but their names", %{supervisor: supervisor} do
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
