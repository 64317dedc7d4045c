defmodule WorkflowMetal.Registration.NativeRegistry.MirrorTest do
  # Alone, as the VM has one mirror.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: false

  import Bitwise

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Lease, Mirror}
  alias WorkflowMetal.Registration.NativeRegistry.Table

  setup do
    :ok = Mirror.clear()
    on_exit(&Mirror.clear/0)
    # A registry of the mirror need not run.
    %{mirrored: unique_registry(), pid: Terms.remote_pid(7)}
  end

  # Makes the session that of the process, and the process the holder.
  defp put(registry, name, no, pid) do
    {prefix, id, serial, suffix} = split(pid)
    :ok = Mirror.node(no, prefix, suffix)
    :ok = Mirror.put(registry, name, no, id, serial)
  end

  defp pid_of(node, id, serial, creation) do
    atom = <<118, byte_size(node)::16, node::binary>>
    :erlang.binary_to_term(<<131, 88, atom::binary, id::32, serial::32, creation::32>>)
  end

  test "a name leads to the process of another node", %{mirrored: mirrored, pid: pid} do
    assert Mirror.whereis(mirrored, :name) == :undefined
    put(mirrored, :name, 1, pid)
    assert Mirror.whereis(mirrored, :name) == pid
    assert node(Mirror.whereis(mirrored, :name)) == :"other@127.0.0.1"
    assert Mirror.whereis(mirrored, :other) == :undefined
    assert Mirror.whereis(unique_registry(), :name) == :undefined
    assert {1, bytes} = Mirror.info()
    assert bytes > 0
  end

  test "a pid is that of its node, creation and numbers, whatever they are", context do
    most = (1 <<< 32) - 1
    long = String.duplicate("n", 240) <> "@long"
    wide = String.duplicate("ü", 200) <> "@wide"

    pids =
      for node <- ["a@b", long, wide],
          {id, serial, creation} <- [{0, 1, 1}, {1, 2, 3}, {(1 <<< 28) - 1, most, most}],
          do: pid_of(node, id, serial, creation)

    for {pid, no} <- Enum.zip(pids, [1, 2, 77, 1_000, 100_000, most - 2, most - 1, most, 5]) do
      put(context.mirrored, {:name, no}, no, pid)
      assert Mirror.whereis(context.mirrored, {:name, no}) == pid
    end
  end

  test "a name of any kind is found by a copy", %{mirrored: mirrored} do
    names = Terms.distinct()

    for {name, number} <- Enum.with_index(names),
        do: put(mirrored, name, 1, Terms.remote_pid(number))

    for {name, number} <- Enum.with_index(names),
        do: assert(Mirror.whereis(mirrored, Terms.copy(name)) == Terms.remote_pid(number))

    for name <- names, do: assert(Mirror.delete(mirrored, Terms.copy(name), 1) == :ok)
    assert {0, _bytes} = Mirror.info()
  end

  test "a term that cannot be a name is refused", %{mirrored: mirrored, pid: pid} do
    {prefix, id, serial, suffix} = split(pid)
    :ok = Mirror.node(1, prefix, suffix)
    deep = Terms.nest(:name, 300, &{&1})

    for name <- [
          String.duplicate("n", 70_000),
          deep,
          Terms.closure(String.duplicate("n", 70_000))
        ] do
      assert_raise ArgumentError, fn -> Mirror.put(mirrored, name, 1, id, serial) end
      assert_raise ArgumentError, fn -> Mirror.delete(mirrored, name, 1) end
      assert_raise ArgumentError, fn -> Mirror.whereis(mirrored, name) end
    end

    assert {0, _bytes} = Mirror.info()
  end

  test "the names of a session that is dropped are not found, and deleted later",
       %{mirrored: mirrored, pid: pid} do
    other = Terms.remote_pid(7, 2)
    for name <- 1..100, do: put(mirrored, name, 1, pid)
    for name <- 101..200, do: put(mirrored, name, 2, other)
    assert Mirror.drop(1) == :ok
    assert Mirror.drop(1) == :ok
    for name <- 1..100, do: assert(Mirror.whereis(mirrored, name) == :undefined)
    for name <- 101..200, do: assert(Mirror.whereis(mirrored, name) == other)

    # Another session takes a name before it is deleted.
    put(mirrored, 1, 2, other)
    for name <- 1..200, do: :ok = Mirror.delete(mirrored, name, 1)
    assert Mirror.whereis(mirrored, 1) == other
    assert {101, _bytes} = Mirror.info()

    # Put too late.
    {_prefix, id, serial, _suffix} = split(pid)
    :ok = Mirror.put(mirrored, :late, 1, id, serial)
    assert Mirror.whereis(mirrored, :late) == :undefined
  end

  test "nothing is left when it is cleared", %{mirrored: mirrored, pid: pid} do
    for name <- 1..1_000, do: put(mirrored, {name, String.duplicate("n", 200)}, 1, pid)
    {1_000, bytes} = Mirror.info()
    assert Mirror.clear() == :ok
    assert {0, left} = Mirror.info()
    assert left < bytes / 2
    {prefix, _id, _serial, suffix} = split(pid)
    :ok = Mirror.node(1, prefix, suffix)
    assert Mirror.whereis(mirrored, {1, String.duplicate("n", 200)}) == :undefined
  end

  test "what makes no pid, and what is no number of a session, is refused", context do
    %{mirrored: mirrored, pid: pid} = context
    {prefix, _id, _serial, suffix} = split(pid)

    for {no, prefix, suffix} <- [
          {1, "", ""},
          {1, prefix, ""},
          {1, "", suffix},
          {1, <<131, 109, 8::32>>, ""},
          {0, prefix, suffix},
          {-1, prefix, suffix},
          {1 <<< 32, prefix, suffix},
          {:one, prefix, suffix}
        ] do
      assert_raise ArgumentError, ~r/external format/, fn -> Mirror.node(no, prefix, suffix) end
    end

    for no <- [0, -1, 1 <<< 32, :one] do
      assert_raise ArgumentError, fn -> Mirror.put(mirrored, :name, no, 1, 1) end
      assert_raise ArgumentError, fn -> Mirror.delete(mirrored, :name, no) end
      assert_raise ArgumentError, fn -> Mirror.drop(no) end
    end

    assert_raise ArgumentError, fn -> Mirror.put("registry", :name, 1, 1, 1) end
    assert_raise ArgumentError, fn -> Mirror.put(mirrored, :name, 1, 1 <<< 32, 1) end
    assert Mirror.whereis("registry", :name) == :undefined
  end

  test "a lookup in a registry with a lease answers it, and in no other", %{pid: pid} do
    nobody = fn _registry, _name -> :asked end
    function = Terms.closure(1)

    for {kind, found} <- [leased: pid, clustered: :asked, local: :undefined] do
      registry = unique_registry()
      :ok = Table.open(registry, idle(), kind)
      for name <- [:name, function], do: put(registry, name, 1, pid)
      assert Table.whereis(registry, :name, nobody) == found
      assert Table.whereis(registry, function, nobody) == found
      assert Table.here(registry, :name) == nil
      assert Table.lookup_here(registry, :name) == []
    end
  end

  test "a process of this node comes before that of another", %{pid: pid} do
    registry = unique_registry()
    :ok = Table.open(registry, idle(), :leased)
    put(registry, :name, 1, pid)
    :yes = Table.hold(registry, :name, self(), nil, nil, 0)
    nobody = fn _registry, _name -> :asked end
    # Without a lease that is valid, this node has no holder.
    assert Table.whereis(registry, :name, nobody) == pid
    epoch = System.unique_integer([:positive, :monotonic])
    :ok = Lease.begin(epoch, Lease.clock() + 3_600_000_000_000)
    assert Table.whereis(registry, :name, nobody) == self()
    assert Lease.finish(epoch)
  end

  # A pid in external format, in the parts that `Mirror` takes.
  defp split(pid) do
    external = :erlang.term_to_binary(pid)
    size = byte_size(external) - 12
    <<prefix::binary-size(size), id::32, serial::32, suffix::binary-size(4)>> = external
    {prefix, id, serial, suffix}
  end
end
