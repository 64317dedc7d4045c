defmodule WorkflowMetal.Registration.NativeRegistry.FaultsTest do
  # Not async: some of these tests load the library again while others would use it.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: false

  # Many processes and names. Other tests read the same kinds of names.
  @moduletag :stress

  alias WorkflowMetal.Registration.NativeRegistry.AnotherNative

  @patience 120_000

  describe "the NIF module, loaded again while it is in use," do
    @tag crashes: ~r/Upgrade not supported/
    test "stays as it is: no name is lost and no work stops", context do
      %{registry: registry, meta: meta} = context
      holders = for number <- 1..1_000, do: {{:holder, number}, idle()}
      for {name, pid} <- holders, do: :yes = NativeRegistry.register_name({registry, name}, pid)

      rounds =
        while_working(registry, holders, fn ->
          for _load <- 1..8, do: assert({:error, :on_load_failure} = :code.load_file(Native))
        end)

      assert Enum.min(rounds) > 0
      for {name, pid} <- holders, do: assert(NativeRegistry.whereis_name(meta, name) == pid)
      eventually(fn -> Native.sizes(registry) == {1_000, 1_000} end)
    end
  end

  describe "the NIF module, deleted, purged and loaded again," do
    test "still learns of the ends of holders, and tells of changes", context do
      %{registry: registry, meta: meta} = context
      before = idle()
      :ok = Registry.subscribe(registry)
      :yes = NativeRegistry.register_name({registry, :before}, before)
      waiter = Task.async(fn -> Registry.await(registry, :awaited, @patience) end)
      eventually(fn -> Registry.info(registry).waiting == 1 end)

      load_again()

      later = idle()
      :yes = NativeRegistry.register_name({registry, :later}, later)
      :yes = NativeRegistry.register_name({registry, :awaited}, self())
      assert Task.await(waiter) == {:ok, self()}
      kill(before)
      kill(later)
      eventually(fn -> Native.sizes(registry) == {1, 1} end)
      assert NativeRegistry.whereis_name(meta, :awaited) == self()
      assert_receive {:register, ^registry, :before, ^before, nil}, @patience
      assert_receive {:register, ^registry, :later, ^later, nil}, @patience
      assert_receive {:unregister, ^registry, :before, ^before}, @patience
      assert_receive {:unregister, ^registry, :later, ^later}, @patience
    end

    test "finds names with opened parts", context do
      name = fn number -> {:invoice, Integer.pow(2, 200) + number, fn -> number end} end
      :yes = NativeRegistry.register_name({context.registry, name.(1)}, self())

      load_again()

      assert NativeRegistry.whereis_name(context.meta, name.(1)) == self()
      assert NativeRegistry.whereis_name(context.meta, name.(2)) == :undefined
      assert NativeRegistry.register_name({context.registry, name.(2)}, self()) == :yes
      assert NativeRegistry.whereis_name(context.meta, name.(2)) == self()
    end

    test "finds all registered names, each time", context do
      %{registry: registry, meta: meta} = context
      pid = idle()
      :yes = NativeRegistry.register_name({registry, :name}, pid)

      for _time <- 1..3 do
        load_again()
        assert NativeRegistry.whereis_name(meta, :name) == pid
      end

      kill(pid)
      eventually(fn -> Native.sizes(registry) == {0, 0} end)
      assert NativeRegistry.register_name({registry, :name}, self()) == :yes
    end

    test "opens and closes registries with the code that was loaded last", context do
      for _time <- 1..5 do
        load_again()
        :yes = NativeRegistry.register_name({context.registry, :name}, self())
        :ok = stop_supervised(context.id)
        assert Native.sizes(context.registry) == :no_registry
        assert %{owner: owner} = start_registry(context.registry)
        assert Process.alive?(owner)
        assert NativeRegistry.whereis_name(context.meta, :name) == :undefined
      end
    end

    test "leaves nothing behind" do
      growth = least_growth(4, fn -> for _load <- 1..50, do: load_again() end)
      assert growth.atoms == 0
      assert growth.processes <= 0
      # Forty kilobytes a time, where the operating system tells; a table takes more.
      assert growth.resident < 2_000_000
    end
  end

  describe "the library" do
    test "is not loaded a second time by the same code", context do
      :yes = NativeRegistry.register_name({context.registry, :name}, self())
      assert {:error, {:reload, _text}} = Native.load()
      assert NativeRegistry.whereis_name(context.meta, :name) == self()
    end

    test "is not loaded by another module", context do
      :yes = NativeRegistry.register_name({context.registry, :name}, self())

      defmodule AnotherNative do
        def load(path), do: :erlang.load_nif(String.to_charlist(path), false)
      end

      assert {:error, {:bad_lib, _text}} = AnotherNative.load(library())
      assert NativeRegistry.whereis_name(context.meta, :name) == self()
    end

    test "is not replaced by another copy of it: the loaded code stays", context do
      :yes = NativeRegistry.register_name({context.registry, :name}, self())
      here = Application.app_dir(:workflow_metal_native_registry)
      folder = Path.join(System.tmp_dir!(), "faults_test_#{System.pid()}")
      copy = Path.join(folder, "workflow_metal_native_registry-9.9.9")
      File.mkdir_p!(copy)
      for folder <- ["ebin", "priv"], do: copy_files(Path.join(here, folder), copy, folder)

      on_exit(fn ->
        replace_path(here)
        File.rm_rf!(folder)
      end)

      replace_path(copy)
      assert {:error, :on_load_failure} = :code.load_file(Native)
      assert NativeRegistry.whereis_name(context.meta, :name) == self()
      assert NativeRegistry.register_name({context.registry, :another}, self()) == :yes
      :code.purge(Native)
      assert NativeRegistry.whereis_name(context.meta, :another) == self()

      replace_path(here)
      load_again()
      assert NativeRegistry.whereis_name(context.meta, :another) == self()
    end

    # The build's `priv` may be a link to the project's.
    defp copy_files(from, copy, folder) do
      File.mkdir_p!(Path.join(copy, folder))

      for file <- Path.wildcard(Path.join(from, "**/*")), File.regular?(file) do
        to = Path.join([copy, folder, Path.relative_to(file, from)])
        File.mkdir_p!(Path.dirname(to))
        File.cp!(file, to)
      end
    end

    defp replace_path(folder) do
      ebin = folder |> Path.join("ebin") |> String.to_charlist()
      true = :code.replace_path(:workflow_metal_native_registry, ebin)
    end

    defp library do
      Application.app_dir(:workflow_metal_native_registry, "priv/native/native_registry")
    end
  end

  describe "a storm of restarts" do
    test "ends with each child under its name, and no other process", context do
      %{registry: registry, meta: meta} = context
      names = for number <- 1..50, do: {:child, number}
      supervisor = start_children(meta, names, 1_000_000)

      for _round <- 1..100 do
        for name <- Enum.take_random(names, 10) do
          with pid when is_pid(pid) <- NativeRegistry.whereis_name(meta, name) do
            Process.exit(pid, :kill)
          end
        end
      end

      running =
        eventually(fn ->
          running = for {_id, pid, _, _} <- Supervisor.which_children(supervisor), do: pid
          found = for name <- names, do: NativeRegistry.whereis_name(meta, name)
          if Enum.sort(running) == Enum.sort(found), do: running
        end)

      assert Enum.all?(running, &Process.alive?/1)
      eventually(fn -> Native.sizes(registry) == {50, 50} end)
    end

    # `:noproc` is a child that the test has killed while its supervisor was about to stop it.
    @tag crashes: [~r/:reached_max_restart_intensity/, ~r/:shutdown_error.*reason: :noproc/s]
    test "that its supervisor does not survive leaves all names free", context do
      %{registry: registry, meta: meta} = context
      names = for number <- 1..50, do: {:child, number}
      Process.flag(:trap_exit, true)

      for _round <- 1..5 do
        supervisor = start_children(meta, names, 20)
        reference = Process.monitor(supervisor)
        eventually(fn -> kill_one(meta, Enum.random(names)) || not Process.alive?(supervisor) end)
        kill_until_down(meta, names, reference)
        eventually(fn -> Native.sizes(registry) == {0, 0} end)
        for name <- names, do: assert(NativeRegistry.whereis_name(meta, name) == :undefined)
      end
    end

    defp kill_until_down(meta, names, reference) do
      receive do
        {:DOWN, ^reference, :process, _pid, _reason} -> :ok
      after
        0 ->
          kill_one(meta, Enum.random(names))
          kill_until_down(meta, names, reference)
      end
    end

    defp kill_one(meta, name) do
      pid = NativeRegistry.whereis_name(meta, name)
      is_pid(pid) and Process.exit(pid, :kill)
    end

    defp start_children(meta, names, restarts) do
      children =
        for name <- names do
          via = NativeRegistry.via_tuple(meta, name)
          Supervisor.child_spec({Worker, name: via}, id: name, restart: :permanent)
        end

      options = [strategy: :one_for_one, max_restarts: restarts, max_seconds: 60]
      {:ok, supervisor} = Supervisor.start_link(children, options)
      supervisor
    end
  end

  describe "a million names" do
    test "are held, found and freed", %{registry: registry, meta: meta} do
      many = 1_000_000
      parts = 8
      holders = for _part <- 1..parts, do: idle()

      holders
      |> Enum.with_index()
      |> Task.async_stream(
        fn {holder, part} ->
          for number <- part..(many - 1)//parts do
            :yes = NativeRegistry.register_name({registry, {:million, number}}, holder)
          end
        end,
        timeout: @patience
      )
      |> Stream.run()

      assert Native.sizes(registry) == {many, parts}

      for number <- 0..(many - 1)//997 do
        holder = Enum.at(holders, rem(number, parts))
        assert NativeRegistry.whereis_name(meta, {:million, number}) == holder
      end

      assert NativeRegistry.whereis_name(meta, {:million, many}) == :undefined
      Enum.each(holders, &kill/1)
      eventually(fn -> Native.sizes(registry) == {0, 0} end, @patience)
    end
  end

  describe "a VM that is stopped in the middle of registrations" do
    test "ends without an error" do
      script = """
      alias WorkflowMetal.Registration.NativeRegistry

      {:ok, _} = Application.ensure_all_started(:workflow_metal_native_registry)
      children = for name <- [A, B], do: {NativeRegistry, name: name, listeners: [:audit]}
      {:ok, _} = Supervisor.start_link(children, strategy: :one_for_one)
      main = self()

      for worker <- 1..8 do
        spawn(fn ->
          NativeRegistry.Registry.subscribe(Enum.at([A, B], rem(worker, 2)))

          Stream.iterate(1, & &1 + 1) |> Enum.each(fn number ->
            for registry <- [A, B] do
              name = {registry, {worker, number}}
              spawn(fn -> NativeRegistry.register_name(name, self()) end)
              NativeRegistry.register_name({registry, {:kept, worker, number}}, self())
            end

            if number == 100, do: send(main, :busy)
          end)
        end)
      end

      for _worker <- 1..8, do: receive(do: (:busy -> :ok))
      System.stop(7)
      Process.sleep(:infinity)
      """

      ebin = Application.app_dir(:workflow_metal_native_registry, "ebin")
      arguments = ["--logger-sasl-reports", "false", "-pa", ebin, "-e", script]

      for _round <- 1..3 do
        {output, status} =
          System.cmd(System.find_executable("elixir"), arguments, stderr_to_stdout: true)

        assert status == 7, output
      end
    end
  end

  # As Mix and IEx do it when they compile a module again.
  defp load_again do
    :code.purge(Native)
    true = :code.delete(Native)
    :code.purge(Native)
    refute :erlang.module_loaded(Native)
    # Another process may have called it, and so loaded it, since.
    assert {:module, Native} = :code.ensure_loaded(Native)
  end

  # Returns how many rounds each of four processes did while the function ran.
  defp while_working(registry, holders, function) do
    stop = :atomics.new(1, [])
    table = List.to_tuple(holders)

    workers = for worker <- 1..4, do: Task.async(fn -> work(registry, table, stop, worker, 0) end)

    function.()
    :atomics.put(stop, 1, 1)
    Task.await_many(workers, @patience)
  end

  defp work(registry, table, stop, worker, round) do
    {name, pid} = elem(table, :rand.uniform(tuple_size(table)) - 1)
    ^pid = NativeRegistry.whereis_name({registry, name})
    new = {:new, worker, Integer.pow(2, 90) + round}
    :yes = NativeRegistry.register_name({registry, new}, self())
    :no = NativeRegistry.register_name({registry, new}, pid)
    true = NativeRegistry.whereis_name({registry, new}) == self()
    :ok = NativeRegistry.unregister_name({registry, new})

    {:ok, dead} =
      Task.start(fn -> :yes = NativeRegistry.register_name({registry, new}, self()) end)

    kill(dead)
    :undefined = NativeRegistry.whereis_name({registry, new})

    case :atomics.get(stop, 1) do
      0 -> work(registry, table, stop, worker, round + 1)
      1 -> round
    end
  end
end
