defmodule WorkflowMetal.Registration.NativeRegistry.Ra.MembersTest do
  use WorkflowMetal.Registration.NativeRegistry.RaCase, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Membership

  test "the members are listed with their votes, the leader and their names", %{
    directory: directory
  } do
    nodes = [one | _others] = start_cluster(3, directory)
    guest = start_ra_node()
    start_servers([guest], nodes, directory)
    {_peer, guest_name} = guest
    call(one, RaNode, :open_session, [guest_name, 10])

    for node <- [one, guest] do
      list = eventually(fn -> list_with_names(node, guest_name, 10) end)
      assert for(member <- list, do: member.node) == Enum.sort(names([guest | nodes]))
      assert for(member <- list, member.voter?, do: member.node) == names(nodes)
      assert for(member <- list, member.leader?, do: member.node) == [leader(one)]
      assert Enum.all?(list, & &1.reachable?)
    end
  end

  defp list_with_names(node, holder, names) do
    {:ok, list} = call(node, Members, :list, [])
    if Enum.any?(list, &(&1.node == holder and &1.names == names)), do: list
  end

  test "without a majority, what is known is listed, and nothing can be changed", %{
    directory: directory
  } do
    nodes = [one, two, three] = start_cluster(3, directory)
    call_all([two, three], RaNode, :stop, [])

    {:ok, list} = call(one, Members, :list, [])

    assert for(member <- list, do: {member.node, member.voter?, member.leader?}) ==
             for(node <- names(nodes), do: {node, true, false})

    assert for(member <- list, member.reachable?, do: member.node) == names([one])

    for {function, nodes} <- [add: [two], remove: [three], replace: [three, two]] do
      assert {:error, {:no_quorum, explanation}} = call(one, Members, function, names(nodes))
      assert explanation =~ "force_alone"
    end
  end

  test "a node without the engine says so", %{directory: _directory} do
    node = start_ra_node()

    for {function, arguments} <- [list: [], add: [:a@b], remove: [:a@b], force_alone: []] do
      assert {:error, {:not_running, explanation}} = call(node, Members, function, arguments)
      assert explanation =~ "cluster: {:ra, options}"
    end
  end

  test "what is no node is refused" do
    for wrong <- ["app@one", nil, 1, {:app, :one}] do
      for {function, arguments} <- [add: [wrong], remove: [wrong], replace: [:a@b, wrong]] do
        assert_raise ArgumentError, ~r/expected the name of a node, got: /, fn ->
          apply(Members, function, arguments)
        end
      end
    end
  end

  test "a node without a vote gets one, and one with a vote keeps it", %{directory: directory} do
    nodes = [one, {_peer, two} | _others] = start_cluster(3, directory)
    guest = {_guest_peer, guest_name} = start_ra_node()
    start_servers([guest], nodes, directory)

    assert call(one, Members, :add, [guest_name]) == :ok
    assert status(one, id(guest)) == :voter
    assert call(guest, Members, :add, [guest_name]) == :ok
    assert call(one, Members, :add, [two]) == :ok

    # With a vote, it stays a member when it stops.
    call(guest, RaNode, :stop, [])
    assert length(members(one)) == 4
    start_servers([guest], nodes, directory)
    assert status(one, id(guest)) == :voter
  end

  test "a vote is refused to a node that is not there, or has not joined", %{directory: directory} do
    nodes = [one | _others] = start_cluster(3, directory)
    guest = {_peer, guest_name} = start_ra_node()

    assert {:error, {:not_reachable, explanation}} = call(one, Members, :add, [:nobody@nowhere])
    assert explanation =~ "does not answer"

    meet(one, guest)
    assert {:error, {:not_reachable, explanation}} = call(one, Members, :add, [guest_name])
    assert explanation =~ "runs no registry"

    # It looks for another cluster.
    call(guest, RaNode, :start, [[:nobody@nowhere], directory, []])
    eventually(fn -> match?(%{phase: :offered}, call(guest, Server, :answer, [])) end)
    assert {:error, {:not_joined, _explanation}} = call(one, Members, :add, [guest_name])
    assert length(members(one)) == length(nodes)
  end

  test "a node that is gone is removed, and one that runs is not", %{directory: directory} do
    nodes = [one, two, three] = start_cluster(3, directory)
    {_peer, name} = three

    assert {:error, {:still_running, explanation}} = call(one, Members, :remove, [name])
    assert explanation =~ "stop"
    assert {:error, {:not_a_member, explanation}} = call(one, Members, :remove, [:nobody@nowhere])
    assert explanation =~ inspect(name)
    assert members(one) == Enum.sort(ids(nodes))

    halt(three)
    assert call(one, Members, :remove, [name]) == :ok
    assert members(one) == Enum.sort(ids([one, two]))
    # It is gone already.
    assert {:error, {:not_a_member, _explanation}} = call(two, Members, :remove, [name])
  end

  test "a node that was removed and starts again joins under a new name, and its old server does not start",
       %{directory: directory} do
    nodes = [one, two, three] = start_cluster(3, directory)
    {_peer, name} = three
    old = {old_name, _node} = id(three)

    halt(three)
    assert call(two, Members, :remove, [name]) == :ok

    three = start_ra_node_again(three)
    start_servers([three], nodes, directory)
    assert id(three) != old
    assert call(three, Process, :whereis, [old_name]) == nil
    assert logged?(three, "was removed from the cluster")
    eventually(fn -> status(one, id(three)) == :voter end)
  end

  test "a node that was removed while it was cut off joins again when it is back", %{
    directory: directory
  } do
    nodes = [one, two, three] = start_cluster(3, directory)
    {_peer, name} = three
    old = id(three)

    cut([one, two], [three])
    eventually(fn -> match?({:ok, _, _}, call(one, RaNode, :members, [])) end)
    assert call(one, Members, :remove, [name]) == :ok

    # It has another cookie for them.
    meet(three, one)
    meet(three, two)
    eventually(fn -> id(three) not in [nil, old] end)
    await_servers(nodes)
    refute old in members(one)
  end

  test "a node whose session holds names is not removed before it ends", %{directory: directory} do
    [one, _two, three] = start_cluster(3, directory)
    {_peer, name} = three
    session = call(one, RaNode, :open_session, [name, 3])
    halt(three)

    assert {:error, {:holds_names, explanation}} = call(one, Members, :remove, [name])
    assert explanation =~ "3 names" and explanation =~ "1300 ms"

    call(one, RaNode, :close_session, [session])
    assert call(one, Members, :remove, [name]) == :ok
  end

  test "a node that is gone is replaced by one that runs", %{directory: directory} do
    nodes = [one, two, three] = start_cluster(3, directory)
    new = start_ra_node()
    start_servers([new], nodes, directory)
    [_one, _two, old_name, new_name] = names([one, two, three, new])

    # Both are looked at before anything is changed.
    assert {:error, {:still_running, _}} = call(one, Members, :replace, [old_name, new_name])
    assert status(one, id(new)) == :non_voter
    halt(three)

    assert {:error, {:not_reachable, _}} =
             call(one, Members, :replace, [old_name, :nobody@nowhere])

    assert length(members(one)) == 4

    assert call(one, Members, :replace, [old_name, new_name]) == :ok
    assert members(one) == Enum.sort(ids([one, two, new]))
    for id <- members(one), do: assert(status(one, id) == :voter)
  end

  test "a lone survivor is forced, keeps the names, and the others join it under new names",
       %{directory: directory} do
    nodes = [one, two, three] = start_cluster(3, directory, fsync: true)
    [id | old] = ids(nodes)
    session = call(one, RaNode, :open_session, [:some@node, 5])

    assert {:error, {:has_quorum, explanation}} = call(one, Members, :force_alone, [])
    assert explanation =~ "replace"

    for node <- [two, three], do: halt(node)
    assert call(one, Members, :force_alone, []) == :ok
    assert members(one) == [id]
    assert call(one, RaNode, :names, []) == 5
    assert call(one, RaNode, :close_session, [session])

    # They have their data, and do not go on with it.
    back = for node <- [two, three], do: start_ra_node_again(node)
    start_servers(back, nodes, directory, fsync: true)
    assert ids(back) -- old == ids(back)
    for node <- back, do: eventually(fn -> status(one, id(node)) == :voter end)
    assert length(members(one)) == 3
  end

  test "a survivor is not forced while another one has more, nor a node without a vote",
       %{directory: directory} do
    nodes = start_cluster(5, directory)
    guest = start_ra_node()
    start_servers([guest], nodes, directory)
    # A leader that is left would send the first one what it misses.
    leader = leader(hd(nodes))
    [one, two, three, four, five] = Enum.sort_by(nodes, fn {_peer, name} -> name == leader end)

    # The first one misses what the others agree on.
    call(one, RaNode, :stop, [])
    call(two, RaNode, :open_session, [:some@node, 5])

    # Three of them are enough to agree: the second one may still be without it.
    others = ids([two, three, four, five])
    log = fn id -> call(two, Membership, :log, [id]) end
    eventually(fn -> match?([{:ok, _log}], Enum.uniq(Enum.map(others, log))) end)
    for node <- [three, four, five], do: halt(node)
    call(one, RaNode, :start, [names(nodes), directory, []])
    eventually(fn -> id(one) end)

    assert {:error, {:behind, explanation}} = call(one, Members, :force_alone, [])
    assert explanation =~ inspect(elem(two, 1))
    assert {:error, {:not_a_voter, explanation}} = call(guest, Members, :force_alone, [])
    assert explanation =~ inspect(elem(two, 1))

    assert call(two, Members, :force_alone, []) == :ok
    await_servers([one, two, guest])
    assert length(members(two)) == 3
    assert call(two, RaNode, :names, []) == 5
  end
end
