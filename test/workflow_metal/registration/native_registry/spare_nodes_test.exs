defmodule WorkflowMetal.Registration.NativeRegistry.SpareNodesTest do
  # No test gets a node on which another test has left something.
  use WorkflowMetal.Registration.NativeRegistry.ClusterCase

  alias WorkflowMetal.Registration.NativeRegistry.SpareNodes

  setup do
    %{node: start_node(), registry: unique_registry()}
  end

  defp clean(node), do: call(node, SpareNodes, :clean, [])

  test "all that a test starts and sets is removed", %{node: node, registry: registry} do
    other = start_node()
    connect([node, other])
    :ok = call(node, ClusterNode, :start_registry, [registry, [cluster: :global]])
    {holder, [{:ok, holder}]} = call(node, ClusterNode, :register, [registry, [:name], nil])
    {:ok, _pid} = call(node, ClusterNode, :start_child, [registry, :child, [trap_exit: true]])
    :ok = call(node, Application, :put_env, [:workflow_metal_native_registry, :left, 1])
    cut([node], [other])
    connect([node, other])
    :ok = call(node, :sys, :suspend, [:global_name_server])

    assert clean(node) == :ok
    assert call(node, Process, :alive?, [holder]) == false
    assert call(node, Node, :list, [:connected]) == []

    assert call(node, :erlang, :get_cookie, [elem(other, 1)]) ==
             call(node, :erlang, :get_cookie, [])

    assert call(node, Application, :get_env, [:workflow_metal_native_registry, :left]) == nil
    assert call(node, Native, :whereis, [registry, :name]) == :no_registry
    assert call(node, :sys, :get_state, [:global_name_server])
    assert clean(node) == :ok
  end

  test "a node whose code a test has changed is not used again", %{node: node} do
    call(node, Code, :put_compiler_option, [:ignore_module_conflict, true])
    source = "defmodule #{inspect(Cluster.Remote)} do end"
    [{_module, _code}] = call(node, Code, :compile_string, [source])
    assert {:error, differences} = clean(node)
    assert {:code, [], changed} = List.keyfind(differences, :code, 0)
    # Elixir 1.20 keeps a module of its compiler, too.
    assert Enum.reject(changed, &match?("elixir_compiler_" <> _, Atom.to_string(&1))) ==
             [Cluster.Remote]
  end

  test "a node with a process of the VM that a test has suspended is not used again", context do
    :ok = call(context.node, :sys, :suspend, [:rex])
    assert {:error, [{:suspended, [], [:rex]}]} = clean(context.node)
  end

  test "a node whose paths or logger a test has changed is not used again", %{node: node} do
    true = call(node, :code, :add_path, [~c"/"])
    :ok = call(node, :logger, :update_primary_config, [%{level: :none}])
    assert {:error, differences} = clean(node)
    assert [:logger, :paths] = for({key, _before, _now} <- differences, do: key)
  end
end
