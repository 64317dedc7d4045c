defmodule WorkflowMetal.Registration.NativeRegistry.Wide do
  @moduledoc false
  # What tells of this node or, with `cluster: true`, of all nodes of a cluster.

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Events, Options, Registry, Table}

  @typep registry :: Registry.registry()
  @typep name :: Registry.name()

  @spec match_names(registry, Registry.pattern(), Registry.wide()) ::
          [{name, pid, Registry.value()}] | {[{name, pid, Registry.value()}], missing :: [node]}
  def match_names(registry, pattern, options) do
    here = fn -> Table.records(registry, pattern) end
    ask(registry, {:select, pattern}, options, here, &Enum.concat/1)
  end

  @spec count_names(registry, Registry.pattern(), Registry.wide()) ::
          non_neg_integer | {non_neg_integer, missing :: [node]}
  def count_names(registry, pattern, options) do
    here = fn -> Table.count(registry, pattern) end
    ask(registry, {:count, pattern}, options, here, &Enum.sum/1)
  end

  @spec count(registry, Registry.wide()) ::
          non_neg_integer | {non_neg_integer, missing :: [node]}
  def count(registry, options) do
    ask(registry, {:count, :_}, options, fn -> Table.count(registry) end, &Enum.sum/1)
  end

  @spec names(registry, Registry.wide()) :: [name] | {[name], missing :: [node]}
  def names(registry, options) do
    case match_names(registry, :_, options) do
      {found, missing} -> {Enum.uniq(for({name, _pid, _value} <- found, do: name)), missing}
      found -> for {name, _pid, _value} <- found, do: name
    end
  end

  # What this node answers or, of all nodes, what they answer, joined, and those that do not answer.
  defp ask(registry, question, options, here, join) do
    timeout = Options.wide!(options)

    cond do
      timeout == nil ->
        here.()

      Table.clustered?(registry) ->
        {answers, missing} = Cluster.ask(registry, question, here, timeout)
        {join.(answers), missing}

      true ->
        {join.([here.()]), []}
    end
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
