defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Global do
  @moduledoc false
  # OTP's own engine. Of two nodes that register a name at once exactly one wins, which takes a lock
  # on all nodes: some hundred registrations a second.
  #
  # It has no `retell/4`: all nodes that see each other know the same names, as long as `:global` takes
  # nodes down that see only a part of the others (kernel's `prevent_overlapping_partitions`, which is
  # on unless it is turned off). Turned off, `:global` promises nothing after a cut of one link of
  # several, and a name may stay unknown to a part of the nodes.

  @behaviour WorkflowMetal.Registration.NativeRegistry.Cluster.Engine

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{GlobalLock, Marks}

  @server :global_name_server

  # The connections that :global had synchronised when it was asked last.
  @synchronised {__MODULE__, :synchronised}

  @impl true
  def requires, do: []

  @impl true
  def start(registry) do
    attend(registry)
    @server
  end

  @impl true
  def attend(_registry) do
    # Without this, :global refuses a process a second name.
    Application.put_env(:kernel, :global_multi_name_action, :allow)
    GlobalLock.attend()
  end

  # :global waits for a lock without a limit, so somebody else waits for it, who is killed when it
  # takes too long. What :global has been asked by then it does in the end, before anything that it
  # is asked later by this node: one process does all of that.
  @impl true
  def register(registry, name, pid, timeout) do
    global = global_name(registry, name)

    Cluster.within(timeout, fn ->
      _ = synchronise()

      case :global.register_name(global, pid, &__MODULE__.resolve/3) do
        :yes -> :yes
        :no -> if :global.whereis_name(global) == pid, do: :yes, else: :no
      end
    end)
  end

  # Nodes see each other before :global has told them of each other's names; both could register a
  # name until then. A connection's controller is another one each time that it is made.
  defp synchronise do
    connections = :erlang.system_info(:dist_ctrl)

    if Marks.get(@synchronised) != connections do
      with :ok <- :global.sync(), do: Marks.put(@synchronised, connections)
    end
  end

  # `:global.unregister_name/1` frees the name whoever has it. A conflict may give it to another
  # process between our look and that, so both are done as :global itself does it, under its lock:
  # it has one process run this function while no node registers, frees or resolves a name.
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

    Cluster.within(timeout, fn -> :gen_server.call(@server, {:registrar, free}, :infinity) end)
  end

  @impl true
  def whereis(registry, name), do: :global.whereis_name(global_name(registry, name))

  @doc false
  # Called by :global, on one of the nodes, when two parts of a cluster find each other.
  def resolve({NativeRegistry, registry, name}, one, other) do
    winner = Cluster.decide(registry, name, one, other)
    Cluster.leave(registry, name, if(winner == one, do: other, else: one), winner)
    winner
  end

  defp global_name(registry, name), do: {NativeRegistry, registry, name}
end
