defmodule WorkflowMetal.Registration.NativeRegistry.PackageTest do
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Build.Digest

  @root Path.expand("../../../..", __DIR__)

  # As Hex expands the list: of a folder it takes everything.
  defp packaged(root \\ @root) do
    for pattern <- Mix.Project.config()[:package][:files],
        path <- Path.wildcard(Path.join(root, pattern)),
        file <- within(path),
        uniq: true,
        do: Path.relative_to(file, root)
  end

  defp within(path) do
    case File.ls(path) do
      {:ok, names} -> Enum.flat_map(names, &within(Path.join(path, &1)))
      {:error, _not_a_folder} -> [path]
    end
  end

  # What each crate of the workspace has.
  defp files_of_members do
    [_all, members] = Regex.run(~r/^members = \[(.*)\]$/m, read("Cargo.toml"))

    for [_all, member] <- Regex.scan(~r/"([^"]+)"/, members),
        file <- ["Cargo.toml", "src/lib.rs"],
        do: Path.join(member, file)
  end

  defp read(path), do: File.read!(Path.join(@root, path))

  describe "the files of the package" do
    test "are there" do
      for pattern <- Mix.Project.config()[:package][:files] do
        assert Path.wildcard(Path.join(@root, pattern)) != [], "#{pattern} matches no file"
      end
    end

    @tag :tmp_dir
    test "have nothing among them that a build, a tool or an editor leaves", %{tmp_dir: folder} do
      source = "native/registry_core/src/slots.rs"

      rubbish =
        ~w(.cargo/config.toml .elixir_ls/x.ex .git/config _build/dev/lib/x.ex cover/x.html deps/x/lib/x.ex
          doc/index.html erl_crash.dump guides/.production.md.swp guides/draft.md lib/x.beam lib/.x.ex.swp
          lib/x.ex.orig native/native_registry/src/x.so native/native_registry/target/release/x.rs
          native/registry_bench/target/release/x native/registry_core/fuzz/artifacts/names/x
          native/registry_core/fuzz/corpus/names/x native/registry_core/fuzz/found/x
          native/registry_core/fuzz/target/x native/registry_core/src/.slots.rs.swp native/target/release/x.so
          precompiled/x.tar.gz priv/native/native_registry.so target/release/x.so test/x_test.exs tmp/x x.tar)

      for path <- [source | rubbish] do
        path = Path.join(folder, path)
        File.mkdir_p!(Path.dirname(path))
        File.write!(path, "")
      end

      assert packaged(folder) == [source]
    end

    test "are none that git ignores" do
      ignored = fn paths ->
        # The variable is set where git runs tests, as in a hook.
        options = [cd: @root, env: [{"GIT_DIR", nil}], stderr_to_stdout: true]
        System.cmd("git", ["check-ignore", "--no-index" | paths], options)
      end

      if System.find_executable("git") && File.exists?(Path.join(@root, ".git")) do
        assert ignored.(packaged()) == {"", 1}
        assert {_path, 0} = ignored.(["_build/x"])
      end
    end

    test "have all that Rust sources and cargo read" do
      files = packaged()
      sources = Enum.filter(files, &(Path.extname(&1) == ".rs"))
      assert sources != []

      for source <- sources,
          [_all, read] <-
            Regex.scan(
              ~r/(?:include(?:_str|_bytes)?!\(|#\[path = )\s*"([^"]+)"/,
              read(source)
            ) do
        path =
          source |> Path.dirname() |> Path.join(read) |> Path.expand("/") |> Path.relative_to("/")

        assert path in files, "#{source} reads #{path}"
      end

      for path <- files_of_members(), do: assert(path in files, "the workspace needs #{path}")
    end

    test "have all that their documents link to" do
      files = packaged()

      for document <- files,
          Path.extname(document) == ".md",
          [_all, link] <- Regex.scan(~r/\]\(([^)#:\s]+)(?:#[^)\s]+)?\)/, read(document)) do
        path =
          document
          |> Path.dirname()
          |> Path.join(link)
          |> Path.expand("/")
          |> Path.relative_to("/")

        assert path in files, "#{document} links to #{path}"
      end
    end
  end

  # An archive that was built in the repository is used in the package, too.
  @tag :tmp_dir
  test "the sources of the library have the same digest in the package and in a folder that was worked in",
       %{tmp_dir: folder} do
    for path <- packaged() do
      copy = Path.join(folder, path)
      File.mkdir_p!(Path.dirname(copy))
      File.cp!(Path.join(@root, path), copy)
    end

    digest = Digest.sources(@root)
    assert Digest.sources(folder) == digest

    for left_over <- ["target/x.rs", "src/.lib.rs.swp", "src/lib.rs.orig"] do
      path = Path.join([folder, "native/native_registry", left_over])
      File.mkdir_p!(Path.dirname(path))
      File.write!(path, "")
    end

    assert Digest.sources(folder) == digest

    Enum.reduce(files_of_members(), digest, fn path, before ->
      File.write!(Path.join(folder, path), " ", [:append])
      changed = Digest.sources(folder)
      assert changed != before, "#{path} is not in the digest"
      changed
    end)
  end

  test "every document is a page of the documentation, and no two have the same file name" do
    extras = Mix.Project.config()[:docs][:extras]
    documents = Enum.filter(packaged(), &(Path.extname(&1) == ".md"))
    assert documents -- extras == []
    # ExDoc finds the target of a link by its file name.
    assert Enum.uniq_by(extras, &(&1 |> Path.rootname() |> Path.basename() |> String.downcase())) ==
             extras
  end

  test "the versions of WorkflowMetal that the package takes are those it is tested with" do
    {_ast, requirement} =
      "mix.exs"
      |> read()
      |> Code.string_to_quoted!()
      |> Macro.prewalk(nil, fn
        {:{}, _meta, [:workflow_metal, requirement | _options]} = node, nil -> {node, requirement}
        node, found -> {node, found}
      end)

    for version <- ["0.2.1", "0.2.9", "0.3.0", "0.3.9"] do
      assert Version.match?(version, requirement), "#{requirement} refuses #{version}"
    end

    for version <- ["0.1.9", "0.2.0", "0.4.0", "1.0.0"] do
      refute Version.match?(version, requirement), "#{requirement} takes #{version}"
    end
  end

  test "the address of the repository is in mix.exs alone, once" do
    "https://" <> address = Mix.Project.config()[:source_url]
    # The owner of the repository has other projects, which may be named.
    name = address |> String.split("/") |> Enum.take(-2) |> Enum.join("/")

    found = for path <- files_of_the_repository(), name in mentioned(path, name), do: path

    assert found == ["mix.exs"]
    assert "mix.exs" |> read() |> String.split(name) |> length() == 2
  end

  test "the changelog has the form that it says" do
    changelog = read("CHANGELOG.md")
    [next | released] = for [_all, heading] <- Regex.scan(~r/^## (.*)$/m, changelog), do: heading
    assert next == "Unreleased"
    for heading <- released, do: assert(heading =~ ~r/^\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d$/)

    for [_all, kind] <- Regex.scan(~r/^### (.*)$/m, changelog) do
      assert kind in ~w(Added Changed Deprecated Removed Fixed Security)
    end
  end

  defp mentioned(path, name), do: if(String.contains?(read(path), name), do: [name], else: [])

  defp files_of_the_repository do
    for pattern <- ~w(* .ci/* .github/**/* {bench,guides,lib,native,script,test}/**/*),
        path <- Path.wildcard(Path.join(@root, pattern), match_dot: true),
        File.regular?(path),
        path = Path.relative_to(path, @root),
        path not in [".git", "erl_crash.dump"],
        not (path =~ ~r"(^|/)(_build|deps|target|corpus|found|artifacts)/"),
        do: path
  end
end
