defmodule WorkflowMetal.Registration.NativeRegistry.Build.CompilePrecompiledTest do
  use WorkflowMetal.Registration.NativeRegistry.BuildCase

  alias Mix.Tasks.Compile.NativeRegistry, as: Task

  @variable "WORKFLOW_METAL_NATIVE_REGISTRY_PRECOMPILED"
  @target "x86_64-unknown-linux-gnu"
  @elf <<0x7F, "ELF", 2, 1, 1, 0::72, 3::16-little, 62::16-little, 0::256>>

  setup %{folder: folder, root: root} do
    System.put_env("CARGO_BUILD_TARGET", @target)
    named = Path.join(folder, "precompiled")

    %{
      named: named,
      library:
        Path.join(root, "_build/test/lib/native_registry_fake/priv/native/native_registry.so")
    }
  end

  defp compile(root), do: in_project(root, fn -> Task.run([]) end)

  defp name(context, library \\ @elf) do
    facts = %{version: "0.1.0", nif: "2.15", target: @target}
    sources = Build.Digest.sources(context.root)
    content = %{library: library, sources: sources, licence: "", third_party: ""}
    Build.Archive.write!(context.named, facts, content)
    System.put_env(@variable, context.named)
  end

  test "a precompiled library is put where the VM loads it, without any Rust", context do
    %{folder: folder, root: root, library: library} = context
    System.put_env("PATH", "/nowhere")
    name(context)
    assert compile(root) == {:ok, []}
    assert File.read!(library) == @elf
    assert "Taking the precompiled Rust library for #{@target}" in shown()
    assert compile(root) == {:noop, []}
    refute Enum.any?(shown(), &(&1 =~ "Rust library"))
    assert calls(folder) == []
  end

  test "another precompiled library takes its place, and a deleted one comes back", context do
    %{root: root, library: library} = context
    name(context)
    compile(root)
    name(context, @elf <> "other")
    assert compile(root) == {:ok, []}
    assert File.read!(library) == @elf <> "other"
    File.rm!(library)
    assert compile(root) == {:ok, []}
    assert File.read!(library) == @elf <> "other"
  end

  test "it takes the place of one that was built, and the other way round", context do
    %{root: root, library: library} = context
    compile(root)
    assert File.read!(library) == "first"
    name(context)
    assert compile(root) == {:ok, []}
    assert File.read!(library) == @elf
    System.delete_env(@variable)
    assert compile(root) == {:ok, []}
    assert File.read!(library) == "first"
  end

  test "one that does not fit is refused, and the library that is there stays", context do
    %{folder: folder, root: root, library: library} = context
    name(context)
    compile(root)
    write!(Path.join(root, "native/native_registry/src/lib.rs"), "second")
    assert_raise Mix.Error, ~r/it was built from other sources/, fn -> compile(root) end
    assert File.read!(library) == @elf
    assert calls(folder) == []
  end
end
