# The supervision tree of a WorkflowMetal application on a given registry adapter, and the steps that
# `script/demo` runs on it. demo.exs compiles this file and prints the results.

defmodule Demo.ElixirRegistry do
  @moduledoc false
  # An adapter's four callbacks on Elixir's Registry.

  def child_spec(application, _config) do
    registry = Module.concat(application, Names)
    {:ok, {Registry, keys: :unique, name: registry}, %{registry: registry}}
  end

  def via_tuple(meta, name), do: {:via, Registry, {meta.registry, name}}

  def start_child(meta, name, supervisor, {module, arguments}) do
    arguments = [{:name, via_tuple(meta, name)} | arguments]

    with {:error, {:already_started, pid}} <-
           DynamicSupervisor.start_child(supervisor, {module, arguments}),
         do: {:ok, pid}
  end

  def whereis_name(meta, name), do: Registry.whereis_name({meta.registry, name})
end

defmodule Demo.Process do
  @moduledoc false
  # A case or a task. It counts its calls; the count is lost when the process dies.
  use GenServer, restart: :transient

  def start_link(arguments), do: GenServer.start_link(__MODULE__, 0, name: arguments[:name])

  @impl GenServer
  def init(calls), do: {:ok, calls}

  @impl GenServer
  def handle_call(:call, _from, calls), do: {:reply, calls + 1, calls + 1}
end

defmodule Demo.Workflow do
  @moduledoc false
  # The supervisor of a workflow. Below it are the supervisors of its cases, tasks and workitems. All are
  # registered by name, and have the default limits on restarts.
  use Supervisor

  def start_link(arguments),
    do: Supervisor.start_link(__MODULE__, arguments, name: arguments[:name])

  @impl Supervisor
  def init(arguments) do
    {registry, meta} = arguments[:registry]

    children =
      for kind <- [:case, :task, :workitem] do
        name = registry.via_tuple(meta, {__MODULE__, kind, arguments[:workflow]})
        Supervisor.child_spec({DynamicSupervisor, name: name}, id: kind)
      end

    Supervisor.init(children, strategy: :one_for_one)
  end
end

defmodule Demo.Application do
  @moduledoc false
  # The registry, and the supervisor of all workflows.
  use Supervisor

  def start_link(registry), do: Supervisor.start_link(__MODULE__, registry, name: __MODULE__)

  @impl Supervisor
  def init(registry) do
    {:ok, child_spec, _meta} = registry.child_spec(__MODULE__, [])

    Supervisor.init([child_spec, {DynamicSupervisor, name: Demo.Workflows}],
      strategy: :one_for_one
    )
  end

  # As WorkflowMetal does at every step: first it opens the workflow, then the case or task in it.
  def open({registry, meta} = pair, {kind, ids} = name) do
    workflow = elem(ids, 0)
    child_spec = {Demo.Workflow, workflow: workflow, registry: pair}

    with {:ok, _pid} <-
           registry.start_child(meta, {Demo.Workflow, workflow}, Demo.Workflows, child_spec) do
      supervisor = registry.via_tuple(meta, {Demo.Workflow, kind, workflow})
      registry.start_child(meta, name, supervisor, {Demo.Process, []})
    end
  end

  # The process that owns the names. With Elixir's Registry the child in this tree is a supervisor, and
  # the owner is the process below it.
  def registry_process(registry) do
    {:ok, child_spec, _meta} = registry.child_spec(__MODULE__, [])
    id = Supervisor.child_spec(child_spec, []).id

    case List.keyfind(Supervisor.which_children(__MODULE__), id, 0) do
      {^id, pid, :worker, _modules} -> pid
      {^id, pid, :supervisor, _modules} -> pid |> Supervisor.which_children() |> hd() |> elem(1)
    end
  end
end

defmodule Demo.Progress do
  @moduledoc false
  # On a terminal one line that is overwritten, elsewhere a line each second.

  def start(what, total) do
    done = :counters.new(1, [:write_concurrency])
    printer = spawn_link(fn -> print(what, total, done) end)
    {what, total, done, printer}
  end

  def add({_what, _total, done, _printer}, count), do: :counters.add(done, 1, count)

  def stop({what, total, _done, printer}, microseconds) do
    reference = Process.monitor(printer)
    send(printer, :stop)

    receive do
      {:DOWN, ^reference, _, _, _} -> :ok
    end

    seconds = :erlang.float_to_binary(microseconds / 1_000_000, decimals: 2)
    over = if terminal?(), do: "\r", else: ""
    IO.puts(over <> line(what, total, total) <> String.pad_leading(seconds, 7) <> " s")
  end

  defp print(what, total, done) do
    receive do
      :stop -> :ok
    after
      if(terminal?(), do: 50, else: 1_000) ->
        line = line(what, :counters.get(done, 1), total)
        if terminal?(), do: IO.write("\r" <> line), else: IO.puts(line)
        print(what, total, done)
    end
  end

  defp line(what, count, total) do
    count = String.pad_leading(Demo.Text.number(count), 9)
    "  " <> String.pad_trailing(what, 18) <> count <> " of " <> Demo.Text.number(total)
  end

  # The output of this VM goes through the VM that started it, so `script/demo` has looked.
  defp terminal?, do: System.get_env("DEMO_TERMINAL") == "yes"
