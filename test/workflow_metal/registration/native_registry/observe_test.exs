defmodule WorkflowMetal.Registration.NativeRegistry.ObserveTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  # A process that registers and frees names when it gets a message.
  defp holder do
    spawn_link(fn -> hold() end)
  end

  defp hold do
    receive do
      {from, work} ->
        send(from, {self(), work.()})
        hold()
    end
  end

  defp ask(holder, work) do
    send(holder, {self(), work})
    assert_receive {^holder, answer}, 30_000
    answer
  end

  defp messages(count) do
    for _message <- 1..count//1 do
      receive do
        message -> message
      after
        30_000 -> flunk("no message came")
      end
    end
  end

  # Events of one registry arrive in order, so all earlier ones have arrived when this one has.
  defp drain(registry) do
    mark = {:mark, make_ref()}
    {:ok, _pid} = Registry.register(registry, mark, nil)
    Registry.unregister(registry, mark)
    drain(registry, mark, [])
  end

  defp drain(registry, mark, events) do
    receive do
      {:register, ^registry, ^mark, _pid, _value} -> drain(registry, mark, events)
      {:unregister, ^registry, ^mark, _pid} -> Enum.reverse(events)
      event -> drain(registry, mark, [event | events])
    after
      30_000 -> flunk("the mark was not told")
    end
  end

  describe "values" do
    test "come with a name by register/3 and by the via tuple", %{registry: registry} do
      {:ok, _pid} = Registry.register(registry, :one, {:value, 1.5})
      :yes = NativeRegistry.register_name({registry, :two, "value"}, self())
      :yes = NativeRegistry.register_name({registry, :three}, self())
      assert Registry.lookup(registry, :one) == [{self(), {:value, 1.5}}]
      assert Registry.lookup(registry, :two) == [{self(), "value"}]
      assert Registry.lookup(registry, :three) == [{self(), nil}]
    end

    # In newer versions of Elixir an agent logs a message that it does not expect.
    @tag crashes: ~r/no_handle_info.*Agent\.Server/
    test "are accepted by all four via functions", %{registry: registry} do
      name = {:via, NativeRegistry, {registry, :agent, :value}}
      {:ok, pid} = Agent.start_link(fn -> 1 end, name: name)
      assert Agent.get(name, & &1) == 1
      assert NativeRegistry.whereis_name({registry, :agent, :other}) == pid
      assert Registry.lookup(registry, :agent) == [{pid, :value}]
      assert NativeRegistry.send({registry, :agent, :value}, :message) == pid
      NativeRegistry.unregister_name({registry, :agent, :value})
      assert NativeRegistry.whereis_name({registry, :agent}) == pid
      assert {:error, {:already_started, ^pid}} = Agent.start_link(fn -> 2 end, name: name)
    end

    test "are gone with the name, and do not come back with it", %{registry: registry} do
      holder = holder()
      ask(holder, fn -> Registry.register(registry, :name, :value) end)
      Process.unlink(holder)
      kill(holder)
      assert Registry.lookup(registry, :name) == []
      :yes = NativeRegistry.register_name({registry, :name}, self())
      assert Registry.lookup(registry, :name) == [{self(), nil}]
    end

    test "are updated by the holder only", %{registry: registry} do
      {:ok, _pid} = Registry.register(registry, :name, 1)
      assert Registry.update_value(registry, :name, &(&1 + 1)) == {2, 1}
      update = fn -> Registry.update_value(registry, :name, &(&1 + 1)) end
      assert elsewhere(update) == :error
      assert Registry.lookup(registry, :name) == [{self(), 2}]
      assert Registry.update_value(registry, :name, fn 2 -> nil end) == {nil, 2}
      assert Registry.lookup(registry, :name) == [{self(), nil}]
    end

    test "larger than the limit are refused and leave nothing", %{registry: registry} do
      value = :binary.copy("x", 1_048_576)

      assert_raise ArgumentError, ~r/at most 1048576 bytes/, fn ->
        Registry.register(registry, :name, value)
      end

      assert Native.sizes(registry) == {0, 0}
    end

    test "that are updated all the time are always those of one update", %{registry: registry} do
      {:ok, _pid} = Registry.register(registry, :name, {0, 0})

      reader =
        Task.async(fn ->
          for _read <- 1..2_000 do
            [{_pid, {same, same}}] = Registry.lookup(registry, :name)
            [{:name, _pid, {same, same}}] = Registry.match_names(registry, :name)
            same
          end
        end)

      update(registry, reader, 0)
    end
  end

  defp update(registry, reader, count) do
    {_new, _old} = Registry.update_value(registry, :name, fn _ -> {count, count} end)
    unless Task.yield(reader, 0), do: update(registry, reader, count + 1)
  end

  describe "register and unregister" do
    test "say which process has the name", %{registry: registry} do
      holder = holder()
      assert ask(holder, fn -> Registry.register(registry, :name, nil) end) == {:ok, holder}
      error = {:error, {:already_registered, holder}}
      assert Registry.register(registry, :name, nil) == error
      assert Registry.unregister(registry, :name) == :ok
      assert NativeRegistry.whereis_name({registry, :name}) == holder
      assert ask(holder, fn -> Registry.unregister(registry, :name) end) == :ok
      assert NativeRegistry.whereis_name({registry, :name}) == :undefined
    end
  end

  describe "keys, count and names" do
    test "answer the names of a process, and of all processes", %{registry: registry} do
      names = for number <- 1..1_000, do: {:name, number, String.duplicate("x", rem(number, 200))}
      holder = holder()
      ask(holder, fn -> for name <- names, do: Registry.register(registry, name, nil) end)
      {:ok, _pid} = Registry.register(registry, :mine, nil)
      assert Enum.sort(Registry.keys(registry, holder)) == Enum.sort(names)
      assert Registry.keys(registry, self()) == [:mine]
      assert Registry.keys(registry, idle()) == []
      assert Registry.count(registry) == 1_001
      assert Enum.sort(Registry.names(registry)) == Enum.sort([:mine | names])
      Process.unlink(holder)
      kill(holder)
      assert Registry.keys(registry, holder) == []
      eventually(fn -> Registry.count(registry) == 1 end)
      assert Registry.names(registry) == [:mine]
    end

    test "give back every name as it was", %{registry: registry} do
      names = Terms.distinct()
      for name <- names, do: {:ok, _pid} = Registry.register(registry, name, nil)

      for found <- [Registry.keys(registry, self()), Registry.names(registry)] do
        assert length(found) == length(names)
        # No map of them: OTP 25 does not find some references of other nodes again as keys.
        found = Enum.group_by(found, &:erlang.phash2/1)

        for name <- names do
          assert Enum.any?(found[:erlang.phash2(name)] || [], &(&1 === name)), inspect(name)
        end
      end
    end
  end

  describe "select" do
    setup %{registry: registry} do
      for workflow <- ["loans", "claims"], number <- 1..20 do
        name = {WorkflowMetal.Case.Case, {workflow, number}}
        {:ok, _pid} = Registry.register(registry, name, {workflow, number})

        for task <- 1..3 do
          name = {WorkflowMetal.Task.Task, {workflow, :transition, number, task}}
          {:ok, _pid} = Registry.register(registry, name, nil)
        end
      end

      :ok
    end

    test "finds the cases of a workflow and the tasks of a case", %{registry: registry} do
      cases = Registry.match_names(registry, {WorkflowMetal.Case.Case, {"loans", :_}})

      assert Enum.sort(cases) ==
               for(
                 number <- 1..20,
                 do: {{WorkflowMetal.Case.Case, {"loans", number}}, self(), {"loans", number}}
               )

      tasks = {WorkflowMetal.Task.Task, {"claims", :_, 7, :_}}

      found =
        for {{_module, {_, _, _, task}}, _pid, nil} <- Registry.match_names(registry, tasks),
            do: task

      assert Enum.sort(found) == [1, 2, 3]
      assert Registry.count_names(registry, tasks) == 3
      assert Registry.count_names(registry, :_) == 160
      assert Registry.count_names(registry, {:_, :_}) == 160
      assert Registry.count_names(registry, {:_, {"loans", :_}}) == 20
      assert Registry.match_names(registry, {:_, :_, :_}) == []
      assert Registry.match_names(registry, {WorkflowMetal.Case.Case, {"none", :_}}) == []
    end

    test "compares a pattern with a name as a match would", %{registry: registry} do
      names = [
        [],
        [1],
        [1, 2],
        [1 | 2],
        [[1, 2], 3],
        %{a: 1},
        %{a: 2},
        %{a: 1, b: 2},
        {%{a: {1, 2}}, "x"},
        {:"$1"},
        {"0b8a1f2e-0000-4000-8000-0123456789ab", 0.0},
        {fn -> :a end},
        1.0,
        <<1::3>>,
        1_000_000_000_000_000_000_000
      ]

      for name <- names, do: {:ok, _pid} = Registry.register(registry, {:x, name}, nil)

      expected = %{
        [] => [[]],
        [:_] => [[1]],
        [1 | :_] => [[1], [1, 2], [1 | 2]],
        [:_ | :_] => [[1], [1, 2], [1 | 2], [[1, 2], 3]],
        [:_, 2] => [[1, 2]],
        [[1 | :_] | :_] => [[[1, 2], 3]],
        %{a: :_} => [%{a: 1}, %{a: 2}],
        %{a: :_, b: :_} => [%{a: 1, b: 2}],
        {%{a: {:_, 2}}, :_} => [{%{a: {1, 2}}, "x"}],
        {:"$1"} => [{:"$1"}],
        {:_, 0.0} => [{"0b8a1f2e-0000-4000-8000-0123456789ab", 0.0}],
        1 => [],
        1.0 => [1.0],
        <<1::3>> => [<<1::3>>],
        1_000_000_000_000_000_000_000 => [1_000_000_000_000_000_000_000]
      }

      for {pattern, wanted} <- expected do
        found =
          for {{:x, name}, _pid, nil} <- Registry.match_names(registry, {:x, pattern}), do: name

        assert Enum.sort(found) == Enum.sort(wanted), inspect(pattern)
      end

      assert Registry.count_names(registry, {:x, :_}) == length(names)
    end

    test "refuses a pattern with a variable in the key of a map", %{registry: registry} do
      for pattern <- [%{:_ => 1}, {%{{:a, :_} => 1}}, %{[1 | :_] => :_}] do
        assert_raise ArgumentError, ~r/key of a map/, fn ->
          Registry.match_names(registry, pattern)
        end
      end
    end

    test "refuses patterns beyond the limits of names", %{registry: registry} do
      for pattern <- [:binary.copy("x", 70_000), Terms.nest(:_, 300, &[&1])] do
        assert_raise ArgumentError, ~r/at most/, fn ->
          Registry.match_names(registry, pattern)
        end
      end
    end

    test "leaves out processes that have ended", %{registry: registry} do
      for _round <- 1..200 do
        pid = idle()
        :yes = NativeRegistry.register_name({registry, :gone}, pid)
        Process.exit(pid, :kill)
        assert Registry.match_names(registry, :gone) == []
      end
    end

    test "finds a name once that is held all the while, though others come and go", context do
      %{registry: registry} = context
      lasting = for number <- 1..2_000, do: {:lasting, number}
      for name <- lasting, do: {:ok, _pid} = Registry.register(registry, name, nil)
      test = self()

      churn =
        spawn_link(fn ->
          Stream.iterate(1, &(&1 + 1))
          |> Enum.each(fn number ->
            Registry.register(registry, {:passing, number}, nil)
            if number > 500, do: Registry.unregister(registry, {:passing, number - 500})
            if number == 1_000, do: send(test, :churning)
          end)
        end)

      assert_receive :churning, 30_000

      for _round <- 1..20 do
        found = for {{:lasting, _} = name, _, _} <- Registry.match_names(registry, :_), do: name
        assert Enum.sort(found) == lasting
      end

      Process.unlink(churn)
      kill(churn)
    end
  end

  describe "events" do
    test "tell a subscriber of each change of a matching name once", %{registry: registry} do
      :ok = Registry.subscribe(registry, {:case, :_})
      :ok = Registry.subscribe(registry, {:case, 1})
      :ok = Registry.subscribe(registry, {:case, 1})
      holder = holder()

      for name <- [{:case, 1}, {:task, 1}, {:case, 2}] do
        ask(holder, fn -> Registry.register(registry, name, :value) end)
      end

      ask(holder, fn -> Registry.unregister(registry, {:case, 1}) end)
      Process.unlink(holder)
      kill(holder)

      assert messages(4) == [
               {:register, registry, {:case, 1}, holder, :value},
               {:register, registry, {:case, 2}, holder, :value},
               {:unregister, registry, {:case, 1}, holder},
               {:unregister, registry, {:case, 2}, holder}
             ]

      :ok = Registry.unsubscribe(registry, {:case, :_})
      {:ok, _pid} = Registry.register(registry, {:case, 3}, nil)
      {:ok, _pid} = Registry.register(registry, {:case, 1}, nil)
      registered = {:register, registry, {:case, 1}, self(), nil}
      assert messages(1) == [registered]
      refute_received _another
    end

    test "tell of a name that is taken from a dead holder", %{registry: registry} do
      pid = idle_that_ends_slowly(200_000)
      :yes = NativeRegistry.register_name({registry, :name}, pid)
      :ok = Registry.subscribe(registry)
      Process.flag(:trap_exit, true)
      Process.exit(pid, :kill)
      assert_receive {:EXIT, ^pid, :killed}, 30_000
      :yes = NativeRegistry.register_name({registry, :name}, self())

      assert messages(2) == [
               {:unregister, registry, :name, pid},
               {:register, registry, :name, self(), nil}
             ]

      assert drain(registry) == []
    end

    test "reach the listeners, which may come and go", %{registry: other} do
      registry = unique_registry()
      listener = Module.concat(registry, Listener)
      absent = Module.concat(registry, Absent)
      start_supervised!({NativeRegistry, name: registry, listeners: [absent, listener]})
      Process.register(self(), listener)
      {:ok, _pid} = Registry.register(registry, :name, :value)
      {:ok, _pid} = Registry.register(other, :name, :value)
      assert messages(1) == [{:register, registry, :name, self(), :value}]
      Process.unregister(listener)
      Registry.unregister(registry, :name)
      :ok = Registry.subscribe(registry, :name)
      {:ok, _pid} = Registry.register(registry, :name, nil)
      # The listeners got nothing before this event, which only the subscriber gets.
      assert messages(1) == [{:register, registry, :name, self(), nil}]
      Process.register(self(), listener)
      Registry.unregister(registry, :name)
      event = {:unregister, registry, :name, self()}
      assert messages(2) == [event, event]
    end

    test "of one name come in order, each once, under load", %{registry: registry} do
      :ok = Registry.subscribe(registry, {:name, :_})

      workers =
        for _worker <- 1..8 do
          spawn_monitor(fn ->
            for round <- 1..1_000 do
              name = {:name, rem(round, 4)}
              # The last names are freed by the end of their holders.
              if round == 1_000, do: Registry.register(registry, {:name, self()}, nil)

              case Registry.register(registry, name, nil) do
                {:ok, _pid} -> Registry.unregister(registry, name)
                {:error, _taken} -> :erlang.yield()
              end
            end
          end)
        end

      for {_pid, reference} <- workers, do: await_down(reference)
      eventually(fn -> Registry.count(registry) == 0 end)

      events = drain_until_quiet(registry)
      assert length(events) > 1_000

      for {_name, events} <- Enum.group_by(events, &elem(&1, 2)) do
        for [first, second] <- Enum.chunk_every(events, 2) do
          assert {:register, _registry, _name, pid, nil} = first
          assert {:unregister, _registry, _name, ^pid} = second
        end
      end
    end

    test "stop for a subscriber that has ended, and for no other", %{registry: registry} do
      subscriber = holder()
      ask(subscriber, fn -> Registry.subscribe(registry) end)
      :ok = Registry.subscribe(registry)
      assert %{subscribers: 2} = Registry.info(registry)
      Process.unlink(subscriber)
      kill(subscriber)
      eventually(fn -> Registry.info(registry).subscribers == 1 end)
      {:ok, _pid} = Registry.register(registry, :name, nil)
      assert messages(1) == [{:register, registry, :name, self(), nil}]
    end

    test "go on after the registry's process was killed", context do
      %{registry: registry, owner: owner} = context
      :ok = Registry.subscribe(registry)
      kill(owner)
      {:ok, _pid} = Registry.register(registry, :name, nil)
      assert messages(1) == [{:register, registry, :name, self(), nil}]
    end

    test "reach only subscribers whose patterns match, of thousands", %{registry: registry} do
      test = self()
      patterns = for number <- 1..2_000, do: {:case, {number, :_}}

      subscribers =
        for pattern <- patterns do
          spawn_link(fn ->
            :ok = Registry.subscribe(registry, pattern)
            send(test, :subscribed)

            receive do
              {:register, ^registry, name, _pid, _value} -> send(test, {:told, self(), name})
            end

            Process.sleep(:infinity)
          end)
        end

      for _subscriber <- subscribers, do: assert_receive(:subscribed, 30_000)
      for pattern <- [{:_, {7, :_}}, {:case, :_}], do: Registry.subscribe(registry, pattern)
      {:ok, _pid} = Registry.register(registry, {:case, {7, "a"}}, nil)
      {:ok, _pid} = Registry.register(registry, {:case, {2_001, "b"}}, nil)
      {:ok, _pid} = Registry.register(registry, {:task, {7, "c"}}, nil)
      seventh = Enum.at(subscribers, 6)
      assert_receive {:told, ^seventh, {:case, {7, "a"}}}, 30_000
      me = self()

      assert messages(3) == [
               {:register, registry, {:case, {7, "a"}}, me, nil},
               {:register, registry, {:case, {2_001, "b"}}, me, nil},
               {:register, registry, {:task, {7, "c"}}, me, nil}
             ]

      refute_received _another
    end

    test "without a subscriber are not stored", %{registry: registry} do
      for number <- 1..500, do: :ok = Registry.subscribe(registry, {:never, number, :_})
      for number <- 1..5_000, do: Registry.register(registry, {:name, number, 1}, nil)
      assert %{backlog: 0, events_lost: 0} = Registry.info(registry)
    end

    test "that are too many are dropped, and subscribers are told so", %{registry: registry} do
      test = self()

      # So many patterns that each event takes the library long, and values so large that few events fit.
      for number <- 1..2_000 do
        spawn_link(fn ->
          :ok = Registry.subscribe(registry, {:large, :_})
          send(test, {:subscribed, number})
          discard()
        end)
      end

      for number <- 1..2_000, do: assert_receive({:subscribed, ^number}, 30_000)
      :ok = Registry.subscribe(registry, {:large, :_})
      :ok = Registry.subscribe(registry, {:another, :_})
      value = :binary.copy("v", 1_000_000)
      waiting = Task.async(Registry, :await, [registry, {:awaited, 1}, :infinity])
      eventually(fn -> Registry.info(registry).waiting == 1 end)
      written = flood(registry, value, 0)
      # Sent although there was no room.
      {:ok, _pid} = Registry.register(registry, {:awaited, 1}, nil)
      assert Task.await(waiting, 30_000) == {:ok, self()}
      {told, lost} = count_told(registry, written)
      assert lost > 0
      assert Registry.info(registry).events_lost == lost
      assert told + lost == written
      # Events are sent in order again when there is room.
      eventually(fn -> Registry.info(registry).backlog == 0 end)
      {:ok, _pid} = Registry.register(registry, {:another, 1}, nil)
      assert messages(1) == [{:register, registry, {:another, 1}, self(), nil}]
    end

    test "of one registry do not wait for all events of another", %{registry: busy} do
      %{registry: registry} = start_registry()
      test = self()

      for number <- 1..500 do
        spawn_link(fn ->
          :ok = Registry.subscribe(busy, {:many, :_})
          send(test, {:subscribed, number})
          discard()
        end)
      end

      for number <- 1..500, do: assert_receive({:subscribed, ^number}, 30_000)
      :ok = Registry.subscribe(registry, :name)

      # A name with other subscribers, which get half a million messages in all.
      holder = holder()

      ask(holder, fn ->
        for number <- 1..2_000, do: Registry.register(busy, {:many, number}, nil)
        {:ok, _pid} = Registry.register(registry, :name, nil)
      end)

      assert messages(1) == [{:register, registry, :name, holder, nil}]
      assert Registry.info(busy).backlog > 0
    end

    test "of many registries are sent by one thread", %{registry: registry} do
      :ok = Registry.subscribe(registry)
      before = threads()
      registries = for _number <- 1..50, do: start_registry().registry

      for registry <- registries do
        :ok = Registry.subscribe(registry)
        {:ok, _pid} = Registry.register(registry, :name, nil)
        assert messages(1) == [{:register, registry, :name, self(), nil}]
      end

      # Both are 0 if the operating system does not report it. Other tests run beside this one.
      assert threads() - before < 25
    end

    test "that no subscriber reads do not disturb registrations", %{registry: registry} do
      sleeper = holder()
      ask(sleeper, fn -> Registry.subscribe(registry) end)
      :erlang.suspend_process(sleeper)
      :ok = Registry.subscribe(registry, :last)
      for number <- 1..10_000, do: {:ok, _pid} = Registry.register(registry, number, nil)
      {:ok, _pid} = Registry.register(registry, :last, nil)
      assert messages(1) == [{:register, registry, :last, self(), nil}]
      :erlang.resume_process(sleeper)
    end
  end

  # Ends with the test, to which it is linked.
  defp discard do
    receive do
      _message -> discard()
    end
  end

  # Registers until an event has been dropped, or gives up. Returns how many names.
  defp flood(registry, value, written) do
    {:ok, _pid} = Registry.register(registry, {:large, written}, value)

    if Registry.info(registry).events_lost < 10 and written < 20_000 do
      Registry.unregister(registry, {:large, written})
      flood(registry, value, written + 2)
    else
      written + 1
    end
  end

  # How many of the events were sent and how many were dropped.
  defp count_told(registry, written, told \\ 0, lost \\ 0) do
    if told + lost < written do
      receive do
        {:register, ^registry, {:large, _}, _pid, _value} ->
          count_told(registry, written, told + 1, lost)

        {:unregister, ^registry, {:large, _}, _pid} ->
          count_told(registry, written, told + 1, lost)

        {:events_lost, ^registry, count} ->
          count_told(registry, written, told, lost + count)
      after
        30_000 -> flunk("#{told} were told and #{lost} not, of #{written}")
      end
    else
      {told, lost}
    end
  end

  defp threads do
    with {:ok, status} <- File.read("/proc/self/status"),
         [_line, threads] <- Regex.run(~r/^Threads:\s+(\d+)/m, status) do
      String.to_integer(threads)
    else
      _other -> 0
    end
  end

  # All names except the mark are free, so all events come before that of the mark.
  defp drain_until_quiet(registry) do
    :ok = Registry.subscribe(registry, {:mark, :_})
    drain(registry)
  end

  describe "await" do
    test "answers at once for a name that is held", %{registry: registry} do
      {:ok, _pid} = Registry.register(registry, :name, nil)
      assert Registry.await(registry, :name, 0) == {:ok, self()}
      assert Registry.await(registry, :name) == {:ok, self()}
      assert %{waiting: 0} = Registry.info(registry)
    end

    test "answers as soon as the name is registered", %{registry: registry} do
      waiting = for _ <- 1..5, do: Task.async(Registry, :await, [registry, :name, :infinity])

      eventually(fn -> Registry.info(registry).waiting == 5 end)
      {:ok, _pid} = Registry.register(registry, :other, nil)
      {:ok, _pid} = Registry.register(registry, :name, nil)
      assert Task.await_many(waiting, 30_000) == List.duplicate({:ok, self()}, 5)
      assert %{waiting: 0} = Registry.info(registry)
    end

    test "ends with an error after its time and leaves no message", %{registry: registry} do
      assert Registry.await(registry, :name, 20) == {:error, :timeout}
      assert %{waiting: 0} = Registry.info(registry)
      {:ok, _pid} = Registry.register(registry, :name, nil)
      :ok = Registry.subscribe(registry)
      assert drain(registry) == []
    end

    test "goes on when the name is taken, freed and taken again", %{registry: registry} do
      waiting = Task.async(Registry, :await, [registry, :name, :infinity])
      eventually(fn -> Registry.info(registry).waiting == 1 end)
      :erlang.suspend_process(waiting.pid)
      first = idle()
      :yes = NativeRegistry.register_name({registry, :name}, first)
      kill(first)
      :erlang.resume_process(waiting.pid)
      eventually(fn -> Registry.info(registry).waiting == 1 end)
      second = idle()
      :yes = NativeRegistry.register_name({registry, :name}, second)
      assert Task.await(waiting, 30_000) == {:ok, second}
    end

    test "finds the name however registration and waiting race", %{registry: registry} do
      for round <- 1..2_000 do
        waiting = Task.async(Registry, :await, [registry, {:name, round}, 30_000])
        {:ok, pid} = Registry.register(registry, {:name, round}, nil)
        assert Task.await(waiting, 30_000) == {:ok, pid}
      end

      assert %{waiting: 0} = Registry.info(registry)
    end

    test "leaves nothing of a process that ends while it waits", %{registry: registry} do
      pids = for _ <- 1..100, do: spawn(Registry, :await, [registry, :name, :infinity])
      eventually(fn -> Registry.info(registry).waiting == 100 end)
      for pid <- pids, do: kill(pid)

      eventually(fn ->
        match?(%{waiting: 0, processes: 0, names: 0}, Registry.info(registry))
      end)
    end

    test "raises when the registry is stopped", %{registry: registry, id: id} do
      waiting =
        Task.async(fn ->
          assert_raise ArgumentError, ~r/unknown registry/, fn ->
            Registry.await(registry, :name, :infinity)
          end
        end)

      eventually(fn -> Registry.info(registry).waiting == 1 end)
      :ok = stop_supervised(id)
      Task.await(waiting, 30_000)
    end

    test "is answered for each of thousands of waiters of one name", %{registry: registry} do
      test = self()

      for number <- 1..5_000 do
        spawn_link(fn ->
          send(test, {number, Registry.await(registry, {:name, rem(number, 2)}, :infinity)})
        end)
      end

      eventually(fn -> Registry.info(registry).waiting == 5_000 end)
      {:ok, _pid} = Registry.register(registry, {:name, 0}, nil)
      for number <- 2..5_000//2, do: assert_receive({^number, {:ok, ^test}}, 30_000)
      assert %{waiting: 2_500} = Registry.info(registry)
      {:ok, _pid} = Registry.register(registry, {:name, 1}, nil)
      for number <- 1..5_000//2, do: assert_receive({^number, {:ok, ^test}}, 30_000)
      assert %{waiting: 0} = Registry.info(registry)
    end

    test "refuses a term that is no timeout", %{registry: registry} do
      for timeout <- [-1, 1.5, :soon, nil] do
        assert_raise ArgumentError, ~r/expected a timeout/, fn ->
          Registry.await(registry, :name, timeout)
        end
      end
    end
  end

  describe "info" do
    test "answers the figures of a registry", %{registry: registry} do
      assert %{names: 0, processes: 0, subscribers: 0, waiting: 0} = Registry.info(registry)
      for number <- 1..6_400, do: {:ok, _pid} = Registry.register(registry, number, nil)
      info = Registry.info(registry)
      assert %{names: 6_400, processes: 1, shards: shards, shard_names: {fewest, most}} = info
      assert fewest > 0 and fewest <= div(6_400, shards) and most >= div(6_400, shards)
      assert info.bytes > 6_400 * 40
      assert info.uptime >= 0
    end

    test "counts the memory of names only as long as they are held", %{registry: registry} do
      bytes = fn -> Registry.info(registry).bytes end
      text = :binary.copy("long", 100)
      assert bytes.() < 8_192

      for name <- [& &1, &{&1, "10f4b6e2-9b3a-4a4e-8d1c-0123456789ab"}, &{&1, text}] do
        register = &({:ok, _pid} = Registry.register(registry, name.(&1), {:value, &1}))
        for number <- 1..100, do: register.(number)
        few = bytes.()
        for number <- 101..10_000, do: register.(number)
        many = bytes.()
        assert many - few > 9_900 * (40 + 16)
        if is_tuple(name.(1)) and name.(1) |> elem(1) == text, do: assert(many > 9_900 * 400)
        for number <- 101..10_000, do: :ok = Registry.unregister(registry, name.(number))

        # The first hundred names lay in one part of the table. Now they lie in up to 128 parts, each
        # with room for seven names at least: at most 120 KB.
        assert bytes.() < few + 120 * 1_024 + div(many - few, 100)
        for number <- 1..100, do: :ok = Registry.unregister(registry, name.(number))
      end

      assert bytes.() < 131_072
    end
  end

  describe "a registry that does not run" do
    test "is named by the error of every function" do
      calls = [
        fn registry -> Registry.register(registry, :name, nil) end,
        fn registry -> Registry.unregister(registry, :name) end,
        fn registry -> Registry.lookup(registry, :name) end,
        fn registry -> Registry.update_value(registry, :name, & &1) end,
        fn registry -> Registry.keys(registry, self()) end,
        fn registry -> Registry.count(registry) end,
        fn registry -> Registry.names(registry) end,
        fn registry -> Registry.match_names(registry, :_) end,
        fn registry -> Registry.count_names(registry, :_) end,
        fn registry -> Registry.subscribe(registry) end,
        fn registry -> Registry.unsubscribe(registry) end,
        fn registry -> Registry.await(registry, :name) end,
        fn registry -> Registry.info(registry) end
      ]

      for registry <- [NoSuchRegistry, "no atom", {:no, :atom}, nil], call <- calls do
        message = ~r/unknown registry: #{Regex.escape(inspect(registry))}/
        assert_raise ArgumentError, message, fn -> call.(registry) end
      end
    end
  end

  describe "a registry that is started and stopped meanwhile" do
    test "is answered for or named in an error by every function, and leaves no message" do
      registry = unique_registry()
      calls = calls_while_stopping(registry)
      stop = :atomics.new(1, [])

      callers =
        for number <- 1..4 do
          Task.async(fn -> call_until(stop, registry, Enum.shuffle(calls), number, 0) end)
        end

      for _round <- 1..300 do
        {:ok, supervisor} =
          Supervisor.start_link([{NativeRegistry, name: registry}], strategy: :one_for_one)

        :erlang.yield()
        Supervisor.stop(supervisor)
      end

      :atomics.put(stop, 1, 1)
      for caller <- callers, do: assert(Task.await(caller, 60_000) > 0)
    end

    test "ends the calls of all processes that wait", %{registry: registry, id: id} do
      waiting =
        for number <- 1..500 do
          Task.async(fn ->
            try do
              Registry.await(registry, {:name, rem(number, 7)}, :infinity)
            rescue
              error in ArgumentError ->
                {Exception.message(error), Process.info(self(), :messages)}
            end
          end)
        end

      # Some wait, some are about to.
      :ok = stop_supervised(id)

      for {message, messages} <- Task.await_many(waiting, 30_000) do
        assert message =~ "unknown registry"
        assert messages == {:messages, []}
      end
    end
  end

  # What may be answered, besides an `ArgumentError`.
  defp calls_while_stopping(registry) do
    [
      fn n -> match?({:ok, _}, Registry.register(registry, {n, make_ref()}, :value)) end,
      fn n -> NativeRegistry.register_name({registry, {n, make_ref()}}, self()) == :yes end,
      fn n -> Registry.unregister(registry, {n, 1}) == :ok end,
      fn n -> NativeRegistry.unregister_name({registry, {n, 1}}) == :ok end,
      fn n -> NativeRegistry.whereis_name({registry, {n, 2}}) == :undefined end,
      fn n -> Registry.lookup(registry, {n, 2}) == [] end,
      fn n -> Registry.update_value(registry, {n, 2}, & &1) == :error end,
      fn _ -> is_list(Registry.keys(registry, self())) end,
      fn _ -> Registry.count(registry) >= 0 end,
      fn _ -> is_list(Registry.names(registry)) end,
      fn n -> Registry.match_names(registry, {n, 2}) == [] end,
      fn n -> Registry.count_names(registry, {n, 2}) == 0 end,
      # Names that no process registers, so that no event comes.
      fn n -> Registry.subscribe(registry, {n, :never}) == :ok end,
      fn n -> Registry.unsubscribe(registry, {n, :never}) == :ok end,
      fn n -> Registry.await(registry, {n, :never}, 1) == {:error, :timeout} end,
      fn n ->
        name = {n, make_ref()}
        {:ok, _pid} = Registry.register(registry, name, nil)
        # Or another registry has started, in which no process registers the name.
        answer = Registry.await(registry, name, 1)
        answer in [{:error, :timeout}, {:ok, self()}]
      end,
      fn _ -> is_map(Registry.info(registry)) end
    ]
  end

  # Answers how many calls there were.
  defp call_until(stop, registry, calls, number, count) do
    for call <- calls do
      try do
        assert call.(number)
      rescue
        error in ArgumentError -> assert Exception.message(error) =~ "unknown registry"
      end

      assert Process.info(self(), :messages) == {:messages, []}
    end

    if :atomics.get(stop, 1) == 1,
      do: count + length(calls),
      else: call_until(stop, registry, calls, number, count + length(calls))
  end

  describe "bad arguments" do
    test "raise an error that says what was expected", %{registry: registry} do
      assert_raise ArgumentError, ~r/expected a pid of this node, got: :pid/, fn ->
        Registry.keys(registry, :pid)
      end

      assert_raise ArgumentError, ~r/expected a pid of this node/, fn ->
        Registry.keys(registry, Terms.remote_pid(1))
      end

      assert_raise ArgumentError, ~r/expected a function of one argument/, fn ->
        Registry.update_value(registry, :name, :function)
      end

      assert_raise ArgumentError, ~r/expected :listeners to be a list of atoms/, fn ->
        NativeRegistry.child_spec(name: registry, listeners: ["name"])
      end

      assert_raise ArgumentError, ~r/expected :name to be an atom/, fn ->
        NativeRegistry.child_spec(listeners: [])
      end

      assert_raise ArgumentError, ~r/unknown option :names/, fn ->
        NativeRegistry.child_spec(names: registry)
      end
    end

    test "in the list of listeners are refused", %{registry: registry} do
      for listeners <- [[:a | :b], :a, [:a, 1], [1], %{}, "a", [[:a]]] do
        assert_raise ArgumentError, fn -> Native.listen(registry, listeners) end
      end

      assert :ok = Native.listen(registry, [])
    end
  end
end
