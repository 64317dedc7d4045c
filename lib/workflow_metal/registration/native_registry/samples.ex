defmodule WorkflowMetal.Registration.NativeRegistry.Samples do
  @moduledoc false
  # Terms of every kind. When the native library is loaded, it decides by them whether it knows how this
  # VM lays terms out in memory; see native/native_registry/src/layout.rs.

  import Bitwise

  # Improper lists are one of the kinds.
  @dialyzer :no_improper_lists

  # The VM keeps the literals of a module in another place than terms that are made at run time, and may
  # point to them in another way.
  @constants [
    [:constant, [], {}, {1}, {:constant, {"nested", [1 | 2]}}, [1, 2], [{1}], 0, -1, 1 <<< 40],
    [1 <<< 63, 1 <<< 80, -(1 <<< 80), 1.5, "", "constant", String.duplicate("constant", 20)],
    [<<1::1>>, <<1::1001>>, %{}, %{a: {1}}, Map.new(1..100, &{&1, {&1}}), &String.length/1]
  ]

  @doc "Terms of every kind."
  @spec all() :: [term]
  def all do
    constants = Enum.concat(@constants)
    made = constants |> :erlang.term_to_binary() |> :erlang.binary_to_term()
    constants ++ made ++ binaries() ++ functions() ++ ours() ++ others() ++ native_records()
  end

  # Parts of binaries, binaries that have grown, and binaries that do not begin where a byte does.
  defp binaries do
    bytes = :binary.copy(<<1, 2, 3>>, 100)
    grown = for byte <- [bytes, "more"], into: "", do: byte
    <<_bits::3, rest::bitstring>> = bytes

    [bytes, grown, grown <> "still", rest, binary_part(bytes, 1, 10)] ++
      [binary_part(bytes, 100, 150), binary_part("constant", 1, 3) | parts()]
  end

  @doc "Parts of binaries that do not begin where a byte does."
  @spec parts() :: [binary]
  def parts do
    bytes = :binary.copy(<<1, 2, 3>>, 100)

    <<_bits::1, one::binary-size(100), _rest::bitstring>> = bytes
    <<_bits::3, two::binary-size(65), _rest::bitstring>> = bytes
    <<_bits::13, three::binary-size(298), _rest::bitstring>> = bytes
    <<_bits::1001, four::binary-size(77), _rest::bitstring>> = bytes
    [one, two, three, four]
  end

  defp functions do
    one = self()
    [fn -> :constant end, fn -> one end, fn other -> {one, other} end, &Enum.map/2]
  end

  defp ours do
    [self(), make_ref(), :atomics.new(1, []), {self(), make_ref()} | Port.list()]
  end

  # Terms of another node, which can be made from external format only.
  defp others do
    node = <<119, 17, "other@127.0.0.1.x">>

    for external <- [
          <<88, node::binary, 1::32, 0::32, 1::32>>,
          <<89, node::binary, 1::32, 1::32>>,
          <<90, 3::16, node::binary, 1::32, 1::32, 2::32, 3::32>>
        ],
        do: :erlang.binary_to_term(<<131, external::binary>>)
  end

  # OTP 29 has added this kind of term. Before OTP 29 the search for its module would take longer than
  # everything else here.
  defp native_records do
    if otp() >= 29 and Code.ensure_loaded?(:records) and function_exported?(:records, :create, 4) do
      [apply(:records, :create, [__MODULE__, :sample, [field: {1}], %{is_exported: true}])]
    else
      []
    end
  end

  defp otp, do: :erlang.list_to_integer(:erlang.system_info(:otp_release))
end
