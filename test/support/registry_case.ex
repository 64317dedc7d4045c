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
    # Called first, so that its check runs last.
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

  # Waits for a condition that no message announces.
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

  # A process whose end takes the VM a while: exit signals to linked processes come first, then its many monitors
  # are removed, and only then the processes that monitor it are notified. In between it is already dead.
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

  # Runs the function in a process of its own, and returns its result.
  def elsewhere(function), do: function |> Task.async() |> Task.await(@patience)

  # The smallest growth of each figure of this VM in any of several equal rounds. A leak grows in every round;
  # what the VM allocates for itself now and then does not.
  def least_growth(rounds, function) do
    growths =
      for _round <- 1..rounds do
        before = footprint()
        function.()
        Map.new(footprint(), fn {figure, value} -> {figure, value - before[figure]} end)
      end

    Enum.reduce(growths, &Map.merge(&1, &2, fn _figure, one, another -> min(one, another) end))
  end

  # Resident memory as the operating system reports it, which includes native code. 0 if it does not report it.
  defp footprint do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    # First, because the other questions make atoms, once.
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
