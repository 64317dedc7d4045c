# What `script/demo` runs: NativeRegistry and Elixir's Registry, each in the supervision tree of a
# WorkflowMetal application. Every run has a VM of its own, which loads the modules of demo.ex.

defmodule Demo do
  @native WorkflowMetal.Registration.NativeRegistry
  @elixir Demo.ElixirRegistry
  @rounds 3

  # No round begins later than this, so there are fewer rounds on a slow machine.
  @last_ms 30_000

  def main do
    folder = Path.join(System.tmp_dir!(), "native_registry_demo_#{System.pid()}")
    File.mkdir_p!(folder)

    try do
      {:ok, _modules, _warnings} =
        Kernel.ParallelCompiler.compile_to_path([Path.join(__DIR__, "demo.ex")], folder)

      show(folder)
    after
      File.rm_rf!(folder)
    end
  end

  defp show(folder) do
    processes = number(Demo.Run.processes())

    IO.puts("""

    WorkflowMetal finds its running workflows, cases and tasks by name, in a registry. This runs
    NativeRegistry, which is written in Rust, and Elixir's Registry for comparison.

    A run builds the tree of a WorkflowMetal application with #{Demo.Run.workflows()} workflows and #{processes} cases and
    tasks, each a process with a name. #{Demo.Run.callers()} callers at once open them, open them again as
    WorkflowMetal does at every step, look them up, and call them. Then some are killed, and last
    the registry's own process is killed with all callers at work.

    The registries take turns, with #{@rounds} runs each if there is time. All runs use the same code, each in a
    VM of its own.
    """)

    last = System.monotonic_time(:millisecond) + @last_ms

    runs =
      for round <- 1..@rounds,
          round == 1 or System.monotonic_time(:millisecond) < last,
          registry <- [@native, @elixir] do
        IO.puts("#{title(registry)}, run #{round}")
        run = in_own_vm(Demo.Run, registry, folder)
        {registry, Map.put(run, :memory, in_own_vm(Demo.Memory, registry, folder))}
      end

    table(for({@native, run} <- runs, do: run), for({@elixir, run} <- runs, do: run))
    workflow()
  end

  defp in_own_vm(module, registry, folder) do
    result = Path.join(folder, "result")
    ebin = Application.app_dir(:workflow_metal_native_registry, "ebin")

    # The VM is halted, because an orderly stop takes long with Elixir's Registry.
    code =
      "result = #{inspect(module)}.go(#{inspect(registry)}); " <>
        "File.write!(#{inspect(result)}, :erlang.term_to_binary(result)); System.halt(0)"

    arguments = ["-pa", ebin, "-pa", folder, "-e", code]
    options = [into: IO.stream(), stderr_to_stdout: true]

    case System.cmd("elixir", arguments, options) do
      {_output, 0} ->
        result |> File.read!() |> :erlang.binary_to_term()

      {_output, status} ->
        raise "the run on #{inspect(registry)} ended with status #{status}"
    end
  end

  defp table(native, elixir) do
    processes = number(Demo.Run.processes())
    workflows = number(Demo.Run.workflows())

    rows = [
      {"Processes opened a second, new ones", :higher, & &1.opened},
      {"Processes opened a second, running ones", :higher, & &1.again},
      {"Names looked up a second", :higher, & &1.found},
      {"Processes called by name a second", :higher, & &1.called},
      {"Microseconds from a kill to the successor's name", :lower, & &1.back},
      {"Bytes of memory for a name", :lower, & &1.memory},
      "When the registry's own process was killed,",
      {"  of #{processes} processes, died with it", :count, & &1.died},
      {"  of #{processes} names, not found 1 second later", :count, & &1.unfound},
      {"  of #{workflows} workflows, cannot be opened any more", :count, & &1.unopened},
      {"  calls that were answered, before and after", :count, & &1.answered},
      {"  calls that failed", :count, &(&1.failed |> Map.values() |> Enum.sum())}
    ]

    IO.puts("")

    IO.puts(row(medians(length(native)), "NativeRegistry", "Elixir's Registry", "better"))

    IO.puts(String.duplicate("-", 94))

    for row <- rows do
      case row do
        {label, kind, value} ->
          {one, other} = {median(native, value), median(elixir, value)}
          IO.puts(row(label, number(one), number(other), ratio(kind, one, other)))

        heading ->
          IO.puts(heading)
      end
    end

    IO.puts("\nWhat the callers got instead of an answer, in all runs:")
    IO.puts("  on NativeRegistry: " <> failures(native))
    IO.puts("  on Elixir's Registry: " <> failures(elixir) <> "\n")
  end

  defp medians(1), do: "One run"
  defp medians(runs), do: "Medians of #{runs} runs"

  defp failures(runs) do
    failures =
      runs
      |> Enum.flat_map(& &1.failed)
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
      |> Enum.map(fn {what, counts} -> {Enum.sum(counts), what} end)
      |> Enum.sort(:desc)
      |> Enum.take(4)
      |> Enum.map_join(", ", fn {count, what} -> "#{number(count)} times `#{what}`" end)

    if failures == "", do: "nothing, no call failed", else: failures
  end

  defp row(label, one, other, ratio) do
    String.pad_trailing(label, 50) <>
      String.pad_leading(one, 16) <> String.pad_leading(other, 19) <> String.pad_leading(ratio, 9)
  end

  defp ratio(:higher, one, other), do: times(one, other)
  defp ratio(:lower, one, other), do: times(other, one)
  defp ratio(:count, _one, _other), do: ""

  defp times(_good, 0), do: ""
  defp times(good, bad), do: :erlang.float_to_binary(good / bad, decimals: 1) <> " x"

  defp title(@native), do: "NativeRegistry"
  defp title(@elixir), do: "Elixir's Registry"

  defp median(runs, value), do: runs |> Enum.map(value) |> Demo.Text.median() |> round()

  defp number(integer), do: Demo.Text.number(integer)

  # A real workflow, if WorkflowMetal is on the code path.
  defp workflow do
    if Code.ensure_loaded?(WorkflowMetal.Application) do
      Code.require_file("demo_workflow.exs", __DIR__)
      apply(Demo.Orders, :go, [])
    else
      IO.puts("""
      WorkflowMetal is not on the code path, so this used its supervision tree and its calls of the
      registry, but ran no workflow. With WorkflowMetal on the code path, through Hex or ERL_LIBS,
      a workflow runs too.
      """)
    end
  end
end

Demo.main()
