defmodule WorkflowMetal.Registration.NativeRegistry.PortableTest do
  # Alone on the machine, as it runs all other tests in a second VM.
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

  # Excluded in the second VM; so are the tests that start nodes and those of many processes and names,
  # where nothing is read that the others do not read.
  @tag :portable
  @tag timeout: 3_600_000
  test "everything is the same in the portable way" do
    # What is compiled already is what is tested.
    arguments = ~w(test --no-compile --exclude portable --exclude nodes --exclude stress)
    environment = [{@variable, "1"}, {"MIX_ENV", "test"}]

    {output, status} = System.cmd(mix(), arguments, env: environment, stderr_to_stdout: true)

    assert status == 0, output
    assert [_all, tests] = Regex.run(~r/ (\d+) tests\b/, output)
    assert String.to_integer(tests) > 100
  end

  defp mix, do: System.find_executable("mix")
end