end

defmodule Demo.Text do
  @moduledoc false

  # 12345 as "12,345"
  def number(integer),
    do: integer |> Integer.to_string() |> String.replace(~r/(?<=\d)(?=(\d{3})+$)/, ",")

  def median(numbers), do: numbers |> Enum.sort() |> Enum.at(div(length(numbers), 2))
end

defmodule Demo.Run do
  @moduledoc false
  # One run on one registry, in a VM of its own.

  alias Demo.Progress

  @workflows 200
  @cases 10
  @tasks 9
  @callers 8
  @load_ms 1_500

  def workflows, do: @workflows
  def processes, do: @workflows * @cases * (1 + @tasks)
  def callers, do: @callers

  def go(registry) do
    # A supervisor that gives up must not end this process or fill the screen with reports.
    Process.flag(:trap_exit, true)
    Logger.configure(level: :none)

    {:ok, _child_spec, meta} = registry.child_spec(Demo.Application, [])
    {:ok, application} = Demo.Application.start_link(registry)
    pair = {registry, meta}
    names = names()
    shuffled = Enum.shuffle(names)
    via = &registry.via_tuple(meta, &1)

    rates = %{
      opened: rate("opened", names, 1, &({:ok, _} = Demo.Application.open(pair, &1))),
      again: rate("opened again", shuffled, 5, &({:ok, _} = Demo.Application.open(pair, &1))),
      found: rate("looked up", shuffled, 20, &(true = is_pid(registry.whereis_name(meta, &1)))),
      called: rate("called", shuffled, 3, &(true = is_integer(GenServer.call(via.(&1), :call))))
    }

    rates
    |> Map.merge(kill_some(pair, names))
    |> Map.merge(kill_registry(pair, names, application))
  end

  # The ids are UUIDs, as they are in an application with a database.
  defp names do
    List.flatten(
      for _ <- 1..@workflows, workflow = uuid(), _ <- 1..@cases, the_case = uuid() do
        tasks = for _ <- 1..@tasks, do: {:task, {workflow, uuid(), the_case, uuid()}}
        [{:case, {workflow, the_case}} | tasks]
      end
    )
  end

  defp uuid do
    <<a::32, b::16, c::16, d::16, e::48>> = :crypto.strong_rand_bytes(16)

    Enum.map_join([{a, 8}, {b, 4}, {c, 4}, {d, 4}, {e, 12}], "-", fn {part, digits} ->
      part |> Integer.to_string(16) |> String.downcase() |> String.pad_leading(digits, "0")
    end)
  end

  # How many calls a second all callers do together. Each caller has a share of the names.
  defp rate(what, names, passes, fun) do
    callers =
      names
      |> Enum.chunk_every(div(length(names), @callers))
      |> Enum.map(fn share ->
        hundreds = Enum.chunk_every(share, 100)

        Task.async(fn ->
          receive do
            {:go, progress} -> for _ <- 1..passes, do: pass(hundreds, fun, progress)
          end
        end)
      end)

    count = passes * length(names)
    progress = Progress.start(what, count)

    {time, _} =
      :timer.tc(fn ->
        for caller <- callers, do: send(caller.pid, {:go, progress})
        Task.await_many(callers, :infinity)
      end)

    Progress.stop(progress, time)
    count * 1_000_000 / time
  end

  defp pass(hundreds, fun, progress) do
    for names <- hundreds do
      Enum.each(names, fun)
      Progress.add(progress, length(names))
    end
  end

  # A case and a task of every workflow, one after another. Their supervisors bring them back.
  defp kill_some({registry, meta}, names) do
    victims =
      names
      |> Enum.group_by(fn {kind, ids} -> {kind, elem(ids, 0)} end)
      |> Enum.map(fn {_supervisor, children} -> Enum.random(children) end)

    progress = Progress.start("killed and back", length(victims))

    times =
      for name <- victims do
        pid = registry.whereis_name(meta, name)
        Process.exit(pid, :kill)
        killed = now()
        successor = successor(registry, meta, name, pid)
        back = now()
        1 = GenServer.call(successor, :call)
        Progress.add(progress, 1)
        back - killed
      end

    Progress.stop(progress, Enum.sum(times))
    %{back: Demo.Text.median(times)}
  end

  defp successor(registry, meta, name, pid) do
    case registry.whereis_name(meta, name) do
      successor when is_pid(successor) and successor != pid -> successor
      _ -> successor(registry, meta, name, pid)
    end
  end

  # All callers open and call random names, and after a third of the time the registry's own
  # process is killed.
  defp kill_registry({registry, meta} = pair, names, application) do
    IO.puts("  the registry's own process is killed while #{@callers} callers open and call")
    before = Enum.map(names, &registry.whereis_name(meta, &1))
    own = Demo.Application.registry_process(registry)
    all = List.to_tuple(names)
    until = now() + @load_ms * 1_000

    callers = for _ <- 1..@callers, do: Task.async(fn -> load(pair, all, until, %{}) end)
    Process.sleep(div(@load_ms, 3))
    Process.exit(own, :kill)

    answers =
      callers
      |> Task.await_many(:infinity)
      |> Enum.reduce(&Map.merge(&1, &2, fn _answer, one, other -> one + other end))

    one_each = Enum.uniq_by(names, fn {_kind, ids} -> elem(ids, 0) end)

    %{
      died: Enum.count(before, &(not Process.alive?(&1))),
      unfound: Enum.count(names, &(not found?(registry, meta, &1))),
      unopened: Enum.count(one_each, &(open_and_call(pair, &1) != :ok)),
      application_down: if(Process.alive?(application), do: 0, else: 1),
      answered: Map.get(answers, :ok, 0),
      failed: Map.delete(answers, :ok)
    }
  end

  defp load(pair, all, until, answers) do
    if now() >= until do
      answers
    else
      name = elem(all, :rand.uniform(tuple_size(all)) - 1)
      load(pair, all, until, Map.update(answers, open_and_call(pair, name), 1, &(&1 + 1)))
    end
  end

  defp open_and_call({registry, meta} = pair, name) do
    with {:ok, pid} when is_pid(pid) <- Demo.Application.open(pair, name),
         calls when is_integer(calls) <- GenServer.call(registry.via_tuple(meta, name), :call) do
      :ok
    else
      other -> brief(other)
    end
  rescue
    error -> brief(error)
  catch
    :exit, {reason, {GenServer, :call, _arguments}} -> "exit: " <> brief(reason)
    :exit, reason -> "exit: " <> brief(reason)
  end

  # The atoms of a term, without pids and names, so that equal errors are counted together.
  defp brief(%module{}), do: inspect(module)

  defp brief(term) do
    ~r/(?<![\w.#])[a-z]\w+(?=[,}\]]|$)/
    |> Regex.scan(inspect(term))
    |> List.flatten()
    |> Enum.uniq()
    |> Enum.take(5)
    |> Enum.join(" ")
  end

  defp found?(registry, meta, name) do
    is_pid(registry.whereis_name(meta, name))
  rescue
    ArgumentError -> false
  end

  defp now, do: System.monotonic_time(:microsecond)
end

defmodule Demo.Memory do
  @moduledoc false
  # Memory for a name: processes that already run register one name each. The first of them are not counted,
  # as they use memory that the VM had allocated before.

  @first 20_000
  @names 60_000

  def go(registry) do
    {:ok, child_spec, meta} = registry.child_spec(Demo.Application, [])
    {:ok, _pid} = Supervisor.start_link([child_spec], strategy: :one_for_one)

    holders =
      for number <- 1..(@first + @names), do: spawn(fn -> hold(registry, meta, number) end)

    {first, others} = Enum.split(holders, @first)

    register(first)
    before = resident()
    register(others)
    (resident() - before) / @names
  end

  defp hold(registry, meta, number) do
    receive do
      {:register, from} ->
        {:via, module, term} = registry.via_tuple(meta, {:task, {1, 2, 3, number}})
        :yes = module.register_name(term, self())
        send(from, :done)
    end

    Process.sleep(:infinity)
  end

  defp register(holders) do
    for holder <- holders do
      send(holder, {:register, self()})

      receive do
        :done -> :ok
      end
    end
  end

  # Of the operating system's process: the VM does not count the memory of a native library.
  defp resident do
    with {:ok, status} <- File.read("/proc/self/status"),
         [_line, kilobytes] <- Regex.run(~r/VmRSS:\s+(\d+) kB/, status) do
      1024 * String.to_integer(kilobytes)
    else
      _ ->
        {kilobytes, 0} = System.cmd("ps", ["-o", "rss=", "-p", System.pid()])
        1024 * (kilobytes |> String.trim() |> String.to_integer())
    end
  end
end
