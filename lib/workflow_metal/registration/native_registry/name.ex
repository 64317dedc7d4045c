defmodule WorkflowMetal.Registration.NativeRegistry.Name do
  @moduledoc false
  # What is to be done about a name that the NIF did not take.

  import Bitwise

  alias WorkflowMetal.Registration.NativeRegistry.Native

  @max_bytes 65_536
  @max_depth 256
  @max_map_work 262_144

  # What any part of a name counts for at least, and a map, a function with an environment and one
  # without. The NIF counts exactly; here it is enough that a term of any size is soon refused.
  @least 4
  @map 32
  @closure 40
  @capture 20

  # What an integer has in external format besides its magnitude, at most.
  @external 7

  # The kinds of opened parts, as in native/native_registry/src/odd.rs.
  @integer 0
  @bits 1
  @fun 2
  @export 3

  @doc """
  The name in a form that the NIF takes, or an `ArgumentError` that says why there is none.
  """
  @spec prepare!(Native.refusal(), atom, term) :: term
  def prepare!(:odd, _registry, name) do
    {opened, _left} = open(name, {Native.odd(), name}, @max_depth, @max_bytes)

    case Native.check(opened) do
      :ok -> opened
      # Opened, and yet it is of no kind that the NIF knows.
      :odd -> unknown_kind!(name)
      # Here, as the caller could only show the opened name.
      refusal -> refuse!(refusal, nil, name)
    end
  end

  def prepare!(refusal, registry, name), do: refuse!(refusal, registry, name)

  @spec refuse!(Native.refusal(), atom, term) :: no_return
  defp refuse!(:no_registry, registry, _name), do: unknown_registry!(registry)
  defp refuse!(:too_large, _registry, name), do: too_large!(name)
  defp refuse!(:too_deep, _registry, name), do: too_deep!(name)

  defp refuse!(:too_many_maps, _registry, name) do
    raise ArgumentError,
          "expected a name whose maps can be put in order by moving at most #{@max_map_work} bytes, " <>
            "a map in a map once more for each level, got: #{brief(name)}"
  end

  # The VM's native interface does not open functions, integers of more than 64 bits and
  # bitstrings. Each is replaced by a tuple with what identifies it, behind a mark that cannot
  # come from anywhere else. A name is as small as the NIF wants it or it is refused: a term that
  # shares its parts may have more of them than can ever be walked, so the walk counts.
  defp open(_term, {_mark, name}, 0, _left), do: too_deep!(name)
  defp open(_term, {_mark, name}, _depth, left) when left <= 0, do: too_large!(name)

  defp open(list, marked, depth, left) when is_list(list),
    do: open_list(list, marked, depth - 1, left - @least)

  defp open(tuple, marked, depth, left) when is_tuple(tuple) do
    # A tuple with more elements than a name has room for is not copied into a list first.
    if tuple_size(tuple) > div(left, @least), do: too_large!(elem(marked, 1))
    {elements, left} = open_list(Tuple.to_list(tuple), marked, depth - 1, left - @least)
    {List.to_tuple(elements), left}
  end

  defp open(map, marked, depth, left) when is_map(map) do
    if map_size(map) > div(left, 2 * @least), do: too_large!(elem(marked, 1))

    {pairs, left} =
      Enum.map_reduce(:maps.to_list(map), left - @map, fn {key, value}, left ->
        {key, left} = open(key, marked, depth - 1, left)
        {value, left} = open(value, marked, depth - 1, left)
        {{key, value}, left}
      end)

    {:maps.from_list(pairs), left}
  end

  defp open(integer, {mark, _name} = marked, _depth, left)
       when is_integer(integer) and (integer >= 1 <<< 64 or integer < -(1 <<< 63)) do
    # Known without reading the integer, which may have megabytes.
    if :erlang.external_size(integer) > left + @external, do: too_large!(elem(marked, 1))
    magnitude = integer |> abs() |> :binary.encode_unsigned(:little)
    if byte_size(magnitude) > left, do: too_large!(elem(marked, 1))
    negative = if integer < 0, do: 1, else: 0
    {{mark, @integer, magnitude, negative}, left - byte_size(magnitude)}
  end

  defp open(bits, {mark, name}, _depth, left) when is_bitstring(bits) and not is_binary(bits) do
    if byte_size(bits) > left, do: too_large!(name)
    last = rem(bit_size(bits), 8)
    {{mark, @bits, <<bits::bitstring, 0::size(8 - last)>>, last}, left - byte_size(bits)}
  end

  defp open(fun, {mark, _name} = marked, depth, left) when is_function(fun) do
    info = Map.new(:erlang.fun_info(fun))

    case info do
      %{type: :external, module: module, name: name, arity: arity} ->
        {{mark, @export, [module, name, arity]}, left - @capture}

      %{type: :local, env: env} ->
        identity = Enum.map([:module, :arity, :new_index, :new_uniq, :index, :uniq], &info[&1])
        {env, left} = open_list(env, marked, depth - 1, left - @closure)
        {{mark, @fun, identity ++ env}, left}
    end
  end

  defp open(other, _marked, _depth, left)
       when is_atom(other) or is_number(other) or is_binary(other) or is_pid(other) or
              is_port(other) or is_reference(other),
       do: {other, left - @least}

  # A kind of term that there was not when this was written.
  defp open(_other, {_mark, name}, _depth, _left), do: unknown_kind!(name)

  # A list's length is no depth. The tail of an improper one is taken as one more element.
  defp open_list([head | tail], marked, depth, left) do
    {head, left} = open(head, marked, depth, left)
    {tail, left} = open_list(tail, marked, depth, left)
    {[head | tail], left}
  end

  defp open_list([], _marked, _depth, left), do: {[], left}
  defp open_list(tail, marked, depth, left), do: open(tail, marked, depth, left)

  @doc "Raises for a registry that there is not."
  @spec unknown_registry!(term) :: no_return
  def unknown_registry!(registry) do
    raise ArgumentError,
          "unknown registry: #{inspect(registry)}. Either it was never started or it was stopped"
  end

  @doc "Raises for a pattern in which `:_` stands in the key of a map."
  @spec bad_pattern!(term) :: no_return
  def bad_pattern!(pattern) do
    raise ArgumentError,
          "expected a pattern without :_ in the key of a map, got: #{brief(pattern)}"
  end

  @spec too_large!(term) :: no_return
  defp too_large!(name) do
    raise ArgumentError,
          "expected a name of at most #{@max_bytes} bytes in canonical form, got: #{brief(name)}"
  end

  @spec too_deep!(term) :: no_return
  defp too_deep!(name) do
    raise ArgumentError,
          "expected a name nested at most #{@max_depth} levels deep, got: #{brief(name)}"
  end

  @spec unknown_kind!(term) :: no_return
  defp unknown_kind!(name) do
    raise ArgumentError,
          "expected a name of atoms, numbers, bitstrings, pids, ports, references, functions, " <>
            "tuples, lists and maps, got one with a term of another kind: #{brief(name)}"
  end

  # `inspect/1` goes to the bottom of a term, however deep that is, and may not know its kind.
  defp brief(term), do: term |> prune(3) |> inspect(limit: 8, printable_limit: 80)

  defp prune(tuple, depth) when is_tuple(tuple) and (depth == 0 or tuple_size(tuple) > 8),
    do: :...

  defp prune(tuple, depth) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> Enum.map(&prune(&1, depth - 1)) |> List.to_tuple()

  defp prune([_head | _tail], 0), do: :...
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

  # `inspect/2` shows fewer.
  defp prune_list([head | tail], depth, left) when left > 0,
    do: [prune(head, depth) | prune_list(tail, depth, left - 1)]

  defp prune_list([_head | _tail], _depth, 0), do: []
  defp prune_list(tail, depth, _left), do: prune(tail, depth)
end
