defmodule WorkflowMetal.Registration.NativeRegistry.Names do
  @moduledoc false
  # Functions for one name. This node's table answers or, for a name of another node, the cluster.

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Name, Options, Registry, Table, Value}

  # This module's name is only data here: none of its functions is called.
  @adapter :"Elixir.WorkflowMetal.Registration.NativeRegistry"

  @typep registry :: Registry.registry()
  @typep name :: Registry.name()

  # A lookup passes through here without a return, so that this module costs it a jump.
  @spec whereis(registry, name) :: pid | :undefined
  def whereis(registry, name), do: Table.whereis(registry, name, &Cluster.whereis/2)

  @spec lookup(registry, name) :: [{pid, Registry.value()}]
  def lookup(registry, name) do
    with :elsewhere <- Table.lookup(registry, name), do: Cluster.lookup(registry, name)
  end

  @doc "The same with the token of the name's grant, if the options say so."
  @spec lookup(registry, name, keyword) ::
          [{pid, Registry.value()}] | [{pid, Registry.value(), Registry.token() | nil}]
  def lookup(registry, name, options) do
    if Options.token?(options) do
      for {pid, value} <- lookup(registry, name) do
        token = if Table.clustered?(registry), do: Cluster.token(registry, name, pid)
        {pid, value, token}
      end
    else
      lookup(registry, name)
    end
  end

  @doc "Sends the message to the holder of the name. Exits as `:global` does when there is none."
  @spec send(Registry.via_name(), message :: term) :: pid
  def send(via_name, message) do
    case whereis(elem(via_name, 0), elem(via_name, 1)) do
      :undefined ->
        exit({:badarg, {via_name, message}})

      pid ->
        Kernel.send(pid, message)
        pid
    end
  end

  @spec register(registry, name, Registry.value()) ::
          {:ok, pid} | {:error, Registry.register_error()}
  def register(registry, name, value) do
    encoded = Value.encode!(value)

    case claim(registry, name, self(), encoded) do
      :yes -> {:ok, self()}
      {:held, holder} -> {:error, {:already_registered, holder}}
      :no -> Cluster.register(registry, name, encoded)
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Registers the name for a process of this node, by the rules of a via module."
  @spec register_name(registry, name, Registry.value(), pid) :: :yes | :no
  def register_name(registry, name, value, pid) do
    case claim(registry, name, pid, Value.encode!(value)) do
      :yes -> :yes
      # The contract knows no error. The caller is a new process, which ends without a report.
      {:error, reason} -> exit({:shutdown, {reason, {@adapter, registry, name}}})
      _held_by_another -> :no
    end
  end

  @compile {:inline, claim: 4, free: 3}
  defp claim(registry, name, pid, encoded) do
    with {:elsewhere, ended} <- Table.claim(registry, name, pid, encoded),
         do: Cluster.claim(registry, name, pid, ended, encoded)
  end

  @doc "Frees the name if this process, which is of this node, holds it."
  @spec unregister(registry, name, pid) :: :ok
  def unregister(registry, name, pid) when is_pid(pid) and node(pid) == node() do
    with :no_registry <- free(registry, name, pid), do: Name.unknown_registry!(registry)
  end

  def unregister(_registry, _name, pid), do: Name.not_of_this_node!(pid)

  @doc """
  Frees a name of the calling process, by the rules of a via module: a process that fails to start
  calls it, and an error would hide the reason.
  """
  @spec unregister_name(registry, name) :: :ok
  def unregister_name(registry, name) do
    _ok_or_no_registry = free(registry, name, self())
    :ok
  end

  defp free(registry, name, pid) do
    case Table.release(registry, name, pid) do
      :elsewhere -> Cluster.unregister(registry, name, pid)
      :no_registry -> :no_registry
      _yes_or_no -> :ok
    end
  end
end
