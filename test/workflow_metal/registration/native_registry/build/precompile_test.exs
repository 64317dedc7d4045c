defmodule WorkflowMetal.Registration.NativeRegistry.Build.PrecompileTest do
  # Not async: the environment is the VM's.
  use ExUnit.Case

  import WorkflowMetal.Registration.NativeRegistry.BuildCase, only: [program!: 2]

  alias Mix.Tasks.NativeRegistry.Precompile
  alias WorkflowMetal.Registration.NativeRegistry.Build.{Manifest, Precompiled}

  @moduletag :tmp_dir
  @root Path.expand("../../../../..", __DIR__)
  @version Manifest.version(@root)
  @variable "WORKFLOW_METAL_NATIVE_REGISTRY_PRECOMPILED"
  @variables [@variable, "PATH", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "MIX_TARGET"]

  # A Rust that takes no time: it says what a real one says, and has built the library already.
  setup %{tmp_dir: tmp_dir} do
    saved = for name <- @variables, do: {name, System.get_env(name)}
    on_exit(fn -> System.put_env(saved) end)
    System.put_env(for name <- @variables -- ["PATH"], do: {name, nil})
    System.put_env("PATH", tmp_dir <> ":" <> System.get_env("PATH"))
    System.put_env("CARGO_TARGET_DIR", Path.join(tmp_dir, "target"))

    Mix.shell(Mix.Shell.Process)
    on_exit(fn -> Mix.shell(Mix.Shell.IO) end)

    library = Path.join(tmp_dir, "libnative_registry.so")
    File.write!(library, <<0x7F, "ELF", 2, 1, 1, 0::72, 3::16-little, 62::16-little, 0::256>>)

    artifact =
      ~s({"reason":"compiler-artifact","target":{"name":"native_registry","crate_types":["cdylib"]},) <>
        ~s("filenames":["#{library}"]})

    program(tmp_dir, "cargo", """
    echo "$@" >>'#{tmp_dir}/asked'
    case $1 in
      build) echo '#{artifact}' ;;
      tree) echo 'native_registry v#{@version} (/a/path)|MIT|' ;;
      metadata) echo '{"packages":[]}' ;;
      *) echo 'cargo 1.95.0' ;;
    esac
    """)

    program(tmp_dir, "rustc", """
    echo 'rustc 1.95.0 (0123456 2026-01-01)'
    echo 'host: x86_64-unknown-linux-gnu'
    """)

    {:ok, output: Path.join(tmp_dir, "out put")}
  end

  defp program(folder, name, script),
    do: program!(Path.join(folder, name), "#!/bin/sh\n#{script}")

  defp archive(target), do: "libnative_registry-v#{@version}-nif-2.15-#{target}.so.tar.gz"

  test "makes an archive that is then found, and says where it is", %{output: output} do
    Precompile.run(["--output", output, "--target", "x86_64-unknown-linux-gnu"])
    path = Path.join(output, archive("x86_64-unknown-linux-gnu"))
    assert_received {:mix_shell, :info, ["Made " <> said]}
    assert said =~ path
    System.put_env(@variable, output)
    target = %{triple: "x86_64-unknown-linux-gnu", explicit?: true}
    assert {:ok, _library, _fingerprint} = Precompiled.find(@root, target)

    {:ok, entries} = path |> String.to_charlist() |> :erl_tar.extract([:memory, :compressed])
    entries = Map.new(entries, fn {name, bytes} -> {to_string(name), bytes} end)
    assert entries["LICENSE"] == File.read!(Path.join(@root, "LICENSE"))
    assert entries["THIRD_PARTY.txt"] =~ "standard library of Rust"
  end

  test "makes one for each target, each built for it", %{output: output, tmp_dir: tmp_dir} do
    targets = ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"]
    arguments = Enum.flat_map(targets, &["--target", &1])

    # A linker of musl may be missing here.
    System.put_env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER", "cc")
    on_exit(fn -> System.delete_env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER") end)
    Precompile.run(["--output", output | arguments])
    asked = File.read!(Path.join(tmp_dir, "asked"))

    for target <- targets do
      assert File.exists?(Path.join(output, archive(target)))
      assert asked =~ ~r/^build .*--target #{target}/m
      assert asked =~ ~r/^tree .*--target #{target}/m
    end
  end

  test "makes one for the target that the environment asks for", %{output: output} do
    System.put_env("CARGO_BUILD_TARGET", "x86_64-unknown-linux-gnu")
    Precompile.run(["--output", output])
    assert File.exists?(Path.join(output, archive("x86_64-unknown-linux-gnu")))
  end

  test "builds with cargo also if a precompiled library is named", %{output: output} do
    System.put_env(@variable, "/nowhere")
    Precompile.run(["--output", output, "--target", "x86_64-unknown-linux-gnu"])
    assert File.exists?(Path.join(output, archive("x86_64-unknown-linux-gnu")))
  end

  test "takes no other arguments" do
    assert_raise Mix.Error, "unexpected arguments: here there", fn ->
      Precompile.run(["here", "there"])
    end

    assert_raise OptionParser.ParseError, fn -> Precompile.run(["--targets", "x"]) end
  end
end
