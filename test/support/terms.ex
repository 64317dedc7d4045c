defmodule WorkflowMetal.Registration.NativeRegistry.Terms do
  @moduledoc false
  # Names for the tests of names.

  import Bitwise

  @node "other@127.0.0.1"

  # Pids, ports and references of another node can be made from the external term format only.
  def remote_pid(id, creation \\ 1) do
    :erlang.binary_to_term(<<131, 88, other_node()::binary, id::32, 0::32, creation::32>>)
  end

  def remote_port(id, creation \\ 1) do
    :erlang.binary_to_term(<<131, 89, other_node()::binary, id::32, creation::32>>)
  end

  def remote_reference(ids, creation \\ 1) do
    ids = for id <- ids, do: <<id::32>>
    header = <<131, 90, length(ids)::16, other_node()::binary, creation::32>>
    :erlang.binary_to_term(IO.iodata_to_binary([header | ids]))
  end

  defp other_node, do: <<119, byte_size(@node), @node::binary>>

  # Terms of kinds that no name may have. The VM has some since OTP 29: native records.
  def unknown do
    [apply(:records, :create, [__MODULE__, :record, [field: 1], %{is_exported: true}])]
  rescue
    UndefinedFunctionError -> []
  end

  # The same term with nothing shared with the one that is given.
  def copy(term), do: term |> :erlang.term_to_binary() |> :erlang.binary_to_term()

  def negative_zero do
    <<zero::float>> = <<1 <<< 63::64>>
    zero
  end

  def closure(value), do: fn -> value end
  def other_closure(value), do: fn -> {value} end
  def closure(value, another), do: fn -> {value, another} end

  # Nests a term `levels` times.
  def nest(term, 0, _wrap), do: term
  def nest(term, levels, wrap), do: nest(wrap.(term), levels - 1, wrap)

  def map_of(keys), do: Map.new(keys, &{&1, {&1}})

  # No two of these are `===`.
  def distinct do
    terms =
      Enum.concat([
        atoms() ++ Enum.concat(strings()) ++ uuids() ++ integers() ++ floats(),
        processes() ++ lists() ++ tuples() ++ maps() ++ structs() ++ functions() ++ bitstrings()
      ])

    wrapped =
      for term <- terms do
        [{term}, {term, term}, [term], [0 | term], %{term => 0}, %{0 => term}, closure(term)]
      end

    # Keys of a map are compared by `===`; a list wrapped in a list may be in there already.
    (terms ++ Enum.concat(wrapped)) |> Map.new(&{&1, true}) |> Map.keys()
  end

  defp atoms do
    [nil, true, false, :undefined, :_, :"$1", :"", :" ", :a, :A, :"1", :é, String, :string] ++
      [:infinity, :nan, :"Elixir.", :"0.0", :"[]", :"10f4b6e2-9b3a-4a4e-8d1c-0123456789ab"]
  end

  defp integers do
    powers =
      for exponent <- [7, 8, 15, 16, 27, 28, 31, 32, 53, 58, 59, 60, 61, 62, 63], do: exponent

    powers = powers ++ [64, 65, 71, 72, 127, 128, 255, 256, 512, 1000, 2039, 2040, 2041, 4096]

    near =
      for exponent <- powers, offset <- -2..2, sign <- [1, -1] do
        sign * ((1 <<< exponent) + offset)
      end

    Enum.to_list(-300..300) ++ near
  end

  defp floats do
    [1.0, -1.0, 2.0, 0.1, 1.5, 97.0, 256.0, 5.0e-324, 1.7976931348623157e308, 1.0e22, 1.0e23] ++
      [:math.pow(2, 53), :math.pow(2, 59), :math.pow(2, 63), -:math.pow(2, 63), :math.pow(2, 64)]
  end

  defp strings do
    sizes = Enum.concat([0..10, 30..34, 62..66, 86..90, 94..98, 126..130, 254..257, 510..514])

    for size <- sizes do
      zeroes = :binary.copy(<<0>>, size)
      letters = String.duplicate("a", size)
      if size == 0, do: [""], else: [zeroes, letters, change_last(letters), change_first(letters)]
    end
  end

  defp change_last(string), do: binary_part(string, 0, byte_size(string) - 1) <> "b"
  defp change_first(<<_first, rest::binary>>), do: "c" <> rest

  defp uuids do
    uuid = "10f4b6e2-9b3a-4a4e-8d1c-0123456789ab"
    bytes = uuid |> String.replace("-", "") |> Base.decode16!(case: :lower)

    [uuid, String.upcase(uuid), String.capitalize("a" <> uuid), String.replace(uuid, "-", "")] ++
      ["{" <> uuid <> "}", uuid <> " ", " " <> uuid, uuid <> uuid, uuid <> "-", bytes] ++
      [String.replace(uuid, "b", "B"), String.replace(uuid, "b", "g"), String.duplicate("-", 36)] ++
      [String.replace(uuid, "-", "_"), "1-0f4b6e29b3a-4a4e-8d1c-0123456789ab"] ++
      ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"] ++
      [<<0::128>>, <<(1 <<< 128) - 1::128>>, "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"]
  end

  defp processes do
    dead = spawn(fn -> :ok end)
    init = Process.whereis(:init)

    [self(), dead, init, make_ref(), make_ref(), :erlang.alias() | Port.list()] ++
      [:atomics.new(1, []), :ets.new(:name, []), :erlang.list_to_ref(~c"#Ref<0.1.2.3>")] ++
      [remote_pid(1), remote_pid(2), remote_pid(1, 2), remote_port(1), remote_port(2)] ++
      [remote_port(1, 2), remote_reference([1, 2, 3]), remote_reference([1, 2, 4])] ++
      [remote_reference([1, 2, 3], 2), remote_reference([1, 2]), remote_reference([1])]
  end

  defp lists do
    [[], [[]], [[[]]], [[], []], [[[], []]], ~c"charlist", ~c"a", [1, 2, 3], [1, 2 | 3]] ++
      [[1, [2 | 3]], [1, [2, 3]], [[1, 2], 3], [[1], 2, 3], [1 | {2}], [1, {2}], [1 | %{}]] ++
      [[a: 1], [{:a, 1}, {:b, 2}], [1 | "a"], [1, "a"], [[1] | [2 | 3]], [1 | 1 <<< 80]] ++
      for(size <- 4..40, do: Enum.to_list(1..size)) ++ [Enum.to_list(1..300)]
  end

  defp tuples do
    shapes = [
      {},
      {{}},
      {{}, {}},
      {{}, {{}}},
      {[], {}},
      {{{}}},
      {1, 2},
      {2, 1},
      {{1}, 2},
      {{1, 2}}
    ]

    opened = for kind <- 0..3, do: {make_ref(), kind, <<1, 2, 3>>, 1}
    sizes = for size <- Enum.concat([3..40, 254..258]), do: Tuple.duplicate(:a, size)

    shapes ++ opened ++ sizes ++ [{1, 2.0}, {1.0, 2}, {String, {1, "a"}}, {String, {1, :a}}]
  end

  defp maps do
    small = for size <- 0..40, do: map_of(1..size//1)

    small ++
      [map_of(1..300), %{1 => 1.0}, %{1.0 => 1}, %{1.0 => 1.0}, %{1 => :a, 1.0 => :b}] ++
      [%{1 => :b, 1.0 => :a}, %{a: nil}, %{nil: :a}, %{a: %{}}, %{%{} => :a}, %{a: 1, b: 2}] ++
      [%{a: 2, b: 1}, %{a: %{b: 1}}, %{a: :b, b: 1}, %{map_of(1..40) => 1}, %{1 => map_of(1..40)}] ++
      [%{map_of(1..40) => map_of(1..33), map_of(1..33) => map_of(1..40)}]
  end

  defp structs do
    [~D[2024-01-01], ~D[2024-01-02], Map.from_struct(~D[2024-01-01]), 1..2, 1..2//2] ++
      [MapSet.new([1, 2]), MapSet.new([1.0, 2]), URI.parse("http://a"), ~U[2024-01-01 00:00:00Z]]
  end

  defp functions do
    [&String.length/1, &String.upcase/1, &String.upcase/2, &Enum.map/2, &:erlang.send/2] ++
      [
        Function.capture(NoSuch, :function, 0),
        closure(1),
        closure(1.0),
        closure(2),
        other_closure(1),
        closure(1, 2)
      ] ++
      [closure(2, 1), closure([1]), closure({1}), closure(nil), fn -> 1 end, fn -> 2 end] ++
      [fn a -> a end, closure(closure(1)), closure(closure(1.0)), closure(%{1 => closure(1)})]
  end

  defp bitstrings do
    for(size <- Enum.concat([1..7, 9..15, 241..249]), do: <<0::size(size)>>) ++
      [<<1::1>>, <<1::2>>, <<2::2>>, <<3::2>>, <<128, 0::1>>, <<128, 1::1>>, <<127::7>>] ++
      [<<"a", 1::1>>, <<"a", 1::2>>, <<1::4001>>, <<2::4001>>]
  end

  # A random term by the calling process's seed. Its parts are of few values, so that two terms are often equal.
  def random(depth \\ 4) do
    kinds = if depth == 0, do: 7, else: 13

    case :rand.uniform(kinds) do
      1 ->
        Enum.random([0, 1, -1, 97, 1 <<< 59, 1 <<< 63, 1 <<< 64, -(1 <<< 80)])

      2 ->
        Enum.random([0.0, negative_zero(), 1.0, -1.0, 97.0, :math.pow(2, 64)])

      3 ->
        Enum.random([:a, :b, nil, :"", :_, :"1"])

      4 ->
        Enum.random(["", "a", "1", String.duplicate("a", 31), String.duplicate("a", 300)])

      5 ->
        Enum.random([<<1::1>>, <<0::1>>, <<97, 0::3>>, [], {}, %{}, ~c"a"])

      6 ->
        Enum.random([self(), remote_pid(1), remote_reference([1, 2, 3]), hd(Port.list())])

      7 ->
        Enum.random([&String.length/1, &String.upcase/1, :erlang.list_to_ref(~c"#Ref<0.1.2.3>")])

      8 ->
        depth |> several() |> List.to_tuple()

      9 ->
        several(depth)

      10 ->
        [random(depth - 1) | random(depth - 1)]

      11 ->
        depth |> several() |> Map.new(&{&1, random(depth - 1)})

      12 ->
        map_of(1..Enum.random([31, 32, 33, 40])) |> Map.put(random(depth - 1), :also)

      13 ->
        closure(random(depth - 1))
    end
  end

  defp several(depth), do: for(_part <- 1..:rand.uniform(4), do: random(depth - 1))

  # The same term, its maps put together in another order.
  def rebuilt(tuple) when is_tuple(tuple),
    do: tuple |> Tuple.to_list() |> rebuilt() |> List.to_tuple()

  def rebuilt([head | tail]), do: [rebuilt(head) | rebuilt(tail)]

  def rebuilt(map) when is_map(map) do
    map
    |> Map.to_list()
    |> Enum.shuffle()
    |> Enum.reduce(%{left_over: true}, fn {key, value}, rebuilt ->
      rebuilt |> Map.put({:passing, key}, 0) |> Map.put(rebuilt(key), rebuilt(value))
    end)
    |> Map.drop([:left_over | Enum.map(Map.keys(map), &{:passing, &1})])
    |> Map.merge(Map.take(map, [:left_over]))
  end

  def rebuilt(term), do: term

  # A term that differs little from the given one, or not at all.
  def similar(term) do
    if :rand.uniform(5) == 1, do: twin(term), else: similar_parts(term)
  end

  defp similar_parts(tuple) when is_tuple(tuple) do
    tuple |> Tuple.to_list() |> Enum.map(&similar/1) |> List.to_tuple()
  end

  defp similar_parts([head | tail]), do: [similar(head) | similar(tail)]

  defp similar_parts(map) when is_map(map) and map_size(map) < 30,
    do: map |> :maps.to_list() |> Map.new(fn {key, value} -> {similar(key), similar(value)} end)

  defp similar_parts(term), do: term

  defp twin(integer) when is_integer(integer) and abs(integer) < 1 <<< 100, do: integer * 1.0
  defp twin(float) when is_float(float) and float == 0.0, do: -1.0 * float
  defp twin(float) when is_float(float), do: trunc(float)
  defp twin(atom) when is_atom(atom), do: Atom.to_string(atom)
  defp twin(binary) when is_binary(binary), do: :binary.bin_to_list(binary)
  defp twin(bits) when is_bitstring(bits), do: <<bits::bitstring, 0::1>>
  defp twin(tuple) when is_tuple(tuple), do: Tuple.to_list(tuple)
  defp twin(map) when is_map(map), do: Map.to_list(map)
  defp twin([_only]), do: []
  defp twin([head | tail]), do: [tail | head]
  defp twin(function) when is_function(function, 0), do: closure(function)
  defp twin(term), do: {term}
end
