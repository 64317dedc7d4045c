defmodule WorkflowMetal.Registration.NativeRegistry.Child do
  @moduledoc false
  # Finds the process of a name, or starts it under a supervisor.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Attempts, Cluster, Names, Registry, Table}

  @has_telemetry Code.ensure_loaded?(:telemetry)

  # This module's name is only data here: none of its functions is called.
  @adapter :"Elixir.WorkflowMetal.Registration.NativeRegistry"

  # telemetry may be added to the code path, or removed from it, after this module was compiled.
  @doc false
  def __mix_recompile__?, do: Code.ensure_loaded?(:telemetry) != @has_telemetry

  @doc "The process that holds the name, or a new child of the supervisor."
  @spec start(
          Registry.registry(),
          Registry.name(),
          Supervisor.supervisor(),
          module | {module, keyword}
        ) ::
          NativeRegistry.on_start_child()
  if @has_telemetry do
    def start(registry, name, supervisor, child_spec) do
      metadata = %{registry: registry, name: name, supervisor: supervisor}

      span = fn ->
        result = find_or_start(registry, name, supervisor, child_spec)
        {result, Map.put(metadata, :result, result)}
      end

      # By `apply`: without Hex telemetry is no dependency, and Mix would warn of the call.
      apply(:telemetry, :span, [[:workflow_metal, :registry, :start_child], metadata, span])
    end
  else
    def start(registry, name, supervisor, child_spec) do
      find_or_start(registry, name, supervisor, child_spec)
    end
  end

  defp find_or_start(registry, name, supervisor, child_spec) do
    {module, arguments} = check!(child_spec)

    with :undefined <- Names.whereis(registry, name) do
      via = {:via, @adapter, {registry, name}}
      child = {module, Keyword.put(arguments, :name, via)}

      if Table.clustered?(registry),
        do: Cluster.start_child(registry, name, supervisor, child),
        else: start_here(registry, name, supervisor, child)
    else
      pid -> {:ok, pid}
    end
  end

  defp start_here(registry, name, supervisor, child) do
    find = fn -> Names.whereis(registry, name) end
    start = fn -> DynamicSupervisor.start_child(supervisor, child) end
    Attempts.start(find, start, &Attempts.refused(find, &1))
  end

  defp check!(module) when is_atom(module), do: {module, []}

  defp check!({module, arguments} = child_spec) when is_atom(module) do
    if Keyword.keyword?(arguments), do: child_spec, else: bad_child_spec!(child_spec)
  end

  defp check!(child_spec), do: bad_child_spec!(child_spec)

  @spec bad_child_spec!(term) :: no_return
  defp bad_child_spec!(child_spec) do
    raise ArgumentError,
          "expected a child spec that is a module or {module, keyword}, got: " <>
            inspect(child_spec)
  end
end
