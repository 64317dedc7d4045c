defmodule WorkflowMetal.Registration.NativeRegistry.PortableTest do
  # Alone on the machine, as it runs other tests in a second VM.
  use ExUnit.Case, async: false

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Native, Registry}

  @variable "WORKFLOW_METAL_NATIVE_REGISTRY_PORTABLE"

  test "words of terms are read unless the portable way is asked for" do
    assert Native.reads_words() == (System.get_env(@variable) == nil)
  end

  test "a registry says which way it is", context do
    registry = Module.concat(__MODULE__, context.test)
    start_supervised!({NativeRegistry, name: registry})
    expected = if System.get_env(@variable), do: :documented, else: :direct
    assert %{terms: ^expected} = Registry.info(registry)
  end

  # These files, and the folders build and ra, read no term that the others do not read: they are about nodes, about
  # the lives of registries and processes, about many of everything, about documents and scripts, or about no
  # registry at all.
  @not_again ~w(cluster_engine cluster_faults cluster_modules cluster_report cluster cluster_wide
                cluster_workflow_metal crash_log drain faults guides lifetime load model package races readme
                scripts spare_nodes telemetry via workflow_metal workflows)

  # Excluded in the second VM.
  @tag :portable
  @tag timeout: 3_600_000
  test "every way to read terms answers the same in the portable way" do
    not_again = for name <- @not_again, do: Path.join(__DIR__, name <> "_test.exs")
    files = Enum.flat_map(["", ".."], &Path.wildcard(Path.join([__DIR__, &1, "*_test.exs"])))
    again = Enum.map(files, &Path.expand/1) -- not_again
    # Each file of the list exists.
    assert length(files) == length(again) + length(not_again)

    # The second VM tests the code that is already compiled.
    arguments =
      ~w(test --no-compile --exclude portable --exclude nodes --exclude stress) ++
        ~w(--exclude one_way) ++ again

    environment = [{@variable, "1"}, {"MIX_ENV", "test"}]

    {output, status} = System.cmd(mix(), arguments, env: environment, stderr_to_stdout: true)

    assert status == 0, output
    assert [_all, tests] = Regex.run(~r/ (\d+) tests\b/, output)
    assert String.to_integer(tests) > 100
  end

  defp mix, do: System.find_executable("mix")
end
