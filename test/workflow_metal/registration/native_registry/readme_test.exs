defmodule WorkflowMetal.Registration.NativeRegistry.ReadmeTest do
  # Not async: the application and the registry that the README starts have names of other documents.
  use ExUnit.Case

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  @readme Path.expand("../../../../README.md", __DIR__)

  # The blocks of Elixir under a heading, in their order.
  defp blocks(heading) do
    [_before, section] = @readme |> File.read!() |> String.split("\n## #{heading}\n")
    [section | _after] = String.split(section, "\n## ")
    for [_all, block] <- Regex.scan(~r/^```elixir\n(.*?)^```/ms, section), do: block
  end

  @tag :workflow_metal
  test "the configuration of the README starts as it stands there, with and without its options" do
    [application, children, options, _alone] = blocks("Configure")
    [{MyApp.Workflows, _binary}] = Code.compile_string(application, @readme)
    configuration = Config.Reader.eval!(@readme, options)
    [workflow_metal_native_registry: [{MyApp.Workflows, [_one | _more]}]] = configuration

    on_exit(fn ->
      Application.delete_env(:workflow_metal_native_registry, MyApp.Workflows)
      unload()
    end)

    for configuration <- [[], configuration] do
      Application.put_all_env(configuration)
      {{:ok, supervisor}, _bindings} = Code.eval_string(children)
      name = {WorkflowMetal.Case.Supervisor, "none"}
      assert NativeRegistry.whereis_name({MyApp.Workflows, name}) == :undefined
      assert {:ok, _pid} = Registry.register(MyApp.Workflows, name, nil)
      assert NativeRegistry.whereis_name({MyApp.Workflows, name}) == self()
      Supervisor.stop(supervisor)
    end
  end

  @tag :workflow_metal
  test "every application in the guides and in the documentation of the modules starts" do
    root = Path.dirname(@readme)

    applications =
      for pattern <- ["guides/*.md", "lib/**/*.ex"],
          path <- Path.wildcard(Path.join(root, pattern)),
          [application, _indent] <-
            Regex.scan(~r/^( *)defmodule MyApp\.Workflows do\n.*?^\1end$/ms, File.read!(path)),
          do: {Path.relative_to(path, root), application}

    assert length(applications) > 1

    for {path, application} <- applications do
      [{MyApp.Workflows, _binary}] = Code.compile_string(application, path)
      start_supervised!(MyApp.Workflows)
      assert NativeRegistry.whereis_name({MyApp.Workflows, :nobody}) == :undefined
      :ok = stop_supervised(MyApp.Workflows)
      unload()
    end
  end

  test "the registry of the README starts without WorkflowMetal" do
    [_application, _children, _options, alone] = blocks("Configure")
    {child, _bindings} = Code.eval_string(alone)
    start_supervised!(child)
    assert {:ok, _pid} = Registry.register(MyApp.Names, :clock, nil)
    assert Registry.whereis_name({MyApp.Names, :clock}) == self()
  end

  test "the dependencies of the README are written as Mix takes them" do
    [by_git | others] = blocks("Install")

    {{:module, _name, _binary, _deps}, _} =
      Code.eval_string("defmodule #{inspect(__MODULE__)}.Mixfile do #{by_git} end")

    dependencies = apply(Module.concat(__MODULE__, Mixfile), :deps, [])
    others = for other <- others, do: other |> Code.eval_string() |> elem(0)

    ours =
      for dependency <- dependencies ++ others,
          elem(dependency, 0) != :workflow_metal,
          do: dependency

    assert [
             {:workflow_metal_native_registry, git: "ADDRESS"},
             {:workflow_metal_native_registry, path: path},
             {:workflow_metal_native_registry, requirement}
           ] = ours

    assert Path.type(path) == :relative
    assert Version.match?(Mix.Project.config()[:version], requirement)
  end

  defp unload do
    :code.delete(MyApp.Workflows)
    :code.purge(MyApp.Workflows)
  end
end
