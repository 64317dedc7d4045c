defmodule WorkflowMetal.Registration.NativeRegistry.ClusterModulesTest do
  # What the cluster's modules call and what calls them, by the compiled code. `RoomsTest` has the rest.
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry

  alias WorkflowMetal.Registration.NativeRegistry.{
    Attempts,
    Cluster,
    Events,
    Name,
    Native,
    Table
  }

  @application :workflow_metal_native_registry

  # What the cluster may call of the rest, besides its own modules.
  @below [Table, Events, Attempts, Name]

  # The engine on ra has parts in the native library: the lease, and the names of other nodes.
  @native [Cluster.Ra.Lease, Cluster.Ra.Mirror]

  # The application starts the supervisor of the cluster's processes, and `Members` is about one engine.
  @door [Cluster, Cluster.Supervisor, Cluster.Ra.Members]

  # Calls of other nodes, and processes started there.
  @remote_calls [
    {:erpc, :any},
    {:rpc, :any},
    {:gen_server, :multi_call},
    {GenServer, :multi_call},
    {GenServer, :abcast},
    {Node, :spawn},
    {Node, :spawn_link},
    {:erlang, :spawn, 2},
    {:erlang, :spawn, 4}
  ]

  test "the rest of the project calls the cluster by one module" do
    for module <- modules(), not cluster?(module), callee <- callees(module), cluster?(callee) do
      assert callee in @door, "#{inspect(module)} calls #{inspect(callee)}"
    end
  end

  test "the cluster calls the table of this node and its audience, and no NIF but those of one engine" do
    for module <- modules(), cluster?(module), callee <- callees(module), ours?(callee) do
      assert cluster?(callee) or callee in @below or (callee == Native and module in @native),
             "#{inspect(module)} calls #{inspect(callee)}"
    end
  end

  test "the cluster neither refuses names nor sees a name in opened form" do
    # The native library has names of its own for that engine.
    called =
      for module <- modules() -- @native,
          cluster?(module),
          {Name, function, _arity} <- calls(module) do
        function
      end

    assert Enum.uniq(called) == [:unknown_registry!]
  end

  test "calls of other nodes are in one module, except those of :global's own contract" do
    for module <- modules(), remote_call <- remote_calls(module) do
      assert {module, remote_call} in [
               {Cluster.Global, {:gen_server, :multi_call, 3}},
               {Cluster.GlobalLock, {:erpc, :call, 5}}
             ] or module == Cluster.Peers,
             "#{inspect(module)} calls #{inspect(remote_call)}"
    end
  end

  test "all functions that other nodes call are in one module" do
    exported = Cluster.Remote.__info__(:functions)

    contract =
      [answer: 2, lookup: 2, unknown: 3, decide: 4, leave: 4, feed: 3, resolve: 3] ++
        [ra_identity: 0, token: 3]

    for function <- contract, do: assert(function in exported)

    # A supervisor of another node may put up to eight arguments before the child's own.
    for arity <- 1..9, do: assert({:start_link, arity} in exported)

    assert Keyword.drop(exported, [:start_link | Keyword.keys(contract)]) == []
  end

  defp modules do
    {:ok, modules} = :application.get_key(@application, :modules)

    # Not those of test/support.
    for module <- modules, source(module) =~ "/lib/workflow_metal/registration/", do: module
  end

  defp source(module), do: module.module_info(:compile) |> Keyword.fetch!(:source) |> to_string()

  defp ours?(module), do: module in modules()

  defp cluster?(module), do: match?(["Cluster" | _rest], rest(module))

  defp rest(module) do
    prefix = Module.split(NativeRegistry)

    case to_string(module) do
      "Elixir." <> _name ->
        parts = Module.split(module)
        if List.starts_with?(parts, prefix), do: Enum.drop(parts, length(prefix)), else: []

      _erlang_module ->
        []
    end
  end

  defp callees(module),
    do: Enum.uniq(for {callee, _function, _arity} <- calls(module), do: callee)

  defp calls(module) do
    {:ok, {^module, [imports: imports]}} = :beam_lib.chunks(:code.which(module), [:imports])
    imports
  end

  defp remote_calls(module) do
    for {callee, function, _arity} = call <- calls(module),
        {callee, :any} in @remote_calls or {callee, function} in @remote_calls or
          call in @remote_calls,
        do: call
  end
end
