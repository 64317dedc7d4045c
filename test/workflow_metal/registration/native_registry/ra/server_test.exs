defmodule WorkflowMetal.Registration.NativeRegistry.Ra.ServerTest do
  use WorkflowMetal.Registration.NativeRegistry.RaCase, async: true

  test "empty nodes form one cluster when the last of them has come, and not before",
       %{directory: directory} do
    [one, two, three] = nodes = start_ra_nodes(3)
    for node <- [three, one], do: call(node, RaNode, :start, [names(nodes), directory, []])

    # These two have heard of each other.
    for {node, {_peer, other}} <- [{one, three}, {three, one}] do
      eventually(fn ->
        other in call(node, Node, :list, []) and
          match?(%{phase: :offered}, call(node, Server, :answer, []))
      end)
    end

    assert ids([one, three]) == [nil, nil]

    call(two, RaNode, :start, [names(nodes), directory, []])
    await_servers(nodes)

    assert members(one) == Enum.sort(ids(nodes))
    assert Enum.map(ids(nodes), &elem(&1, 1)) == names(nodes)
    assert [id | others] = call(two, Server, :candidates, [])
    assert id == id(two)
    assert Enum.sort(others) == Enum.sort(ids([one, three]))
  end

  test "a node that crashes while the cluster is formed comes to it later, under the name that it offered",
       %{directory: directory} do
    [one, two, three] = nodes = start_ra_nodes(3)

    # The first one waits for the others to be connected: it forms the cluster from their offers.
    for node <- [two, three], do: call(node, RaNode, :start, [names(nodes), directory, []])
    offers = for node <- [two, three], do: eventually(fn -> offer(node) end)

    call(one, RaNode, :start, [names(nodes), directory, []])
    # It is in the members, whether it has started its server by now or not.
    eventually(fn -> match?(%{phase: :started}, call(one, Server, :answer, [])) end)
    halt(three)

    await_servers([one, two])
    assert members(one) == Enum.sort([id(one) | offers])

    three = start_ra_node_again(three)
    call(three, RaNode, :start, [names(nodes), directory, []])
    await_servers([one, two, three])
    assert id(three) in offers
    assert id(three) in members(one)
    assert length(members(one)) == 3
  end

  @tag crashes: [~r/ra server of the registry has ended/, ~r/reached_max_restart_intensity/]
  test "however often what runs on the nodes is killed while they form a cluster, it becomes one of all",
       %{directory: directory} do
    nodes = start_ra_nodes(3)
    for node <- nodes, do: call(node, RaNode, :start, [names(nodes), directory, []])
    call_all(nodes, RaNode, :kill_servers, [10, 300])

    await_servers(nodes)
    assert members(hd(nodes)) == Enum.sort(ids(nodes))
    # No server runs under a name that was given up.
    for node <- nodes, do: assert(call(node, RaNode, :servers, []) == [id(node)])
  end

  test "a server whose first start was cut short is started under its name, without or with data",
       %{directory: directory} do
    [one, _two, three] = nodes = start_cluster(3, directory)
    id = id(three)
    call(three, RaNode, :stop, [])
    call(three, RaNode, :as_if_starting, [directory, :without_data])
    start_servers([three], nodes, directory)
    assert id(three) == id
    assert length(members(one)) == 3
    assert call(three, RaNode, :identity, [directory]).phase == :started

    call(three, RaNode, :stop, [])
    call(three, RaNode, :as_if_starting, [directory, :with_data])
    start_servers([three], nodes, directory)
    assert id(three) == id
    assert call(three, RaNode, :identity, [directory]).phase == :started
  end

  defp offer(node) do
    with %{phase: :offered, id: id} <- call(node, Server, :answer, []),
         do: id,
         else: (_other -> false)
  end

  test "all nodes stop and start again, with what they had", %{directory: directory} do
    nodes = [one | _others] = start_cluster(3, directory, fsync: true)
    ids = ids(nodes)
    call(one, RaNode, :open_session, [:some@node, 10])

    call_all(nodes, RaNode, :stop, [])
    assert ids(nodes) == [nil, nil, nil]
    assert call(one, Server, :answer, []) == :no_member

    start_servers(nodes, nodes, directory, fsync: true)
    assert ids(nodes) == ids
    assert eventually(fn -> call(one, RaNode, :names, []) end) == 10
  end

  # The new leader answers commands again that a process of the life before had sent.
  @tag crashes: ~r/in an old incarnation/
  test "all nodes crash and start again, with what they had", %{directory: directory} do
    nodes = [one | _others] = start_cluster(3, directory, fsync: true)
    ids = ids(nodes)
    call(one, RaNode, :open_session, [:some@node, 10])

    for node <- nodes, do: halt(node)
    [one | _others] = nodes = for node <- nodes, do: start_ra_node_again(node)

    start_servers(nodes, nodes, directory, fsync: true)
    assert ids(nodes) == ids
    assert eventually(fn -> call(one, RaNode, :names, []) end) == 10
  end

  test "a node that was wiped comes back under a new name, and the old server is gone",
       %{directory: directory} do
    [one, two, three] = nodes = start_cluster(3, directory)
    {old_name, _node} = old = id(three)
    call(one, RaNode, :open_session, [:some@node, 10])

    call(three, RaNode, :stop, [])
    call(three, RaNode, :wipe, [directory])
    start_servers([three], nodes, directory)

    new = id(three)
    assert new != old
    assert call(three, Process, :whereis, [old_name]) == nil
    assert members(one) == Enum.sort([id(one), id(two), new])
    eventually(fn -> status(one, new) == :voter end)

    # It has what the others have.
    eventually(fn ->
      match?({:ok, {_index, %{names: 10}}, _leader}, local_overview(three))
    end)
  end

  defp local_overview(node),
    do: call(node, :ra, :local_query, [id(node), {Machine, :overview, []}])

  test "without a majority, a node that was wiped is no member and forms nothing",
       %{directory: directory} do
    [one, two, three] = nodes = start_cluster(3, directory)
    old = id(three)

    call_all([two, three], RaNode, :stop, [])
    call(three, RaNode, :wipe, [directory])
    # The other one that is left could be outvoted by the old name with nothing in its log.
    call(three, RaNode, :start, [names(nodes), directory, []])
    eventually(fn -> offer(three) not in [false, old] end)
    {_peer, name} = one
    eventually(fn -> name in call(three, Node, :list, []) end)
    assert {:error, :no_quorum} = call(one, RaNode, :members, [])
    assert id(three) == nil

    start_servers([two], nodes, directory)
    await_servers(nodes)
    refute old in members(one)
    assert length(members(one)) == 3
  end

  test "without fsync, a node whose machine was started again comes back under a new name",
       %{directory: directory} do
    nodes = [one, _two, three] = start_cluster(3, directory, fsync: false)
    old = id(three)

    # Not when only the VM was started again.
    call(three, RaNode, :stop, [])
    start_servers([three], nodes, directory, fsync: false)
    assert id(three) == old

    call(three, RaNode, :stop, [])
    call(three, RaNode, :forget_boot, [directory])
    start_servers([three], nodes, directory, fsync: false)
    assert id(three) != old
    refute old in members(one)
    assert logged?(three, "written without fsync")
  end

  test "a node whose data is gone but for its identity comes back under a new name",
       %{directory: directory} do
    nodes = [one, _two, three] = start_cluster(3, directory)
    old = id(three)
    call(three, RaNode, :stop, [])

    # All but the file with the identity, as a wrong restore of a backup would.
    folder = call(three, Identity, :directory, [directory])
    for file <- File.ls!(folder), file != "identity", do: File.rm_rf!(Path.join(folder, file))

    start_servers([three], nodes, directory)
    assert id(three) != old
    refute old in members(one)
  end

  test "a node that is on no list joins without a vote, keeps its membership over a crash, and leaves when it stops",
       %{directory: directory} do
    nodes = [one | _others] = start_cluster(3, directory)
    guest = start_ra_node()
    start_servers([guest], nodes, directory)

    id = id(guest)
    assert status(one, id) == :non_voter
    assert length(members(one)) == 4

    halt(guest)
    guest = start_ra_node_again(guest)
    start_servers([guest], nodes, directory)
    assert id(guest) == id
    assert status(one, id) == :non_voter

    call(guest, RaNode, :stop, [])
    eventually(fn -> members(one) == Enum.sort(ids(nodes)) end)
    assert call(guest, Identity, :directory, [directory]) |> File.exists?() == false
  end

  test "a node that has got on the list gets its vote when it starts again", %{
    directory: directory
  } do
    nodes = [one | _others] = start_cluster(3, directory)
    guest = start_ra_node()
    start_servers([guest], nodes, directory)
    assert status(one, id(guest)) == :non_voter

    # A crash, after which the list has it.
    halt(guest)
    guest = start_ra_node_again(guest)
    start_servers([guest], [guest | nodes], directory)
    eventually(fn -> status(one, id(guest)) == :voter end)
  end

  test "each of three nodes is started again in turn, and no command is lost or applied twice",
       %{directory: directory} do
    nodes = start_cluster(3, directory)
    ids = ids(nodes)
    renewing = call(hd(nodes), RaNode, :start_renewing, [:some@node])

    for node <- Enum.reverse(tl(nodes)) ++ tl(nodes) do
      call(node, RaNode, :stop, [])
      start_servers([node], nodes, directory)
      await_servers(nodes)
    end

    {renewed, failed} = call(hd(nodes), RaNode, :stop_renewing, [renewing])
    assert renewed > 1
    assert failed == 0
    assert ids(nodes) == ids
  end

  @tag crashes: [
         ~r/ra server of the registry has ended: :killed/,
         ~r/reached_max_restart_intensity/
       ]
  test "the process and the ra server are started again when they are killed", %{
    directory: directory
  } do
    nodes = [one | _others] = start_cluster(3, directory)
    {name, _node} = id = id(one)

    pid = call(one, Process, :whereis, [Server])
    call(one, Process, :exit, [pid, :kill])
    eventually(fn -> call(one, Process, :whereis, [Server]) not in [nil, pid] end)
    await_servers(nodes)
    assert id(one) == id

    pid = call(one, Process, :whereis, [name])
    # What supervises it gives up after a few.
    for _ <- 1..4, do: kill_server(one, name)
    eventually(fn -> call(one, Process, :whereis, [name]) not in [nil, pid] end)
    await_servers(nodes)
    assert id(one) == id
  end

  defp kill_server(node, name) do
    pid = eventually(fn -> call(node, Process, :whereis, [name]) end)
    call(node, Process, :exit, [pid, :kill])
    eventually(fn -> call(node, Process, :whereis, [name]) != pid end)
  end

  test "connections that are lost are made again", %{directory: directory} do
    nodes = [one, {_peer, two} | _others] = start_cluster(3, directory)
    call(one, :erlang, :disconnect_node, [two])
    eventually(fn -> two in call(one, Node, :list, []) end)
    await_servers(nodes)
  end

  @tag crashes: ~r/cannot be a member.*not a directory/
  test "a folder that cannot be written is logged, and tried again", %{directory: directory} do
    File.write!(directory, "a file")
    node = start_ra_node()
    call(node, RaNode, :start, [names([node]), directory, []])
    eventually(fn -> logged?(node, "cannot be a member") end)
    assert id(node) == nil

    File.rm!(directory)
    await_servers([node])
  end

  test "two voters, and partitions that the kernel prevents, are warned of", %{
    directory: directory
  } do
    [one, two] = nodes = start_ra_nodes(2)
    start_servers(nodes, nodes, directory)
    for node <- nodes, do: assert(logged?(node, "two voters"))
    refute logged?(one, "prevent_overlapping_partitions")

    call(two, RaNode, :stop, [])
    call(two, Application, :put_env, [:kernel, :prevent_overlapping_partitions, true])
    start_servers([two], nodes, directory)
    assert logged?(two, "prevent_overlapping_partitions")
  end

  test "the level that a user has set for ra stays, and so does a higher one of all",
       %{directory: directory} do
    node = start_ra_node()
    call(node, :logger, :set_primary_config, [:level, :warning])
    start_servers([node], [node], directory)
    assert call(node, :logger, :get_module_level, [:ra_server]) == []
    call(node, RaNode, :stop, [])

    call(node, :logger, :set_primary_config, [:level, :debug])
    start_servers([node], [node], directory)
    assert call(node, :logger, :get_module_level, [:ra_server]) == [ra_server: :warning]
    call(node, RaNode, :stop, [])

    call(node, :logger, :set_application_level, [:ra, :info])
    start_servers([node], [node], directory)
    assert call(node, :logger, :get_module_level, [:ra_server]) == [ra_server: :info]
  end
end
