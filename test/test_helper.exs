# A logged error that no test expects fails a test.
alias WorkflowMetal.Registration.NativeRegistry.{CrashLog, SpareNodes}

Logger.configure(level: :error)
:ok = CrashLog.start()

ExUnit.after_suite(fn _results ->
  if CrashLog.left_over?(), do: System.at_exit(fn _status -> exit({:shutdown, 1}) end)
end)

# Tests against a library that is not on the code path are excluded.
excluded =
  for {tag, application, module} <- [
        {:workflow_metal, :workflow_metal, WorkflowMetal.Application},
        {:telemetry, :telemetry, :telemetry},
        {:syn, :syn, :syn},
        {:ra, :ra, :ra}
      ],
      not (Code.ensure_loaded?(module) and
             match?({:ok, _started}, Application.ensure_all_started(application))) do
    IO.puts("Excluding the tests tagged #{inspect(tag)}, #{application} is not on the code path.")
    tag
  end

# Timeouts for a busy machine. Only a failing test waits that long.
ExUnit.start(exclude: excluded, timeout: 900_000, assert_receive_timeout: 60_000)
SpareNodes.configure()
