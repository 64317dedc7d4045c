# Whole workflows of WorkflowMetal with its LocalRegistry and with this registry: cases a second, and how much of the
# time is the registry's. WorkflowMetal has to be on the code path:
#
#     ERL_LIBS=libs mix run bench/workflows.exs [--quick]
#
# Each figure is the median of VMs that took turns, with the lowest and the highest. The time of calls includes
# waiting: with LocalRegistry, start_child of a running name waits for its supervisor.

unless Code.ensure_loaded?(WorkflowMetal.Application) do
  IO.puts(:stderr, "WorkflowMetal is not on the code path")
  System.halt(1)
end

code = Enum.flat_map(~w(measure vm timed cases), &Code.require_file("support/#{&1}.exs", __DIR__))

defmodule Bench.Workflows do
  alias Bench.{Measure, Timed, VM}

  @registries [local: "LocalRegistry", native: "NativeRegistry"]

  # Calls are timed in VMs of their own, because that takes time.
  @applications %{
    {:local, :plain} => Bench.Cases.Local,
    {:native, :plain} => Bench.Cases.Native,
    {:local, :timed} => Bench.Cases.TimedLocal,
    {:native, :timed} => Bench.Cases.TimedNative
  }

  @clients 8

  def main(arguments, code) do
    {options, []} = OptionParser.parse!(arguments, strict: [quick: :boolean])
    {turns, cases, waiting} = if options[:quick], do: {1, 20, [0, 20]}, else: {7, 100, [0, 300]}
    Application.load(:workflow_metal)

    IO.puts(
      "WorkflowMetal #{Application.spec(:workflow_metal, :vsn)}, in-memory storage, " <>
        "#{System.schedulers_online()} schedulers, #{@clients} clients: cases of three steps, #{cases} a turn, " <>
        "#{turns} turns"
    )

    for waiting <- waiting do
      figures = measure(turns, cases, waiting, code)
      IO.puts("\n#{waiting} other cases run, and wait")
      cases_a_second(figures)
      shares(figures)
    end
  end

  defp measure(turns, cases, waiting, code) do
    samples =
      for turn <- 1..turns,
          mode <- [:plain, :timed],
          {registry, _label} <-
            if(rem(turn, 2) == 0, do: Enum.reverse(@registries), else: @registries) do
        IO.puts(:stderr, "#{waiting} cases wait: turn #{turn} of #{turns}, #{registry}, #{mode}")

        job = %{
          application: @applications[{registry, mode}],
          waiting: waiting,
          cases: cases,
          clients: @clients
        }

        sample =
          VM.run(:code.get_path(), fn vm ->
            VM.load(vm, code)
            VM.call(vm, Bench.Cases, :run, [job])
          end)

        {{registry, mode}, sample}
      end

    Enum.group_by(samples, &elem(&1, 0), &elem(&1, 1))
  end

  defp cases_a_second(figures) do
    [local, native] =
      for {registry, label} <- @registries do
        rates = Enum.map(figures[{registry, :plain}], & &1.cases_a_second)
        row("  cases a second, #{label}", rates, 1)
        rates
      end

    row(
      "  NativeRegistry's divided by LocalRegistry's, turn by turn",
      Enum.zip_with(native, local, &(&1 / &2)),
      2
    )
  end

  defp shares(figures) do
    for {registry, label} <- @registries, samples = figures[{registry, :timed}] do
      IO.puts("  #{label}, for one case")

      for {call, label} <- Timed.calls(),
          calls = Enum.flat_map(samples, &List.wrap(&1.calls[call])),
          calls != [] do
        number = calls |> Enum.map(& &1.number) |> Measure.median() |> round()
        row("    #{number} calls: #{label}; us a call, median", us(calls, & &1.median), 2)
        row("      the slowest of a hundred calls", us(calls, & &1.slow), 1)
      end

      row("    us in the registry: calls times their medians", us(samples, &in_registry/1), 1)
      row("    us of processor time in all", us(samples, & &1.cpu), 0)

      row(
        "    the former in per cent of the latter",
        Enum.map(samples, &(100 * in_registry(&1) / &1.cpu)),
        2
      )
    end
  end

  defp in_registry(%{calls: calls}),
    do:
      calls
      |> Enum.map(fn {_call, %{number: number, median: time}} -> number * time end)
      |> Enum.sum()

  defp us(samples, nanoseconds), do: Enum.map(samples, &(nanoseconds.(&1) / 1_000))

  defp row(label, values, decimals) do
    [median, lowest, highest] =
      for value <- [Measure.median(values), Enum.min(values), Enum.max(values)] do
        :erlang.float_to_binary(value / 1, decimals: decimals)
      end

    IO.puts(
      String.pad_trailing(label, 62) <>
        String.pad_leading(median, 10) <> "  (#{lowest}-#{highest})"
    )
  end
end

Bench.Workflows.main(System.argv(), code)
