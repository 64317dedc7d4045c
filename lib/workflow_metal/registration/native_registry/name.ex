defmodule WorkflowMetal.Registration.NativeRegistry.Name do
  @moduledoc false
  # Names and patterns on their way into the native library.
  #
  # The native interface of the VM does not open functions, integers of more than 64 bits and
  # bitstrings. For a term with such a part a NIF answers `:odd`. The part is then replaced by a
  # tuple that identifies it, and the NIF is called again with this opened name. All other refusals
  # become an `ArgumentError`, whose text comes from the library; see
  # native/native_registry/src/refusal.rs.

  import Bitwise

  alias WorkflowMetal.Registration.NativeRegistry.Native

  # How many bytes a part of a name counts for at least, and a map, a function with an environment
  # and one without. The NIF counts exactly. Here it is enough that a term of any size is soon
  # refused.
  @least 4
  @map 32
  @closure 40
  @capture 20

  # The most bytes that an integer has in external format besides its magnitude.
  @external 7

  # The kinds of opened parts, as in native/native_registry/src/odd.rs.
  @integer 0
  @bits 1
  @fun 2
  @export 3

  @doc """
  The name in a form that the NIF takes. Raises `ArgumentError` with the reason when there is none.
  """
  @spec prepare!(Native.refusal(), atom, term) :: term
  def prepare!(:odd, _registry, name) do
    opened = open!(name)

    case Native.check(opened) do
      :ok -> opened
      # All parts that can be opened have been opened, so the rest is of a kind that the NIF does not know.
      refusal -> refuse!(refusal, name)
    end
  end

  def prepare!(:no_registry, registry, _name), do: unknown_registry!(registry)
  def prepare!(refusal, _registry, name), do: refuse!(refusal, name)

  @doc "The pattern in the form that the NIFs take. Raises `ArgumentError` when it is none."
  @spec pattern!(term) :: binary
  def pattern!(pattern), do: pattern!(pattern, pattern)

  defp pattern!(opened, pattern) do
    case Native.pattern(opened) do
      prepared when is_binary(prepared) -> prepared
      :odd -> pattern!(prepare!(:odd, nil, pattern), pattern)
      refusal -> refuse!(refusal, pattern)
    end
  end

  @doc "Raises for a registry that does not run."
  @spec unknown_registry!(term) :: no_return
  def unknown_registry!(registry) do
    raise ArgumentError,
          "unknown registry: #{inspect(registry)}. Either it was never started or it was stopped"
  end

  @doc "Raises for a pid of another node, or a term that is no pid."
  @spec not_of_this_node!(term) :: no_return
  def not_of_this_node!(pid) do
    raise ArgumentError, "expected a pid of this node, got: #{inspect(pid)}"
  end

  @spec refuse!(Native.refusal() | :bad_pattern, term) :: no_return
  defp refuse!(:odd, name) do
    raise ArgumentError,
          Native.message(:odd) <> ", got one with a term of another kind: " <> brief(name)
  end

  defp refuse!(refusal, name) do
    raise ArgumentError, Native.message(refusal) <> ", got: " <> brief(name)
  end

  # A term that shares its parts may have more of them than can be visited, so the walk counts.
  # Each part is opened with the depth and the bytes that are left.
  defp open!(name) do
    {bytes, depth, _map_work, _value} = Native.limits()
    {opened, _left} = open(name, {Native.odd(), name}, depth, bytes)
    opened
  end

  # `marked` is the mark of opened parts, which no other term can contain, and the whole name for an
  # error.
  defp open(_term, {_mark, name}, 0, _left), do: refuse!(:too_deep, name)
  defp open(_term, {_mark, name}, _depth, left) when left <= 0, do: refuse!(:too_large, name)

  defp open(list, marked, depth, left) when is_list(list),
    do: open_list(list, marked, depth - 1, left - @least)

  defp open(tuple, {_mark, name} = marked, depth, left) when is_tuple(tuple) do
    # Checked first, so that a tuple with more elements than a name has room for is not copied.
    if tuple_size(tuple) > div(left, @least), do: refuse!(:too_large, name)
    {elements, left} = open_list(Tuple.to_list(tuple), marked, depth - 1, left - @least)
    {List.to_tuple(elements), left}
  end

  defp open(map, {_mark, name} = marked, depth, left) when is_map(map) do
    if map_size(map) > div(left, 2 * @least), do: refuse!(:too_large, name)

    {pairs, left} =
      Enum.map_reduce(:maps.to_list(map), left - @map, fn {key, value}, left ->
        {key, left} = open(key, marked, depth - 1, left)
        {value, left} = open(value, marked, depth - 1, left)
        {{key, value}, left}
      end)

    {:maps.from_list(pairs), left}
  end

  defp open(integer, {mark, name}, _depth, left)
       when is_integer(integer) and (integer >= 1 <<< 64 or integer < -(1 <<< 63)) do
    # An integer may have megabytes. Its external size is known without reading them.
    if :erlang.external_size(integer) > left + @external, do: refuse!(:too_large, name)
    magnitude = integer |> abs() |> :binary.encode_unsigned(:little)
    if byte_size(magnitude) > left, do: refuse!(:too_large, name)
    negative = if integer < 0, do: 1, else: 0
    {{mark, @integer, magnitude, negative}, left - byte_size(magnitude)}
  end

  defp open(bits, {mark, name}, _depth, left) when is_bitstring(bits) and not is_binary(bits) do
    if byte_size(bits) > left, do: refuse!(:too_large, name)
    last = rem(bit_size(bits), 8)
    {{mark, @bits, <<bits::bitstring, 0::size(8 - last)>>, last}, left - byte_size(bits)}
  end

  defp open(fun, {mark, _name} = marked, depth, left) when is_function(fun) do
    case Map.new(:erlang.fun_info(fun)) do
      %{type: :external, module: module, name: name, arity: arity} ->
        {{mark, @export, [module, name, arity]}, left - @capture}

      %{type: :local, env: env} = info ->
        identity = Enum.map([:module, :arity, :new_index, :new_uniq, :index, :uniq], &info[&1])
        {env, left} = open_list(env, marked, depth - 1, left - @closure)
        {{mark, @fun, identity ++ env}, left}
    end
  end

  defp open(other, _marked, _depth, left)
       when is_atom(other) or is_number(other) or is_binary(other) or is_pid(other) or
              is_port(other) or is_reference(other),
       do: {other, left - @least}

  # A kind of term that a later release of the VM has added.
  defp open(_other, {_mark, name}, _depth, _left), do: refuse!(:odd, name)

  # The length of a list does not count as depth. The tail of an improper list counts as one more
  # element.
  defp open_list([head | tail], marked, depth, left) do
    {head, left} = open(head, marked, depth, left)
    {tail, left} = open_list(tail, marked, depth, left)
    {[head | tail], left}
  end

  defp open_list([], _marked, _depth, left), do: {[], left}
  defp open_list(tail, marked, depth, left), do: open(tail, marked, depth, left)

  @doc """
  The term in a few words, for an error. `inspect/1` alone visits all of a term, however deep it is,
  and may not know its kind.
  """
  @spec brief(term) :: String.t()
  def brief(term), do: term |> prune(3) |> inspect(limit: 8, printable_limit: 80)

  defp prune(tuple, depth) when is_tuple(tuple) and (depth == 0 or tuple_size(tuple) > 8),
    do: :...

  defp prune(tuple, depth) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> Enum.map(&prune(&1, depth - 1)) |> List.to_tuple()

  defp prune([_head | _tail], 0), do: :...
  # One more element than `inspect/2` shows.
  defp prune([_head | _tail] = list, depth), do: prune_list(list, depth - 1, 9)
  defp prune(map, _depth) when is_map(map), do: :...
  defp prune(fun, _depth) when is_function(fun), do: :...

  defp prune(integer, _depth)
       when is_integer(integer) and (integer >= 1 <<< 64 or integer <= -(1 <<< 64)),
       do: :...

  defp prune(bits, _depth) when is_bitstring(bits) and not is_binary(bits), do: :...

  defp prune(binary, _depth) when is_binary(binary) and byte_size(binary) > 80,
    do: binary_part(binary, 0, 80) <> "..."

  defp prune(term, _depth)
       when is_atom(term) or is_number(term) or is_binary(term) or is_pid(term) or is_port(term) or
              is_reference(term) or term == [],
       do: term

  defp prune(_unknown, _depth), do: :...

  defp prune_list([head | tail], depth, left) when left > 0,
    do: [prune(head, depth) | prune_list(tail, depth, left - 1)]

  defp prune_list([_head | _tail], _depth, 0), do: []
  defp prune_list(tail, depth, _left), do: prune(tail, depth)
end
