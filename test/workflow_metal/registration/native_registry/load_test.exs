defmodule WorkflowMetal.Registration.NativeRegistry.LoadTest do
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Native, Samples}

  @moduletag :tmp_dir

  describe "where there is no priv directory, as in an escript," do
    # What an escript has: the code, without the directories around it.
    test "a start says in one sentence what is wrong", %{tmp_dir: folder} do
      output = start_without(folder, fn _application, copy -> copy end)
      assert [sentence] = Regex.run(~r/\(RuntimeError\) (.*)$/m, output, capture: :all_but_first)
      assert sentence =~ "an escript cannot carry a native library"
      refute output =~ "FunctionClauseError"
    end
  end

  describe "where the library is missing" do
    test "a start names it in one sentence", %{tmp_dir: folder} do
      output =
        start_without(folder, fn application, _copy ->
          ebin = Path.join([folder, "workflow_metal_native_registry", "ebin"])
          File.mkdir_p!(ebin)
          File.cp_r!(application, ebin)
          ebin
        end)

      assert output =~
               ~r/\(RuntimeError\) the native library .*native_registry.* cannot be loaded/
    end
  end

  describe "the samples by which terms are checked at load" do
    test "are of every kind that a term may be" do
      samples = Samples.all()

      for kind <- [
            &is_atom/1,
            &is_integer/1,
            &is_float/1,
            &is_binary/1,
            &(is_bitstring(&1) and not is_binary(&1)),
            &is_list/1,
            &is_tuple/1,
            &is_map/1,
            &is_function/1,
            &is_pid/1,
            &is_port/1,
            &is_reference/1,
            &(is_function(&1) and :erlang.fun_info(&1, :type) == {:type, :external}),
            &(is_pid(&1) and node(&1) != node()),
            &(is_port(&1) and node(&1) != node()),
            &(is_reference(&1) and node(&1) != node()),
            &(is_map(&1) and map_size(&1) > 32)
          ] do
        assert Enum.any?(samples, kind), inspect(kind)
      end

      for unknown <- NativeRegistry.Terms.unknown() do
        assert Enum.any?(samples, &(Native.check(&1) == Native.check(unknown)))
      end
    end
  end

  # Starts a registry in a VM that finds this code elsewhere; answers what it prints.
  defp start_without(folder, place) do
    application = Application.app_dir(:workflow_metal_native_registry, "ebin")
    copy = Path.join(folder, "code")
    File.cp_r!(application, copy)

    script = """
    #{inspect(NativeRegistry)}.child_spec(name: Some.Registry)
    """

    arguments = ["-pa", place.(application, copy), "-e", script]
    {output, status} = System.cmd(elixir(), arguments, stderr_to_stdout: true)
    assert status != 0
    output
  end

  defp elixir, do: System.find_executable("elixir")
end
