defmodule WorkflowMetal.Registration.NativeRegistry.Build.LinkerTest do
  use WorkflowMetal.Registration.NativeRegistry.BuildCase

  defmodule Linker do
    # With the rest of what it takes.
    def env!(triple, host, environment, config) do
      folder = System.get_env("FAKE")
      rust = %{host: host, sysroot: Path.join(folder, "sysroot")}
      Build.Linker.env!(triple, rust, environment, config, Path.join(folder, "of cargo's"))
    end
  end

  @here "x86_64-unknown-linux-gnu"
  @device "aarch64-unknown-linux-gnu"
  @variable "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER"

  test "for this machine is cargo's" do
    assert Linker.env!(@here, @here, %{"CC" => "clang"}, "") == []
    assert Linker.env!("x86_64-pc-linux-gnu", @here, %{"CC" => "clang"}, "") == []
  end

  test "for another one is CC, or that of the prefix of the tools", %{folder: folder} do
    cc = Path.join(folder, "bin/some-gcc")
    program!(cc, "#!/bin/sh\n")
    assert Linker.env!(@device, @here, %{"CC" => cc}, "") == [{@variable, cc}]
    assert Linker.env!(@device, @here, %{"CC" => "some-gcc"}, "") == [{@variable, cc}]

    assert Linker.env!(@device, @here, %{"CROSSCOMPILE" => "/opt/aarch64-nerves-linux-gnu"}, "") ==
             [{@variable, "/opt/aarch64-nerves-linux-gnu-gcc"}]
  end

  test "that is no program is refused, with what to set" do
    assert_raise Mix.Error, ~r/several words.*#{@variable}/, fn ->
      Linker.env!(@device, @here, %{"CC" => "zig cc -target aarch64"}, "")
    end

    assert_raise Mix.Error, ~r/no such program/, fn ->
      Linker.env!(@device, @here, %{"CC" => "gcc-of-nobody"}, "")
    end
  end

  test "is the user's if he names one, wherever he does" do
    for {environment, config} <- [
          {%{@variable => "mine", "CC" => "sh"}, ""},
          {%{"RUSTFLAGS" => "-C linker=mine", "CC" => "sh"}, ""},
          {%{"CARGO_ENCODED_RUSTFLAGS" => "-Clinker=mine", "CC" => "sh"}, ""},
          {%{"CC" => "sh"}, "[target.#{@device}]\nlinker = 'mine'"},
          {%{"CC" => "sh"}, "[target.'cfg(unix)']\nlinker = 'mine'"}
        ],
        do: assert(Linker.env!(@device, @here, environment, config) == [])

    # That of a third machine is not meant.
    config = "[target.riscv64gc-unknown-linux-gnu]\nlinker = 'mine'"
    assert [{@variable, _sh}] = Linker.env!(@device, @here, %{"CC" => "sh"}, config)
  end

  test "is the one that distributions name so", %{folder: folder} do
    System.put_env("PATH", Path.join(folder, "bin"))

    for {triple, name} <- [
          {@device, "aarch64-linux-gnu-gcc"},
          {"armv7-unknown-linux-gnueabihf", "arm-linux-gnueabihf-gcc"},
          {"riscv64gc-unknown-linux-gnu", "riscv64-linux-gnu-gcc"},
          {"x86_64-unknown-linux-musl", "x86_64-linux-musl-gcc"},
          {"aarch64-unknown-linux-musl", "aarch64-linux-musl-gcc"}
        ] do
      program = Path.join([folder, "bin", name])
      program!(program, "#!/bin/sh\n")
      assert [{_variable, ^program}] = Linker.env!(triple, @here, %{}, "")
    end

    assert Linker.env!("s390x-unknown-linux-gnu", @here, %{}, "") == []
  end

  test "for musl is never the one of another C library", %{folder: folder} do
    System.put_env("PATH", Path.join(folder, "bin"))
    musl = "x86_64-unknown-linux-musl"

    assert_raise Mix.Error, ~r/no linker for #{musl}/, fn ->
      Linker.env!(musl, @here, %{}, "")
    end

    program = Path.join(folder, "bin/musl-gcc")
    program!(program, "#!/bin/sh\n")
    assert [{_variable, ^program}] = Linker.env!(musl, @here, %{}, "")

    # musl-gcc is for the processor of this machine.
    assert_raise Mix.Error, fn -> Linker.env!("aarch64-unknown-linux-musl", @here, %{}, "") end
    assert Linker.env!(musl, "x86_64-alpine-linux-musl", %{}, "") == []
  end

  test "for musl has the functions that unwind from Rust", %{folder: folder} do
    program!(Path.join(folder, "bin/musl-gcc"), ~S"""
    #!/bin/sh
    for argument; do echo "$argument"; done
    """)

    musl = "x86_64-unknown-linux-musl"
    unwinder = Path.join([folder, "sysroot/lib/rustlib", musl, "lib/self-contained/libunwind.a"])
    write!(unwinder, "")
    assert [{_variable, linker}] = Linker.env!(musl, @here, %{}, "")
    assert Path.basename(linker) == "musl-gcc"
    assert {text, 0} = System.cmd(linker, ["-o", "a b"])
    assert ["-L" <> libraries, "-o", "a b"] = String.split(text, "\n", trim: true)
    assert File.read!(Path.join(libraries, "libgcc_s.so")) =~ unwinder
  end
end
