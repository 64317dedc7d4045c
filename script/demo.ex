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
  # A case or a task.
  use GenServer, restart: :transient

  def start_link(arguments), do: GenServer.start_link(__MODULE__, nil, name: arguments[:name])

  @impl GenServer
  def init(nil), do: {:ok, nil}

  @impl GenServer
  def handle_call(:call, _from, nil), do: {:reply, :answer, nil}

  # The answer has to wait for a message. The other process is told that the call is under way.
  def handle_call({:answer_later, told}, from, nil) do
    send(told, {:under_way, self(), from})
    {:noreply, nil}
  end

  @impl GenServer
  def handle_info({:answer, from}, nil) do
    GenServer.reply(from, :answer)
    {:noreply, nil}
  end
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

  # The process that owns the names, and its supervisor. With Elixir's Registry the child in this tree is
  # that supervisor, and the owner is the process below it.
  def registry_process(registry) do
    {:ok, child_spec, _meta} = registry.child_spec(__MODULE__, [])
    id = Supervisor.child_spec(child_spec, []).id

    case List.keyfind(Supervisor.which_children(__MODULE__), id, 0) do
      {^id, pid, :worker, _modules} ->
        {pid, Process.whereis(__MODULE__)}

      {^id, supervisor, :supervisor, _modules} ->
        {supervisor |> Supervisor.which_children() |> hd() |> elem(1), supervisor}
    end
  end
end

defmodule Demo.Progress do
  @moduledoc false
  # A line for each step. On a terminal it is overwritten until the step is done.

  def start(what, total) do
    done = :counters.new(1, [:write_concurrency])
    printer = if terminal?(), do: spawn_link(fn -> print(what, total, done) end)
    {what, total, done, printer}
  end

  def add({_what, _total, done, _printer}, count), do: :counters.add(done, 1, count)

  def stop({what, total, _done, printer}) do
    if printer do
      reference = Process.monitor(printer)
      send(printer, :stop)

      receive do
        {:DOWN, ^reference, _, _, _} -> IO.write("\r")
      end
    end

    IO.puts(line(what, total, total))
  end

  defp print(what, total, done) do
    receive do
      :stop -> :ok
    after
      50 ->
        IO.write("\r" <> line(what, :counters.get(done, 1), total))
        print(what, total, done)
    end
  end

  # No longer than 40 columns: a line that is folded cannot be overwritten.
  defp line(what, count, total) do
    count = String.pad_leading(Demo.Text.number(count), 7)
    "  " <> String.pad_trailing(what, 15) <> count <> " of " <> Demo.Text.number(total)
  end

  # `script/demo` has looked: this VM's output goes through the VM that started it.
  defp terminal?, do: System.get_env("DEMO_TERMINAL") == "yes"
end

defmodule Demo.Text do
  @moduledoc false

  # 12345 as "12,345"
  def number(integer),
    do: integer |> Integer.to_string() |> String.replace(~r/(?<=\d)(?=(\d{3})+$)/, ",")

  def median(numbers), do: numbers |> Enum.sort() |> Enum.at(div(length(numbers), 2))

  # Lines of more than 80 columns are hard to read, on whatever terminal.
  def columns do
    case Integer.parse(System.get_env("DEMO_COLUMNS", "")) do
      {columns, ""} when columns > 0 -> min(columns, 80)
      _unknown -> 80
    end
  end

  # Prints paragraphs, filled anew.
  def say(text) do
    for paragraph <- String.split(text, "\n\n") do
      IO.puts(["\n" | paragraph |> String.split() |> Enum.join(" ") |> fill("", "")])
    end

    :ok
  end

  # Prints a row of a table. On a narrow terminal the cells stand below the label.
  def row(label, cells, widths) do
    cells = for {cell, width} <- Enum.zip(cells, widths), do: String.pad_leading(cell, width)
    {indent, _label} = indent(label)
    across = 80 - Enum.sum(widths)

    cond do
      columns() >= 80 ->
        IO.puts(String.trim_trailing(String.pad_trailing(label, across) <> Enum.join(cells)))

      String.trim(Enum.join(cells)) == "" ->
        IO.puts(fill(label, indent, indent <> "  "))

      true ->
        if label != "", do: IO.puts(fill(label, indent, indent <> "  "))
        IO.puts(String.trim_trailing(Enum.join(cells)))
    end
  end

  defp indent(label) do
    rest = String.trim_leading(label)
    {String.duplicate(" ", String.length(label) - String.length(rest)), rest}
  end

  defp fill(text, first, others) do
    text
    |> String.split()
    |> Enum.reduce({[], nil}, fn word, {lines, line} ->
      longer = if line, do: line <> " " <> word, else: first <> word

      if line == nil or String.length(longer) <= columns(),
        do: {lines, longer},
        else: {[lines, line, "\n"], others <> word}
    end)
    |> Tuple.to_list()
  end
end

