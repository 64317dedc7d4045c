defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Global do
  @moduledoc false
  # OTP's own engine. Of two nodes that register a name at once exactly one wins, which takes a lock
  # on all nodes: some hundred registrations a second.

  @behaviour WorkflowMetal.Registration.NativeRegistry.Cluster.Engine

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster

  @impl true
  def requires, do: []

  @impl true
  def start(_registry) do
    # Without this, :global refuses a process a second name.
    Application.put_env(:kernel, :global_multi_name_action, :allow)
    nil
  end

  # :global waits for a lock without a limit. What it says too late is taken back.
  @impl true
  def register(registry, name, pid, timeout) do
    global = global_name(registry, name)
    register = fn -> :global.register_name(global, pid, &__MODULE__.resolve/3) end
    Cluster.within(timeout, register, fn _late -> free(global, pid) end)
  end

  @impl true
  def unregister(registry, name, pid, timeout) do
    global = global_name(registry, name)
    Cluster.within(timeout, fn -> free(global, pid) end)
    :ok
  end

  defp free(global, pid) do
    # Nobody takes the name from a process that lives, but for a conflict.
    if :global.whereis_name(global) == pid, do: :global.unregister_name(global)
    :ok
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
