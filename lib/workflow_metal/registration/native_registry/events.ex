defmodule WorkflowMetal.Registration.NativeRegistry.Events do
  @moduledoc false
  # Which processes are told of changes. The native library sends the messages.

  alias WorkflowMetal.Registration.NativeRegistry.{Name, Native, Registry}

  @typep registry :: Registry.registry()

  @doc "Has the calling process told of changes, on this node, of names that match."
  @spec subscribe(registry, Registry.pattern()) :: :ok
  def subscribe(registry, pattern) do
    case Native.subscribe(registry, Name.pattern!(pattern), self()) do
      :ok -> :ok
      :no_thread -> no_thread!()
      # The caller is alive, so it is the registry that is about to stop.
      refusal when refusal in [:ended, :no_registry] -> Name.unknown_registry!(registry)
    end
  end

  @doc "Ends such a subscription of the calling process."
  @spec unsubscribe(registry, Registry.pattern()) :: :ok
  def unsubscribe(registry, pattern) do
    with :no_registry <- Native.unsubscribe(registry, Name.pattern!(pattern), self()) do
      Name.unknown_registry!(registry)
    end

    :ok
  end

  @doc "Has the processes of these names told of all changes."
  @spec listen(registry, [atom]) :: :ok
  def listen(registry, listeners), do: listened(Native.listen(registry, listeners), registry)

  @doc """
  Has the processes of these names told of all names that become free, and that events were lost. No others
  are, in place of those before.
  """
  @spec listen_to_releases(registry, [atom]) :: :ok
  def listen_to_releases(registry, listeners),
    do: listened(Native.listen_to_releases(registry, listeners), registry)

  defp listened(:ok, _registry), do: :ok
  defp listened(:no_thread, _registry), do: no_thread!()
  defp listened(:no_registry, registry), do: Name.unknown_registry!(registry)

  @doc "The processes to tell of an event about the name."
  @spec audience(registry, Registry.name()) :: [pid | atom] | :no_registry
  def audience(registry, name) do
    case Native.audience(registry, name) do
      audience when is_list(audience) -> audience
      :no_registry -> :no_registry
      refusal -> audience(registry, Name.prepare!(refusal, registry, name))
    end
  end

  @doc "The processes to tell of an event about the registry as a whole."
  @spec everybody(registry) :: [pid | atom] | :no_registry
  def everybody(registry), do: Native.everybody(registry)

  @doc "Raises when the native library could not start the thread that sends messages."
  @spec no_thread!() :: no_return
  def no_thread!, do: raise("the system has no thread left to tell of changes of names")
end
