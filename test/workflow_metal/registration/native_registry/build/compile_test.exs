defmodule WorkflowMetal.Registration.NativeRegistry.Build.CompileTest do
  use WorkflowMetal.Registration.NativeRegistry.BuildCase

  alias Mix.Tasks.Compile.NativeRegistry, as: Task

  setup %{root: root} do
    %{
      source: Path.join(root, "native/native_registry/src/lib.rs"),
      library:
        Path.join(root, "_build/test/lib/native_registry_fake/priv/native/native_registry.so")
    }
  end

  defp compile(root, arguments \\ []), do: in_project(root, fn -> Task.run(arguments) end)

  defp asked_rustc(folder) do
    case File.read(Path.join(folder, "rustc_calls")) do
      {:ok, text} -> text |> String.split("\n", trim: true) |> length()
      {:error, :enoent} -> 0
    end
  end

  test "builds once, and asks no compiler when there is nothing to do", context do
    %{folder: folder, root: root, library: library} = context
    assert compile(root) == {:ok, []}
    assert File.read!(library) == "first"
    asked = asked_rustc(folder)

    for _again <- 1..3, do: assert(compile(root) == {:noop, []})
    assert length(calls(folder)) == 1
    assert asked_rustc(folder) == asked
  end

  test "builds what has changed, whatever its time says", context do
    %{root: root, source: source, library: library} = context
    compile(root)

    # As a checkout or a cache that is restored does.
    File.write!(source, "second")
    File.touch!(source, 1_000_000_000)
    assert compile(root) == {:ok, []}
    assert File.read!(library) == "second"

    # And the other way round: a file that is newer but the same.
    File.write!(source, "second")
    File.touch!(source, 4_000_000_000)
    assert compile(root) == {:noop, []}
  end

  test "builds when a file is added, removed or renamed", %{root: root, source: source} do
    compile(root)
    other = Path.join(Path.dirname(source), "deep/other.rs")
    write!(other, "x")
    assert compile(root) == {:ok, []}
    File.rename!(other, Path.join(Path.dirname(source), "moved.rs"))
    assert compile(root) == {:ok, []}
    File.rm!(Path.join(Path.dirname(source), "moved.rs"))
    assert compile(root) == {:ok, []}
    assert compile(root) == {:noop, []}
  end

  test "brings back a library that is deleted, cut off or another one", context do
    %{root: root, library: library} = context
    compile(root)

    for break <- [&File.rm!/1, &File.write!(&1, "fir"), &File.write!(&1, "other")] do
      break.(library)
      assert compile(root) == {:ok, []}
      assert File.read!(library) == "first"
      assert compile(root) == {:noop, []}
    end
  end

  test "does not change the file that a VM may have mapped", %{root: root} = context do
    %{source: source, library: library} = context
    compile(root)
    {:ok, mapped} = :file.open(library, [:read, :raw, :binary])
    File.write!(source, "second")
    compile(root)
    assert :file.read(mapped, 100) == {:ok, "first"}
    assert File.ls!(Path.dirname(library)) == ["native_registry.so"]
  end

  test "builds for another target, with other settings and by another compiler", context do
    %{folder: folder, root: root} = context
    compile(root)

    for change <- [
          fn -> System.put_env("CARGO_BUILD_TARGET", "aarch64-unknown-linux-gnu") end,
          fn -> System.put_env("CC", "/bin/sh") end,
          fn -> System.put_env("CARGO_PROFILE_RELEASE_LTO", "off") end,
          fn -> System.put_env("RUSTFLAGS", "-Ctarget-cpu=native") end,
          fn ->
            write!(Path.join(folder, ".cargo/config.toml"), "[profile.release]\nlto = 'off'")
          end,
          fn ->
            write!(Path.join(folder, "cargo_home/config"), "[build]\nrustflags = ['-Cx']")
          end,
          # `rustup update`, which changes the program behind rustup's, and `rustup default`.
          fn ->
            write!(Path.join(folder, "commit"), "two")
            write!(Path.join(folder, "sysroot/bin/rustc"), "newer")
          end,
          fn ->
            write!(Path.join(folder, "commit"), "three")
            write!(Path.join(folder, "rustup_home/settings.toml"), "default_toolchain = 'x'")
          end,
          fn ->
            write!(Path.join(folder, "commit"), "four")
            write!(Path.join(root, "rust-toolchain.toml"), "[toolchain]\nchannel = 'x'")
          end,
          fn ->
            write!(Path.join(folder, "commit"), "five")
            System.put_env("RUSTUP_TOOLCHAIN", "x")
          end
        ] do
      change.()
      assert compile(root) == {:ok, []}
      assert compile(root) == {:noop, []}
    end
  end

  test "does nothing for another program that is the same compiler", context do
    %{folder: folder, root: root} = context
    compile(root)
    File.touch!(Path.join(folder, "bin/rustc"), 1_000_000_000)
    assert compile(root) == {:noop, []}
    asked = asked_rustc(folder)
    assert compile(root) == {:noop, []}
    assert asked_rustc(folder) == asked
  end

  test "needs no Rust where the library is", %{folder: folder, root: root} do
    compile(root)
    System.put_env("PATH", Path.join(folder, "nothing"))
    assert compile(root) == {:noop, []}
  end

  test "reads no record of another version", %{root: root} do
    compile(root)
    [manifest] = in_project(root, fn -> send(self(), Task.manifests()) end)

    for content <- ["", "anything", :erlang.term_to_binary(%{}), :erlang.term_to_binary([1])] do
      File.write!(manifest, content)
      assert compile(root) == {:ok, []}
    end
  end

  test "asks cargo with --force", %{folder: folder, root: root} do
    compile(root)
    assert compile(root, ["--force"]) == {:ok, []}
    assert length(calls(folder)) == 2
  end

  test "leaves the library that is there when the next one cannot be built", context do
    %{folder: folder, root: root, source: source, library: library} = context
    compile(root)
    File.write!(source, "second")
    write!(Path.join(folder, "script"), "echo 'error: no' >&2; exit 101")
    assert_raise Mix.Error, fn -> compile(root) end
    assert File.read!(library) == "first"
    File.rm!(Path.join(folder, "script"))
    assert compile(root) == {:ok, []}
    assert File.read!(library) == "second"
  end

  test "keeps nothing outside of the folders that `mix clean` removes", %{root: root} do
    compile(root)

    # As Mix has it: those of the application in all environments.
    for folder <- :filelib.wildcard(~c"_build/*/lib/native_registry_fake", ~c"#{root}"),
        do: File.rm_rf!(Path.join(root, folder))

    left = :filelib.wildcard(~c"_build/**", ~c"#{root}")
    assert Enum.filter(left, &File.regular?(Path.join(root, &1))) == []
    assert compile(root) == {:ok, []}
  end

  test "loses no library with cargo's folder", %{root: root, library: library} do
    compile(root)
    File.rm_rf!(Path.join(root, "_build/native_registry_cargo"))
    assert compile(root) == {:noop, []}
    assert File.read!(library) == "first"
  end
end
