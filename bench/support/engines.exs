# The registries to compare, each behind the four callbacks of a WorkflowMetal adapter.

defmodule Bench.ElixirRegistry do
  # Does what WorkflowMetal's LocalRegistry does.

  def child_spec(application, _config) do
    registry = Module.concat(application, LocalRegistry)
    {:ok, {Registry, keys: :unique, name: registry}, %{registry_name: registry}}
  end

  def via_tuple(meta, name), do: {:via, Registry, {registry_name(meta), name}}

  def start_child(meta, name, supervisor, child_spec),
    do: start_child(via_tuple(meta, name), supervisor, child_spec)

  def whereis_name(meta, name), do: Registry.whereis_name({registry_name(meta), name})

  # For the other adapters too.
  def start_child(via_tuple, supervisor, {module, arguments}) do
    child_spec = {module, Keyword.put(arguments, :name, via_tuple)}

    case DynamicSupervisor.start_child(supervisor, child_spec) do
      {:error, {:already_started, pid}} -> {:ok, pid}
      reply -> reply
    end
  end

  defp registry_name(meta), do: Map.fetch!(meta, :registry_name)
end

defmodule Bench.PartitionedRegistry do
  # The same with one partition for each scheduler.

  alias Bench.ElixirRegistry

  def child_spec(application, config) do
    {:ok, {Registry, options}, meta} = ElixirRegistry.child_spec(application, config)
    {:ok, {Registry, [partitions: System.schedulers_online()] ++ options}, meta}
  end

  defdelegate via_tuple(meta, name), to: ElixirRegistry
  defdelegate start_child(meta, name, supervisor, child_spec), to: ElixirRegistry
  defdelegate whereis_name(meta, name), to: ElixirRegistry
end

defmodule Bench.BareETS do
  # No registry, but the table operation that every registry on ETS needs. It monitors no holder and does not ask
  # whether a holder is alive.

  def child_spec(_application, _config) do
    {:ok, nil, :ets.new(__MODULE__, [:set, :public, read_concurrency: true])}
  end

  def via_tuple(table, name), do: {:via, __MODULE__, {table, name}}

  def whereis_name(table, name), do: :ets.lookup_element(table, name, 2)

  def register_name({table, name}, pid) do
    if :ets.insert_new(table, {name, pid}), do: :yes, else: :no
  end

  def unregister_name({table, name}), do: :ets.delete(table, name)
end

defmodule Bench.BareETS.Missing do
  # For missing names, for which lookup_element/3 raises.

  def whereis_name(table, name) do
    case :ets.lookup(table, name) do
      [] -> :undefined
      [{_name, pid}] -> pid
    end
  end
end

defmodule Bench.Global do
  def child_spec(_application, _config) do
    # Without this a process may have one name only.
    Application.put_env(:kernel, :global_multi_name_action, :allow)
    {:ok, nil, %{}}
  end

  def via_tuple(_meta, name), do: {:via, :global, name}

  def start_child(meta, name, supervisor, child_spec),
    do: Bench.ElixirRegistry.start_child(via_tuple(meta, name), supervisor, child_spec)

  def whereis_name(_meta, name), do: :global.whereis_name(name)
end

defmodule Bench.Gproc do
  @compile {:no_warn_undefined, :gproc}

  def child_spec(_application, _config) do
    {:ok, _started} = Application.ensure_all_started(:gproc)
    {:ok, nil, %{}}
  end

  def via_tuple(_meta, name), do: {:via, :gproc, {:n, :l, name}}

  def start_child(meta, name, supervisor, child_spec),
    do: Bench.ElixirRegistry.start_child(via_tuple(meta, name), supervisor, child_spec)

  def whereis_name(_meta, name), do: :gproc.whereis_name({:n, :l, name})

  # Besides the name, each holder has a row that says that it is monitored.
  def count(_meta), do: :ets.select_count(:gproc, [{{{{:n, :l, :_}, :_}, :_, :_}, [], [true]}])
end

defmodule Bench.Syn do
  @compile {:no_warn_undefined, :syn}

  def child_spec(application, _config) do
    {:ok, _started} = Application.ensure_all_started(:syn)
    :ok = :syn.add_node_to_scopes([application])
    {:ok, nil, %{scope: application}}
  end

  def via_tuple(%{scope: scope}, name), do: {:via, :syn, {scope, name}}

  def start_child(meta, name, supervisor, child_spec),
    do: Bench.ElixirRegistry.start_child(via_tuple(meta, name), supervisor, child_spec)

  def whereis_name(%{scope: scope}, name), do: :syn.whereis_name({scope, name})

  def count(%{scope: scope}), do: :syn.registry_count(scope)
end

