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

  # The name is looked up before anything else is done, because nearly all calls are for a name that
  # runs: such a call is a lookup, and neither a telemetry span nor a walk through the keywords.
  @doc "The process that holds the name, or a new child of the supervisor."
  @spec start(
          Registry.registry(),
          Registry.name(),
          Supervisor.supervisor(),
          module | {module, keyword}
        ) ::
          NativeRegistry.on_start_child()
  def start(registry, name, supervisor, child_spec) do
    check_shape!(child_spec)

    with :undefined <- Names.whereis(registry, name) do
      child = child!(child_spec, {:via, @adapter, {registry, name}})
      start_new(registry, name, supervisor, child)
    else
      pid -> {:ok, pid}
    end
  end

  # What a bad child spec nearly always has wrong is seen in constant time, so it raises whether or not
  # the name runs.
  defp check_shape!(module) when is_atom(module), do: :ok
  defp check_shape!({module, []}) when is_atom(module), do: :ok

  defp check_shape!({module, [{key, _value} | _more]}) when is_atom(module) and is_atom(key),
    do: :ok

  defp check_shape!(child_spec), do: bad_child_spec!(child_spec)

  defp child!({module, arguments} = child_spec, via) do
    unless Keyword.keyword?(arguments), do: bad_child_spec!(child_spec)
    {module, Keyword.put(arguments, :name, via)}
  end

  defp child!(module, via), do: {module, [name: via]}

  @spec bad_child_spec!(term) :: no_return
  defp bad_child_spec!(child_spec) do
    raise ArgumentError,
          "expected a child spec that is a module or {module, keyword}, got: " <>
            inspect(child_spec)
  end

  if @has_telemetry do
    defp start_new(registry, name, supervisor, child) do
      metadata = %{registry: registry, name: name, supervisor: supervisor}

      span = fn ->
        result = start_here_or_in_cluster(registry, name, supervisor, child)
        {result, Map.put(metadata, :result, result)}
      end

      # By `apply`: without Hex telemetry is no dependency, and Mix would warn of the call.
      apply(:telemetry, :span, [[:workflow_metal, :registry, :start_child], metadata, span])
    end
  else
    defp start_new(registry, name, supervisor, child),
      do: start_here_or_in_cluster(registry, name, supervisor, child)
  end

  defp start_here_or_in_cluster(registry, name, supervisor, child) do
    if Table.clustered?(registry),
      do: Cluster.start_child(registry, name, supervisor, child),
      else: start_here(registry, name, supervisor, child)
  end

  defp start_here(registry, name, supervisor, child) do
    find = fn -> Names.whereis(registry, name) end
    start = fn -> DynamicSupervisor.start_child(supervisor, child) end
    Attempts.start(find, start, &Attempts.refused(find, &1))
  end
end
