defmodule WorkflowMetal.Registration.NativeRegistry.Meta do
  @moduledoc false
  # What users keep with a registry as a whole. The native library keeps it as it keeps names and
  # values.

  alias WorkflowMetal.Registration.NativeRegistry.{Name, Native, Registry, Value}

  @typep registry :: Registry.registry()
  @typep key :: Registry.meta_key()

  @spec get(registry, key) :: {:ok, Registry.meta_value()} | :error
  def get(registry, key) do
    answer = with :heavy <- Native.meta(registry, key), do: Native.meta_heavy(registry, key)

    case answer do
      {:ok, value} -> {:ok, Value.decode(value)}
      :error -> :error
      refusal -> get(registry, Name.prepare!(refusal, registry, key))
    end
  end

  @spec put(registry, key, Registry.meta_value()) :: :ok
  def put(registry, key, value), do: put_encoded(registry, key, Value.encode!(value))

  @doc "As `put/3`, unless the key has a value already."
  @spec put_new(registry, key, Registry.meta_value()) :: :ok
  def put_new(registry, key, value) do
    with :error <- get(registry, key), do: put(registry, key, value)
    :ok
  end

  defp put_encoded(registry, key, value) do
    answer =
      with :heavy <- Native.put_meta(registry, key, value),
           do: Native.put_meta_heavy(registry, key, value)

    case answer do
      :ok ->
        :ok

      refusal ->
        put_encoded(registry, Name.prepare!(refusal, registry, key), {:name, key, value})
    end
  end

  @spec delete(registry, key) :: :ok
  def delete(registry, key) do
    case Native.delete_meta(registry, key) do
      :ok -> :ok
      refusal -> delete(registry, Name.prepare!(refusal, registry, key))
    end
  end
end
