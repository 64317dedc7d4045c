defmodule WorkflowMetal.Registration.NativeRegistry.SpareNodes do
  @moduledoc false
  # A pool of peer nodes for the tests of one module: to boot a node costs most of a second of a
  # processor. It is for the tests that say so:
  #
  #     @moduletag reuse_nodes: true
  #
  # A test that changes what cannot be reset here (code, kernel parameters, a node that is paused) says
  # `@tag reuse_nodes: false`, and gets new nodes, which end with it. A node is used again when its test
  # has passed and when `clean/0` finds nothing on the node that was not there after its boot.
  #
  # It is a formatter of ExUnit, which is told the result of each test.

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry.{ClusterCase, ClusterNode, CrashLog, Native}

  @application :workflow_metal_native_registry
  # The most nodes that a test of one module starts.
  @most 4
  # How long the processes and connections of a test may take to end, in milliseconds.
  @patience 10_000
  @pause 5

  # Processes of the VM that answer to `:sys`, live on from test to test, and that nodes need to connect.
  @servers [:application_controller, :auth, :global_group, :net_kernel, :rex]

  ## On the node that runs the tests

  @doc "Adds the pool to the formatters of ExUnit."
  def configure do
    ExUnit.configure(formatters: [__MODULE__ | ExUnit.configuration()[:formatters]])
  end

  @doc "A node that a test of this module has given back, or nil."
  def take(module) do
    # Without the formatter, as in a run with others, nothing is reused.
    if Process.whereis(__MODULE__), do: GenServer.call(__MODULE__, {:take, module})
  end

  @doc """
  Cleans a node that the test `{module, name}` no longer needs. Answers whether it is kept until the
  test's result is known; otherwise the caller has to stop it.
  """
  def offer(test, node) do
    Process.whereis(__MODULE__) != nil and
      ClusterCase.call(node, __MODULE__, :clean, []) == :ok and
      GenServer.call(__MODULE__, {:offer, test, node})
  end

  @impl GenServer
  def init(_options) do
    Process.register(self(), __MODULE__)
    {:ok, %{offered: [], spare: []}}
  end

  @impl GenServer
  def handle_call({:take, module}, _from, state) do
    case List.keytake(state.spare, module, 0) do
      {{_module, node}, spare} -> {:reply, node, %{state | spare: spare}}
      nil -> {:reply, nil, state}
    end
  end

  def handle_call({:offer, test, node}, _from, state) do
    {:reply, true, Map.update!(state, :offered, &[{test, node} | &1])}
  end

  @impl GenServer
  def handle_cast({:test_finished, %ExUnit.Test{} = test}, state) do
    {mine, offered} = Enum.split_with(state.offered, &(elem(&1, 0) == {test.module, test.name}))
    nodes = for {_test, node} <- mine, do: node
    room = @most - Enum.count(state.spare, &(elem(&1, 0) == test.module))
    {kept, rest} = Enum.split(nodes, if(test.state == nil, do: room, else: 0))
    stop(rest)
    spare = for(node <- kept, do: {test.module, node}) ++ state.spare
    {:noreply, %{state | offered: offered, spare: spare}}
  end

  def handle_cast({:module_finished, %ExUnit.TestModule{name: module}}, state) do
    {mine, spare} = Enum.split_with(state.spare, &(elem(&1, 0) == module))
    stop(for {_module, node} <- mine, do: node)
    {:noreply, %{state | spare: spare}}
  end

  def handle_cast(_event, state), do: {:noreply, state}

  # No process waits for it: the nodes end with this VM at the latest.
  defp stop(nodes), do: for({peer, _node} <- nodes, do: spawn(fn -> :peer.stop(peer) end))

  ## On a node of the pool

  @doc "Remembers the state of a node that has just booted."
  def remember do
    # It is started by its first user otherwise.
    :ok = :timer.start()
    modules = loaded()
    :persistent_term.put(__MODULE__, {Process.list(), modules, state(modules)})
  end

  @doc """
  Ends what a test has started and resets what it has set. Answers `:ok` if the node is as it was after
  its boot, and otherwise what is not.
  """
  def clean do
    {processes, modules, before} = :persistent_term.get(__MODULE__)
    # As long as the application runs, which closes what belongs to no process any more.
    registries = ClusterNode.forget_registries()
    for name <- registries, pid = Process.whereis(name), do: Process.exit(pid, :kill)
    closed? = await(fn -> Enum.all?(registries, &(Native.whereis(&1, :name) == :no_registry)) end)
    names = [@application | started_applications() -- before.started_applications]
    for name <- names, do: Application.stop(name)
    # A new one knows of no node, no name and no lock.
    :ok = :supervisor.terminate_child(:kernel_sup, :global_name_server)

    ended? =
      await(fn ->
        for node <- Node.list(:connected), do: :erlang.disconnect_node(node)
        others = Process.list() -- [self() | processes]
        Enum.each(others, &Process.exit(&1, :kill))
        others == [] and Node.list(:connected) == []
      end)

    {:ok, _pid} = :supervisor.restart_child(:kernel_sup, :global_name_server)
    reset(before)
    {:ok, _applications} = Application.ensure_all_started(@application)
    same? = await(fn -> state(modules) == before end)
    ClusterNode.forget_logged()
    # Of the processes that were killed here.
    CrashLog.take()

    cond do
      not ended? -> {:error, :processes_or_connections}
      not closed? -> {:error, {:registries, registries}}
      not same? -> {:error, differences(before, state(modules))}
      true -> remember()
    end
  end

  defp reset(before) do
    for name <- loaded_applications() -- before.loaded_applications, do: Application.unload(name)

    for {name, environment} <- before.environments do
      for {key, _value} <- Application.get_all_env(name), do: Application.delete_env(name, key)
      for {key, value} <- environment, do: Application.put_env(name, key, value)
    end

    # Of those that cut a connection.
    for node <- known_nodes(), do: :erlang.set_cookie(node, :erlang.get_cookie())
  end

  # What a test can change on a node and another test can notice. `modules` are those loaded before.
  defp state(modules) do
    cookie = :erlang.get_cookie()

    %{
      node: {node(), cookie, Node.list(:connected)},
      cookies: for(node <- known_nodes(), :erlang.get_cookie(node) != cookie, do: node),
      registered: Enum.sort(Process.registered()),
      suspended: Enum.filter(@servers, &suspended?/1),
      global: :global.registered_names(),
      tables: Enum.sort(for table <- :ets.all(), is_atom(table), do: table),
      started_applications: started_applications(),
      loaded_applications: loaded_applications(),
      environments:
        for(name <- loaded_applications(), do: {name, Enum.sort(Application.get_all_env(name))}),
      logger: :logger.get_config(),
      paths: :code.get_path(),
      code: changed(modules),
      compiler: Code.compiler_options()
    }
  end

  defp known_nodes, do: :erlang.nodes(:known) -- [:nonode@nohost]

  defp suspended?(server) do
    match?({:status, _pid, _module, [_dictionary, :suspended | _more]}, :sys.get_status(server))
  end

  defp started_applications,
    do: Enum.sort(for {name, _text, _version} <- Application.started_applications(), do: name)

  defp loaded_applications,
    do: Enum.sort(for {name, _text, _version} <- Application.loaded_applications(), do: name)

  defp loaded do
    for {module, file} <- :code.all_loaded(), into: %{}, do: {module, {file, md5(module)}}
  end

  # Modules that a test has replaced, deleted, or loaded from somewhere else than their file.
  defp changed(modules) do
    loaded = loaded()

    for {module, _loaded} <- Map.merge(modules, loaded),
        :erlang.check_old_code(module) or not unchanged?(loaded[module], modules[module]),
        do: module
  end

  defp unchanged?(loaded, loaded), do: true

  defp unchanged?({file, md5}, nil) when is_list(file),
    do: match?({:ok, {_module, ^md5}}, :beam_lib.md5(file))

  defp unchanged?(_loaded, _before), do: false

  defp md5(module), do: :erlang.get_module_info(module, :md5)

  defp differences(before, state) do
    for {key, value} <- state, value != before[key], do: {key, before[key], value}
  end

  defp await(condition, deadline \\ System.monotonic_time(:millisecond) + @patience) do
    cond do
      condition.() ->
        true

      System.monotonic_time(:millisecond) > deadline ->
        false

      true ->
        Process.sleep(@pause)
        await(condition, deadline)
    end
  end
end
