defmodule WorkflowMetal.Registration.NativeRegistry.Ra.SessionTest do
  # A node's session with the cluster.
  use WorkflowMetal.Registration.NativeRegistry.ClusterCase, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Lease, Server, Session, System}

  @moduletag :ra

  # In milliseconds: so long that a busy machine lets no lease run out.
  @lease 6_000

  setup do
    registry = unique_registry()
    nodes = start_nodes(3, :never, ~w(-kernel prevent_overlapping_partitions false))
    folder = Path.join(Elixir.System.tmp_dir!(), "#{registry}_#{Elixir.System.pid()}")
    on_exit(fn -> File.rm_rf!(folder) end)
    names = for {_peer, node} <- nodes, do: node
    ra = {:ra, nodes: names, data_dir: folder, lease: @lease, fsync: false}
    start_registries(nodes, registry, cluster: ra, cluster_timeout: 30_000)
    for node <- nodes, do: eventually(fn -> call(node, Lease, :left, []) > 0 end)
    %{registry: registry, nodes: nodes}
  end

  test "a node that has registered nothing renews its lease", %{nodes: nodes} do
    for node <- nodes do
      number = call(node, Session, :number, [])
      left = call(node, Lease, :left, [])
      eventually(fn -> call(node, Lease, :left, []) > left end)
      # It is not another session.
      assert call(node, Session, :number, []) == number
    end
  end

  test "start_child waits until the member of its node knows who holds the name", context do
    %{registry: registry, nodes: nodes} = context
    {holder, [{:ok, _pid}]} = call(hd(nodes), ClusterNode, :register, [registry, [:before], 1])
    assert agreed(nodes, registry, :before) == holder

    {{_name, leader}, _members} = call(hd(nodes), System, :known, [])
    [one, other] = for {_peer, name} = node <- nodes, name != leader, do: node
    {server, _node} = call(one, Server, :id, [])
    :ok = call(one, :sys, :suspend, [server])
    assert {:ok, pid} = call(other, ClusterNode, :start_child, [registry, :late])

    started = Task.async(fn -> call(one, ClusterNode, :start_child, [registry, :late]) end)
    assert Task.yield(started, 1_000) == nil
    :ok = call(one, :sys, :resume, [server])
    assert Task.await(started, 60_000) == {:ok, pid}
  end
end
