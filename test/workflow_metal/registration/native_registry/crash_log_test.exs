defmodule WorkflowMetal.Registration.NativeRegistry.CrashLogTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  alias WorkflowMetal.Registration.NativeRegistry.CrashLog

  @tag crashes: [~r/expected in this test/, ~r/crash number \d/]
  test "an error that a test expects does not fail the test, any other does" do
    assert CrashLog.fail_for([]) == :ok
    assert CrashLog.fail_for(["what is expected in this test", "crash number 7"]) == :ok

    error =
      assert_raise ExUnit.AssertionError, fn ->
        CrashLog.fail_for(["crash number 7", "what nobody expects"])
      end

    assert error.message =~ "what nobody expects"
    refute error.message =~ "crash number 7"
  end

  # They are expected here, or they would fail this.
  @tag crashes: ~r/crash number \d/
  test "a crash is an error, the end of a process that is killed or ordered to end is not" do
    supervisor = start_dynamic_supervisor(max_restarts: 100)
    test = self()

    for {ends, kept?} <- [
          {&exit({:crash, "crash number #{&1}"}), true},
          {fn _ -> Process.exit(self(), :kill) end, false},
          {fn _ -> exit(:normal) end, false}
        ] do
      # The process that logs calls the handlers; this is such a process.
      id = :"handler#{System.unique_integer([:positive])}"
      :ok = :logger.add_handler(id, __MODULE__, %{level: :error, config: %{test: test}})
      task = %{id: :task, start: {Task, :start_link, [fn -> ends.(1) end]}, restart: :temporary}
      {:ok, pid} = DynamicSupervisor.start_child(supervisor, task)
      reference = Process.monitor(pid)
      await_down(reference)
      # It has dealt with the end.
      DynamicSupervisor.count_children(supervisor)
      :ok = :logger.remove_handler(id)
      assert Enum.any?(logged(pid), &CrashLog.error?/1) == kept?
    end
  end

  def log(event, %{config: %{test: test}}), do: send(test, {:logged, event})

  # Those about the process, as others run tests, too.
  defp logged(pid) do
    receive do
      {:logged, event} ->
        if inspect(event, limit: :infinity) =~ inspect(pid),
          do: [event | logged(pid)],
          else: logged(pid)
    after
      0 -> []
    end
  end
end
