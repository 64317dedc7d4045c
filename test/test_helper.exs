# Processes are killed by the ten thousand here. What their supervisors would say to each death
# takes longer than the deaths.
Logger.configure(level: :none)

# What is not on the code path cannot be tested against.
excluded =
  for {tag, application, module} <- [
        {:workflow_metal, :workflow_metal, WorkflowMetal.Application},
        {:telemetry, :telemetry, :telemetry},
        {:syn, :syn, :syn}
      ],
      not (Code.ensure_loaded?(module) and
             match?({:ok, _started}, Application.ensure_all_started(application))) do
    IO.puts("Excluding the tests tagged #{inspect(tag)}, #{application} is not on the code path.")
    tag
  end

# Times that pass on a machine which does ten other things. What takes them fails.
ExUnit.start(exclude: excluded, timeout: 900_000, assert_receive_timeout: 60_000)
