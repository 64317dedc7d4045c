defmodule WorkflowMetal.Registration.NativeRegistry.Ra.ClaimsTest do
  # Claims and releases of the processes of one node, which the cluster must not take for those of another.
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.{ClusterNode, Registry}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Question, Session}
  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Nodes

  import WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Nodes, only: [call: 5]
  import WorkflowMetal.Registration.NativeRegistry.RegistryCase, only: [eventually: 1]

  @moduletag :ra
  @moduletag :nodes

  # In milliseconds: so long that no session ends by itself while a test runs.
  @lease 8_000

  setup_all do
    cluster = Nodes.start(lease: @lease, timeout: 10_000)
    on_exit(fn -> Nodes.stop(cluster) end)
    %{cluster: cluster}
  end

  # Two processes of a node have looked, and found that nobody has the name. One gets it. The other one's claim
  # comes only then.
  test "a late claim takes no name from another process of the node, nor from the same one",
       %{cluster: %{registry: registry} = cluster} do
    {holder, [{:ok, holder}]} = call(cluster, 1, ClusterNode, :register, [registry, [:late], nil])
    {:ok, granted} = granted(cluster, 1, :late)
    {other, [{:ok, other}]} = call(cluster, 1, ClusterNode, :register, [registry, [:own], nil])

    for late <- [other, holder],
        do: assert(call(cluster, 1, Session, :claim, [registry, :late, late, 10_000]) == :no)

    assert granted(cluster, 1, :late) == {:ok, granted}

    assert {_pid, [{:error, {:already_registered, ^holder}}]} =
             call(cluster, 2, ClusterNode, :register, [registry, [:late], nil])
  end

  test "the names of a process that has given them back, taken them again, and ended are free",
       %{cluster: %{registry: registry} = cluster} do
    names = for number <- 1..50, do: {:again, number}
    {holder, _answers} = call(cluster, 1, ClusterNode, :register, [registry, names, nil])

    for name <- names do
      assert call(cluster, 1, ClusterNode, :run, [holder, Registry, :unregister, [registry, name]]) ==
               :ok

      assert {:ok, _} =
               call(cluster, 1, ClusterNode, :run, [
                 holder,
                 Registry,
                 :register,
                 [registry, name, nil]
               ])
    end

    call(cluster, 1, Process, :exit, [holder, :kill])

    for name <- names,
        do: eventually(fn -> granted(cluster, 1, name) == {:ok, nil} end)
  end

  defp granted(cluster, number, name),
    do: call(cluster, number, Question, :ask, [:granted, [cluster.registry, name]])
end
