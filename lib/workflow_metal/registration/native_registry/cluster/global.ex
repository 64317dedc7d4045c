defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Global do
  @moduledoc false
  # The engine `:global`, which is part of OTP. Of two nodes that register a name at once exactly one
  # wins. For that it takes a lock on all nodes: some hundred registrations a second.
  #
  # It has no `retell/4`: all connected nodes know the same names as long as `:global` disconnects nodes
  # that see only a part of the others (`prevent_overlapping_partitions` of kernel, which is on by
  # default). When that is turned off, a name may stay unknown to some nodes after one link of several
  # was cut.

  @behaviour WorkflowMetal.Registration.NativeRegistry.Cluster.Engine

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{GlobalLock, Remote, Tasks}
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  # The name of the adapter is part of a name in `:global`. Nothing of that module is called from here.
  @adapter :"Elixir.WorkflowMetal.Registration.NativeRegistry"

  @server :global_name_server

  # What this engine remembers on this node for all registries.
  @table __MODULE__

  @spec create_table() :: :ok
  def create_table do
    @table = :ets.new(@table, [:named_table, :public, :set, read_concurrency: true])
    :ok
  end

  @impl true
  def requires, do: []

  @impl true
  def start(registry, _options) do
    attend(registry)
    @server
  end

  @impl true
  def attend(_registry) do
    # Without this parameter `:global` refuses a process a second name.
    Application.put_env(:kernel, :global_multi_name_action, :allow)
    seen = with [{:lock, seen}] <- :ets.lookup(@table, :lock), do: seen
    :ets.insert(@table, {:lock, GlobalLock.attend(seen)})
    :ok
  end

  # `:global` waits for its lock without a limit, so a task waits in place of the caller and is killed
  # when that takes too long. `:global` still does what it was asked by then, before anything that this
  # node asks later, as one process does all of it.
  @impl true
  def register(registry, name, pid, timeout) do
    global = global_name(registry, name)

    Tasks.await(timeout, fn ->
      _ = synchronise()

      case :global.register_name(global, pid, &Remote.resolve/3) do
        :yes -> :yes
        :no -> if :global.whereis_name(global) == pid, do: :yes, else: :no
      end
    end)
  end

  # Connected nodes exchange their names a moment after they were connected. Until then both could
  # register a name. A connection that was made again has another controller than before.
  defp synchronise do
    connections = :erlang.system_info(:dist_ctrl)

    if :ets.lookup(@table, :synchronised) != [{:synchronised, connections}] do
      with :ok <- :global.sync(), do: :ets.insert(@table, {:synchronised, connections})
    end
  end

  # `:global.unregister_name/1` frees the name whichever process holds it. A conflict may give the name to another
  # process after the look at its holder, so both are done in one function that `:global` calls under its
  # lock, while no node registers, frees or resolves a name.
  @impl true
  def unregister(registry, name, pid, timeout) do
    global = global_name(registry, name)

    free = fn nodes ->
      _ =
        if :global.whereis_name(global) == pid do
          :gen_server.multi_call(nodes, @server, {:unregister, global})
        end

      :ok
    end

    Tasks.await(timeout, fn -> :gen_server.call(@server, {:registrar, free}, :infinity) end)
  end

  @impl true
  def whereis(registry, name), do: :global.whereis_name(global_name(registry, name))

  @spec global_name(Registry.registry(), Registry.name()) :: term
  defp global_name(registry, name), do: {@adapter, registry, name}
end
