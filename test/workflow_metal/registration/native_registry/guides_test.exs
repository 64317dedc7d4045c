defmodule WorkflowMetal.Registration.NativeRegistry.GuidesTest do
  # Not async: other documents name their registries as these do.
  use ExUnit.Case

  # The examples say `Registry`, as their readers do.
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Options
  alias WorkflowMetal.Registration.NativeRegistry.{Guides, Registry, Worker}

  doctest Guides.EventsAndWaiting
  doctest Guides.Installing
  doctest Guides.MovingFromLocalRegistry
  doctest Guides.NamesThatNeverRunTwice
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

  test "every guide with examples says before them how to get what they need" do
    :ok = stop_supervised(MyApp.Names)

    for path <- Path.wildcard(Path.join(@root, "guides/*.md")),
        [before, _examples] <- [path |> File.read!() |> String.split("iex>", parts: 2)] do
      needed =
        for [_all, block] <- Regex.scan(~r/^```elixir\n(.*?)^```/ms, before),
            block =~ ~r/^alias|start_link\(/m,
            into: "",
            do: block

      # What the lines start ends with the process that runs them.
      {pid, reference} =
        spawn_monitor(fn ->
          Code.eval_string(needed <> "{:ok, _} = Registry.register(MyApp.Names, 1, nil)")
          exit({:shutdown, Process.whereis(MyApp.Names)})
        end)

      assert_receive {:DOWN, ^reference, :process, ^pid, {:shutdown, registry}}, 5_000, path
      ended = Process.monitor(registry)
      assert_receive {:DOWN, ^ended, :process, ^registry, _reason}
    end
  end

  describe "the modules of the guide to names that never run twice" do
    setup do
      guide = File.read!(Path.join(@root, "guides/names_that_never_run_twice.md"))

      modules =
        for [_all, block] <- Regex.scan(~r/^```elixir\n(defmodule .*?)^```/ms, guide),
            {module, _binary} <- Code.compile_string(block),
            do: module

      on_exit(fn ->
        for module <- modules do
          :code.delete(module)
          :code.purge(module)
        end
      end)

      assert Enum.sort(modules) == [MyApp.Keeper, MyApp.Store]
      :ok
    end

    test "a storage refuses what a former holder writes" do
      start_supervised!(MyApp.Store)
      write = &apply(MyApp.Store, :write, [:case, &1, &2])
      assert write.(7, :first) == :ok
      assert write.(7, :second) == :ok
      assert write.(9, :of_the_next_holder) == :ok
      assert write.(7, :third) == {:error, :not_the_holder}
      assert write.(9, :fourth) == :ok
    end

    test "a keeper starts a process, and starts it again after it has ended" do
      supervisor = start_supervised!({DynamicSupervisor, strategy: :one_for_one})
      keeper = start_supervised!({MyApp.Keeper, [:clock, supervisor, Worker]})
      assert {:ok, pid} = Registry.await(MyApp.Names, :clock)
      :ok = DynamicSupervisor.terminate_child(supervisor, pid)
      send(keeper, :look)
      assert {:ok, another} = Registry.await(MyApp.Names, :clock)
      assert another != pid
    end
  end

  test "the versions of ra in the guide are those that errors name, and mix.exs allows them" do
    guide = File.read!(Path.join(@root, "guides/names_that_never_run_twice.md"))
    project = File.read!(Path.join(@root, "mix.exs"))

    for {otp, row, function, right, wrong} <- [
          {"25", "25", ~S("25"), ["2.15.4"], ["2.16.0", "2.17.3", "3.1.10"]},
          {"27", "26 and newer", "_newer", ["2.17.3", "3.1.10"], ["2.14.0", "4.0.0"]}
        ] do
      dependency = Options.dependency(otp)
      assert guide =~ "| #{row} | `#{dependency}` |"
      {:ra, asked} = dependency |> Code.eval_string() |> elem(0)
      [_all, allowed] = Regex.run(~r/defp ra\(#{function}\), do: "(.*)"/, project)

      for requirement <- [asked, allowed] do
        for version <- right, do: assert(Version.match?(version, requirement))
        for version <- wrong, do: refute(Version.match?(version, requirement))
      end
    end
  end

  test "every block of Elixir in the documents is Elixir" do
    for document <- documents(),
        [_all, block] <- Regex.scan(~r/^```elixir\n(.*?)^```/ms, File.read!(document)),
        not (block =~ "iex>") do
      assert {:ok, _quoted} = Code.string_to_quoted(block), "#{document}: #{block}"
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
