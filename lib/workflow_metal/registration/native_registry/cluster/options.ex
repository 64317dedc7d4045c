defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Options do
  @moduledoc false
  # Validates the options of a clustered registry.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Global, Ra, Syn}
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
      {name, engine_options} =
        case cluster do
          {name, engine_options} -> {name, engine_options}
          name -> {name, []}
        end

      engine = engine!(registry, name)
      exclusive? = function_exported?(engine, :claim, 4)

      if exclusive? and on_conflict != nil do
        raise ArgumentError,
              "on_conflict: #{inspect(on_conflict)} of the registry #{inspect(registry)} is of no use: " <>
                "cluster: #{inspect(name)} never lets two processes hold a name"
      end

      for required <- engine.requires(), do: require!(registry, name, required)

      %{
        engine: engine,
        options: engine_options!(registry, engine, name, engine_options),
        exclusive?: exclusive?,
        timeout: timeout,
        on_conflict: on_conflict
      }
    end
  end

  defp engine!(_registry, :global), do: loaded(Global)
  defp engine!(_registry, :syn), do: loaded(Syn)
  defp engine!(_registry, :ra), do: loaded(Ra)

  defp engine!(registry, engine) do
    if is_atom(engine) and Code.ensure_loaded?(engine) and function_exported?(engine, :whereis, 2) do
      engine
    else
      invalid!(registry, :cluster, ":global, :syn, :ra or a module that is an engine", engine)
    end
  end

  # `function_exported?/3` does not load a module.
  defp loaded(engine) do
    {:module, engine} = Code.ensure_loaded(engine)
    engine
  end

  defp engine_options!(registry, engine, name, options) do
    cond do
      function_exported?(engine, :options!, 2) ->
        engine.options!(registry, options)

      options == [] ->
        []

      true ->
        raise ArgumentError,
              "cluster: #{inspect(name)} of the registry #{inspect(registry)} takes no options, " <>
                "got: #{inspect(options)}"
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
