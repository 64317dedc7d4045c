defmodule WorkflowMetal.Registration.NativeRegistry.Build.ToolchainTest do
  # Not async: the PATH is the VM's.
  use ExUnit.Case

  import WorkflowMetal.Registration.NativeRegistry.BuildCase, only: [program!: 2]

  alias WorkflowMetal.Registration.NativeRegistry.Build.{Manifest, Toolchain}

  @moduletag :tmp_dir
  @root Path.expand("../../../../..", __DIR__)
  @variables ~w(PATH HOME USERPROFILE CARGO_HOME RUSTC CARGO_BUILD_RUSTC)

  # Programs of these tests only: a folder on the PATH, and the one into which rustup installs.
  setup %{tmp_dir: tmp_dir} do
    saved = for name <- @variables, do: {name, System.get_env(name)}
    on_exit(fn -> System.put_env(saved) end)

    path = Path.join(tmp_dir, "on the path")
    home = Path.join(tmp_dir, "家")
    rustup = Path.join(home, ".cargo/bin")
    Enum.each([path, rustup], &File.mkdir_p!/1)

    System.put_env(for(name <- @variables, do: {name, nil}) ++ [{"PATH", path}, {"HOME", home}])

    {:ok, path: path, rustup: rustup}
  end

  defp program(folder, name, script),
    do: program!(Path.join(folder, name), "#!/bin/sh\n#{script}\n")

  defp says(folder, name, text, status \\ 0),
    do:
      program(
        folder,
        name,
        "cat <<'END'\n#{text}\nEND\nexit #{status}" |> String.replace("cat", "/bin/cat")
      )

  defp rust(folder, version) do
    says(folder, "cargo", "cargo #{version} (0123456 2026-01-01)")
    says(folder, "rustc", "rustc #{version} (0123456 2026-01-01)")
  end

  defp advice(function \\ fn -> Toolchain.cargo!(@root) end) do
    Exception.message(assert_raise(Mix.Error, function))
  end

  @wanted "is built with Rust #{Manifest.rust(@root)} or newer"

  describe "the Rust that is used" do
    test "is the one on the PATH", %{path: path, rustup: rustup} do
      rust(path, "1.95.0")
      rust(rustup, "1.96.0")
      toolchain = Toolchain.cargo!(@root)

      assert toolchain == %{
               cargo: Path.join(path, "cargo"),
               rustc: Path.join(path, "rustc"),
               version: "rustc 1.95.0 (0123456 2026-01-01)",
               env: []
             }
    end

    test "is the one of rustup if none is on the PATH, and cargo finds its rustc there",
         context do
      %{path: path, rustup: rustup} = context
      rust(rustup, "1.95.0")
      toolchain = Toolchain.cargo!(@root)
      assert toolchain.cargo == Path.join(rustup, "cargo")
      assert toolchain.rustc == Path.join(rustup, "rustc")
      assert toolchain.env == [{"PATH", rustup <> ":" <> path}]
    end

    test "is looked for in CARGO_HOME", %{tmp_dir: tmp_dir} do
      folder = Path.join(tmp_dir, "elsewhere/bin")
      File.mkdir_p!(folder)
      rust(folder, "1.95.0")
      System.put_env("CARGO_HOME", Path.join(tmp_dir, "elsewhere"))
      assert Toolchain.cargo!(@root).cargo == Path.join(folder, "cargo")
    end

    test "is the one of rustup if that of the system is too old", %{path: path, rustup: rustup} do
      rust(path, "1.63.0")
      rust(rustup, "1.95.0")
      toolchain = Toolchain.cargo!(@root)
      assert toolchain.rustc == Path.join(rustup, "rustc")
      assert [{"PATH", _with_rustup}] = toolchain.env
    end

    test "is the one that RUSTC names", %{path: path, tmp_dir: tmp_dir} do
      says(path, "cargo", "cargo 1.95.0")

      System.put_env(
        "RUSTC",
        says(tmp_dir, "rustc-nightly", "rustc 1.97.0-nightly (0123456 2026-01-01)")
      )

      assert Toolchain.cargo!(@root).version == "rustc 1.97.0-nightly (0123456 2026-01-01)"
    end

    test "may say something before its version", %{path: path} do
      rust(path, "1.95.0")
      says(path, "rustc", "info: syncing channel updates\n\nrustc 1.95.0 (0123456 2026-01-01)")
      assert Toolchain.cargo!(@root).version == "rustc 1.95.0 (0123456 2026-01-01)"
    end

    test "is this machine's, if no test stands in for it" do
      System.put_env("PATH", "/nowhere")
      assert advice() =~ "no Rust was found"
    end
  end

  describe "the advice" do
    test "is to install Rust if there is none, and names where was looked", %{rustup: rustup} do
      advice = advice()
      assert advice =~ "no Rust was found, neither on the PATH nor in #{rustup}"
      assert advice =~ @wanted
      assert advice =~ "install it from https://rustup.rs"
      assert advice =~ "guides/installing.md"
    end

    test "is the same if there is no home either" do
      System.delete_env("HOME")
      assert advice() =~ "no Rust was found, neither on the PATH nor in ~/.cargo/bin"
    end

    test "is another if the Rust of the system is old", %{path: path} do
      rust(path, "1.63.0")
      advice = advice()
      assert advice =~ "the Rust here is too old: #{path}/cargo is of version 1.63.0"
      assert advice =~ @wanted
      assert advice =~ "install it from https://rustup.rs"
      refute advice =~ "no Rust was found"
    end

    test "is to update if an old Rust came by rustup", %{rustup: rustup} do
      rust(rustup, "1.90.0")
      says(rustup, "rustup", "rustup 1.28.0")
      assert advice() =~ ~r/too old.*#{@wanted}: run `rustup update stable`$/
    end

    test "tells an old rustc beside a new cargo", %{path: path} do
      rust(path, "1.95.0")
      says(path, "rustc", "rustc 1.90.0")
      assert advice() =~ "too old: #{path}/rustc is of version 1.90.0"
    end

    test "tells that cargo is there and rustc is not", %{path: path} do
      says(path, "cargo", "cargo 1.95.0")
      advice = advice()
      assert advice =~ "cargo is here, #{path}/cargo, but no rustc"
      assert advice =~ @wanted
      refute advice =~ "no Rust was found"
    end

    test "tells that rustup has no toolchain", %{rustup: rustup} do
      said =
        "error: rustup could not choose a version of cargo to run, because one wasn't specified"

      says(rustup, "cargo", said <> "\n\nhelp: and a page more", 1)
      advice = advice()
      assert advice =~ "rustup is here, but has no Rust for this folder"
      assert advice =~ "says \"#{said}\". "
      assert advice =~ "run `rustup default stable`"
    end

    test "tells that rustup is there without cargo", %{path: path} do
      says(path, "rustup", "rustup 1.28.0")
      assert advice() =~ ~r/rustup is here, but no cargo.*run `rustup default stable`$/
    end

    test "has what a broken cargo says", %{path: path} do
      says(path, "cargo", "error while loading shared libraries", 127)
      assert advice() =~ "--version` does not answer a version, but says \"error while loading"
    end

    test "is given for a cargo that is no program", %{path: path} do
      program!(Path.join(path, "cargo"), <<0, 1, 2, 3>>)
      assert advice() =~ "--version` does not answer a version"
    end
  end

  describe "whether a library can be linked" do
    setup %{path: path, tmp_dir: tmp_dir} do
      rust(path, "1.95.0")
      {:ok, folder: Path.join(tmp_dir, "link"), toolchain: Toolchain.cargo!(@root)}
    end

    defp cannot_link(context, output) do
      says(context.path, "cargo", output, 101)
      advice(fn -> Toolchain.link!(context.toolchain, @root, context.folder) end)
    end

    test "is asked of cargo, with the arguments and variables of the build, in the root",
         context do
      program(context.path, "cargo", ~S"""
      test -f Cargo.lock || exit 3
      test "$1 $2" = "build --offline" || exit 4
      grep -q cdylib "$4" || exit 5
      test "$5 $6 $RUSTFLAGS" = "--target some -C something" || exit 6
      """)

      System.put_env("PATH", context.path <> ":/usr/bin:/bin")
      env = [{"RUSTFLAGS", "-C something"}]
      arguments = ["--target", "some"]
      assert :ok == Toolchain.link!(context.toolchain, @root, context.folder, arguments, env)
      refute File.exists?(context.folder)
    end

    test "is no without a linker", context do
      advice =
        cannot_link(context, """
           Compiling link v0.0.0
        error: linker `cc` not found
          |
          = note: No such file or directory (os error 2)
        """)

      assert advice =~ "Rust needs a C linker, and there is no cc. On Debian and Ubuntu install"
      assert advice =~ "gcc and libc6-dev"
      refute File.exists?(context.folder)
    end

    # As gcc says it on Debian 12 without libc6-dev, and as lld does.
    for {linker, why} <- [
          {"gcc", "/usr/bin/ld: cannot find Scrt1.o: No such file or directory"},
          {"lld", "ld.lld: error: cannot open crti.o: No such file or directory"},
          {"lld of a library", "rust-lld: error: unable to find library -lc"}
        ] do
      test "is no without the C library's development files, with #{linker}", context do
        advice =
          cannot_link(context, """
             Compiling link v0.0.0
          error: linking with `cc` failed: exit status: 1
            |
            = note:  "cc" "-m64" "/tmp/rustcvJ0Tjm/symbols.o" "<2 object files omitted>"
            = note: some arguments are omitted. use `--verbose` to show all linker arguments
            = note: #{unquote(why)}
                    collect2: error: ld returned 1 exit status

          error: could not compile `link` (build script) due to 1 previous error
          """)

        assert advice =~ "there is a C linker, but it cannot link: #{unquote(why)}. "
        assert advice =~ "gcc and libc6-dev"
        # One sentence in place of a page.
        refute advice =~ "\n"
      end
    end

    test "is no without Rust's standard library for the target", context do
      advice =
        cannot_link(context, """
        error[E0463]: can't find crate for `std`
          |
          = note: the `aarch64-unknown-linux-gnu` target may not be installed
          = help: consider downloading the target with `rustup target add aarch64-unknown-linux-gnu`
        """)

      assert advice =~ "no standard library for the target aarch64-unknown-linux-gnu"
      assert advice =~ "run `rustup target add aarch64-unknown-linux-gnu`"
    end

    test "is no for another reason, whose text is shown", context do
      output =
        ExUnit.CaptureIO.capture_io(fn ->
          assert cannot_link(context, "error: the reason") =~ "its output above has the reason"
        end)

      assert output =~ "error: the reason"
    end
  end
end
