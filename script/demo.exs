# What `script/demo` runs: NativeRegistry and Elixir's Registry, each in the supervision tree of a
# WorkflowMetal application. Every run has a VM of its own, which loads the modules of demo.ex.

# What has been counted comes first, and is the same each time. What has been measured differs.
defmodule Demo do
  alias Demo.Text

  @native WorkflowMetal.Registration.NativeRegistry
  @elixir Demo.ElixirRegistry
  @runs 3
  @widths [15, 18, 7]

  def main(code) do
    # Ctrl-C ends the demo, which would be logged.
    Logger.configure(level: :error)
    processes = Text.number(Demo.Run.processes())
    workflows = Demo.Run.workflows()

    Text.say("""
    WorkflowMetal finds its running workflows, cases and tasks by name, in a registry. This runs
    NativeRegistry, which is written in Rust, and Elixir's Registry for comparison.

    A run builds the tree of a WorkflowMetal application with #{workflows} workflows and #{processes}
    cases and tasks, each a process with a name. #{Demo.Run.callers()} callers at once open them, open
    them again as WorkflowMetal does at every step, look them up, and call them. Then a case and a task
    of each workflow are killed one by one. Last the registry's own process is killed, while a call is
    under way in each workflow.

    Each registry has #{@runs} runs, in turn. All runs use the same code, each in a VM of its own.
    """)

    runs =
      for run <- 1..@runs, registry <- [@native, @elixir] do
        IO.puts("\n#{title(registry)}, run #{run} of #{@runs}")
        result = in_own_vm(code, Demo.Run, registry)
        {registry, Map.put(result, :memory, in_own_vm(code, Demo.Memory, registry))}
      end

    native = for {@native, run} <- runs, do: run
    elixir = for {@elixir, run} <- runs, do: run
    counted(native, elixir)
    measured(native, elixir)
    workflow()
  end

  # It ends when this VM ends, however that happens.
  defp in_own_vm(code, module, registry) do
    paths = for path <- :code.get_path(), do: [~c"-pa", path]
    quiet = Enum.map(~w(-kernel logger_level none -logger level none), &String.to_charlist/1)

    {:ok, vm, _node} =
      :peer.start_link(%{
        connection: :standard_io,
        args: Enum.concat([quiet | paths]),
        # An orderly stop takes long with Elixir's Registry.
        shutdown: :close
      })

    {:ok, _started} = :peer.call(vm, :application, :ensure_all_started, [:elixir])
    {:ok, _started} = :peer.call(vm, :application, :ensure_all_started, [:logger])

    for {loaded, binary} <- code do
      {:module, ^loaded} = :peer.call(vm, :code, :load_binary, [loaded, ~c"nofile", binary])
    end

    result = :peer.call(vm, module, :go, [registry], :infinity)
    :peer.stop(vm)
    result
  end

  defp counted(native, elixir) do
    processes = Text.number(Demo.Run.processes())
    workflows = Text.number(Demo.Run.workflows())

    heading("Counted, in each run", "")
    Text.row("When the registry's own process was killed:", ["", "", ""], @widths)

    for {label, value} <- [
          {"  of #{processes} processes, died with it", & &1.died},
          {"  of #{processes} names, found meanwhile", & &1.found},
          {"  of #{workflows} new cases, opened meanwhile", & &1.opened_new},
          {"  of #{workflows} calls under way, answered", & &1.answered},
          {"  of #{processes} names, found afterwards", & &1.same}
        ] do
      Text.row(label, [all(native, value), all(elixir, value), ""], @widths)
    end

    Text.say("""
    "Meanwhile" is before its supervisor restarts it. "Found" is the process that had the name before.
    """)
  end

  # Should runs differ, all figures are shown.
  defp all(runs, value) do
    runs |> Enum.map(&Text.number(value.(&1))) |> Enum.uniq() |> Enum.join("/")
  end

  defp measured(native, elixir) do
    heading("Measured, medians of #{@runs} runs", "better")

    for {label, kind, value} <- [
          {"New processes opened a second", :higher, & &1.opened},
          {"Running processes opened a second", :higher, & &1.again},
          {"Names looked up a second", :higher, & &1.looked_up},
          {"Processes called by name a second", :higher, & &1.called},
          {"Microseconds from a kill to successor", :lower, & &1.back},
          {"Bytes of memory for a name", :lower, & &1.memory}
        ] do
      {one, other} = {median(native, value), median(elixir, value)}
      cells = [Text.number(one), Text.number(other), ratio(kind, one, other)]
      Text.row(label, cells, @widths)
    end

    Text.say("""
    These differ from run to run and from machine to machine. bench/README.md has careful measurements.
    """)
  end

  defp heading(label, last) do
    IO.puts("")
    Text.row(label, ["NativeRegistry", "Elixir's Registry", last], @widths)
    IO.puts(String.duplicate("-", Text.columns()))
  end

  defp ratio(:higher, one, other), do: times(one, other)
  defp ratio(:lower, one, other), do: times(other, one)

  defp times(_good, 0), do: ""
  defp times(good, bad), do: :erlang.float_to_binary(good / bad, decimals: 1) <> " x"

  defp title(@native), do: "NativeRegistry"
  defp title(@elixir), do: "Elixir's Registry"

  defp median(runs, value), do: runs |> Enum.map(value) |> Text.median() |> round()

  # A real workflow, if WorkflowMetal is on the code path.
  defp workflow do
    if Code.ensure_loaded?(WorkflowMetal.Application) do
      Code.require_file("demo_workflow.exs", __DIR__)
      apply(Demo.Orders, :go, [])
    else
      Text.say("""
      WorkflowMetal is not on the code path, so this used its supervision tree and its calls of the
      registry, but ran no workflow. With WorkflowMetal on the code path, through Hex or ERL_LIBS,
      a workflow runs too.
      """)
    end
  end
end

__DIR__ |> Path.join("demo.ex") |> Code.compile_file() |> Demo.main()
