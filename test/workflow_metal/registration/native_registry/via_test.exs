defmodule WorkflowMetal.Registration.NativeRegistry.ViaTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  defmodule Machine do
    @behaviour :gen_statem

    @impl :gen_statem
    def callback_mode, do: :handle_event_function

    @impl :gen_statem
    def init(init), do: init.()

    @impl :gen_statem
    def handle_event({:call, from}, :pid, _state, _data) do
      {:keep_state_and_data, [{:reply, from, self()}]}
    end

    def handle_event(:cast, {:tell, pid, message}, _state, _data) do
      send(pid, {self(), message})
      :keep_state_and_data
    end
  end

  defmodule Loop do
    # A process that registers by itself and enters the loop of a behaviour afterwards; it tells
    # its starter when that fails.

    def start(register, enter), do: :proc_lib.start(__MODULE__, :init, [self(), register, enter])

    def init(starter, register, enter) do
      register.()
      :proc_lib.init_ack(self())

      try do
        enter.()
      catch
        :exit, reason -> send(starter, {:not_entered, self(), reason})
      end
    end
  end

  setup context do
    %{via: NativeRegistry.via_tuple(context.meta, :name), name: {context.registry, :name}}
  end

  describe "register_name/2" do
    test "answers :yes once and :no from then on", %{name: name} do
      assert NativeRegistry.register_name(name, self()) == :yes
      assert NativeRegistry.register_name(name, self()) == :no
      assert NativeRegistry.register_name(name, idle()) == :no
      assert elsewhere(fn -> NativeRegistry.register_name(name, self()) end) == :no
      assert NativeRegistry.whereis_name(name) == self()
    end

    test "registers a process that is not the caller", %{name: name} do
      pid = idle()

      assert elsewhere(fn -> NativeRegistry.register_name(name, pid) end) == :yes
      assert NativeRegistry.whereis_name(name) == pid

      kill(pid)
      assert NativeRegistry.whereis_name(name) == :undefined
    end

    test "is seen at once by the process that registers and by every other", context do
      test = self()

      for number <- 1..1_000 do
        name = {context.registry, number}

        pid =
          spawn_link(fn ->
            :yes = NativeRegistry.register_name(name, self())
            send(test, {:own, number, NativeRegistry.whereis_name(name)})
            Process.sleep(:infinity)
          end)

        assert_receive {:own, ^number, ^pid}
        assert NativeRegistry.whereis_name(name) == pid
      end
    end

    test "leaves nothing behind when the process has ended", context do
      pid = idle()
      kill(pid)

      for number <- 1..100 do
        assert NativeRegistry.register_name({context.registry, number}, pid) in [:yes, :no]
        assert NativeRegistry.whereis_name({context.registry, number}) == :undefined
      end

      assert Native.sizes(context.registry) == {0, 0}
      assert NativeRegistry.register_name({context.registry, 1}, self()) == :yes
    end

    test "refuses a process of another node", %{name: name, registry: registry} do
      remote = Terms.remote_pid(1)

      assert_raise ArgumentError, ~r/#{Regex.escape(inspect(remote))}/, fn ->
        NativeRegistry.register_name(name, remote)
      end

      assert NativeRegistry.whereis_name(name) == :undefined
      assert Native.sizes(registry) == {0, 0}
    end

    test "gives one process many names", context do
      pid = idle()
      names = for number <- 1..1_000, do: {context.registry, {:many, number}}

      for name <- names, do: assert(NativeRegistry.register_name(name, pid) == :yes)
      for name <- names, do: assert(NativeRegistry.whereis_name(name) == pid)
      assert Native.sizes(context.registry) == {1_000, 1}

      kill(pid)
      for name <- names, do: assert(NativeRegistry.whereis_name(name) == :undefined)
      eventually(fn -> Native.sizes(context.registry) == {0, 0} end)
    end

    test "takes a name over from a holder that has just been killed", %{name: name} do
      for _round <- 1..1_000 do
        holder = idle()
        :yes = NativeRegistry.register_name(name, holder)
        Process.exit(holder, :kill)

        assert NativeRegistry.register_name(name, self()) == :yes
        assert NativeRegistry.whereis_name(name) == self()
        :ok = NativeRegistry.unregister_name(name)
      end
    end

    test "raises for a registry that was never started" do
      assert_raise ArgumentError, ~r/NeverStarted/, fn ->
        NativeRegistry.register_name({NeverStarted, :name}, self())
      end
    end
  end

  describe "unregister_name/1" do
    test "frees the name for the holder", %{name: name} do
      :yes = NativeRegistry.register_name(name, self())
      assert NativeRegistry.unregister_name(name) == :ok
      assert NativeRegistry.whereis_name(name) == :undefined
      assert NativeRegistry.register_name(name, idle()) == :yes
    end

    test "frees one name of many", %{registry: registry} do
      for number <- 1..100, do: :yes = NativeRegistry.register_name({registry, number}, self())

      for number <- 1..100//2, do: NativeRegistry.unregister_name({registry, number})

      for number <- 1..100 do
        expected = if rem(number, 2) == 1, do: :undefined, else: self()
        assert NativeRegistry.whereis_name({registry, number}) == expected
      end
    end

    test "is harmless for a process that does not hold the name", %{name: name} do
      pid = idle()
      :yes = NativeRegistry.register_name(name, pid)

      assert NativeRegistry.unregister_name(name) == :ok
      assert elsewhere(fn -> NativeRegistry.unregister_name(name) end) == :ok
      assert NativeRegistry.whereis_name(name) == pid
    end

    test "is harmless for a holder of other names", %{registry: registry} do
      pid = idle()
      :yes = NativeRegistry.register_name({registry, :other}, pid)
      :yes = NativeRegistry.register_name({registry, :own}, self())

      assert NativeRegistry.unregister_name({registry, :other}) == :ok
      assert NativeRegistry.whereis_name({registry, :other}) == pid
      assert NativeRegistry.whereis_name({registry, :own}) == self()
    end

    test "is harmless for a name without a holder and for a registry that does not run",
         context do
      assert NativeRegistry.unregister_name(context.name) == :ok
      assert NativeRegistry.unregister_name({NeverStarted, :name}) == :ok
    end

    test "leaves nothing behind once the process ends", context do
      elsewhere(fn ->
        for number <- 1..100 do
          :yes = NativeRegistry.register_name({context.registry, number}, self())
          :ok = NativeRegistry.unregister_name({context.registry, number})
        end
      end)

      eventually(fn -> Native.sizes(context.registry) == {0, 0} end)
    end
  end

  describe "send/2" do
    test "sends to the holder and answers its pid, whatever the message", %{name: name} do
      :yes = NativeRegistry.register_name(name, self())

      for message <- [:message, {1, 2}, nil, false, []] do
        assert NativeRegistry.send(name, message) == self()
        assert_receive ^message
      end
    end

    test "exits for a name without a holder, as :global does", %{name: name} do
      assert catch_exit(NativeRegistry.send(name, :message)) == {:badarg, {name, :message}}
    end

    test "exits for a name whose holder has just been killed", %{name: name} do
      pid = idle()
      :yes = NativeRegistry.register_name(name, pid)
      Process.exit(pid, :kill)

      assert catch_exit(NativeRegistry.send(name, :message)) == {:badarg, {name, :message}}
    end
  end

  describe "a GenServer" do
    test "is started, called, cast and stopped by its via tuple", %{via: via, name: name} do
      {:ok, pid} = GenServer.start_link(Worker, [], name: via)

      assert GenServer.whereis(via) == pid
      assert NativeRegistry.whereis_name(name) == pid
      assert GenServer.call(via, :pid) == pid
      assert GenServer.cast(via, {:tell, self(), :cast}) == :ok
      assert_receive {^pid, :cast}

      assert NativeRegistry.send(name, {:tell, self(), :info}) == pid
      assert_receive {^pid, :info}

      request = :gen_server.send_request(via, :pid)
      assert :gen_server.receive_response(request, 5_000) == {:reply, pid}
      assert %{mod: _module} = via |> :sys.get_status() |> status()

      assert GenServer.stop(via) == :ok
      assert GenServer.whereis(via) == nil
    end

    test "is not started twice under one name", %{via: via} do
      {:ok, pid} = GenServer.start_link(Worker, [], name: via)

      assert GenServer.start_link(Worker, [], name: via) == {:error, {:already_started, pid}}
      assert GenServer.start(Worker, [], name: via) == {:error, {:already_started, pid}}

      assert elsewhere(fn -> GenServer.start(Worker, [], name: via) end) ==
               {:error, {:already_started, pid}}
    end

    test "that does not run is a noproc", %{via: via} do
      assert catch_exit(GenServer.call(via, :pid)) ==
               {:noproc, {GenServer, :call, [via, :pid, 5000]}}

      assert {:noproc, _call} = catch_exit(GenServer.stop(via))
      assert GenServer.whereis(via) == nil
      assert GenServer.cast(via, :message) == :ok
    end

    test "that has just been killed is a noproc", %{via: via} do
      {:ok, pid} = GenServer.start(Worker, [], name: via)
      Process.exit(pid, :kill)

      assert {:noproc, _call} = catch_exit(GenServer.call(via, :pid))
    end

    test "of a registry that was never started is an error that names it" do
      via = {:via, NativeRegistry, {NeverStarted, :name}}

      assert_raise ArgumentError, ~r/NeverStarted/, fn -> GenServer.call(via, :pid) end

      assert_raise ArgumentError, ~r/NeverStarted/, fn ->
        GenServer.start(Worker, [], name: via)
      end
    end

    test "that stops by itself frees its name", %{via: via, name: name} do
      {:ok, pid} = GenServer.start(Worker, [], name: via)
      reference = Process.monitor(pid)
      GenServer.cast(via, :stop)

      assert await_down(reference) == :normal
      assert NativeRegistry.whereis_name(name) == :undefined
    end

    test "enters its loop in the process that registered itself", %{via: via, name: name} do
      register = fn -> :yes = NativeRegistry.register_name(name, self()) end
      pid = Loop.start(register, fn -> :gen_server.enter_loop(Worker, [], [], via) end)

      assert GenServer.call(via, :pid) == pid
    end

    test "does not enter its loop under a name of another process", %{via: via, name: name} do
      :yes = NativeRegistry.register_name(name, self())
      pid = Loop.start(fn -> :ok end, fn -> :gen_server.enter_loop(Worker, [], [], via) end)

      assert_receive {:not_entered, ^pid, {:process_not_registered_via, NativeRegistry}}
    end
  end

  describe "an init that fails" do
    @describetag crashes: ~r/Worker, :init.*({:reason, \d+}|"round \d+"|:exit, :no|"no")/s

    test "frees the name and keeps its reason when it stops", %{via: via, name: name} do
      for round <- 1..1_500 do
        options = [init: fn -> {:stop, {:reason, round}} end]
        assert GenServer.start(Worker, options, name: via) == {:error, {:reason, round}}
        assert NativeRegistry.whereis_name(name) == :undefined
      end
    end

    test "frees the name and keeps its reason when it raises", %{via: via, name: name} do
      for round <- 1..1_500 do
        options = [init: fn -> raise "round #{round}" end]
        message = "round #{round}"

        assert {:error, {%RuntimeError{message: ^message}, [_ | _]}} =
                 GenServer.start(Worker, options, name: via)

        assert NativeRegistry.whereis_name(name) == :undefined
      end
    end

    test "frees the name and keeps its reason when it exits or is ignored", %{
      via: via,
      name: name
    } do
      for round <- 1..100 do
        options = [init: fn -> exit({:reason, round}) end]
        assert GenServer.start(Worker, options, name: via) == {:error, {:reason, round}}
        assert GenServer.start(Worker, [init: fn -> :ignore end], name: via) == :ignore
        assert NativeRegistry.whereis_name(name) == :undefined
      end
    end

    test "leaves nothing behind", %{via: via, registry: registry} do
      for init <- [fn -> {:stop, :no} end, fn -> raise "no" end, fn -> :ignore end] do
        for _round <- 1..100, do: GenServer.start(Worker, [init: init], name: via)
      end

      eventually(fn -> Native.sizes(registry) == {0, 0} end)
      assert {:ok, _pid} = GenServer.start_link(Worker, [], name: via)
    end

    test "does not take the name from the process that holds it", %{via: via} do
      {:ok, pid} = GenServer.start_link(Worker, [], name: via)
      options = [init: fn -> {:stop, :no} end]

      assert GenServer.start(Worker, options, name: via) == {:error, {:already_started, pid}}
      assert GenServer.whereis(via) == pid
    end
  end

  describe "a :gen_statem" do
    test "is started, called, cast and stopped by its via tuple", %{via: via, name: name} do
      init = fn -> {:ok, :state, nil} end
      {:ok, pid} = :gen_statem.start_link(via, Machine, init, [])

      assert NativeRegistry.whereis_name(name) == pid
      assert :gen_statem.call(via, :pid) == pid
      assert :gen_statem.cast(via, {:tell, self(), :cast}) == :ok
      assert_receive {^pid, :cast}
      assert :gen_statem.start(via, Machine, init, []) == {:error, {:already_started, pid}}

      assert :gen_statem.stop(via) == :ok
      assert NativeRegistry.whereis_name(name) == :undefined
      assert {:noproc, _call} = catch_exit(:gen_statem.call(via, :pid))
      assert :gen_statem.cast(via, :message) == :ok
    end

    @tag crashes: ~r/Machine, :init.*{:reason, \d+}/s
    test "whose init fails frees the name and keeps its reason", %{via: via, name: name} do
      for round <- 1..100 do
        init = fn -> {:stop, {:reason, round}} end
        assert :gen_statem.start(via, Machine, init, []) == {:error, {:reason, round}}
        assert NativeRegistry.whereis_name(name) == :undefined
      end
    end

    test "enters its loop in the process that registered itself", %{via: via, name: name} do
      register = fn -> :yes = NativeRegistry.register_name(name, self()) end
      enter = fn -> :gen_statem.enter_loop(Machine, [], :state, nil, via) end
      pid = Loop.start(register, enter)

      assert :gen_statem.call(via, :pid) == pid
    end

    test "does not enter its loop under a name that it does not hold", %{via: via} do
      enter = fn -> :gen_statem.enter_loop(Machine, [], :state, nil, via) end
      pid = Loop.start(fn -> :ok end, enter)

      assert_receive {:not_entered, ^pid, {:process_not_registered_via, NativeRegistry}}
    end
  end

  describe "a :gen_event" do
    test "is started, notified and stopped by its via tuple", %{via: via, name: name} do
      {:ok, pid} = :gen_event.start_link(via)

      assert NativeRegistry.whereis_name(name) == pid
      assert :gen_event.which_handlers(via) == []
      assert :gen_event.start(via) == {:error, {:already_started, pid}}
      assert :gen_event.stop(via) == :ok
      assert NativeRegistry.whereis_name(name) == :undefined
    end
  end

  describe "a Supervisor" do
    test "is started, asked and stopped by its via tuple", %{via: via, meta: meta} do
      child_via = NativeRegistry.via_tuple(meta, :child)
      options = [strategy: :one_for_one, name: via]
      {:ok, pid} = Supervisor.start_link([{Worker, name: child_via}], options)

      assert [{Worker, child, :worker, [Worker]}] = Supervisor.which_children(via)
      assert GenServer.call(child_via, :pid) == child
      assert Supervisor.start_link([], options) == {:error, {:already_started, pid}}

      assert Supervisor.stop(via) == :ok
      assert GenServer.whereis(via) == nil
      assert GenServer.whereis(child_via) == nil
    end

    test "restarts a killed child under its name", %{meta: meta} do
      via = NativeRegistry.via_tuple(meta, :child)
      child_spec = Supervisor.child_spec({Worker, name: via}, restart: :permanent)
      options = [strategy: :one_for_one, max_restarts: 1_000]
      {:ok, _supervisor} = Supervisor.start_link([child_spec], options)

      Enum.reduce(1..200, GenServer.whereis(via), fn _round, pid ->
        Process.exit(pid, :kill)
        new_pid = eventually(fn -> GenServer.whereis(via) end)
        assert new_pid != pid
        new_pid
      end)
    end
  end

  describe "a DynamicSupervisor" do
    test "is started, asked and stopped by its via tuple", %{via: via, meta: meta} do
      {:ok, pid} = DynamicSupervisor.start_link(strategy: :one_for_one, name: via)
      child_via = NativeRegistry.via_tuple(meta, :child)

      assert {:ok, child} = DynamicSupervisor.start_child(via, {Worker, name: child_via})

      assert DynamicSupervisor.start_child(via, {Worker, name: child_via}) ==
               {:error, {:already_started, child}}

      assert DynamicSupervisor.terminate_child(via, child) == :ok
      assert GenServer.whereis(child_via) == nil
      assert {:ok, _child} = DynamicSupervisor.start_child(via, {Worker, name: child_via})

      assert DynamicSupervisor.start_link(strategy: :one_for_one, name: via) ==
               {:error, {:already_started, pid}}

      assert DynamicSupervisor.stop(via) == :ok
      assert GenServer.whereis(via) == nil
    end
  end

  describe "an Agent" do
    test "is started, asked, changed and stopped by its via tuple", %{via: via} do
      {:ok, pid} = Agent.start_link(fn -> 1 end, name: via)

      assert Agent.get(via, & &1) == 1
      assert Agent.update(via, &(&1 + 1)) == :ok
      assert Agent.cast(via, &(&1 + 1)) == :ok
      assert Agent.get(via, & &1) == 3
      assert Agent.start_link(fn -> 1 end, name: via) == {:error, {:already_started, pid}}

      assert Agent.stop(via) == :ok
      assert {:noproc, _call} = catch_exit(Agent.get(via, & &1))
    end
  end

  describe "a Task.Supervisor" do
    test "is started and used by its via tuple", %{via: via} do
      {:ok, _pid} = Task.Supervisor.start_link(name: via)

      assert via |> Task.Supervisor.async(fn -> :done end) |> Task.await() == :done
    end
  end

  defp status({:status, _pid, {:module, module}, _items}), do: %{mod: module}
end
