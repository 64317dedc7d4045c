defmodule WorkflowMetal.Registration.NativeRegistry.Table do
  @moduledoc false
  # The names of a registry. `Local`, the table of this node, answers first: what a process of this node
  # holds is known there. For what it cannot answer in a registry that is part of a cluster, `Cluster`
  # is asked. Nothing else leads there.

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Local, Name, Native, Registry, Value}

  # The adapter's name is part of what is said by an exit. Nothing of the module is called from here.
  @adapter :"Elixir.WorkflowMetal.Registration.NativeRegistry"

  @typep registry :: Registry.registry()
  @typep name :: Registry.name()

  @doc "The process that holds the name."
  @spec whereis(registry, name) :: pid | :undefined
  def whereis(registry, name) do
    case Native.whereis(registry, name) do
      pid when is_pid(pid) -> if Process.alive?(pid), do: pid, else: whereis_ended(registry, name)
      :undefined -> :undefined
      :elsewhere -> Cluster.whereis(registry, name)
      refusal -> whereis_opened(registry, name, Name.prepare!(refusal, registry, name))
    end
  end

  defp whereis_opened(registry, name, opened) do
    case Native.whereis(registry, opened) do
      pid when is_pid(pid) -> if Process.alive?(pid), do: pid, else: whereis_ended(registry, name)
      :undefined -> :undefined
      :elsewhere -> Cluster.whereis(registry, name)
      :no_registry -> Name.unknown_registry!(registry)
    end
  end

  # A name whose holder here has ended may have a new one on another node.
  defp whereis_ended(registry, name) do
    if Local.clustered?(registry) == true, do: Cluster.whereis(registry, name), else: :undefined
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

  @doc "The process that holds the name, and its value."
  @spec lookup(registry, name) :: [{pid, Registry.value()}]
  def lookup(registry, name) do
    case Local.record(registry, name) do
      {pid, value} ->
        cond do
          Process.alive?(pid) -> [{pid, Value.decode(value)}]
          Local.clustered?(registry) == true -> Cluster.lookup(registry, name)
          true -> []
        end

      :undefined ->
        []

      :elsewhere ->
        Cluster.lookup(registry, name)
    end
  end

  @doc "Registers the name for the calling process."
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

  @doc """
  Makes the process the holder of the name.

  Answers `{:held, holder}` when a process of this node has the name; the holder is `pid` itself when
  that has ended. `:no` and errors come from a cluster only: another node has the name, or the
  cluster cannot say.
  """
  @spec claim(registry, name, pid, Value.encoded()) ::
          :yes | {:held, pid} | :no | {:error, Registry.reason()}
  def claim(registry, name, pid, value), do: claim(registry, name, pid, nil, value)

  # `ended` has been found as the holder, and has ended.
  defp claim(registry, name, pid, ended, value) do
    case Local.insert(registry, name, pid, ended, value) do
      :yes -> :yes
      :elsewhere -> Cluster.claim(registry, name, pid, ended, value)
      :ended when node(pid) == node() -> {:held, pid}
      :ended -> Name.not_of_this_node!(pid)
      holder -> held(holder) || claim(registry, name, pid, holder, value)
    end
  end

  defp held(holder), do: if(Process.alive?(holder), do: {:held, holder})

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
    with :no_registry <- free(registry, name, self()), do: :ok
  end

  defp free(registry, name, pid) do
    case Local.release(registry, name, pid) do
      answer when answer in [:yes, :no] -> :ok
      :elsewhere -> Cluster.unregister(registry, name, pid)
      :no_registry -> :no_registry
    end
  end

  @doc "Replaces the value of a name of the calling process by what the function makes of it."
  @spec update_value(registry, name, (Registry.value() -> Registry.value())) ::
          {new :: Registry.value(), old :: Registry.value()} | :error
  def update_value(registry, name, fun) when is_function(fun, 1) do
    caller = self()

    with [{^caller, old}] <- Local.lookup(registry, name),
         new = fun.(old),
         :yes <- Local.update(registry, name, caller, Value.encode!(new)) do
      {new, old}
    else
      _not_its_own -> :error
    end
  end

  def update_value(_registry, _name, fun) do
    raise ArgumentError, "expected a function of one argument, got: #{inspect(fun)}"
  end
end
