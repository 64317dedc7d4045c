defmodule WorkflowMetal.Registration.NativeRegistry.ClusterCase do
  @moduledoc false
  # Real nodes on 127.0.0.1, controlled through standard input and output, so that the node of the tests is no
  # member of the cluster. Nodes do not connect by themselves unless a test asks for it.

  use ExUnit.CaseTemplate

  import ExUnit.Assertions
  import WorkflowMetal.Registration.NativeRegistry.RegistryCase, only: [eventually: 1]

  alias WorkflowMetal.Registration.NativeRegistry.{ClusterNode, CrashLog, SpareNodes}

  @patience 120_000
  # The longest that :global may need for the few names of a test. It takes some milliseconds, or for ever
  # when a message of its was lost with a connection.
  @sync 60_000
  @cookie :workflow_metal_native_registry

  # In the dictionary of a test that may reuse nodes: which one it is.
  @test {__MODULE__, :test}

  using do
    quote do
      # They take long, and read terms in no other way than other tests.
      @moduletag :nodes

      import WorkflowMetal.Registration.NativeRegistry.ClusterCase

      import WorkflowMetal.Registration.NativeRegistry.RegistryCase,
        only: [eventually: 1, unique_registry: 0]

      alias WorkflowMetal.Registration.NativeRegistry

      alias WorkflowMetal.Registration.NativeRegistry.{
        Cluster,
        ClusterNode,
        Native,
        Terms,
        Worker
      }
    end
  end

  setup context do
    if context[:reuse_nodes], do: Process.put(@test, {context.module, context.test})

    # Called first, so that its check runs last and includes the nodes.
    CrashLog.watch(context)
  end

  # `count` nodes that are connected, as `{peer, node}`, which end with the test. They connect by
  # themselves, as nodes do by default, if `auto_connect` says so.
  # `arguments` are for the VM of each.
  def start_nodes(count, auto_connect \\ :never, arguments \\ []) do
    start_epmd()

    # Those that are started otherwise are of no use to other tests.
    test = if auto_connect == :never and arguments == [], do: Process.get(@test)
    arguments = arguments(auto_connect) ++ arguments

    nodes =
      1..count
      |> Enum.map(fn _ -> Task.async(fn -> take_spare_node(test) || boot_node(arguments) end) end)
      |> Task.await_many(@patience)

    leave_in_the_end(nodes, test)

    connect(nodes)
    Enum.sort_by(nodes, fn {_peer, node} -> node end)
  end

  def start_node do
    test = Process.get(@test)
    node = take_spare_node(test) || boot_node(arguments(:never))
    leave_in_the_end([node], test)
    node
  end

  defp take_spare_node(nil), do: nil
  defp take_spare_node({module, _name}), do: SpareNodes.take(module)

  # Gives the nodes back, or stops them.
  defp leave_in_the_end(nodes, test) do
    ExUnit.Callbacks.on_exit(fn ->
      for node <- nodes, do: unless_gone(fn -> keep_crashes(node) end)

      nodes
      |> Enum.map(fn {peer, _name} = node ->
        Task.async(fn ->
          unless test && unless_gone(fn -> SpareNodes.offer(test, node) end),
            do: unless_gone(fn -> :peer.stop(peer) end)
        end)
      end)
      |> Task.await_many(@patience)
    end)
  end

  # A VM that was started in another way, and may be gone by then.
  def stop_in_the_end(peer),
    do: ExUnit.Callbacks.on_exit(fn -> unless_gone(fn -> :peer.stop(peer) end) end)

  defp keep_crashes(node), do: node |> call(CrashLog, :take, []) |> Enum.each(&CrashLog.keep/1)

  defp unless_gone(function) do
    function.()
  catch
    :exit, _reason -> false
  end

  # A node that was halted, as its machine starts it again: with the same name.
  def start_again({_peer, node}, arguments \\ []) do
    [name, _host] = String.split(Atom.to_string(node), "@")
    node = boot_node(arguments(:never) ++ arguments, name)
    leave_in_the_end([node], nil)
    node
  end

  defp unique_name, do: "registry_#{System.pid()}_#{System.unique_integer([:positive])}"

  defp boot_node(arguments, name \\ unique_name()) do
    {:ok, peer, node} =
      :peer.start(%{
        name: String.to_atom(name),
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        wait_boot: @patience,
        args: Enum.map(arguments, &String.to_charlist/1)
      })

    node = {peer, node}
    call(node, :code, :add_paths, [:code.get_path()])

    {:ok, _apps} =
      call(node, :application, :ensure_all_started, [:workflow_metal_native_registry])

    :ok = call(node, ClusterNode, :start, [])
    :ok = call(node, SpareNodes, :remember, [])
    node
  end

  defp arguments(:never), do: ~w(-kernel dist_auto_connect never) ++ arguments(:always)

  defp arguments(:always) do
    # Schedulers without work do not spin: the nodes share few processors.
    ~w(-kernel inet_dist_use_interface {127,0,0,1} -kernel logger_level warning) ++
      ~w(-setcookie #{@cookie} +sbwt none +sbwtdcpu none +sbwtdio none)
  end

  defp start_epmd do
    epmd =
      System.find_executable("epmd") ||
        Path.wildcard("#{:code.root_dir()}/{bin,erts-*/bin}/epmd") |> hd()

    {_output, 0} = System.cmd(epmd, ["-daemon"], env: [{"ERL_EPMD_ADDRESS", "127.0.0.1"}])
  end

  def call({peer, _node}, module, function, arguments) do
    :peer.call(peer, module, function, arguments, @patience)
  end

  # The same on all nodes at the same time.
  def call_all(nodes, module, function, arguments) do
    nodes
    |> Enum.map(&Task.async(fn -> call(&1, module, function, arguments) end))
    |> Task.await_many(@patience)
  end

  # Has each of the nodes see all others. A connection may be taken down a moment after it was made,
  # when :global has found a node to see another part of the cluster than the others do. So they have
  # to be complete once more, after :global has spoken with all of them again.
  def connect(nodes) do
    eventually(fn ->
      for one <- nodes, other <- nodes, one != other, do: try_to_connect(one, other)

      synchronized?(nodes) and synchronized?(nodes)
    end)

    :ok
  end

  # Has the two see each other; :global may not have told them of each other's names yet.
  def meet(one, other), do: eventually(fn -> try_to_connect(one, other) end)

  # With the cookie that `cut/2` has changed.
  defp try_to_connect(one, {_peer, other}) do
    call(one, :erlang, :set_cookie, [other, @cookie])
    call(one, :net_kernel, :connect_node, [other])
  end

  # Takes the connections down when :global does not answer: it forgets then what it was waiting for.
  defp synchronized?(nodes) do
    answers =
      nodes
      |> Enum.map(&Task.async(fn -> call(&1, :global, :sync, []) end))
      |> Task.yield_many(@sync)

    if Enum.all?(answers, fn {task, answer} -> answer || Task.shutdown(task, :brutal_kill) end) do
      Enum.all?(nodes, &sees?(&1, nodes))
    else
      call_all(nodes, ClusterNode, :leave, [])
      false
    end
  end

  # Both sides of a netsplit lose each other. The nodes of the smaller side leave one by one, by the
  # function that :global has for it: nodes that are disconnected pair by pair look to :global like
  # a partition that is only partial, for a moment, and it disconnects others of both sides. Other
  # cookies keep those apart that would connect by themselves.
  def cut(one_side, other_side) do
    [leaving, staying] = Enum.sort_by([one_side, other_side], &length/1)

    for node <- leaving do
      for {_peer, other} <- staying, do: call(node, :erlang, :set_cookie, [other, :cut])
      call(node, ClusterNode, :leave, [])
    end

    for {side, others} <- [{leaving, staying}, {staying, leaving}], node <- side do
      eventually(fn ->
        seen = call(node, Node, :list, [])
        Enum.all?(others, fn {_peer, other} -> other not in seen end)
      end)
    end

    for side <- [leaving, staying], do: connect(side)
    :ok
  end

  # One link of several, which needs nodes that do not prevent overlapping partitions.
  def cut_link({_peer, one} = node, {_other_peer, other} = other_node) do
    call(node, :erlang, :disconnect_node, [other])

    for {node, other} <- [{node, other}, {other_node, one}],
        do: eventually(fn -> other not in call(node, Node, :list, []) end)

    :ok
  end

  defp sees?({_peer, own} = node, nodes) do
    seen = call(node, Node, :list, [])
    Enum.all?(nodes, fn {_peer, other} -> other == own or other in seen end)
  end

  # Ends the node as a crash of the machine would.
  def halt({peer, _node} = node) do
    reference = Process.monitor(peer)
    Process.unlink(peer)

    catch_exit(call(node, :erlang, :halt, [1, [flush: false]]))

    assert_receive {:DOWN, ^reference, :process, ^peer, _reason}, @patience
  end

  # A registry and a supervisor of workers on each of the nodes, which know of each other.
  def start_registries(nodes, registry, options) do
    for node <- nodes do
      assert call(node, ClusterNode, :start_registry, [registry, options]) == :ok
    end

    await_members(nodes, registry, options[:cluster])
  end

  def await_members(nodes, registry, :syn) do
    for node <- nodes do
      eventually(fn ->
        members = call(node, :syn, :subcluster_nodes, [:registry, registry])
        length(members) == length(nodes) - 1
      end)
    end

    :ok
  end

  def await_members(_nodes, _registry, _engine), do: :ok

  # The holder of the name, as the nodes answer it; they are given time to agree.
  def agreed(nodes, registry, name) do
    eventually(fn ->
      case nodes |> call_all(ClusterNode, :whereis, [registry, name]) |> Enum.uniq() do
        [pid] when is_pid(pid) -> pid
        _other -> false
      end
    end)
  end

  def agreed_on_nobody(nodes, registry, name) do
    eventually(fn ->
      Enum.uniq(call_all(nodes, ClusterNode, :whereis, [registry, name])) == [:undefined]
    end)
  end
end
