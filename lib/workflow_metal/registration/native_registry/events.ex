defmodule WorkflowMetal.Registration.NativeRegistry.Events do
  @moduledoc false
  # Events of this node and, if it is wanted, of the other nodes of the cluster.

  alias WorkflowMetal.Registration.NativeRegistry.{Audience, Cluster, Local, Options, Registry}

  @typep registry :: Registry.registry()

  @doc "Has the calling process told of changes of names that match."
  @spec subscribe(registry, Registry.pattern(), Registry.wide()) :: :ok | {:ok, missing :: [node]}
  def subscribe(registry, pattern, options) do
    timeout = Options.wide!(options)
    :ok = Audience.subscribe(registry, pattern)
    if timeout, do: {:ok, follow(registry, pattern, timeout)}, else: :ok
  end

  defp follow(registry, pattern, timeout) do
    if Local.clustered?(registry) == true,
      do: Cluster.follow(registry, pattern, timeout),
      else: []
  end

  @doc "Takes back what `subscribe/3` asked for."
  @spec unsubscribe(registry, Registry.pattern()) :: :ok
  def unsubscribe(registry, pattern) do
    :ok = Audience.unsubscribe(registry, pattern)
    if Local.clustered?(registry) == true, do: Cluster.unfollow(registry, pattern), else: :ok
  end
end
