defmodule WorkflowMetal.Registration.NativeRegistry do
  @moduledoc false

  alias WorkflowMetal.Registration.NativeRegistry.{Name, Native, Owner}

  @adapter WorkflowMetal.Registration.Adapter
  @has_adapter Code.ensure_loaded?(@adapter)

  if @has_adapter do
    @behaviour @adapter
  end

  # WorkflowMetal may come to the code path, or leave it, after this was compiled.
  @doc false
  def __mix_recompile__?, do: Code.ensure_loaded?(@adapter) != @has_adapter

  @typedoc "The name of a registry: for WorkflowMetal, that of the application."
  @type registry :: atom

  @typedoc "What the via tuple holds."
  @type via_name :: {registry, name :: term}

  @type adapter_meta :: %{registry: registry}

  @type on_start_child :: {:ok, pid} | {:error, term} | :ignore

  @options []

  # How often `start_child/4` starts over when the holder it is told of is gone. Each time the
  # name was free for a moment and somebody else took it and died; a storm of that has ended long
  # before.
  @attempts 1_000

  @doc false
  @spec child_spec(registry, keyword) :: {:ok, Supervisor.child_spec(), adapter_meta}
  def child_spec(application, config) when is_atom(application) do
    configured = Application.get_env(:workflow_metal_native_registry, application, [])
    options = Keyword.merge(configured, config)

    for {option, _value} <- options, option not in @options do
      raise ArgumentError,
            "unknown option #{inspect(option)} for the registry of #{inspect(application)}, " <>
              "the known options are: #{inspect(@options)}"
    end

    child_spec = %{id: Owner.name(application), start: {Owner, :start_link, [application]}}
    {:ok, child_spec, %{registry: application}}
  end

  @spec via_tuple(adapter_meta, term) :: {:via, module, via_name}
  def via_tuple(%{registry: registry}, name), do: {:via, __MODULE__, {registry, name}}

  @spec start_child(
          adapter_meta,
          term,
          Supervisor.supervisor(),
          module | {module, keyword}
        ) :: on_start_child
  def start_child(%{registry: registry} = meta, name, supervisor, child_spec) do
    {module, arguments} = check_child_spec!(child_spec)

    case whereis(registry, name) do
      :undefined ->
        arguments = Keyword.put(arguments, :name, via_tuple(meta, name))
        start_child_anew(supervisor, {module, arguments}, @attempts)

      pid ->
        {:ok, pid}
    end
  end

  defp check_child_spec!(module) when is_atom(module), do: {module, []}

  defp check_child_spec!({module, arguments} = child_spec) when is_atom(module) do
    if Keyword.keyword?(arguments), do: child_spec, else: bad_child_spec!(child_spec)
  end

  defp check_child_spec!(child_spec), do: bad_child_spec!(child_spec)

  @spec bad_child_spec!(term) :: no_return
  defp bad_child_spec!(child_spec) do
    raise ArgumentError,
          "expected a child spec that is a module or {module, keyword}, got: " <>
            inspect(child_spec)
  end

  defp start_child_anew(supervisor, child_spec, attempts) do
    case DynamicSupervisor.start_child(supervisor, child_spec) do
      {:ok, pid} ->
        {:ok, pid}

      {:ok, pid, _info} ->
        {:ok, pid}

      {:error, {:already_started, pid}} = error ->
        cond do
          is_pid(pid) and (attempts == 1 or alive?(pid)) -> {:ok, pid}
          attempts == 1 -> error
          true -> start_child_anew(supervisor, child_spec, attempts - 1)
        end

      # The child had the name already and was killed before its `init` was done.
      {:error, :killed} when attempts > 1 ->
        start_child_anew(supervisor, child_spec, attempts - 1)

      other ->
        other
    end
  end

  defp alive?(pid), do: node(pid) != node() or Process.alive?(pid)

  @spec whereis_name(adapter_meta, term) :: pid | :undefined
  def whereis_name(%{registry: registry}, name), do: whereis(registry, name)

  @spec whereis_name(via_name) :: pid | :undefined
  def whereis_name({registry, name}), do: whereis(registry, name)

  @spec register_name(via_name, pid) :: :yes | :no
  def register_name({registry, name}, pid) when is_pid(pid) do
    register(registry, name, pid, nil)
  end

  @spec unregister_name(via_name) :: :ok
  def unregister_name({registry, name}) do
    case Native.unregister(registry, name, self()) do
      refusal when refusal in [:yes, :no, :no_registry] -> :ok
      refusal -> unregister_name({registry, Name.prepare!(refusal, registry, name)})
    end
  end

  @spec send(via_name, message) :: pid when message: term
  def send({registry, name} = via_name, message) do
    case whereis(registry, name) do
      :undefined -> exit({:badarg, {via_name, message}})
      pid -> Kernel.send(pid, message) && pid
    end
  end

  defp whereis(registry, name) do
    case Native.whereis(registry, name) do
      # Only the VM knows of signals that are on their way to a process.
      pid when is_pid(pid) -> if Process.alive?(pid), do: pid, else: :undefined
      :undefined -> :undefined
      refusal -> whereis(registry, Name.prepare!(refusal, registry, name))
    end
  end

  defp register(registry, name, pid, ended) do
    case Native.register(registry, name, pid, ended) do
      :yes ->
        :yes

      :ended ->
        if node(pid) != node() do
          raise ArgumentError, "expected a pid of this node, got: #{inspect(pid)}"
        end

        :no

      holder when is_pid(holder) ->
        if Process.alive?(holder), do: :no, else: register(registry, name, pid, holder)

      refusal ->
        register(registry, Name.prepare!(refusal, registry, name), pid, ended)
    end
  end
end
