defmodule Bench.Plots do
  # What is plotted of the results.

  alias Bench.{Engines, Lookup, Names, Plan, Plot}
  alias Bench.Run.Memory

  @doc "Writes the plots that these results allow."
  def write(directory, results, environment) do
    environment = Map.new(environment)

    note =
      "#{environment["processor"]}, #{environment["schedulers"]} schedulers; Elixir, Erlang/OTP " <>
        "#{environment["Elixir, Erlang/OTP"]}; mix run bench/registry.exs --plot"

    for held <- Plan.held(),
        panels = panels(results, :lookup, Lookup.hit(1), held, "nanoseconds a lookup", :log),
        panels != [] do
      title = "Time of a lookup over the number of names: #{Plan.held_label(held)}"
      file = "lookup_#{held}.svg"

      save(
        directory,
        file,
        title,
        ["whereis_name/2, one reader, names in random order", note],
        panels
      )
    end

    panels = panels(results, :memory, Memory.fresh(), :one_holder, "bytes a name", :linear)

    if panels != [] do
      title = "Memory over the number of names: one holder"

      save(
        directory,
        "memory.svg",
        title,
        ["resident memory of the VM, without that of the process", note],
        panels
      )
    end
  end

  defp panels(results, part, what, held, y, y_scale) do
    for kind <- Names.kinds(),
        rows =
          Enum.filter(
            results,
            &(&1.part == part and &1.what == what and &1.held == held and &1.names == kind)
          ),
        rows != [] do
      series =
        for %{key: key, label: label} <- Engines.present(),
            key != :empty,
            points = for(%{engine: ^key, size: size, value: value} <- rows, do: {size, value}),
            # One point is no line.
            length(points) > 1 do
          %{label: label, points: points}
        end

      %{
        title: "names of #{Names.label(kind)}",
        x: "names",
        y: y,
        y_scale: y_scale,
        series: series
      }
    end
  end

  defp save(directory, file, title, notes, panels),
    do: directory |> Path.join(file) |> File.write!(Plot.svg(title, notes, panels))
end
