defmodule WorkflowMetal.Registration.NativeRegistry.Build.TargetTest do
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Build.Target

  defp asked(environment) do
    {:ok, %{triple: triple, explicit?: explicit?}} = Target.asked(environment)
    if explicit?, do: triple, else: :vm
  end

  test "is the machine of this VM if nothing is asked for" do
    for environment <- [%{}, %{"MIX_TARGET" => "host"}, %{"CARGO_BUILD_TARGET" => ""}],
        do: assert(asked(environment) == :vm)

    assert {:ok, %{triple: triple}} = Target.asked(%{})
    assert triple == Target.of_vm()
  end

  test "is that of CARGO_BUILD_TARGET before any other" do
    environment = %{
      "CARGO_BUILD_TARGET" => "aarch64-unknown-linux-musl",
      "MIX_TARGET" => "rpi4",
      "TARGET_ARCH" => "arm"
    }

    assert asked(environment) == "aarch64-unknown-linux-musl"
  end

  test "in CARGO_BUILD_TARGET that is no name is refused" do
    for name <- ["x86", "a b-c", "/etc/target.json", "a-b;c", "aarch64-unknown-linux-gnu\n"] do
      assert_raise Mix.Error, ~r/CARGO_BUILD_TARGET is .* not the name of a target/, fn ->
        Target.asked(%{"CARGO_BUILD_TARGET" => name})
      end
    end
  end

  test "is that of the variables that Nerves' systems set" do
    for {arch, abi, cpu, triple} <- [
          {"aarch64", "gnu", "cortex_a72", "aarch64-unknown-linux-gnu"},
          {"aarch64", "musl", nil, "aarch64-unknown-linux-musl"},
          {"x86_64", "musl", "x86_64", "x86_64-unknown-linux-musl"},
          {"x86_64", "gnu", nil, "x86_64-unknown-linux-gnu"},
          {"riscv64", "gnu", "baseline_rv64", "riscv64gc-unknown-linux-gnu"},
          {"riscv64", "musl", nil, "riscv64gc-unknown-linux-musl"},
          {"arm", "gnueabihf", "arm1176jzf_s", "arm-unknown-linux-gnueabihf"},
          {"arm", "gnueabihf", "cortex_a7", "armv7-unknown-linux-gnueabihf"},
          {"arm", "gnueabihf", nil, "arm-unknown-linux-gnueabihf"},
          {"arm", "gnueabi", "arm926ej_s", "armv5te-unknown-linux-gnueabi"},
          {"arm", "musleabihf", "cortex_a53", "armv7-unknown-linux-musleabihf"},
          {"i686", "gnu", nil, "i686-unknown-linux-gnu"}
        ] do
      variables = %{
        "MIX_TARGET" => "device",
        "TARGET_ARCH" => arch,
        "TARGET_OS" => "linux",
        "TARGET_ABI" => abi
      }

      assert asked(if(cpu, do: Map.put(variables, "TARGET_CPU", cpu), else: variables)) == triple
    end
  end

  test "is that of the older variable of Nerves, where there is no other" do
    for {prefix, triple} <- [
          {"aarch64-nerves-linux-gnu", "aarch64-unknown-linux-gnu"},
          {"armv7-nerves-linux-gnueabihf", "armv7-unknown-linux-gnueabihf"},
          {"armv6-nerves-linux-gnueabihf", "arm-unknown-linux-gnueabihf"},
          {"arm-linux-gnueabihf", "arm-unknown-linux-gnueabihf"},
          {"x86_64-nerves-linux-musl", "x86_64-unknown-linux-musl"}
        ] do
      assert asked(%{"MIX_TARGET" => "device", "REBAR_TARGET_ARCH" => prefix}) == triple
      assert asked(%{"MIX_TARGET" => "device", "CROSSCOMPILE" => "/a b/bin/" <> prefix}) == triple
      # Erlang's own builds set this without another machine.
      assert asked(%{"REBAR_TARGET_ARCH" => prefix}) == :vm
    end
  end

  test "is that of Nerves' variables for tools that set no MIX_TARGET" do
    assert asked(%{"TARGET_ARCH" => "aarch64", "TARGET_OS" => "darwin"}) == "aarch64-apple-darwin"
    # One alone may be anybody's.
    assert asked(%{"TARGET_ARCH" => "-mcpu=native"}) == :vm
  end

  test "of another machine of which nothing is said is refused, with what to set" do
    error = assert_raise Mix.Error, fn -> Target.asked(%{"MIX_TARGET" => "rpi9"}) end
    assert error.message =~ ~s(MIX_TARGET is "rpi9")
    assert error.message =~ "Set CARGO_BUILD_TARGET"
  end

  test "of a machine that Rust does not know is refused, with what to set" do
    for {arch, os, abi} <- [
          {"mipsel", "linux", "musl"},
          {"aarch64", "plan9", "gnu"},
          {"arm", "linux", "gnu"},
          {"arm", "linux", nil},
          {"aarch64", "linux", "uclibc"},
          {"armv5", "linux", "gnueabihf"}
        ] do
      variables = %{"MIX_TARGET" => "device", "TARGET_ARCH" => arch, "TARGET_OS" => os}
      variables = if abi, do: Map.put(variables, "TARGET_ABI", abi), else: variables
      error = assert_raise Mix.Error, fn -> Target.asked(variables) end
      assert error.message =~ arch
      assert error.message =~ "Set CARGO_BUILD_TARGET"
    end
  end

  test "of a VM is Rust's name for its machine" do
    for {architecture, triple} <- [
          {"x86_64-pc-linux-gnu", "x86_64-unknown-linux-gnu"},
          {"x86_64-linux-gnu", "x86_64-unknown-linux-gnu"},
          {"x86_64-redhat-linux-gnu", "x86_64-unknown-linux-gnu"},
          {"x86_64-alpine-linux-musl", "x86_64-unknown-linux-musl"},
          {"aarch64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"},
          {"arm-unknown-linux-gnueabihf", "arm-unknown-linux-gnueabihf"},
          {"armv7l-unknown-linux-gnueabihf", "armv7-unknown-linux-gnueabihf"},
          {"aarch64-apple-darwin23.1.0", "aarch64-apple-darwin"},
          {"x86_64-apple-darwin20.6.0", "x86_64-apple-darwin"},
          {"amd64-portbld-freebsd14.0", "x86_64-unknown-freebsd"},
          {"powerpc64le-unknown-linux-gnu", "powerpc64le-unknown-linux-gnu"},
          {"i586-pc-linux-gnu", "i686-unknown-linux-gnu"},
          {"win32", "x86_64-pc-windows-msvc"},
          {"vax-dec-ultrix", "vax-dec-ultrix"}
        ],
        do: assert(Target.of_vm(architecture) == triple)
  end

  test "is asked of Rust by its own name for the machine of this VM" do
    vm = &%{triple: &1, explicit?: false}

    for {triple, host, asked} <- [
          {"x86_64-unknown-linux-musl", "x86_64-alpine-linux-musl", "x86_64-alpine-linux-musl"},
          {"arm-unknown-linux-gnueabihf", "armv7-unknown-linux-gnueabihf",
           "armv7-unknown-linux-gnueabihf"},
          {"x86_64-pc-windows-msvc", "x86_64-pc-windows-gnu", "x86_64-pc-windows-gnu"},
          # A VM that runs under emulation, and a Rust for the other C library.
          {"x86_64-apple-darwin", "aarch64-apple-darwin", "x86_64-apple-darwin"},
          {"x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl", "x86_64-unknown-linux-gnu"},
          {"x86_64-unknown-openbsd7.4", "x86_64-unknown-openbsd", "x86_64-unknown-openbsd"}
        ] do
      assert Target.in_rust(vm.(triple), host) == asked
      assert Target.in_rust(%{triple: triple, explicit?: true}, host) == triple
    end
  end

  test "names the library as the VM and as cargo do" do
    for {triple, library, cargo} <- [
          {"x86_64-unknown-linux-gnu", "native_registry.so", "libnative_registry.so"},
          {"aarch64-apple-darwin", "native_registry.so", "libnative_registry.dylib"},
          {"x86_64-pc-windows-msvc", "native_registry.dll", "native_registry.dll"}
        ] do
      assert Target.library_name(triple) == library
      assert Target.cargo_name(triple) == cargo
    end
  end
end
