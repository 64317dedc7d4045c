defmodule WorkflowMetal.Registration.NativeRegistry.Build.CargoTest do
  use WorkflowMetal.Registration.NativeRegistry.BuildCase

  alias Build.{Cargo, Settings}

  @device %{triple: "aarch64-unknown-linux-gnu", explicit?: true}
  @musl %{triple: "x86_64-unknown-linux-musl", explicit?: true}

  defp here, do: %{triple: Build.Target.of_vm(), explicit?: false}

  defp build!(root, target \\ here()) do
    in_project(root, fn -> Cargo.build!(root, target) end)
  end

  # Sourced by the program in place of cargo, before it builds.
  defp script(folder, script), do: write!(Path.join(folder, "script"), script)

  defp failure(root, target \\ here()) do
    assert_raise(Mix.Error, fn -> build!(root, target) end).message
  end

  test "answers the path that cargo names, not one that is guessed", context do
    %{folder: folder, root: root} = context
    elsewhere = Path.join(folder, "else where \"登録\"")
    System.put_env("FAKE_FOLDER", elsewhere)

    # An older build, where a guess would look.
    older = Path.join(folder, "older")
    System.put_env("CARGO_TARGET_DIR", older)
    write!(Path.join(older, "release/libnative_registry.so"), "older")

    script(folder, """
    printf '{"reason":"compiler-artifact","target":{"crate_types":["cdylib"],"name":"native_registry"},'
    printf '"filenames":["/tmp/\\\\u767b/x.so.dwp","%s/lib\\\\u0061.so"]}\\n' "$(printf %s "$FAKE" | sed 's/"/\\\\\\\\"/g')"
    exit 0
    """)

    assert build!(root) == Path.join(folder, "liba.so")
  end

  test "builds for a named target, in the folder of the project", %{folder: folder, root: root} do
    triple = Build.Target.of_vm()
    shared = Path.join(root, "_build/native_registry_cargo/lib/native_registry_fake")

    assert build!(root) == Path.join([shared, triple, "release/libnative_registry.so"])
    assert [call] = calls(folder)
    assert call =~ "build --release --locked --package native_registry --lib --target #{triple} "
    assert call =~ "CARGO_TARGET_DIR=#{shared}\n"
  end

  test "leaves the folder to the user who names one", %{folder: folder, root: root} do
    mine = Path.join(folder, "mine")
    System.put_env("CARGO_TARGET_DIR", mine)
    assert String.starts_with?(build!(root), mine)

    System.delete_env("CARGO_TARGET_DIR")
    System.put_env(%{"CARGO_BUILD_TARGET_DIR" => mine, "FAKE_FOLDER" => mine})
    build!(root)
    assert hd(calls(folder)) =~ "CARGO_BUILD_TARGET_DIR=#{mine}\n"
    refute hd(calls(folder)) =~ "CARGO_TARGET_DIR"
  end

  test "shares its folder between environments, but not beyond MIX_BUILD_PATH", context do
    %{folder: folder, root: root} = context
    in_project(root, fn -> send(self(), {:folder, Cargo.folder(), Mix.Project.build_path()}) end)
    assert_received {:folder, cargo, build}
    assert String.starts_with?(cargo, Path.dirname(build) <> "/")
    refute String.starts_with?(cargo, build <> "/")

    System.put_env("MIX_BUILD_PATH", Path.join(folder, "one"))
    in_project(root, fn -> send(self(), {:folder, Cargo.folder()}) end)
    assert_received {:folder, cargo}
    assert String.starts_with?(cargo, Path.join(folder, "one") <> "/")
  end

  test "shows what cargo says, and its lock that it waits for", %{folder: folder, root: root} do
    script(folder, "echo '    Blocking waiting for file lock on build directory' >&2")
    build!(root)

    cargo = shown()
    assert Enum.any?(cargo, &(&1 =~ "Compiling the Rust library"))
    assert "   Compiling native_registry v0.1.0" in cargo
    assert "    Blocking waiting for file lock on build directory" in cargo
    refute Enum.any?(cargo, &(&1 =~ "reason"))
  end

  test "raises with cargo's errors, shown once", %{folder: folder, root: root} do
    script(folder, """
    printf '\\033[1m\\033[91merror[E0425]\\033[0m: cannot find value `x`\\n --> src/lib.rs:1:1\\n' >&2
    echo 'error: could not compile `native_registry`' >&2
    exit 101
    """)

    message = failure(root)
    assert message =~ "it ended with status 101"
    assert message =~ "cannot find value `x`\n --> src/lib.rs:1:1\nerror: could not compile"
    shown = shown()
    assert "   Compiling native_registry v0.1.0" in shown
    refute Enum.any?(shown, &(&1 =~ "E0425"))
  end

  test "raises if cargo names no library", %{folder: folder, root: root} do
    for line <- [
          ~S({"reason":"build-finished","success":true}),
          ~S({"reason":"compiler-artifact","target":{"crate_types":["cdylib"],"name":"other"},"filenames":["/x.so"]}),
          ~S({"reason":"compiler-artifact","target":{"crate_types":["rlib"],"name":"native_registry"},"filenames":["/x.so"]}),
          ~S({"reason":"compiler-artifact","target":{"crate_types":["cdylib"],"name":"native_registry"},"filenames":["/x.rlib"]}),
          ~S({"reason":"compiler-artifact")
        ] do
      script(folder, "cat <<'END'\n#{line}\nEND\nexit 0")
      assert failure(root) =~ "cargo built no library"
    end
  end

  test "builds with the linker for another machine", %{folder: folder, root: root} do
    write!(Path.join(folder, "host"), "x86_64-unknown-linux-gnu")
    System.put_env("CC", "/bin/sh")
    assert build!(root, @device) =~ "/aarch64-unknown-linux-gnu/"
    assert hd(calls(folder)) =~ "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=/bin/sh\n"

    # Where the user's own configuration names one, above the project or in his home.
    for config <- ["project/.cargo/config.toml", ".cargo/config", "cargo_home/config.toml"] do
      config = Path.join(folder, config)
      write!(config, "[target.aarch64-unknown-linux-gnu]\nlinker = 'mine'\n")
      build!(root, @device)
      refute hd(calls(folder)) =~ "LINKER"
      File.rm!(config)
    end
  end

  test "is asked for musl with the flags that cargo takes", %{folder: folder, root: root} do
    write!(Path.join(folder, "host"), "x86_64-unknown-linux-musl")

    # As if a file told flags for the target, which hide those for every build.
    script(folder, """
    [ -n "${CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS:-}" ] || {
      echo 'error: cannot produce cdylib for `x`, the target does not support these crate types' >&2
      exit 101
    }
    """)

    build!(root, @musl)
    assert [second, first] = calls(folder)
    assert first =~ "CARGO_BUILD_RUSTFLAGS=-Ctarget-feature=-crt-static\n"
    refute second =~ "CARGO_BUILD_RUSTFLAGS"
    assert second =~ "MUSL_RUSTFLAGS=-Ctarget-feature=-crt-static\n"
  end

  test "is not asked twice for another reason", %{folder: folder, root: root} do
    write!(Path.join(folder, "host"), "x86_64-unknown-linux-musl")
    script(folder, "echo 'error: no' >&2; exit 101")
    assert failure(root, @musl) =~ "error: no"
    assert length(calls(folder)) == 1
  end

  test "has the settings that change what it builds, and not those that say where", _context do
    environment = %{
      "CARGO_PROFILE_RELEASE_LTO" => "off",
      "CARGO_TARGET_DIR" => "/x",
      "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS" => "-Cx",
      "CARGO_TERM_COLOR" => "never",
      "CC" => "gcc",
      "HOME" => "/root",
      "RUSTFLAGS" => "-Cy"
    }

    assert Keyword.keys(
             for {name, value} <- Settings.variables(environment, false),
                 do: {String.to_atom(name), value}
           ) ==
             [
               :CARGO_PROFILE_RELEASE_LTO,
               :CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS,
               :RUSTFLAGS
             ]

    assert {"CC", "gcc"} in Settings.variables(environment, true)
  end
end
