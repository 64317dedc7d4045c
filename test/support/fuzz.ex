defmodule WorkflowMetal.Registration.NativeRegistry.Fuzz do
  @moduledoc false
  # Unusual terms, made of bytes in external format. As a name each of them has to be refused with an
  # `ArgumentError`, or to come back `===` itself from every function that answers names.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Native, Terms}

  @corpus Path.expand("../corpus", __DIR__)

  # First bytes of terms in external format, and bytes at which sizes change their kind.
  @telling [70, 77, 88, 89, 90, 97, 98, 104, 105, 106, 107, 108, 109, 110, 111] ++
             [112, 113, 116, 119, 131, 0, 1, 2, 15, 16, 63, 64, 127, 128, 254, 255]

  @doc "Terms that no bytes make: of this VM, and of kinds that only later releases have."
  def living do
    [self(), make_ref(), :erlang.alias(), :counters.new(1, []), :ets.new(:table, [])] ++
      Port.list() ++ [fn -> :living end, Terms.closure(make_ref())] ++ Terms.unknown()
  end

  @doc "The term with another term somewhere in it."
  def with_living(term, living) do
    case :rand.uniform(8) do
      1 -> living
      2 -> {term, living}
      3 -> [living | term]
      4 -> %{term => living}
      5 -> %{living => term}
      6 -> Terms.closure(living, term)
      7 when is_tuple(term) -> :erlang.append_element(term, living)
      _other -> [term, {living}]
    end
  end

  @doc "The files of the corpus."
  def corpus, do: [@corpus, "*.etf"] |> Path.join() |> Path.wildcard()

  @doc "Keeps bytes for ever."
  def keep(bytes) do
    file = Path.join(@corpus, "#{:erlang.phash2(bytes, 0x100000000)}.etf")
    File.write!(file, bytes)
    file
  end

  @doc "The term of these bytes, if they are one; makes no atoms and no large terms of few bytes."
  def decode(<<131, 80, _compressed::binary>>), do: :error

  def decode(bytes) do
    term = :erlang.binary_to_term(bytes, [:safe])
    if :binary.match(bytes, <<112>>) == :nomatch or sound?(term), do: {:ok, term}, else: :error
  rescue
    ArgumentError -> :error
  end

  # OTP 25 accepts bytes for a function whose creator is no pid, and crashes when the function is encoded again.
  defp sound?([head | tail]), do: sound?(head) and sound?(tail)
  defp sound?(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> sound?()
  defp sound?(map) when is_map(map), do: map |> :maps.to_list() |> sound?()

  defp sound?(fun) when is_function(fun) do
    case :erlang.fun_info(fun, :type) do
      {:type, :external} ->
        true

      {:type, :local} ->
        {:pid, creator} = :erlang.fun_info(fun, :pid)
        {:env, env} = :erlang.fun_info(fun, :env)
        is_pid(creator) and sound?(env)
    end
  end

  defp sound?(_term), do: true

  @doc "Bytes like those of the corpus, and like those of terms that people and tests use."
  def bytes(corpus) do
    case :rand.uniform(100) do
      kind when kind <= 10 -> :erlang.term_to_binary(Terms.random())
      kind when kind <= 13 -> :erlang.term_to_binary(deep())
      # Those take long.
      14 -> :erlang.term_to_binary(large())
      kind when kind <= 40 -> splice(one_of(corpus), one_of(corpus))
      _mostly -> Enum.reduce(1..:rand.uniform(6), one_of(corpus), fn _time, b -> change(b) end)
    end
  end

  defp one_of(corpus), do: elem(corpus, :rand.uniform(tuple_size(corpus)) - 1)

  # About as deep as a name may be, of every kind of term that can be nested.
  defp deep do
    wraps = [&{&1}, &[&1], &[1 | &1], &%{1 => &1}, &%{&1 => 1}, &Terms.closure/1, &{:a, &1, "b"}]

    wraps = if :rand.uniform(2) == 1, do: Enum.take_random(wraps, 1), else: wraps

    Enum.reduce(1..(240 + :rand.uniform(30)), Terms.random(1), fn _level, term ->
      Enum.random(wraps).(term)
    end)
  end

  # About as large as a name may be.
  defp large do
    filler = :binary.copy(<<:rand.uniform(256) - 1>>, Enum.random([300, 32_700, 65_400, 65_530]))
    size = :rand.uniform(32)

    Enum.random([
      filler <> :binary.copy("a", size),
      <<filler::binary, 1::size(size)>>,
      {filler, Terms.random(2)},
      %{filler => Terms.random(1), Terms.random(1) => filler},
      List.duplicate(Terms.random(1), 16_000 + size),
      :binary.decode_unsigned(<<1, filler::binary>>)
    ])
  end

  defp change(bytes) when byte_size(bytes) < 2, do: bytes

  defp change(bytes) do
    at = :rand.uniform(byte_size(bytes) - 1)
    before = binary_part(bytes, 0, at)
    <<byte, rest::binary>> = binary_part(bytes, at, byte_size(bytes) - at)

    case :rand.uniform(7) do
      1 ->
        <<before::binary, Bitwise.bxor(byte, Bitwise.bsl(1, :rand.uniform(8) - 1)), rest::binary>>

      2 ->
        <<before::binary, Enum.random(@telling), rest::binary>>

      3 ->
        <<before::binary, byte + Enum.random([-1, 1]), rest::binary>>

      4 ->
        <<before::binary, Enum.random(@telling), byte, rest::binary>>

      5 ->
        <<before::binary, rest::binary>>

      6 ->
        <<before::binary, byte, byte, rest::binary>>

      7 ->
        <<before::binary, :rand.uniform(256) - 1, rest::binary>>
    end
  end

  # A term of the one in place of bytes of the other.
  defp splice(<<131, one::binary>>, other) do
    at = :rand.uniform(byte_size(other)) - 1
    before = binary_part(other, 0, max(at, 1))
    rest = byte_size(other) - byte_size(before)
    left_out = :rand.uniform(rest + 1) - 1
    before <> one <> binary_part(other, byte_size(other) - left_out, left_out)
  end

  @doc """
  Whether the term is a name or is refused; raises when it is neither. The registry is empty, before
  and afterwards.
  """
  def check!(registry, name, others) do
    case outcome(fn -> NativeRegistry.register_name({registry, name, :value}, self()) end) do
      :yes ->
        found!(registry, name, others)
        kept!(registry, name)
        :ok = NativeRegistry.unregister_name({registry, name})
        empty!(registry, name)
        :name

      :refused ->
        # Every function that takes a name has to refuse it.
        :refused = outcome(fn -> NativeRegistry.whereis_name({registry, name}) end)
        :refused = outcome(fn -> NativeRegistry.Registry.lookup(registry, name) end)
        :refused = outcome(fn -> NativeRegistry.Registry.unregister(registry, name) end)
        empty!(registry, nil)
        :refused
    end
  end

  defp outcome(function) do
    function.()
  rescue
    ArgumentError -> :refused
  end

  defp found!(registry, name, others) do
    this = self()
    copy = Terms.copy(name)
    ^this = NativeRegistry.whereis_name({registry, name})
    ^this = NativeRegistry.whereis_name({registry, copy})
    [{^this, :value}] = NativeRegistry.Registry.lookup(registry, name)
    :no = NativeRegistry.register_name({registry, copy}, this)

    [listed] = NativeRegistry.Registry.keys(registry, this)
    true = listed === name

    [{selected, ^this, :value}] = NativeRegistry.Registry.match_names(registry, :_)
    true = selected === name

    # As a pattern it finds itself, even if a :_ in it finds other names too.
    case outcome(fn -> NativeRegistry.Registry.match_names(registry, name) end) do
      [{^selected, ^this, :value}] -> 1 = NativeRegistry.Registry.count_names(registry, name)
      # :_ in the key of a map.
      :refused -> :ok
    end

    for other <- [Terms.similar(name) | others] do
      holder = outcome(fn -> NativeRegistry.whereis_name({registry, other}) end)
      true = holder in [this, :undefined, :refused]
      true = holder == this == (other === name and functions(other) === functions(name))
    end
  end

  # What identifies the functions in the term. OTP 25 compares two functions without their arity and the
  # digest of their code. Only functions made of bytes differ in nothing else, and they are two names.
  defp functions([head | tail]), do: [functions(head) | functions(tail)]
  defp functions(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> functions()
  defp functions(map) when is_map(map), do: map |> :maps.to_list() |> functions()

  defp functions(fun) when is_function(fun) do
    info = :erlang.fun_info(fun)
    {Keyword.drop(info, [:pid, :name, :env]), functions(Keyword.fetch!(info, :env))}
  end

  defp functions(_term), do: nil

  # A name that is a value too.
  defp kept!(registry, name) do
    this = self()
    {^name, :value} = NativeRegistry.Registry.update_value(registry, name, fn :value -> name end)
    [{^this, value}] = NativeRegistry.Registry.lookup(registry, name)
    [{selected, ^this, selected_value}] = NativeRegistry.Registry.match_names(registry, :_)
    true = value === name and selected === name and selected_value === name
  end

  defp empty!(registry, name) do
    :undefined = NativeRegistry.whereis_name({registry, name})
    {0, _processes} = Native.sizes(registry)
  end
end
