defmodule WorkflowMetal.Registration.NativeRegistry.GuidesTest do
  # Not async: other documents name their registries as these do.
  use ExUnit.Case

  # The examples say `Registry`, as their readers do.
  alias WorkflowMetal.Registration.NativeRegistry.{Guides, Registry}

  doctest Guides.EventsAndWaiting
  doctest Guides.Installing
  doctest Guides.MovingFromLocalRegistry
  doctest Guides.NamesValuesPatterns
  doctest Guides.Production
  doctest Guides.SeveralNodes
  doctest Guides.Troubleshooting

  @root Path.expand("../../../..", __DIR__)

  setup do
    start_supervised!({Registry, name: MyApp.Names})
    :ok
  end

  test "every guide is tested here, and in the table of contents of mix.exs" do
    guides = for path <- Path.wildcard(Path.join(@root, "guides/*.md")), do: Path.basename(path)
    contents = File.read!(Path.join(@root, "mix.exs"))
    tested = File.read!(__ENV__.file)

    for guide <- guides do
      assert contents =~ "guides/#{guide}"
      assert tested =~ "doctest Guides.#{guide |> Path.rootname() |> Macro.camelize()}\n"
    end
  end

  test "every link between the documents leads somewhere" do
    for document <- documents(), {target, anchor} <- links(document) do
      path = if target == "", do: document, else: Path.join(Path.dirname(document), target)
      assert File.exists?(path), "#{document} links to #{target}"

      if anchor do
        assert anchor in anchors(path), "#{document} links to #{target}##{anchor}"
      end
    end
  end

  test "every message that is raised or logged is in the guide to troubleshooting" do
    guide = [@root, "guides/troubleshooting.md"] |> Path.join() |> File.read!() |> squeeze()
    elixir = Enum.flat_map(Path.wildcard(Path.join(@root, "lib/**/*.ex")), &messages/1)
    rust = Enum.flat_map(Path.wildcard(Path.join(@root, "native/*/src/*.rs")), &rust_messages/1)
    # Otherwise nothing has been read.
    assert length(elixir) > 15
    messages = elixir ++ rust

    for {path, message} <- messages, part <- message do
      assert guide =~ part, "#{inspect(part)} of #{path} is not in guides/troubleshooting.md"
    end
  end

  defp documents do
    for pattern <- ["*.md", "guides/*.md", "bench/*.md"],
        path <- Path.wildcard(Path.join(@root, pattern)),
        do: path
  end

  defp links(document) do
    for [_all, target | anchor] <-
          Regex.scan(~r/\]\(([^)#:\s]*)(?:#([^)\s]+))?\)/, File.read!(document)),
        do: {target, List.first(anchor)}
  end

  # As ExDoc and GitHub make them of headings.
  defp anchors(path) do
    for [_all, heading] <- Regex.scan(~r/^#+ (.+)$/m, File.read!(path)) do
      heading
      |> String.downcase()
      |> String.replace(~r/[^\w\s-]/u, "")
      |> String.replace(~r/\s/, "-")
    end
  end

  # The constant parts of the texts that are raised or logged: the longer parts of each call.
  defp messages(path) do
    {_ast, found} =
      path
      |> File.read!()
      |> Code.string_to_quoted!()
      |> Macro.prewalk([], fn node, found -> {node, found(node) ++ found} end)

    for message <- found,
        parts = message |> texts() |> Enum.map(&squeeze/1) |> Enum.filter(&(byte_size(&1) > 12)),
        parts != [],
        do: {Path.relative_to(path, @root), parts}
  end

  # Errors of Rust that are written for the callers begin so; the numbers in them are constants.
  defp rust_messages(path) do
    for [_all, message] <- Regex.scan(~r/#\[error\(\s*"(expected [^"]*)"/, File.read!(path)) do
      parts = message |> String.replace(~r/\\\n\s*/, "") |> String.split(~r/\{\w+\}/)
      {Path.relative_to(path, @root), Enum.map(parts, &squeeze/1)}
    end
  end

  defp found({:raise, _meta, [_exception, message]}), do: [message]
  defp found({:raise, _meta, [message]}), do: [message]

  defp found({{:., _dot, [{:__aliases__, _meta, [module]}, function]}, _call, [message]})
       when {module, function} in [
              {:Logger, :error},
              {:Logger, :warning},
              {:Mix, :raise},
              {:ArgumentError, :exception}
            ],
       do: [message]

  defp found(_node), do: []

  # A text consists of several parts; what is between them is known at run time only.
  defp texts(ast) do
    {_ast, parts} =
      Macro.prewalk(ast, [""], fn
        text, [last | parts] when is_binary(text) -> {text, [last <> text | parts]}
        {joined, _meta, _texts} = node, parts when joined in [:<>, :<<>>] -> {node, parts}
        {_call, _meta, _arguments}, parts -> {nil, ["" | parts]}
        node, parts -> {node, parts}
      end)

    parts
  end

  defp squeeze(text), do: text |> String.replace(~r/\s+/, " ") |> String.trim()
end
