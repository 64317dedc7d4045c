defmodule Bench.JSON do
  # An encoder with as much of JSON as the figures need.

  def encode(map) when is_map(map) do
    ["{", map |> Enum.sort() |> Enum.map_intersperse(",\n", &pair/1), "}"]
  end

  def encode(list) when is_list(list),
    do: ["[", Enum.map_intersperse(list, ",\n", &encode/1), "]"]

  def encode(nil), do: "null"
  def encode(boolean) when is_boolean(boolean), do: Atom.to_string(boolean)
  def encode(atom) when is_atom(atom), do: atom |> Atom.to_string() |> encode()
  def encode(integer) when is_integer(integer), do: Integer.to_string(integer)
  def encode(float) when is_float(float), do: :erlang.float_to_binary(float, decimals: 3)

  def encode(string) when is_binary(string) do
    [?", for(<<character::utf8 <- string>>, do: escape(character)), ?"]
  end

  defp pair({key, value}), do: [encode(key), ": ", encode(value)]

  defp escape(character) when character in [?", ?\\], do: [?\\, character]

  defp escape(character) when character < 0x20 do
    ["\\u", character |> Integer.to_string(16) |> String.pad_leading(4, "0")]
  end

  defp escape(character), do: <<character::utf8>>
end
