defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Pids do
  @moduledoc false
  # Pids as numbers. A pid in external format is the tag and the node, then `id` and `serial`, of four
  # bytes each, then the creation of the node, of four bytes. All but the two numbers is the same for all
  # pids of a session, so the state of the machine has the numbers alone.

  import Bitwise

  @doc "The number of a pid of this node."
  @spec number(pid) :: non_neg_integer
  def number(pid) do
    external = :erlang.term_to_binary(pid)
    <<id::32, serial::32, _creation::32>> = binary_part(external, byte_size(external), -12)
    serial <<< 32 ||| id
  end

  @doc "What stands before the numbers and after them, for all pids of this node."
  @spec built() :: {prefix :: binary, suffix :: binary}
  def built do
    external = :erlang.term_to_binary(self())
    size = byte_size(external)
    {binary_part(external, 0, size - 12), binary_part(external, size, -4)}
  end

  @doc "The pid of this node that has the number."
  @spec pid(non_neg_integer) :: pid
  def pid(number) do
    {prefix, suffix} = built()

    :erlang.binary_to_term(
      <<prefix::binary, number &&& 0xFFFFFFFF::32, number >>> 32::32, suffix::binary>>
    )
  end
end
