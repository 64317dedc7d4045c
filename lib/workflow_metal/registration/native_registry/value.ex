defmodule WorkflowMetal.Registration.NativeRegistry.Value do
  @moduledoc false
  # Values on their way into the native library and out of it; see
  # native/native_registry/src/kept.rs for how it keeps them.

  alias WorkflowMetal.Registration.NativeRegistry.Native

  @typedoc "A value as the NIFs take it."
  @type encoded :: nil | binary | {external_size :: pos_integer, term}

  # Far below the limit, for which the library has to be asked; also for a value of atoms, which take up to
  # five hundred times what they count for below.
  @small 1_024

  @doc "The value in the form that the NIFs take. Raises `ArgumentError` for one that is too large."
  @spec encode!(term) :: encoded
  def encode!(nil), do: nil

  def encode!(value) when is_bitstring(value) do
    if byte_size(value) > @small, do: check!(:erlang.external_size(value), limit())
    :erlang.term_to_binary(value)
  end

  def encode!(value) do
    case plain(value, @small) do
      left when is_integer(left) and left >= 0 -> :erlang.term_to_binary(value)
      _bound_or_larger -> encode_large!(value, limit())
    end
  end

  defp encode_large!(value, limit) do
    # First, because a term that shares its parts may have more of them than can be visited.
    case plain(value, limit) do
      left when is_integer(left) and left >= 0 ->
        external = :erlang.term_to_binary(value)
        check!(byte_size(external), limit)
        external

      :bound ->
        if size(value, limit) == :too_large, do: too_large!("a larger one")
        size = :erlang.external_size(value)
        check!(size, limit)
        {size, value}

      _below_zero ->
        too_large!("a larger one")
    end
  end

  @doc "The value that a NIF has answered."
  @spec decode(Native.kept()) :: term
  def decode(nil), do: nil
  def decode({value}), do: value
  def decode(external), do: :erlang.binary_to_term(external)

  @doc "How many bytes the term takes in external format at least, if that is within the limit."
  @spec size(term, pos_integer) :: non_neg_integer | :too_large
  def size(term, limit) when is_integer(limit) do
    case parts(term, limit) do
      left when is_integer(left) and left >= 0 -> limit - left
      _below_zero -> :too_large
    end
  end

  defp limit do
    {_name, _depth, _map_work, value} = Native.limits()
    value
  end

  defp check!(size, limit) when size <= limit, do: :ok
  defp check!(size, _limit), do: too_large!("one of #{size}")

  @spec too_large!(String.t()) :: no_return
  defp too_large!(what) do
    raise ArgumentError, Native.message(:value_too_large) <> ", got " <> what
  end

  # `left` less the bytes that the term takes in external format at least. A result below zero says
  # that the term is too large, and may count a part of it only. `:bound` is a term that is more than
  # data: its meaning depends on the node, or on a reference to it.
  defp plain(_term, left) when left < 0, do: left

  defp plain([head | tail], left),
    do: with(left when is_integer(left) <- plain(head, left - 1), do: plain(tail, left))

  defp plain([], left), do: left - 1
  defp plain(term, left) when is_atom(term), do: left - 2
  defp plain(term, left) when is_binary(term), do: left - byte_size(term)
  defp plain(term, left) when is_bitstring(term), do: left - byte_size(term)
  defp plain(term, left) when is_float(term), do: left - 9
  defp plain(term, left) when is_integer(term) and term in 0..0xFFFFFFFF, do: left - 1
  # However large an integer is, its external size is found at once.
  defp plain(term, left) when is_integer(term), do: left - :erlang.external_size(term) + 2
  defp plain(term, left) when is_tuple(term), do: elements(term, 0, left - 2, &plain/2)
  defp plain(term, left) when is_map(term), do: pairs(:maps.iterator(term), left - 5, &plain/2)

  defp plain(term, left) when is_function(term) do
    case :erlang.fun_info(term, :type) do
      {:type, :external} -> left - 10
      {:type, :local} -> :bound
    end
  end

  defp plain(_term, _left), do: :bound

  # The same count for a term of any kind.
  defp parts(_term, left) when left < 0, do: left
  defp parts([head | tail], left), do: parts(tail, parts(head, left - 1))
  defp parts(term, left) when is_tuple(term), do: elements(term, 0, left - 2, &parts/2)
  defp parts(term, left) when is_map(term), do: pairs(:maps.iterator(term), left - 5, &parts/2)

  defp parts(term, left) when is_function(term) do
    {:env, environment} = :erlang.fun_info(term, :env)
    parts(environment, left - 20)
  end

  defp parts(term, left) do
    case plain(term, left) do
      :bound -> left - 5
      left -> left
    end
  end

  # One element after the other: to make a list of many takes long in one piece.
  defp elements(tuple, at, left, count)
       when at < tuple_size(tuple) and is_integer(left) and left >= 0,
       do: elements(tuple, at + 1, count.(elem(tuple, at), left), count)

  defp elements(_tuple, _at, left, _count), do: left

  defp pairs(iterator, left, count) when is_integer(left) and left >= 0 do
    case :maps.next(iterator) do
      :none ->
        left

      {key, value, iterator} ->
        left = count.(key, left)
        pairs(iterator, if(is_integer(left), do: count.(value, left), else: left), count)
    end
  end

  defp pairs(_iterator, left, _count), do: left
end