defmodule Demo.Run do
  @moduledoc false
  # One run on one registry, in a VM of its own.

  alias Demo.Progress

  @workflows 100
  @cases 10
  @tasks 9
  @callers 8

  def workflows, do: @workflows
  def processes, do: @workflows * @cases * (1 + @tasks)
  def callers, do: @callers

  def go(registry) do
    # A supervisor that gives up must not end this process or fill the screen with reports.
    Process.flag(:trap_exit, true)
    Logger.configure(level: :none)

    {:ok, _child_spec, meta} = registry.child_spec(Demo.Application, [])
    {:ok, _application} = Demo.Application.start_link(registry)
    pair = {registry, meta}
    names = names()
    shuffled = Enum.shuffle(names)
    via = &registry.via_tuple(meta, &1)

    rates = %{
      opened: rate("opened", names, 1, &({:ok, _} = Demo.Application.open(pair, &1))),
      again: rate("opened again", shuffled, 5, &({:ok, _} = Demo.Application.open(pair, &1))),
      looked_up:
        rate("looked up", shuffled, 20, &(true = is_pid(registry.whereis_name(meta, &1)))),
      called: rate("called", shuffled, 3, &(:answer = GenServer.call(via.(&1), :call)))
    }

    rates
    |> Map.merge(kill_some(pair, names))
    |> Map.merge(kill_registry(pair, names))
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

  defp one_of_each_workflow(names), do: Enum.uniq_by(names, fn {_kind, ids} -> elem(ids, 0) end)

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

    Progress.stop(progress)
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
        :answer = GenServer.call(successor, :call)
        Progress.add(progress, 1)
        back - killed
      end

    Progress.stop(progress)
    %{back: Demo.Text.median(times)}
  end

  defp successor(registry, meta, name, pid) do
    case registry.whereis_name(meta, name) do
      successor when is_pid(successor) and successor != pid -> successor
      _ -> successor(registry, meta, name, pid)
    end
  end

  # The registry's own process is killed while a call is under way in every workflow. Its supervisor is
  # held, so that what happens before the restart can be counted.
  defp kill_registry({registry, meta} = pair, names) do
    IO.puts("  killed: the registry's own process")
    holders = for name <- names, do: {name, registry.whereis_name(meta, name)}
    same = fn -> Enum.count(holders, fn {name, pid} -> whereis(pair, name) == pid end) end
    answered = start_calls(pair, one_of_each_workflow(names))
    {own, supervisor} = Demo.Application.registry_process(registry)
    reference = Process.monitor(own)

    :ok = :sys.suspend(supervisor)
    Process.exit(own, :kill)

    receive do
      {:DOWN, ^reference, _, _, _} -> :ok
    end

    dead = fn -> Enum.count(holders, fn {_name, pid} -> not Process.alive?(pid) end) end
    settled(dead)
    found = same.()
    new = for {_kind, ids} <- one_of_each_workflow(names), do: {:case, {elem(ids, 0), uuid()}}
    opened = Enum.count(new, &open_and_call?(pair, &1))

    # With Elixir's Registry it may have ended, together with the application.
    try do
      :sys.resume(supervisor)
    catch
      :exit, _reason -> :ok
    end

    died = settled(dead)
    %{died: died, found: found, opened_new: opened, answered: answered.(), same: same.()}
  end

  # The function that is returned lets the calls be answered, and counts those that were.
  defp start_calls({registry, meta}, names) do
    here = self()

    callers =
      for name <- names do
        via = registry.via_tuple(meta, name)

        Task.async(fn ->
          try do
            :answer == GenServer.call(via, {:answer_later, here}, :infinity)
          catch
            :exit, _reason -> false
          end
        end)
      end

    calls =
      for _caller <- callers do
        receive do
          {:under_way, pid, from} -> {pid, from}
        end
      end

    fn ->
      for {pid, from} <- calls, do: send(pid, {:answer, from})
      callers |> Task.await_many(:infinity) |> Enum.count(& &1)
    end
  end

  # What is counted when it has not changed for a second.
  defp settled(count, last \\ -1, times \\ 0) do
    case count.() do
      ^last when times == 10 ->
        last

      ^last ->
        Process.sleep(100)
        settled(count, last, times + 1)

      other ->
        Process.sleep(100)
        settled(count, other, 0)
    end
  end

  defp open_and_call?({registry, meta} = pair, name) do
    {:ok, pid} = Demo.Application.open(pair, name)
    is_pid(pid) and GenServer.call(registry.via_tuple(meta, name), :call) == :answer
  rescue
    _error in [ArgumentError, MatchError] -> false
  catch
    :exit, _reason -> false
  end

  defp whereis({registry, meta}, name) do
    registry.whereis_name(meta, name)
  rescue
    # Elixir's Registry raises while it is not running.
    ArgumentError -> :undefined
  end

  defp now, do: System.monotonic_time(:microsecond)
end

defmodule Demo.Memory do
  @moduledoc false
  # Memory for a name: processes that already run register one name each. The first of them are not counted,
  # as they use memory that the VM had allocated before.

  @first 20_000
  @names 40_000

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