defmodule Bench.Horde do
  @compile {:no_warn_undefined, Horde.Registry}

  def child_spec(application, _config) do
    {:ok, _started} = Application.ensure_all_started(:horde)
    {:ok, {Horde.Registry, keys: :unique, name: application}, %{registry: application}}
  end

  def via_tuple(%{registry: registry}, name), do: {:via, Horde.Registry, {registry, name}}

  def start_child(meta, name, supervisor, child_spec),
    do: Bench.ElixirRegistry.start_child(via_tuple(meta, name), supervisor, child_spec)

  def whereis_name(%{registry: registry}, name),
    do: Horde.Registry.whereis_name({registry, name})

  def count(%{registry: registry}), do: Horde.Registry.count(registry)
end

defmodule Bench.Empty do
  # Does nothing: this measures the cost of measuring.

  def child_spec(_application, _config), do: {:ok, nil, %{}}
  def via_tuple(_meta, name), do: {:via, __MODULE__, name}
  def start_child(_meta, _name, _supervisor, _child_spec), do: {:ok, self()}
  def whereis_name(_meta, _name), do: :undefined
  def register_name(_name, _pid), do: :yes
  def unregister_name(_name), do: :ok
end

defmodule Bench.Engines do
  # The registries to compare, and the limits of each.

  alias WorkflowMetal.Registration.{LocalRegistry, NativeRegistry}

  @thousand 1_000
  @hundred_thousand 100_000

  # In the order of the tables. `:misses`: whether lookups of missing names are measured. `:most`: the largest set
  # of names, by kind of holders. `:slow`: a registration takes hundreds of microseconds, so the batches are smaller.
  def all do
    [
      engine(:native, "NativeRegistry", NativeRegistry, count: &native_count/1),
      engine(:local, "LocalRegistry", local_adapter(), count: &registry_count/1),
      engine(:partitioned, "Registry, partitioned", Bench.PartitionedRegistry,
        count: &registry_count/1
      ),
      engine(:ets, "bare ETS", Bench.BareETS,
        misses: Bench.BareETS.Missing,
        count: &:ets.info(&1, :size)
      ),
      engine(:gproc, "gproc", Bench.Gproc,
        needs: :gproc,
        count: &Bench.Gproc.count/1,
        most: %{one_holder: @hundred_thousand, process_a_name: @hundred_thousand},
        because: "no more than 100,000 names, for the time it takes"
      ),
      engine(:syn, "syn", Bench.Syn,
        needs: :syn,
        count: &Bench.Syn.count/1,
        most: %{one_holder: @thousand, process_a_name: @hundred_thousand},
        because:
          "no more than 100,000 names, for the time it takes, and 1,000 for one holder, whose " <>
            "every\n  registration takes longer than the one before"
      ),
      engine(:horde, "Horde.Registry", Bench.Horde,
        needs: Horde.Registry,
        count: &Bench.Horde.count/1,
        most: %{one_holder: @thousand, process_a_name: @thousand},
        because: "no more than 1,000 names, for a registration may take a millisecond",
        slow: true
      ),
      engine(:global, ":global", Bench.Global,
        count: fn _meta -> length(:global.registered_names()) end,
        most: %{one_holder: @thousand, process_a_name: @thousand},
        because: "no more than 1,000 names, for a registration takes up to milliseconds",
        slow: true
      ),
      engine(:empty, "the empty loop", Bench.Empty, count: fn _meta -> 0 end)
    ]
  end

  def present, do: Enum.filter(all(), &present?/1)
  def absent, do: Enum.reject(all(), &present?/1)
  def get(key), do: Enum.find(all(), &(&1.key == key))

  def takes?(engine, held, size), do: size <= engine.most[held]

  def start(engine) do
    application = Module.concat(Bench, engine.key)
    {:ok, child_spec, meta} = engine.adapter.child_spec(application, [])

    if child_spec do
      {:ok, _supervisor} = Supervisor.start_link([child_spec], strategy: :one_for_one)
    end

    Map.put(engine, :meta, meta)
  end

  # The name of a registry of this project.
  def registry(%{meta: %{registry: registry}}), do: registry

  def whereis(engine, name), do: engine.adapter.whereis_name(engine.meta, name)

  def via(engine, name) do
    {:via, module, term} = engine.adapter.via_tuple(engine.meta, name)
    {module, term}
  end

  def count(engine), do: engine.count.(engine.meta)

  # WorkflowMetal's own, if it is on the code path.
  def local_adapter do
    if Code.ensure_loaded?(LocalRegistry), do: LocalRegistry, else: Bench.ElixirRegistry
  end

  defp engine(key, label, adapter, options) do
    %{
      key: key,
      label: label,
      adapter: adapter,
      misses: Keyword.get(options, :misses, adapter),
      count: Keyword.fetch!(options, :count),
      needs: Keyword.get(options, :needs, adapter),
      most: Keyword.get(options, :most, %{one_holder: :any, process_a_name: :any}),
      because: Keyword.get(options, :because),
      slow: Keyword.get(options, :slow, false)
    }
  end

  defp present?(engine), do: Code.ensure_loaded?(engine.needs)

  # Public, so that other builds have it too.
  defp native_count(%{registry: registry}), do: NativeRegistry.Registry.count(registry)

  defp registry_count(%{registry_name: registry}), do: Registry.count(registry)
end
