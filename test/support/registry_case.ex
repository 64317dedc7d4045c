defmodule WorkflowMetal.Registration.NativeRegistry.RegistryCase do
  @moduledoc false
  # Gives each test a registry of its own, in its context as `:registry` (the name), `:meta`, `:id`
  # (the child's in the test's supervisor) and `:owner` (the pid).

  use ExUnit.CaseTemplate

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.CrashLog

  # Long enough for a machine that does ten other things.
  @patience 120_000

  using do
    quote do
      import WorkflowMetal.Registration.NativeRegistry.RegistryCase

      alias WorkflowMetal.Registration.NativeRegistry
      alias WorkflowMetal.Registration.NativeRegistry.{Native, Owner, Registry, Terms, Worker}
    end
  end

  setup context do
    # First, so that it looks last.
    CrashLog.watch(context)
    start_registry()
  end

  def unique_registry do
    Module.concat(RegistryOfATest, "N#{System.unique_integer([:positive])}")
  end

  def start_registry(registry \\ unique_registry()) do
    {:ok, child_spec, meta} = NativeRegistry.child_spec(registry, [])
    %{id: id} = child_spec = Supervisor.child_spec(child_spec, [])
    owner = start_supervised!(child_spec)
    %{registry: registry, meta: meta, id: id, owner: owner}
  end

  def start_dynamic_supervisor(options \\ []) do
    options = Keyword.put_new(options, :strategy, :one_for_one)
    start_supervised!({DynamicSupervisor, options}, id: make_ref())
  end

  # Waits for what no message announces.
  def eventually(condition, patience \\ @patience) do
    wait_for(condition, System.monotonic_time(:millisecond) + patience)
  end

  defp wait_for(condition, deadline) do
    cond do
      result = condition.() ->
        result

      System.monotonic_time(:millisecond) > deadline ->
        flunk("what was waited for did not happen")

      true ->
        Process.sleep(5)
        wait_for(condition, deadline)
    end
  end

  # A process that does nothing until the test ends.
  def idle do
    test = self()

    spawn(fn ->
      reference = Process.monitor(test)

      receive do
        {:DOWN, ^reference, :process, ^test, _reason} -> :ok
      end
    end)
  end

  # A process whose end takes the VM a while. It tells whoever is linked to it first, then takes its
  # many monitors down, and only then tells who monitors it. In between it is dead for everybody.
  def idle_that_ends_slowly(monitors) do
    test = self()
    monitored = idle()

    pid =
      spawn_link(fn ->
        for _monitor <- 1..monitors, do: Process.monitor(monitored)
        send(test, {:monitors, self()})
        Process.sleep(:infinity)
      end)

    receive do
      {:monitors, ^pid} -> pid
    after
      @patience -> flunk("the process did not start")
    end
  end

  # Kills the process and waits until it is dead.
  def kill(pid) do
    reference = Process.monitor(pid)
    Process.exit(pid, :kill)
    await_down(reference)
  end

  def await_down(reference) do
    receive do
      {:DOWN, ^reference, :process, _pid, reason} -> reason
    after
      @patience -> flunk("the process did not end")
    end
  end

  # Runs the function in a process of its own, answers what it answers.
  def elsewhere(function), do: function |> Task.async() |> Task.await(@patience)

  # By how much each figure of this VM grows in one of some rounds of the same, at the least. What
  # is left behind is left in each of them; what the VM does for itself now and then is not.
  def least_growth(rounds, function) do
    growths =
      for _round <- 1..rounds do
        before = footprint()
        function.()
        Map.new(footprint(), fn {figure, value} -> {figure, value - before[figure]} end)
      end

    Enum.reduce(growths, &Map.merge(&1, &2, fn _figure, one, another -> min(one, another) end))
  end

  # The resident memory is that of the operating system, the only one that counts what native code
  # holds; 0 where it does not tell.
  defp footprint do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    # First, as asking for the rest makes atoms, once.
    resident = resident()
    system = :erlang.memory(:system)

    %{
      atoms: :erlang.system_info(:atom_count),
      ports: :erlang.system_info(:port_count),
      processes: :erlang.system_info(:process_count),
      resident: resident,
      system: system
    }
  end

  defp resident do
    with {:ok, status} <- File.read("/proc/self/status"),
         [_line, kilobytes] <- Regex.run(~r/^VmRSS:\s+(\d+) kB/m, status) do
      String.to_integer(kilobytes) * 1_024
    else
      _other -> 0
    end
  end
end
