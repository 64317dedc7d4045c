defmodule Bench.Plot do
  # Line charts as SVG.

  # A panel: `:title`, `:x` and `:y`, the labels of its axes; `:y_scale`, :linear from zero or :log; and `:series`, a
  # list of `%{label: text, points: [{x, y}]}`. The axis of x is logarithmic. All panels of a chart have the same
  # scales, and series of one label look alike in all of them.

  @width 440
  @height 300
  @left 64
  @right 24
  @top 44
  @bottom 48
  @header 40
  @legend_row 20
  @legend_column 220

  # Light and dark, both with enough contrast; the order is that of the series. Lines also differ in their marks.
  @colours [
    {"#0b62c4", "#58a6ff"},
    {"#c2410c", "#fb923c"},
    {"#7c3aed", "#c4a5ff"},
    {"#15803d", "#4ade80"},
    {"#be185d", "#f472b6"},
    {"#0e7490", "#22d3ee"},
    {"#854d0e", "#facc15"},
    {"#b91c1c", "#f87171"},
    {"#57606a", "#9da7b3"}
  ]

  @doc "The chart as a text of SVG. `notes` are lines below the title."
  def svg(title, notes, panels) do
    labels = panels |> Enum.flat_map(& &1.series) |> Enum.map(& &1.label) |> Enum.uniq()
    styles = labels |> Enum.with_index() |> Map.new()
    points = for panel <- panels, series <- panel.series, point <- series.points, do: point
    width = length(panels) * @width
    columns = max(div(width - 2 * @right, @legend_column), 1)
    top = @header + 16 * length(notes)
    legend_top = top + @height + 8
    height = legend_top + (div(length(labels) - 1, columns) + 1) * @legend_row + 8

    [
      ~s(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{width} #{height}" ),
      ~s(width="#{width}" height="#{height}" role="img" font-family="system-ui, sans-serif" font-size="12">\n),
      "<title>#{escape(title)}</title>\n",
      style(length(labels)),
      ~s(<rect class="ground" width="#{width}" height="#{height}"/>\n),
      text(@right, 28, title, ~s(class="ink" font-size="17" font-weight="600")),
      for(
        {note, at} <- Enum.with_index(notes),
        do: text(@right, 48 + 16 * at, note, ~s(class="soft"))
      ),
      for {panel, at} <- Enum.with_index(panels) do
        [
          ~s(<g transform="translate\(#{at * @width} #{top}\)">\n),
          panel(panel, points, styles),
          "</g>\n"
        ]
      end,
      for {label, at} <- Enum.with_index(labels) do
        x = @right + rem(at, columns) * @legend_column
        y = legend_top + div(at, columns) * @legend_row

        [
          line([{x, y}, {x + 26, y}], at),
          mark({x + 13, y}, at),
          text(x + 34, y + 4, label, ~s(class="ink"))
        ]
      end,
      "</svg>\n"
    ]
  end

  # A ground of its own, so that it is readable on any page.
  defp style(count) do
    colours = @colours |> Stream.cycle() |> Enum.take(count) |> Enum.with_index()

    rules =
      &for(
        {colours, at} <- colours,
        do: ".s#{at}{stroke:#{elem(colours, &1)}}.f#{at}{fill:#{elem(colours, &1)}}"
      )

    [
      "<style>\n",
      ".ground{fill:#ffffff}.ink{fill:#1f2328}.soft{fill:#57606a}.grid{stroke:#d8dee4}.axis{stroke:#57606a}\n",
      ".line{fill:none;stroke-width:2;stroke-linejoin:round}",
      rules.(0),
      "\n@media (prefers-color-scheme: dark){\n",
      ".ground{fill:#0d1117}.ink{fill:#e6edf3}.soft{fill:#9da7b3}.grid{stroke:#2d333b}.axis{stroke:#9da7b3}\n",
      rules.(1),
      "\n}\n</style>\n"
    ]
  end

  defp panel(panel, points, styles) do
    {xs, ys} = Enum.unzip(points)
    x_ticks = log_ticks(xs)
    y_ticks = if panel.y_scale == :log, do: log_ticks(ys), else: linear_ticks(Enum.max(ys))
    x = scale(x_ticks, :log, @left, @width - @right)
    y = scale(y_ticks, panel.y_scale, @height - @bottom, @top)
    middle = div(@left + @width - @right, 2)

    [
      text(@left, @top - 14, panel.title, ~s(class="ink" font-weight="600")),
      for tick <- labelled(y_ticks, panel.y_scale) do
        [
          segment(@left, y.(tick), @width - @right, y.(tick), "grid"),
          text(@left - 8, y.(tick) + 4, number(tick), ~s(class="soft" text-anchor="end"))
        ]
      end,
      for tick <- labelled(x_ticks, :log) do
        [
          segment(x.(tick), @height - @bottom, x.(tick), @height - @bottom + 5, "axis"),
          text(
            x.(tick),
            @height - @bottom + 19,
            number(tick),
            ~s(class="soft" text-anchor="middle")
          )
        ]
      end,
      segment(@left, @height - @bottom, @width - @right, @height - @bottom, "axis"),
      text(middle, @height - 10, panel.x, ~s(class="soft" text-anchor="middle")),
      text(
        0,
        0,
        panel.y,
        ~s|class="soft" text-anchor="middle" transform="translate(14 #{div(@height, 2)}) rotate(-90)"|
      ),
      # The first series last, so that it lies on top.
      for %{label: label, points: points} <- Enum.reverse(panel.series) do
        points = for {px, py} <- Enum.sort(points), do: {x.(px), y.(py)}
        [line(points, styles[label]), Enum.map(points, &mark(&1, styles[label]))]
      end
    ]
  end

  # From the power of ten below the least to the one above the greatest, or to the nearest step if that is closer.
  defp log_ticks(values) do
    {least, most} = Enum.min_max(values)
    steps = for power <- -1..9, step <- [1, 2, 5], do: step * :math.pow(10, power)
    low = steps |> Enum.filter(&(&1 <= least)) |> List.last()
    high = Enum.find(steps, &(&1 >= most))
    Enum.filter(steps, &(&1 >= low and &1 <= high))
  end

  # About five, from zero.
  defp linear_ticks(most) do
    rough = max(most, 1.0e-9) / 5
    power = :math.pow(10, Float.floor(:math.log10(rough)))
    step = Enum.find([1, 2, 5, 10], &(&1 * power >= rough)) * power
    for at <- 0..ceil(most / step), do: at * step
  end

  # Of a long logarithmic axis only the powers of ten have labels.
  defp labelled(ticks, :log) when length(ticks) > 7,
    do: Enum.filter(ticks, &(Float.round(:math.log10(&1), 6) == Float.round(:math.log10(&1))))

  defp labelled(ticks, _scale), do: ticks

  defp scale(ticks, kind, from, to) do
    transform = if kind == :log, do: &:math.log10/1, else: &(&1 / 1)
    {low, high} = {transform.(hd(ticks)), transform.(List.last(ticks))}
    fn value -> from + (transform.(value) - low) / (high - low) * (to - from) end
  end

  defp line(points, style) do
    path = Enum.map_join(points, " ", fn {x, y} -> "#{round1(x)},#{round1(y)}" end)
    ~s(<polyline class="line s#{style}" points="#{path}"/>\n)
  end

  # A circle, a square, a triangle or a rhombus.
  defp mark({x, y}, style) do
    {x, y} = {round1(x), round1(y)}

    case rem(style, 4) do
      0 ->
        ~s(<circle class="f#{style}" cx="#{x}" cy="#{y}" r="3.5"/>\n)

      1 ->
        ~s(<rect class="f#{style}" x="#{round1(x - 3)}" y="#{round1(y - 3)}" width="6" height="6"/>\n)

      2 ->
        polygon([{0, -4.5}, {4, 3}, {-4, 3}], x, y, style)

      3 ->
        polygon([{0, -4.5}, {4.5, 0}, {0, 4.5}, {-4.5, 0}], x, y, style)
    end
  end

  defp polygon(corners, x, y, style) do
    points = Enum.map_join(corners, " ", fn {dx, dy} -> "#{round1(x + dx)},#{round1(y + dy)}" end)
    ~s(<polygon class="f#{style}" points="#{points}"/>\n)
  end

  defp segment(x1, y1, x2, y2, class) do
    ~s(<line class="#{class}" x1="#{round1(x1)}" y1="#{round1(y1)}" x2="#{round1(x2)}" y2="#{round1(y2)}"/>\n)
  end

  defp text(x, y, text, attributes),
    do: ~s(<text x="#{round1(x)}" y="#{round1(y)}" #{attributes}>#{escape(text)}</text>\n)

  defp round1(number), do: Float.round(number / 1, 1)

  defp number(value) when value >= 1_000_000, do: short(value / 1_000_000) <> " M"
  defp number(value) when value >= 10_000, do: short(value / 1_000) <> " k"
  defp number(value), do: short(value)

  defp short(value) do
    if value == Float.round(value / 1),
      do: Bench.Plan.number(round(value)),
      else: :erlang.float_to_binary(value / 1, [:compact, decimals: 2])
  end

  defp escape(text) do
    text
    |> String.replace("&", "&amp;")
    |> String.replace("<", "&lt;")
    |> String.replace(">", "&gt;")
    |> String.replace("\"", "&quot;")
  end
end
