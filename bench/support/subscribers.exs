defmodule Bench.Subscribers do
  # This registry several times, with processes that are told of changes of names.

  alias Bench.{Engines, Names}
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  def rows do
    [
      nobody: "nobody",
      other: "one, of other names",
      others: "1,000, of other names",
      alike: "1,000, of similar names",
      these: "one, of these names"
    ]
  end

  @doc "The registries. `:prepare` is to be called when a registry has its names."
  def engines(kind) do
    native = Engines.get(:native)

    for {key, label} <- rows() do
      %{native | key: key, label: label} |> Map.put(:prepare, &subscribe(&1, patterns(key, kind)))
    end
  end

  defp patterns(:nobody, _kind), do: []
  defp patterns(:other, _kind), do: [{:other, :_}]
  defp patterns(:others, _kind), do: for(number <- 1..1_000, do: {:other, number, :_})
  defp patterns(:alike, kind), do: for(number <- 1..1_000, do: of_workflow(kind, number))
  defp patterns(:these, _kind), do: [{WorkflowMetal.Task.Task, :_}]

  # All tasks of a workflow that has none.
  defp of_workflow(kind, number) do
    {task, ids} = Names.name(kind, 5_000_000 + 1_000 * number)
    [workflow | others] = Tuple.to_list(ids)
    {task, List.to_tuple([workflow | Enum.map(others, fn _id -> :_ end)])}
  end

  # Each pattern has a process of its own, which reads its messages, as a subscriber should.
  defp subscribe(engine, patterns) do
    starter = self()
    registry = Engines.registry(engine)

    for pattern <- patterns do
      pid =
        spawn(fn ->
          :ok = Registry.subscribe(registry, pattern)
          send(starter, {:subscribed, self()})
          read()
        end)

      receive do
        {:subscribed, ^pid} -> :ok
      end
    end
  end

  defp read do
    receive do
      _event -> read()
    end
  end
end
