defmodule WorkflowMetal.Registration.NativeRegistry.Value do
  @moduledoc false
  # Values on their way into the native library and out of it; see native/native_registry/src/kept.rs
  # for how it keeps them.

  alias WorkflowMetal.Registration.NativeRegistry.Native

  @max_bytes 1_048_576

  @doc """
  The value in the form that the NIFs take. Raises `ArgumentError` for one that is too large.
  """
  @spec encode!(term) :: nil | binary | {pos_integer, term}
  def encode!(nil), do: nil

  def encode!(value) when is_bitstring(value) do
    check!(:erlang.external_size(value))
    :erlang.term_to_binary(value)
  end

  def encode!(value) do
    # Before anything goes through the value as a whole: one that shares its parts may have more of
    # them than can ever be gone through.
    case plain(value, @max_bytes) do
      left when is_integer(left) and left >= 0 ->
        external = :erlang.term_to_binary(value)
        check!(byte_size(external))
        external

      :bound ->
        if parts(value, @max_bytes) < 0, do: too_large!("a larger one")
        size = :erlang.external_size(value)
        check!(size)
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

  defp check!(size) when size <= @max_bytes, do: :ok
  defp check!(size), do: too_large!("one of #{size}")

  @spec too_large!(String.t()) :: no_return
  defp too_large!(what) do
    raise ArgumentError,
          "expected a value of at most #{@max_bytes} bytes in external format, " <>
            "got #{what}"
  end

  # `left` less what the term takes in external format at least; below zero, and then of part of the
  # term only, when that is too much. `:bound` for a term that is not just data, wherever it is found
  # before that: what it means depends on the node, or on being referred to.
  defp plain(_term, left) when left < 0, do: left

  defp plain([head | tail], left),
    do: with(left when is_integer(left) <- plain(head, left - 1), do: plain(tail, left))

  defp plain([], left), do: left - 1
  defp plain(term, left) when is_atom(term), do: left - 2
  defp plain(term, left) when is_binary(term), do: left - byte_size(term)
  defp plain(term, left) when is_bitstring(term), do: left - byte_size(term)
  defp plain(term, left) when is_float(term), do: left - 9
  # An integer may be large; to ask for its size does not take long.
  defp plain(term, left) when is_integer(term) and term in 0..0xFFFFFFFF, do: left - 1
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

  # The same of any term.
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

  # By one and one: to make a list of many would take long in one piece.
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
