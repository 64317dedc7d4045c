defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Options do
  @moduledoc false
  # Validates the options of a clustered registry.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Global, Syn}
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  @timeout 5_000

  @doc """
  The configuration that the options describe; `nil` without the option `:cluster`. Raises
  `ArgumentError` for an invalid option, and when the engine needs a module that is not available.
  """
  @spec validate!(Registry.registry(), keyword) :: Config.t() | nil
  def validate!(registry, options) do
    timeout = Keyword.get(options, :cluster_timeout, @timeout)
    on_conflict = Keyword.get(options, :on_conflict)

    unless is_integer(timeout) and timeout > 0 do
      invalid!(registry, :cluster_timeout, "milliseconds, at least 1", timeout)
    end

    unless on_conflict == nil or match?({m, f} when is_atom(m) and is_atom(f), on_conflict) do
      invalid!(registry, :on_conflict, "{module, function}", on_conflict)
    end

    with cluster when cluster != nil <- Keyword.get(options, :cluster) do
      engine = engine!(registry, cluster)
      for required <- engine.requires(), do: require!(registry, cluster, required)
      %{engine: engine, timeout: timeout, on_conflict: on_conflict}
    end
  end

  defp engine!(_registry, :global), do: Global
  defp engine!(_registry, :syn), do: Syn

  defp engine!(registry, engine) do
    if is_atom(engine) and Code.ensure_loaded?(engine) and function_exported?(engine, :whereis, 2) do
      engine
    else
      invalid!(registry, :cluster, ":global, :syn or a module that is an engine", engine)
    end
  end

  defp require!(registry, cluster, {module, dependency}) do
    unless Code.ensure_loaded?(module) do
      raise ArgumentError,
            "cluster: #{inspect(cluster)} of the registry #{inspect(registry)} needs the module " <>
              "#{inspect(module)}, which is not there; add #{dependency} to the dependencies in mix.exs"
    end
  end

  @spec invalid!(term, atom, String.t(), term) :: no_return
  defp invalid!(registry, option, wanted, value) do
    raise ArgumentError,
          "expected #{inspect(option)} of the registry #{inspect(registry)} to be #{wanted}, " <>
            "got: #{inspect(value)}"
  end
end
