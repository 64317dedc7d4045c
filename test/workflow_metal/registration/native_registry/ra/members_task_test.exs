defmodule WorkflowMetal.Registration.NativeRegistry.Ra.MembersTaskTest do
  use WorkflowMetal.Registration.NativeRegistry.RaCase, async: true

  alias Mix.Tasks.NativeRegistry.Members, as: Task

  @cookie "workflow_metal_native_registry"

  # The VM of Mix: it has no name before the task gives it one.
  setup do
    {:ok, peer, node} = :peer.start(%{connection: :standard_io, wait_boot: 120_000})
    mix = {peer, node}
    call(mix, :code, :add_paths, [:code.get_path()])
    {:ok, _apps} = call(mix, :application, :ensure_all_started, [:mix])
    stop_in_the_end(peer)
    {:ok, mix: mix}
  end

  defp run(mix, node, arguments, answer \\ nil) do
    arguments = ["--node", to_string(node), "--cookie", @cookie | arguments]
    call(mix, RaNode, :run_task, [Task, arguments, answer])
  end

  test "shows and changes the members by a member that runs", %{mix: mix, directory: directory} do
    [one, two, three] = nodes = start_cluster(3, directory)
    guest = start_ra_node()
    start_servers([guest], nodes, directory)
    [one_name, _two, three_name, guest_name] = names([one, two, three, guest])

    assert {:ok, lines} = run(mix, one_name, ["list"])
    assert length(lines) == 4

    for {name, line} <- Enum.zip(Enum.sort(names([guest | nodes])), lines),
        do: assert(line =~ to_string(name))

    assert Enum.count(lines, &(&1 =~ " leader ")) == 1
    assert Enum.count(lines, &(&1 =~ " no vote ")) == 1
    # No other node has seen the VM of Mix.
    refute Enum.any?(call(two, Node, :list, []), &(to_string(&1) =~ "members"))

    assert {:error, message} = run(mix, one_name, ["remove", to_string(three_name)])
    assert message =~ "still_running: " and message =~ "stop"

    halt(three)
    arguments = ["replace", to_string(three_name), to_string(guest_name)]
    assert run(mix, one_name, arguments) == {:ok, ["Done"]}
    assert members(one) == Enum.sort(ids([one, two, guest]))
    assert run(mix, one_name, ["add", to_string(guest_name)]) == {:ok, ["Done"]}

    for node <- [two, guest], do: halt(node)
    # It asks first.
    assert {:ok, [warning, _question]} = run(mix, one_name, ["force-alone"], false)
    assert warning =~ "two processes can hold one name"
    assert {:error, "no_quorum: " <> _} = run(mix, one_name, ["remove", to_string(guest_name)])
    assert {:ok, [_warning, _question, "Done"]} = run(mix, one_name, ["force-alone"], true)
    assert members(one) == [id(one)]
  end

  test "says what it wants", %{mix: mix} do
    assert {:error, message} = call(mix, RaNode, :run_task, [Task, ["list"], nil])
    assert message =~ "--node"
    assert {:error, message} = run(mix, :a@b, ["frobnicate", "x"])
    assert message =~ "expected list, add NODE" and message =~ "frobnicate x"
    assert {:error, message} = run(mix, :a@b, ["add", "x"])
    assert message =~ "expected a node such as app@host, got: x"
    assert {:error, message} = run(mix, :"nobody@127.0.0.1", ["list"])
    assert message =~ "cannot be connected"
  end
end
