defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Mirror do
  @moduledoc false
  # The names that sessions of other nodes hold, in the native library, so that a lookup takes no lock and
  # a name hardly more memory than its bytes. A registry need not be open here.
  #
  # All processes of a session have the same node and creation. So the session has these once, and each name
  # the two numbers that differ.

  alias WorkflowMetal.Registration.NativeRegistry.{Name, Native, Registry}

  @typedoc "The number of a session, below 2^32."
  @type no :: pos_integer

  @typedoc "The two numbers of a pid, below 2^32, as in its external format."
  @type part :: non_neg_integer

  @typep registry :: Registry.registry()
  @typep name :: Registry.name()

  @doc """
  The external format of the pids of a session: `prefix <> <<id::32, serial::32>> <> suffix`.
  """
  @spec node(no, prefix :: binary, suffix :: binary) :: :ok
  def node(no, prefix, suffix) do
    unless Native.mirror_node(no, prefix, suffix) do
      raise ArgumentError,
            "expected a session below 2^32 and the external format around the numbers of a pid, " <>
              "got: #{inspect({no, prefix, suffix})}"
    end

    :ok
  end

  @doc """
  Hides all names of a session at once. Their memory is free after `delete/3` of each. Names that are put
  for the session afterwards are not found either.
  """
  @spec drop(no) :: :ok
  def drop(no), do: Native.mirror_drop(no)

  @doc "Makes a process of a session the holder of the name, instead of any before it."
  @spec put(registry, name, no, id :: part, serial :: part) :: :ok
  def put(registry, name, no, id, serial),
    do: put(registry, name, name, no, id, serial)

  defp put(registry, name, given, no, id, serial) do
    case Native.mirror_put(registry, name, no, id, serial) do
      :ok -> :ok
      refusal -> put(registry, Name.prepare!(refusal, registry, given), given, no, id, serial)
    end
  end

  @doc "Deletes the name if the session holds it."
  @spec delete(registry, name, no) :: :ok
  def delete(registry, name, no), do: delete(registry, name, name, no)

  defp delete(registry, name, given, no) do
    case Native.mirror_delete(registry, name, no) do
      :ok -> :ok
      refusal -> delete(registry, Name.prepare!(refusal, registry, given), given, no)
    end
  end

  @doc "The process of another node that holds the name."
  @spec whereis(registry, name) :: pid | :undefined
  def whereis(registry, name), do: whereis(registry, name, name)

  defp whereis(registry, name, given) do
    case Native.mirror_whereis(registry, name) do
      pid when is_pid(pid) -> pid
      :undefined -> :undefined
      refusal -> whereis(registry, Name.prepare!(refusal, registry, given), given)
    end
  end

  @doc "Forgets everything, sessions included."
  @spec clear() :: :ok
  def clear, do: Native.mirror_clear()

  @doc """
  How many names there are, and the bytes of memory they take. Names of dropped sessions that have not been
  deleted count.
  """
  @spec info() :: {names :: non_neg_integer, bytes :: non_neg_integer}
  def info, do: Native.mirror_info()
end
