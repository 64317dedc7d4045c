defmodule WorkflowMetal.Registration.NativeRegistry.RaCase do
  @moduledoc false
  # Nodes that each run the ra server of a registry. No registry is needed for that.

  use ExUnit.CaseTemplate

  import ExUnit.Assertions
  import WorkflowMetal.Registration.NativeRegistry.ClusterCase
  import WorkflowMetal.Registration.NativeRegistry.RegistryCase, only: [eventually: 1]

  alias WorkflowMetal.Registration.NativeRegistry.{ClusterNode, RaNode}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Server

  @arguments ~w(-kernel prevent_overlapping_partitions false)

  using do
    quote do
      use WorkflowMetal.Registration.NativeRegistry.ClusterCase
      import WorkflowMetal.Registration.NativeRegistry.RaCase

      alias WorkflowMetal.Registration.NativeRegistry.{Members, RaNode}
      alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Identity, Machine, Server}

      @moduletag :ra
    end
  end

  setup do
    directory = Path.join(System.tmp_dir!(), "native_registry_ra_#{unique()}")
    # Registered before those of the nodes, and so carried out after them.
    on_exit(fn -> File.rm_rf!(directory) end)
    {:ok, directory: directory}
  end

  defp unique, do: "#{System.pid()}_#{System.unique_integer([:positive])}"

  # Nodes that are not connected: the ra servers see to that. Sorted by their names.
  def start_ra_nodes(count) do
    1..count
    |> Enum.map(fn _ -> start_ra_node() end)
    |> Enum.sort_by(fn {_peer, name} -> name end)
  end

  def start_ra_node, do: hd(start_nodes(1, :never, @arguments))

  def start_ra_node_again(node), do: start_again(node, @arguments)

  def names(nodes), do: for({_peer, name} <- nodes, do: name)

  # A cluster of so many voters.
  def start_cluster(count, directory, options \\ []) do
    nodes = start_ra_nodes(count)
    start_servers(nodes, nodes, directory, options)
    nodes
  end

  def start_servers(nodes, voters, directory, options \\ []) do
    call_all(nodes, RaNode, :start, [names(voters), directory, options])
    await_servers(nodes)
  end

  # Each has a server, and all of these are members, as each node finds.
  def await_servers(nodes) do
    eventually(fn ->
      ids = ids(nodes)
      Enum.all?(ids) and Enum.all?(call_all(nodes, RaNode, :members, []), &members?(&1, ids))
    end)

    :ok
  end

  defp members?({:ok, members, _leader}, ids), do: ids -- members == []
  defp members?({:error, _reason}, _ids), do: false

  def ids(nodes), do: call_all(nodes, Server, :id, [])
  def id(node), do: call(node, Server, :id, [])

  def members(node) do
    assert {:ok, members, _leader} = call(node, RaNode, :members, [])
    Enum.sort(members)
  end

  def leader(node) do
    assert {:ok, _members, {_name, leader}} = call(node, RaNode, :members, [])
    leader
  end

  def status(node, id) do
    eventually(fn ->
      with {:ok, statuses} <- call(node, RaNode, :statuses, []),
           do: {:ok, statuses[id]},
           else: (_no_quorum -> false)
    end)
    |> elem(1)
  end

  def logged?(node, text) do
    Enum.any?(call(node, ClusterNode, :logged, []), fn {_level, logged} -> logged =~ text end)
  end
end
