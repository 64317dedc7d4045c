defmodule WorkflowMetal.Registration.NativeRegistry.Ra.IdentityTest do
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Boot, Identity}

  @moduletag :ra

  setup do
    folder = Path.join(System.tmp_dir!(), "native_registry_#{System.unique_integer([:positive])}")
    folder = "#{folder}_#{System.pid()}"
    on_exit(fn -> File.rm_rf!(folder) end)
    {:ok, directory: Identity.directory(folder)}
  end

  test "names are new each time, and what is written is read", %{directory: directory} do
    one = Identity.new(true)
    other = Identity.new(true)
    assert one.id != other.id and one.uid != other.uid
    assert one.phase == :offered

    assert Identity.read(directory, true) == {:empty, nil}
    Identity.write!(directory, one)
    assert Identity.read(directory, true) == {:ok, one}
    Identity.write!(directory, %{one | phase: :started})
    assert {:ok, %{phase: :started}} = Identity.read(directory, true)
    Identity.wipe!(directory)
    assert Identity.read(directory, true) == {:empty, nil}
  end

  test "a file that is cut off, changed or of another node counts as empty", %{
    directory: directory
  } do
    identity = Identity.new(true)
    Identity.write!(directory, identity)
    path = Path.join(directory, "identity")
    right = File.read!(path)

    for wrong <- [
          "",
          binary_part(right, 0, byte_size(right) - 1),
          "junk, and more of it",
          right <> "x",
          binary_part(right, 0, byte_size(right) - 1) <> <<255>>
        ] do
      File.write!(path, wrong)
      assert {:empty, reason} = Identity.read(directory, true)
      assert reason =~ "cannot be read"
    end

    Identity.write!(directory, %{identity | id: {:name, :other@host}})
    assert {:empty, _reason} = Identity.read(directory, true)
  end

  test "data without an identity counts as empty, and that is said", %{directory: directory} do
    File.mkdir_p!(directory)
    File.write!(Path.join(directory, "names.dets"), "data")
    assert {:empty, "it has data, but no identity"} = Identity.read(directory, true)
  end

  test "data that was once written without fsync counts as empty after another boot, for ever",
       %{directory: directory} do
    # Written with fsync, and then without.
    Identity.write!(directory, Identity.new(true))
    assert {:ok, %{boot: boot} = identity} = Identity.read(directory, false)
    assert boot == (Boot.id() || :unknown)

    Identity.write!(directory, %{identity | boot: "another one"})
    for fsync? <- [true, false], do: assert({:empty, _reason} = Identity.read(directory, fsync?))

    # Where it cannot be known which boot it is.
    Identity.write!(directory, %{identity | boot: :unknown})
    for fsync? <- [true, false], do: assert({:empty, _reason} = Identity.read(directory, fsync?))
  end

  test "the boot stays the same while the machine runs" do
    assert is_binary(Boot.id())
    assert Boot.id() == Boot.id()
  end

  test "each node has a folder of its own, whatever is in its name" do
    assert Identity.directory("data") |> Path.split() |> Enum.take(2) == [
             "data",
             "native_registry"
           ]

    refute Path.basename(Identity.directory("data")) =~ "/"
  end
end
