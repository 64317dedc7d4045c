defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Config do
  @moduledoc false
  # The configuration of this node's clustered registries. Each is a persistent term, as it is read by
  # every registration and by every lookup that the table cannot answer.

  alias WorkflowMetal.Registration.NativeRegistry.{Name, Registry}

  @type t :: %{
          optional(:supervisor) => pid,
          engine: module,
          # What the engine made of its own options.
          options: term,
          # Whether the engine never lets two processes hold a name; see `Engine`.
          exclusive?: boolean,
          timeout: pos_integer,
          on_conflict: {module, atom} | nil
        }

  @doc "The configuration of a registry; `nil` when it is not clustered or does not run."
  @spec get(Registry.registry()) :: t | nil
  def get(registry), do: :persistent_term.get(key(registry), nil)

  @doc "The configuration of a clustered registry; raises when there is none, as it was stopped."
  @spec fetch!(Registry.registry()) :: t
  def fetch!(registry) do
    with nil <- get(registry), do: Name.unknown_registry!(registry)
  end

  @spec put(Registry.registry(), t) :: :ok
  def put(registry, config), do: :persistent_term.put(key(registry), config)

  @spec delete(Registry.registry()) :: :ok
  def delete(registry) do
    :persistent_term.erase(key(registry))
    :ok
  end

  @doc "The clustered registries of this node."
  @spec registries() :: [Registry.registry()]
  def registries,
    do: for({{__MODULE__, registry}, _config} <- :persistent_term.get(), do: registry)

  @doc "Whether a registry of this node uses the engine."
  @spec engine_used?(module) :: boolean
  def engine_used?(engine) do
    Enum.any?(:persistent_term.get(), &match?({{__MODULE__, _registry}, %{engine: ^engine}}, &1))
  end

  defp key(registry), do: {__MODULE__, registry}
end
