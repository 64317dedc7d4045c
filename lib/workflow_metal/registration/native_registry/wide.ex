defmodule WorkflowMetal.Registration.NativeRegistry.Wide do
  @moduledoc false
  # Functions that answer for this node or, with `cluster: true`, for all nodes of a cluster.

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Events, Options, Registry, Table}

  @typep registry :: Registry.registry()
  @typep name :: Registry.name()

  @spec match_names(registry, Registry.pattern(), Registry.wide()) ::
          [{name, pid, Registry.value()}] | {[{name, pid, Registry.value()}], missing :: [node]}
  def match_names(registry, pattern, options) do
    here = fn -> Table.records(registry, pattern) end

    case Options.wide!(options) do
      nil ->
        here.()

      timeout ->
        {answers, missing} = ask(registry, {:select, pattern}, here, timeout)
        {Enum.concat(answers), missing}
    end
  end

  @spec count_names(registry, Registry.pattern(), Registry.wide()) ::
          non_neg_integer | {non_neg_integer, missing :: [node]}
  def count_names(registry, pattern, options),
    do: count(registry, pattern, options, fn -> Table.count(registry, pattern) end)

  @spec count(registry, Registry.wide()) ::
          non_neg_integer | {non_neg_integer, missing :: [node]}
  def count(registry, options),
    do: count(registry, :_, options, fn -> Table.count(registry) end)

  defp count(registry, pattern, options, here) do
    case Options.wide!(options) do
      nil ->
        here.()

      timeout ->
        {answers, missing} = ask(registry, {:count, pattern}, here, timeout)
        {Enum.sum(answers), missing}
    end
  end

  @spec names(registry, Registry.wide()) :: [name] | {[name], missing :: [node]}
  def names(registry, options) do
    case match_names(registry, :_, options) do
      {found, missing} -> {Enum.uniq(for({name, _pid, _value} <- found, do: name)), missing}
      found -> for {name, _pid, _value} <- found, do: name
    end
  end

  # The answers of the nodes of a cluster, and the nodes that do not answer. A registry of this node
  # alone asks no others.
  defp ask(registry, question, here, timeout) do
    if Table.clustered?(registry),
      do: Cluster.ask(registry, question, here, timeout),
      else: {[here.()], []}
  end

  @spec subscribe(registry, Registry.pattern(), Registry.wide()) :: :ok | {:ok, missing :: [node]}
  def subscribe(registry, pattern, options) do
    timeout = Options.wide!(options)
    :ok = Events.subscribe(registry, pattern)

    cond do
      timeout == nil -> :ok
      Table.clustered?(registry) -> {:ok, Cluster.follow(registry, pattern, timeout)}
      true -> {:ok, []}
    end
  end

  @spec unsubscribe(registry, Registry.pattern()) :: :ok
  def unsubscribe(registry, pattern) do
    :ok = Events.unsubscribe(registry, pattern)
    if Table.clustered?(registry), do: Cluster.unfollow(registry, pattern), else: :ok
  end
end
