defmodule WorkflowMetal.Registration.NativeRegistry.ModelTest do
  # Random commands of real processes, against models. What fails says the seed; with
  #
  #     MODEL_SEED=... mix test test/workflow_metal/registration/native_registry/model_test.exs
  #
  # the same commands come first again.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  alias WorkflowMetal.Registration.NativeRegistry.ModelTest.{Actor, Histories, Model}

  @sequences 400
  @commands 150
  @concurrent 3_000
  @patience 60_000
  @shrink_for 20_000

  defmodule Actor do
    @moduledoc false
    # A process that does what it is told. As a child it registers itself by the option `:name`.

    use GenServer, restart: :temporary

    def start_link(options),
      do: GenServer.start_link(__MODULE__, [], Keyword.take(options, [:name]))

    def run(pid, function), do: GenServer.call(pid, {:run, function}, 30_000)

    @impl GenServer
    def init(state), do: {:ok, state}

    @impl GenServer
    def handle_call({:run, function}, _from, state), do: {:reply, function.(), state}
    def handle_call(:stop, _from, state), do: {:stop, :normal, :ok, state}
  end

  defmodule Model do
    @moduledoc false
    # One command after the other. A process is a number, that of its start.

    defstruct alive: [], dead: [], next: 0, names: %{}, told: %{}

    # Short, middle and long ones, and parts that the VM has to open.
    @names [
      :clock,
      {:task, {1, 2, 3, 4}},
      {:task, {1, 2, 3, 4.0}},
      {:case, {"10f4b6e2-9b3a-4a4e-8d1c-0123456789ab", "10f4b6e2-9b3a-4a4e-8d1c-0123456789ac"}},
      {:case, {"loans", Integer.pow(2, 100)}},
      {:text, String.duplicate("long", 25)},
      [%{a: 1, b: [2]}, &String.length/1]
    ]

    @patterns [:_, :clock, {:task, :_}, {:_, {1, 2, 3, :_}}, {:case, {"loans", :_}}, [:_ | :_]]

    def names, do: @names
    def patterns, do: @patterns

    # A command for a process that does not exist is for one that does, so that any part of a
    # sequence is a sequence.
    def random_command do
      [a, b] = for _process <- 1..2, do: :rand.uniform(8) - 1
      name = Enum.random(@names)
      value = Enum.random([nil, nil, :rand.uniform(3), {:value, "v"}])

      Enum.random([
        :start,
        :start,
        {:register, a, name, value},
        {:register, a, name, value},
        {:register_another, a, b, name},
        {:register_dead, a, name},
        {:unregister, a, name},
        {:unregister, a, name},
        {:update, a, name, value},
        {:start_child, name},
        {:start_child, name},
        {:stop, a},
        {:kill, a},
        {:kill_and_take, a, b, value},
        {:lookup, name},
        {:whereis, a, name},
        {:keys, a},
        {:select, Enum.random(@patterns)},
        :names,
        :count,
        Enum.random([:kill_owner, :restart | List.duplicate({:lookup, name}, 20)])
      ])
    end

    def process(%{alive: []}, _number), do: nil
    def process(%{alive: alive}, number), do: Enum.at(alive, rem(number, length(alive)))

    def started(model, name \\ nil, value \\ nil) do
      number = model.next
      model = %{model | next: number + 1, alive: model.alive ++ [number]}
      if name == nil, do: model, else: held(model, name, number, value)
    end

    def held(model, name, number, value) do
      tell(
        %{model | names: Map.put(model.names, name, {number, value})},
        name,
        {:register, number, value}
      )
    end

    def updated(model, name, number, value),
      do: %{model | names: Map.put(model.names, name, {number, value})}

    def freed(model, name) do
      {{number, _value}, names} = Map.pop!(model.names, name)
      tell(%{model | names: names}, name, {:unregister, number})
    end

    def ended(model, number) do
      model = Enum.reduce(names_of(model, number), model, &freed(&2, &1))
      %{model | alive: List.delete(model.alive, number), dead: [number | model.dead]}
    end

    def restarted(model), do: %{model | names: %{}, told: %{}}

    def names_of(model, number) do
      for {name, {^number, _value}} <- model.names, do: name
    end

    # The events of each name that a subscriber has to get, the last one first.
    defp tell(model, name, event) do
      %{model | told: Map.update(model.told, name, [event], &[event | &1])}
    end

    def matching(model, pattern) do
      for {name, {number, value}} <- model.names,
          match_name?(pattern, name),
          do: {name, number, value}
    end

    defp match_name?(:_, _term), do: true

    defp match_name?(pattern, term) when is_tuple(pattern) and is_tuple(term) do
      tuple_size(pattern) == tuple_size(term) and
        match_name?(Tuple.to_list(pattern), Tuple.to_list(term))
    end

    defp match_name?([head | tail], [first | rest]),
      do: match_name?(head, first) and match_name?(tail, rest)

    defp match_name?(pattern, term), do: pattern === term
  end

  describe "each command of up to eight processes, one after the other," do
    test "is answered as the model answers it" do
      for seed <- seeds(@sequences) do
        :rand.seed(:exsss, seed)
        commands = for _command <- 1..@commands, do: Model.random_command()

        with {:differs, last, text} <- play(commands) do
          deadline = System.monotonic_time(:millisecond) + @shrink_for
          {commands, text} = shrink(Enum.take(commands, last + 1), text, deadline)

          flunk(
            "MODEL_SEED=#{seed}\n#{text}\nby these commands:\n#{inspect(commands, pretty: true, limit: :infinity)}"
          )
        end
      end
    end
  end

  # Plays the commands; the first answer that is not the model's ends it.
  defp play(commands, patience \\ @patience) do
    registry = unique_registry()
    %{id: id} = start_registry(registry)
    supervisor = start_dynamic_supervisor()
    :ok = Registry.subscribe(registry)
    world = %{registry: registry, supervisor: supervisor, id: id, pids: %{}, patience: patience}

    result =
      Enum.reduce_while(Enum.with_index(commands), {world, %Model{}}, fn {command, at}, state ->
        {world, model} = state

        try do
          {:cont, step(command, world, model)}
        catch
          {:differs, expected, answer} ->
            text = "#{inspect(command)}: expected #{inspect(expected)}, got #{inspect(answer)}"
            {:halt, {:differs, at, text}}
        end
      end)

    result =
      try do
        with {%{}, model} <- result, do: compare_told(elem(result, 0), model)
      catch
        {:differs, expected, answer} ->
          {:differs, length(commands),
           "told: expected #{inspect(expected)}, got #{inspect(answer)}"}
      end

    :ok = stop_supervised(id)
    Supervisor.stop(supervisor)
    flush(registry)
    result
  end

  # Removes commands that are not needed for the failure, as long as there is time.
  defp shrink(commands, text, deadline) do
    Enum.find_value(0..(length(commands) - 1), {commands, text}, fn at ->
      shorter = List.delete_at(commands, at)

      with true <- System.monotonic_time(:millisecond) < deadline,
           {:differs, last, text} <- play(shorter, 200) do
        shrink(Enum.take(shorter, last + 1), text, deadline)
      else
        _same -> nil
      end
    end)
  end

  defp step(:start, world, model) when length(model.alive) < 8 do
    {:ok, pid} = DynamicSupervisor.start_child(world.supervisor, Actor)
    {put_in(world.pids[model.next], pid), Model.started(model)}
  end

  defp step({:start_child, name}, world, model) do
    meta = %{registry: world.registry}
    answer = NativeRegistry.start_child(meta, name, world.supervisor, Actor)

    case {model.names[name], answer} do
      {nil, {:ok, pid}} ->
        compare(false, pid in Map.values(world.pids))
        {put_in(world.pids[model.next], pid), Model.started(model, name)}

      {{number, _value}, answer} ->
        compare({:ok, world.pids[number]}, answer)
        {world, model}

      {nil, answer} ->
        compare(:a_new_process, answer)
    end
  end

  defp step(:kill_owner, world, model) do
    eventually(fn -> Process.whereis(Owner.name(world.registry)) end) |> kill()
    {world, model}
  end

  defp step(:restart, world, model) do
    compare_told(world, model)
    :ok = stop_supervised(world.id)
    start_registry(world.registry)
    :ok = Registry.subscribe(world.registry)
    {world, Model.restarted(model)}
  end

  defp step({:lookup, name}, world, model) do
    expected =
      case model.names[name] do
        {number, value} -> [{world.pids[number], value}]
        nil -> []
      end

    compare(expected, Registry.lookup(world.registry, name))
    compare(holder(world, model, name), NativeRegistry.whereis_name({world.registry, name}))
    {world, model}
  end

  defp step({:select, pattern}, world, model) do
    matching = Model.matching(model, pattern)
    expected = for {name, number, value} <- matching, do: {name, world.pids[number], value}
    compare_all(expected, Registry.match_names(world.registry, pattern))

    # Names of processes that have just ended may still count.
    await_equal(world, length(expected), fn ->
      Registry.count_names(world.registry, pattern)
    end)

    {world, model}
  end

  defp step(:names, world, model) do
    compare_all(Map.keys(model.names), Registry.names(world.registry))
    {world, model}
  end

  defp step(:count, world, model) do
    await_equal(world, map_size(model.names), fn -> Registry.count(world.registry) end)
    {world, model}
  end

  defp step({:register_dead, a, name}, world, model) do
    with number when number != nil <- Model.process(model, a), [dead | _] <- model.dead do
      register = fn -> NativeRegistry.register_name({world.registry, name}, world.pids[dead]) end
      answer = Actor.run(world.pids[number], register)
      # A dead process gets no name, whatever the answer.
      unless model.names[name] == nil, do: compare(:no, answer)
      compare(holder(world, model, name), NativeRegistry.whereis_name({world.registry, name}))
    end

    {world, model}
  end

  # All others are of a process that there is.
  defp step(command, world, model) when is_tuple(command) do
    case Model.process(model, elem(command, 1)) do
      nil -> {world, model}
      number -> step_of(command, number, world, model)
    end
  end

  defp step(_command, world, model), do: {world, model}

  defp step_of({:register, _, name, value}, number, world, model) do
    %{registry: registry, pids: pids} = world
    answer = Actor.run(pids[number], fn -> Registry.register(registry, name, value) end)

    case model.names[name] do
      nil ->
        compare({:ok, pids[number]}, answer)
        {world, Model.held(model, name, number, value)}

      {holder, _value} ->
        compare({:error, {:already_registered, pids[holder]}}, answer)
        {world, model}
    end
  end

  defp step_of({:register_another, _, b, name}, number, world, model) do
    %{registry: registry, pids: pids} = world
    another = Model.process(model, b)
    register = fn -> NativeRegistry.register_name({registry, name}, pids[another]) end
    answer = Actor.run(pids[number], register)

    if model.names[name] == nil do
      compare(:yes, answer)
      {world, Model.held(model, name, another, nil)}
    else
      compare(:no, answer)
      {world, model}
    end
  end

  defp step_of({:unregister, _, name}, number, world, model) do
    %{registry: registry, pids: pids} = world
    answer = Actor.run(pids[number], fn -> Registry.unregister(registry, name) end)
    compare(:ok, answer)

    case model.names[name] do
      {^number, _value} -> {world, Model.freed(model, name)}
      _other -> {world, model}
    end
  end

  defp step_of({:update, _, name, value}, number, world, model) do
    %{registry: registry, pids: pids} = world
    update = fn -> Registry.update_value(registry, name, fn _old -> value end) end
    answer = Actor.run(pids[number], update)

    case model.names[name] do
      {^number, old} ->
        compare({value, old}, answer)
        {world, Model.updated(model, name, number, value)}

      _other ->
        compare(:error, answer)
        {world, model}
    end
  end

  defp step_of({:whereis, _, name}, number, world, model) do
    whereis = fn -> NativeRegistry.whereis_name({world.registry, name}) end
    compare(holder(world, model, name), Actor.run(world.pids[number], whereis))
    {world, model}
  end

  defp step_of({:keys, _}, number, world, model) do
    keys = Registry.keys(world.registry, world.pids[number])
    compare_all(Model.names_of(model, number), keys)
    {world, model}
  end

  defp step_of({:stop, _}, number, world, model) do
    reference = Process.monitor(world.pids[number])
    :ok = GenServer.call(world.pids[number], :stop)
    await_down(reference)
    {world, Model.ended(model, number)}
  end

  defp step_of({:kill, _}, number, world, model) do
    pid = world.pids[number]
    reference = Process.monitor(pid)
    Process.exit(pid, :kill)

    # From now on the process that has killed it does not find it, whether its end has been told or not.
    for name <- Model.names_of(model, number) do
      compare(:undefined, NativeRegistry.whereis_name({world.registry, name}))
    end

    compare([], Registry.keys(world.registry, pid))
    await_down(reference)
    {world, Model.ended(model, number)}
  end

  # Another process registers its names, mostly before its end has been noticed.
  defp step_of({:kill_and_take, _, b, value}, number, world, model) do
    case Model.process(%{model | alive: List.delete(model.alive, number)}, b) do
      nil ->
        {world, model}

      another ->
        %{registry: registry, pids: pids} = world
        names = Model.names_of(model, number)

        # Something to clean up before it is told.
        monitor = fn -> for _time <- 1..2_000, do: Process.monitor(world.supervisor) end
        Actor.run(pids[number], monitor)
        reference = Process.monitor(pids[number])
        Process.exit(pids[number], :kill)

        for name <- names do
          answer = NativeRegistry.register_name({registry, name, value}, pids[another])
          compare(:yes, answer)
          compare([{pids[another], value}], Registry.lookup(registry, name))
        end

        await_down(reference)
        model = Model.ended(model, number)
        {world, Enum.reduce(names, model, &Model.held(&2, &1, another, value))}
    end
  end

  defp holder(world, model, name) do
    case model.names[name] do
      {number, _value} -> world.pids[number]
      nil -> :undefined
    end
  end

  defp compare(same, same), do: :ok
  defp compare(expected, answer), do: throw({:differs, expected, answer})

  # In any order. Not sorted: `1` and `1.0` would stand in either.
  defp compare_all(expected, answer) do
    compare(Enum.frequencies(expected), Enum.frequencies(answer))
  end

  defp await_equal(world, expected, function) do
    await_equal_until(expected, function, System.monotonic_time(:millisecond) + world.patience)
  end

  defp await_equal_until(expected, function, deadline) do
    answer = function.()

    if answer != expected do
      if System.monotonic_time(:millisecond) > deadline, do: compare(expected, answer)
      Process.sleep(1)
      await_equal_until(expected, function, deadline)
    end
  end

  # The subscriber is told of every change, once, those of one name in their order. A dead process
  # that a process tried to register may have had the name for a moment.
  defp compare_told(world, model) do
    %{registry: registry, pids: pids} = world

    for {name, events} <- model.told, event <- Enum.reverse(events) do
      expected =
        case event do
          {:register, number, value} -> {:register, registry, name, pids[number], value}
          {:unregister, number} -> {:unregister, registry, name, pids[number]}
        end

      dead = for number <- model.dead, do: pids[number]
      compare(expected, next_told(world, name, expected, dead))
    end
  end

  defp next_told(%{registry: registry} = world, name, expected, dead) do
    receive do
      told when elem(told, 1) == registry and elem(told, 2) === name ->
        if told != expected and elem(told, 3) in dead,
          do: next_told(world, name, expected, dead),
          else: told
    after
      world.patience -> :nothing
    end
  end

  defp flush(registry) do
    receive do
      told when is_tuple(told) and elem(told, 1) == registry -> flush(registry)
    after
      0 -> :ok
    end
  end

  describe "two to eight processes at once" do
    test "get answers that are right in some order" do
      for seed <- seeds(@concurrent) do
        :rand.seed(:exsss, seed)
        registry = unique_registry()
        %{id: id} = start_registry(registry)
        names = Enum.take_random(Model.names(), :rand.uniform(2))
        plans = for _process <- 1..(1 + :rand.uniform(7)), do: random_plan(names)
        history = Histories.record(registry, plans)

        for {name, operations} <- history do
          unless Histories.linearizable?(operations) do
            flunk("""
            MODEL_SEED=#{seed}: in no order are these answers right, of #{inspect(name)}:
            #{inspect(operations, pretty: true, limit: :infinity)}
            """)
          end
        end

        eventually(fn -> Native.sizes(registry) == {0, 0} end)
        :ok = stop_supervised(id)
      end
    end

    defp random_plan(names) do
      count = 3 + :rand.uniform(12)

      steps =
        for _step <- 1..count do
          {Enum.random([:register, :register, :unregister, :whereis]), Enum.random(names)}
        end

      {steps, Enum.random([nil, :rand.uniform(count)])}
    end

    test "are told apart from answers that are right in no order" do
      right = [
        [{:register, 1, 3, :yes}, {:unregister, 5, 6, :ok}, {:end, 20, 21, nil}],
        [
          {:whereis, 2, 4, :undefined},
          {:register, 4, 7, :yes},
          {:whereis, 8, 9, 1},
          {:end, 30, 31, nil}
        ]
      ]

      assert Histories.linearizable?(right)

      for wrong <- [
            # Two processes held it at once.
            [
              [{:register, 1, 2, :yes}, {:end, 20, 21, nil}],
              [{:register, 3, 4, :yes}, {:end, 20, 21, nil}]
            ],
            # It was not found although it was held.
            [
              [{:register, 1, 2, :yes}, {:end, 20, 21, nil}],
              [{:whereis, 3, 4, :undefined}, {:end, 20, 21, nil}]
            ],
            # A dead process was found.
            [
              [{:register, 1, 2, :yes}, {:end, 3, 4, nil}],
              [{:whereis, 5, 6, 0}, {:end, 20, 21, nil}]
            ],
            # It was refused although no process held it.
            [[{:register, 1, 2, 1}, {:end, 20, 21, nil}], [{:end, 20, 21, nil}]]
          ] do
        refute Histories.linearizable?(wrong)
      end
    end
  end

  defmodule Histories do
    @moduledoc false
    # What processes did at once, and whether there is an order in which it is right.
    #
    # An operation is `{kind, began, ended, answer}`; its times are numbers that the VM gives out
    # one after the other, its answer has a process by its number. The last one of a process is its
    # end. One that a process was killed in has no end of its own and no answer: it may have been
    # done or not.

    alias WorkflowMetal.Registration.NativeRegistry

    # Carries out the plans at once, and answers, by name, a list of operations for each process.
    # A plan is what to do, and after how many operations it is killed meanwhile, if it is.
    def record(registry, plans) do
      log = self()
      plans = Enum.with_index(plans)

      pids =
        for {{steps, kill_at}, number} <- plans do
          spawn(fn ->
            receive do
              :go -> :ok
            end

            Enum.each(steps, &operate(log, number, registry, &1))
            if kill_at != nil, do: Process.sleep(:infinity)
          end)
        end

      processes =
        for {{{_steps, kill_at}, number}, pid} <- Enum.zip(plans, pids), into: %{} do
          reference = Process.monitor(pid)
          {number, %{pid: pid, reference: reference, kill_at: kill_at, done: [], end: nil}}
        end

      for pid <- pids, do: send(pid, :go)
      processes = collect(processes, length(pids))
      numbers = for {number, process} <- processes, into: %{}, do: {process.pid, number}

      names = for {{steps, _kill_at}, _number} <- plans, {_kind, name} <- steps, do: name

      for name <- Enum.uniq(names), into: %{} do
        {name, for({_number, process} <- processes, do: operations_on(process, name, numbers))}
      end
    end

    defp operate(log, number, registry, {kind, name}) do
      send(log, {:began, number, name, kind, time()})

      answer =
        case kind do
          :register ->
            case Registry.register(registry, name, nil) do
              {:ok, _pid} -> :yes
              {:error, {:already_registered, pid}} -> pid
            end

          :unregister ->
            Registry.unregister(registry, name)

          :whereis ->
            NativeRegistry.whereis_name({registry, name})
        end

      send(log, {:ended, number, time(), answer})
    end

    defp time, do: System.unique_integer([:monotonic])

    defp collect(processes, 0), do: processes

    defp collect(processes, running) do
      receive do
        {:began, number, name, kind, began} ->
          process = processes[number]
          process = %{process | done: [{name, kind, began, :infinity, nil} | process.done]}
          collect(%{processes | number => kill_in_time(process)}, running)

        {:ended, number, ended, answer} ->
          %{done: [{name, kind, began, _, _} | before]} = process = processes[number]
          process = %{process | done: [{name, kind, began, ended, answer} | before]}
          collect(%{processes | number => process}, running)

        {:DOWN, reference, :process, _pid, _reason} ->
          {number, process} = Enum.find(processes, &(elem(&1, 1).reference == reference))
          # That of a process which ends by itself begins at some time after its last operation.
          began = process.end || process.done |> hd() |> elem(3)
          process = %{process | end: {:end, began, time(), nil}}
          collect(%{processes | number => process}, running - 1)
      end
    end

    # While it is in the operation that it has just told of, or has gone on.
    defp kill_in_time(%{kill_at: kill_at, done: done} = process) when length(done) == kill_at do
      began = time()
      Process.exit(process.pid, :kill)
      %{process | end: began}
    end

    defp kill_in_time(process), do: process

    defp operations_on(process, name, numbers) do
      operations =
        for {^name, kind, began, ended, answer} <- Enum.reverse(process.done) do
          {kind, began, ended, if(is_pid(answer), do: Map.fetch!(numbers, answer), else: answer)}
        end

      operations ++ [process.end]
    end

    # Tries all orders that the times allow, what is known to lead nowhere once only.
    def linearizable?(processes) do
      processes = List.to_tuple(Enum.map(processes, &List.to_tuple/1))
      at = Tuple.duplicate(0, tuple_size(processes))
      {answer, _dead_ends} = search(processes, at, nil, MapSet.new())
      answer
    end

    defp search(processes, at, holder, dead_ends) do
      next =
        for number <- 0..(tuple_size(processes) - 1),
            operations = elem(processes, number),
            elem(at, number) < tuple_size(operations),
            do: {number, elem(operations, elem(at, number))}

      cond do
        next == [] -> {true, dead_ends}
        {at, holder} in dead_ends -> {false, dead_ends}
        true -> try_each(next, first_end(next), processes, at, holder, dead_ends)
      end
    end

    # Nothing that began after another operation had ended can come before that.
    defp first_end(next),
      do: next |> Enum.map(fn {_, {_, _, ended, _}} -> ended end) |> Enum.min()

    defp try_each(next, first_end, processes, at, holder, dead_ends) do
      Enum.reduce_while(next, {false, dead_ends}, fn {number, operation}, {false, dead_ends} ->
        {_kind, began, _ended, _answer} = operation
        moved = put_elem(at, number, elem(at, number) + 1)
        holders = if began <= first_end, do: holders(operation, number, holder), else: []

        case search_any(holders, processes, moved, dead_ends) do
          {true, dead_ends} -> {:halt, {true, dead_ends}}
          {false, dead_ends} -> {:cont, {false, dead_ends}}
        end
      end)
      |> case do
        {false, dead_ends} -> {false, MapSet.put(dead_ends, {at, holder})}
        found -> found
      end
    end

    defp search_any(holders, processes, at, dead_ends) do
      Enum.reduce_while(holders, {false, dead_ends}, fn holder, {false, dead_ends} ->
        case search(processes, at, holder, dead_ends) do
          {true, dead_ends} -> {:halt, {true, dead_ends}}
          {false, dead_ends} -> {:cont, {false, dead_ends}}
        end
      end)
    end

    # The holder of the name after the operation; no answer when the operation cannot come now.
    defp holders({:register, _, _, :yes}, number, nil), do: [number]
    defp holders({:register, _, _, holder}, _, holder) when holder != nil, do: [holder]
    defp holders({:register, _, :infinity, nil}, number, nil), do: [number, nil]
    defp holders({:register, _, :infinity, nil}, _, holder), do: [holder]
    defp holders({:register, _, _, _}, _, _), do: []
    defp holders({:unregister, _, :infinity, nil}, number, number), do: [nil, number]
    defp holders({:unregister, _, _, _}, number, number), do: [nil]
    defp holders({:unregister, _, _, _}, _, holder), do: [holder]
    defp holders({:whereis, _, :infinity, nil}, _, holder), do: [holder]
    defp holders({:whereis, _, _, :undefined}, _, nil), do: [nil]
    defp holders({:whereis, _, _, holder}, _, holder) when holder != nil, do: [holder]
    defp holders({:whereis, _, _, _}, _, _), do: []
    defp holders({:end, _, _, _}, number, number), do: [nil]
    defp holders({:end, _, _, _}, _, holder), do: [holder]
  end

  defp seeds(count) do
    case System.get_env("MODEL_SEED") do
      nil -> for _seed <- 1..count, do: :rand.uniform(4_294_967_296)
      seed -> [String.to_integer(seed) | for(_again <- 1..count, do: String.to_integer(seed))]
    end
  end
end
