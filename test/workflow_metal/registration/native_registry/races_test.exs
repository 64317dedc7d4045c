defmodule WorkflowMetal.Registration.NativeRegistry.RacesTest do
  # Not async: some of these tests count what is left in the whole VM.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: false

  # Many processes and names. Other tests read the same kinds of names.
  @moduletag :stress

  @patience 120_000

  describe "start_child/4 while holders are killed" do
    @supervisors 8
    @names 4
    @calls 40_000

    test "answers {:ok, pid} each time, of 40,000 times", %{meta: meta} do
      supervisors = for _supervisor <- 1..@supervisors, do: start_dynamic_supervisor()

      # These processes find a child whenever it has its name, also before its start is done.
      killers =
        for number <- 1..@names, do: spawn(fn -> kill_now_and_then(meta, {:storm, number}) end)

      callers =
        for supervisor <- supervisors do
          Task.async(fn -> storm(meta, supervisor, div(@calls, @supervisors)) end)
        end

      answers = callers |> Task.await_many(@patience) |> Enum.concat()
      for killer <- killers, do: kill(killer)

      assert length(answers) == @calls

      assert [] =
               for(answer <- answers, not match?({:ok, pid} when is_pid(pid), answer), do: answer)

      # No name runs twice.
      running =
        for supervisor <- supervisors,
            {_id, pid, _type, _modules} <- DynamicSupervisor.which_children(supervisor),
            is_pid(pid) and Process.alive?(pid) do
          {GenServer.call(pid, :options)[:number], pid}
        end

      assert length(running) == running |> Enum.uniq_by(&elem(&1, 0)) |> length()

      for {number, pid} <- running do
        assert NativeRegistry.whereis_name(meta, {:storm, number}) == pid
      end
    end

    defp kill_now_and_then(meta, name) do
      with pid when is_pid(pid) <- NativeRegistry.whereis_name(meta, name) do
        Process.exit(pid, :kill)
      end

      Process.sleep(1)
      kill_now_and_then(meta, name)
    end

    defp storm(meta, supervisor, calls) do
      for _call <- 1..calls do
        number = :rand.uniform(@names)
        child_spec = {Worker, number: number}
        answer = NativeRegistry.start_child(meta, {:storm, number}, supervisor, child_spec)

        with {:ok, pid} when is_pid(pid) <- answer, 1 <- :rand.uniform(2) do
          Process.exit(pid, :kill)
        end

        answer
      end
    end

    test "answers the same child to all callers at once", %{meta: meta} do
      supervisors = for _supervisor <- 1..@supervisors, do: start_dynamic_supervisor()

      for round <- 1..500 do
        calls =
          for supervisor <- supervisors do
            Task.async(fn -> NativeRegistry.start_child(meta, round, supervisor, Worker) end)
          end

        assert [{:ok, pid}] = calls |> Task.await_many(@patience) |> Enum.uniq()
        assert NativeRegistry.whereis_name(meta, round) == pid
      end
    end
  end

  describe "a process that has just been killed" do
    test "is not found, of 20,000 times", %{registry: registry, meta: meta} do
      for round <- 1..20_000 do
        pid = spawn(fn -> Process.sleep(:infinity) end)
        name = {:name, rem(round, 3)}
        assert NativeRegistry.register_name({registry, name}, pid) == :yes
        assert NativeRegistry.whereis_name(meta, name) == pid

        Process.exit(pid, :kill)
        assert NativeRegistry.whereis_name(meta, name) == :undefined
        assert NativeRegistry.whereis_name({registry, name}) == :undefined
      end
    end

    test "is not answered by start_child/4, of 5,000 times", %{meta: meta} do
      supervisor = start_dynamic_supervisor()
      {:ok, first} = NativeRegistry.start_child(meta, :name, supervisor, Worker)

      Enum.reduce(1..5_000, first, fn _round, pid ->
        Process.exit(pid, :kill)
        assert {:ok, new_pid} = NativeRegistry.start_child(meta, :name, supervisor, Worker)
        assert new_pid != pid
        new_pid
      end)
    end
  end

  describe "a process that has just been stopped" do
    test "is followed by a new one at once, of 10,000 times", %{meta: meta} do
      via = NativeRegistry.via_tuple(meta, :name)

      for _round <- 1..10_000 do
        assert {:ok, pid} = GenServer.start(Worker, [], name: via)
        assert GenServer.stop(via) == :ok
        assert NativeRegistry.whereis_name(meta, :name) == :undefined
        refute Process.alive?(pid)
      end
    end

    test "is followed by a new child at once, of 5,000 times", %{meta: meta} do
      supervisor = start_dynamic_supervisor()

      for _round <- 1..5_000 do
        assert {:ok, pid} = NativeRegistry.start_child(meta, :name, supervisor, Worker)
        assert DynamicSupervisor.terminate_child(supervisor, pid) == :ok
        assert NativeRegistry.whereis_name(meta, :name) == :undefined
      end
    end
  end

  describe "the late notice of a dead holder" do
    setup do
      Process.flag(:trap_exit, true)
      :ok
    end

    test "does not take the name from the new holder", %{registry: registry, meta: meta} do
      late =
        for _round <- 1..5 do
          {dead, reference} = dead_without_notice(registry, [:name, :second])
          assert whereis(meta, :name) == :undefined
          assert NativeRegistry.register_name({registry, :name}, self()) == :yes
          # Its other name is still there, so its notice has not come yet.
          late? = Native.whereis(registry, :second) == dead

          await_down(reference)
          eventually(fn -> Native.sizes(registry) == {1, 1} end)
          assert whereis(meta, :name) == self()
          assert NativeRegistry.unregister_name({registry, :name}) == :ok
          assert whereis(meta, :name) == :undefined
          late?
        end

      assert true in late
    end

    test "does not take it from a child either", %{meta: meta, registry: registry} do
      supervisor = start_dynamic_supervisor()

      late =
        for _round <- 1..5 do
          {dead, reference} = dead_without_notice(registry, [:name, :second])
          assert {:ok, pid} = NativeRegistry.start_child(meta, :name, supervisor, Worker)
          late? = Native.whereis(registry, :second) == dead

          await_down(reference)
          eventually(fn -> Native.sizes(registry) == {1, 1} end)
          assert whereis(meta, :name) == pid

          DynamicSupervisor.terminate_child(supervisor, pid)
          eventually(fn -> Native.sizes(registry) == {0, 0} end)
          late?
        end

      assert true in late
    end

    test "is not needed for its names to be free", %{meta: meta, registry: registry} do
      names = for number <- 1..100, do: {:name, number}

      late =
        for _round <- 1..5 do
          {dead, reference} = dead_without_notice(registry, [:second | names])

          for name <- names do
            assert whereis(meta, name) == :undefined
            assert NativeRegistry.register_name({registry, name}, self()) == :yes
          end

          late? = Native.whereis(registry, :second) == dead
          await_down(reference)
          eventually(fn -> Native.sizes(registry) == {100, 1} end)

          for name <- names do
            assert whereis(meta, name) == self()
            assert NativeRegistry.unregister_name({registry, name}) == :ok
          end

          late?
        end

      assert true in late
    end

    test "is late again for the successor of a dead holder", %{registry: registry, meta: meta} do
      {_dead, reference} = dead_without_notice(registry, [:name])
      {_dead, second_reference} = dead_without_notice(registry, [:name])
      assert NativeRegistry.register_name({registry, :name}, self()) == :yes

      await_down(reference)
      await_down(second_reference)
      eventually(fn -> Native.sizes(registry) == {1, 1} end)
      assert whereis(meta, :name) == self()
    end

    # A process that held the names and is dead. Its end goes on for some milliseconds, and with
    # them its notice, as the reference tells.
    defp dead_without_notice(registry, names) do
      dead = idle_that_ends_slowly(50_000)
      for name <- names, do: :yes = NativeRegistry.register_name({registry, name}, dead)
      reference = Process.monitor(dead)
      Process.exit(dead, :kill)
      assert_receive {:EXIT, ^dead, :killed}, @patience
      {dead, reference}
    end
  end

  describe "processes that want one name at once" do
    test "get it one by one, free or from a dead holder", %{registry: registry, meta: meta} do
      contenders = for _contender <- 1..8, do: spawn_link(fn -> contend(registry) end)

      for round <- 1..2_000 do
        if rem(round, 2) == 0 do
          dead = spawn(fn -> Process.sleep(:infinity) end)
          :yes = NativeRegistry.register_name({registry, round}, dead)
          Process.exit(dead, :kill)
        end

        for contender <- contenders, do: send(contender, {:register, round, self()})

        answers =
          for contender <- contenders do
            assert_receive {^contender, ^round, answer}, @patience
            {answer, contender}
          end

        assert [yes: winner] = for({:yes, _pid} = answer <- answers, do: answer)
        assert NativeRegistry.whereis_name(meta, round) == winner
      end
    end

    defp contend(registry) do
      receive do
        {:register, name, from} ->
          send(from, {self(), name, NativeRegistry.register_name({registry, name}, self())})
          contend(registry)
      end
    end

    test "give it back and take it again without losing track", %{registry: registry, meta: meta} do
      name = {registry, :name}

      holds =
        for _task <- 1..8 do
          Task.async(fn ->
            Enum.count(1..5_000, fn _round ->
              with :yes <- NativeRegistry.register_name(name, self()) do
                true = NativeRegistry.whereis_name(name) == self()
                NativeRegistry.unregister_name(name) == :ok
              else
                :no -> false
              end
            end)
          end)
        end

      assert holds |> Task.await_many(@patience) |> Enum.sum() > 0
      assert NativeRegistry.whereis_name(meta, :name) == :undefined
      eventually(fn -> Native.sizes(registry) == {0, 0} end)
    end
  end

  describe "a registration that fails" do
    test "leaves nothing behind, of 10,000 times and in each way", %{registry: registry} do
      holder = idle()
      :yes = NativeRegistry.register_name({registry, :taken}, holder)
      dead = idle()
      kill(dead)
      too_long = {registry, :binary.copy("a", 100_000)}

      attempts = [
        fn -> :no = NativeRegistry.register_name({registry, :taken}, self()) end,
        fn -> :no = NativeRegistry.register_name({registry, :taken}, dead) end,
        fn -> NativeRegistry.register_name({registry, :dead}, dead) end,
        fn -> NativeRegistry.register_name({registry, make_ref()}, dead) end,
        fn -> catch_error(NativeRegistry.register_name(too_long, self())) end,
        fn -> catch_error(NativeRegistry.register_name({registry, :a}, Terms.remote_pid(1))) end,
        fn -> catch_error(NativeRegistry.register_name({NeverStarted, :name}, self())) end
      ]

      for attempt <- attempts do
        for _time <- 1..10_000, do: attempt.()
        assert Native.sizes(registry) == {1, 1}
      end

      assert NativeRegistry.whereis_name({registry, :taken}) == holder
    end

    test "of a process that lives for other names leaves those", %{registry: registry} do
      :yes = NativeRegistry.register_name({registry, :taken}, idle())
      :yes = NativeRegistry.register_name({registry, :own}, self())

      for _time <- 1..10_000, do: :no = NativeRegistry.register_name({registry, :taken}, self())

      assert Native.sizes(registry) == {2, 2}
      assert NativeRegistry.whereis_name({registry, :own}) == self()
    end

    test "while the process is being killed leaves nothing behind", %{registry: registry} do
      for round <- 1..5_000 do
        pid = spawn(fn -> Process.sleep(:infinity) end)
        killer = Task.async(fn -> Process.exit(pid, :kill) end)
        for part <- 1..3, do: NativeRegistry.register_name({registry, {round, part}}, pid)
        Task.await(killer)
      end

      eventually(fn -> Native.sizes(registry) == {0, 0} end)
    end
  end

  describe "the registry's own process, killed again and again under load," do
    test "ends no other process, loses no name and stops no work", context do
      %{registry: registry, meta: meta} = context
      holders = for number <- 1..1_000, do: {{:holder, number}, idle()}
      for {name, pid} <- holders, do: :yes = NativeRegistry.register_name({registry, name}, pid)

      supervisor = start_dynamic_supervisor()
      table = List.to_tuple(holders)
      rounds = :counters.new(4, [])
      work = &work(registry, meta, supervisor, table, rounds, &1, 1)
      workers = for worker <- 1..4, do: spawn_link(fn -> work.(worker) end)
      all_go_on(rounds)

      owners =
        for _kill <- 1..50 do
          owner = eventually(fn -> Process.whereis(Owner.name(registry)) end)
          kill(owner)
          for {name, pid} <- Enum.take_random(holders, 20), do: ^pid = whereis(meta, name)
          owner
        end

      assert length(Enum.uniq(owners)) == 50
      all_go_on(rounds)
      assert Enum.all?(workers, &Process.alive?/1)

      for {name, pid} <- holders do
        assert Process.alive?(pid)
        assert whereis(meta, name) == pid
      end

      eventually(fn -> Process.whereis(Owner.name(registry)) end)
      assert NativeRegistry.register_name({registry, :new}, self()) == :yes
      assert whereis(meta, :new) == self()
    end

    # Each of the workers, which would take this process with it if it ended.
    defp all_go_on(rounds) do
      for worker <- 1..4 do
        before = :counters.get(rounds, worker)
        eventually(fn -> :counters.get(rounds, worker) > before + 1 end)
      end
    end

    defp work(registry, meta, supervisor, table, rounds, worker, round) do
      {name, pid} = elem(table, :rand.uniform(tuple_size(table)) - 1)
      ^pid = whereis(meta, name)
      {:ok, ^pid} = NativeRegistry.start_child(meta, name, supervisor, Worker)

      new = {:new, worker, round}
      :yes = NativeRegistry.register_name({registry, new}, self())
      true = whereis(meta, new) == self()
      :no = NativeRegistry.register_name({registry, new}, pid)
      :ok = NativeRegistry.unregister_name({registry, new})
      :undefined = whereis(meta, new)

      {:ok, child} = NativeRegistry.start_child(meta, {:child, new}, supervisor, Worker)
      ^child = whereis(meta, {:child, new})
      ^child = GenServer.call(NativeRegistry.via_tuple(meta, {:child, new}), :pid)
      :ok = DynamicSupervisor.terminate_child(supervisor, child)
      :undefined = whereis(meta, {:child, new})

      :counters.add(rounds, worker, 1)
      work(registry, meta, supervisor, table, rounds, worker, round + 1)
    end
  end

  describe "what ended processes leave" do
    test "is nothing when 100,000 die at once", %{registry: registry, meta: meta} do
      many = 100_000
      registered = :counters.new(1, [])
      test = self()
      :yes = NativeRegistry.register_name({registry, :other}, self())

      # All are linked to one process, so all end when it does.
      {first, reference} =
        spawn_monitor(fn ->
          for number <- 1..many do
            spawn_link(fn ->
              :yes = NativeRegistry.register_name({registry, {:many, number}}, self())
              :counters.add(registered, 1, 1)
              Process.sleep(:infinity)
            end)
          end

          Process.sleep(:infinity)
        end)

      eventually(fn -> :counters.get(registered, 1) == many end, @patience)
      assert Native.sizes(registry) == {many + 1, many + 1}

      Process.exit(first, :kill)
      assert await_down(reference) == :killed

      eventually(
        fn ->
          assert whereis(meta, :other) == test
          Native.sizes(registry) == {1, 1}
        end,
        @patience
      )

      for number <- 1..many//997, do: assert(whereis(meta, {:many, number}) == :undefined)
      assert NativeRegistry.register_name({registry, {:many, 1}}, self()) == :yes
    end

    test "is nothing when one dies with 100,000 names", %{registry: registry, meta: meta} do
      many = 100_000
      holder = idle()
      :yes = NativeRegistry.register_name({registry, :other}, self())
      for number <- 1..many, do: :yes = NativeRegistry.register_name({registry, number}, holder)
      assert Native.sizes(registry) == {many + 1, 2}

      kill(holder)
      eventually(fn -> Native.sizes(registry) == {1, 1} end)
      assert whereis(meta, :other) == self()
    end

    test "is nothing after a million registered and ended", %{registry: registry} do
      growth =
        least_growth(5, fn ->
          register_and_end(registry, 200_000)
          eventually(fn -> Native.sizes(registry) == {0, 0} end)
        end)

      # Less than a byte for each.
      assert growth.system < 200_000
      assert growth.processes <= 0
      # Forty bytes each, where the operating system tells.
      assert growth.resident < 8_000_000
    end

    defp register_and_end(registry, many) do
      batch = 5_000

      batches =
        Task.async_stream(1..div(many, batch), &batch(registry, &1, batch), timeout: @patience)

      assert Enum.all?(batches, &(&1 == {:ok, :ok}))
    end

    defp batch(registry, number, size) do
      references =
        for within <- 1..size do
          name = {registry, {number, within}}

          {_pid, reference} =
            spawn_monitor(fn -> :yes = NativeRegistry.register_name(name, self()) end)

          reference
        end

      Enum.each(references, &(:normal = await_down(&1)))
    end
  end

  defp whereis(meta, name), do: NativeRegistry.whereis_name(meta, name)

  describe "events of a subscriber that reads none" do
    @tag :memory
    test "take little memory in a mailbox", %{registry: registry} do
      test = self()

      # Does not read its messages.
      receiver =
        spawn_link(fn ->
          :ok = Registry.subscribe(registry, {:case, :_})
          send(test, :subscribed)
          Process.sleep(:infinity)
        end)

      assert_receive :subscribed, @patience
      :erlang.suspend_process(receiver)

      # The VM itself comes and goes with some, so the median of some rounds counts. A process's own
      # messages of this size take 130 bytes each.
      growths =
        for round <- 1..5 do
          before = :erlang.memory(:processes)

          for _message <- 1..5_000 do
            {:ok, _pid} = Registry.register(registry, {:case, 1}, nil)
            :ok = Registry.unregister(registry, {:case, 1})
          end

          length = {:message_queue_len, round * 10_000}
          eventually(fn -> Process.info(receiver, :message_queue_len) == length end)
          div(:erlang.memory(:processes) - before, 10_000)
        end

      assert growths |> Enum.sort() |> Enum.at(2) < 800
      :erlang.resume_process(receiver)
    end
  end
end
