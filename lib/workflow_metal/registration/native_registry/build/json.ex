defmodule WorkflowMetal.Registration.NativeRegistry.Build.Json do
  @moduledoc false
  # Reads the lines of `cargo --message-format=json`. Erlang/OTP has a decoder from 27 on and Elixir from 1.18
  # on, which is later than the oldest that build this, and a package would be fetched with Hex, which may
  # not be there.

  @doc "The term of a JSON text: objects are maps, `null` is `nil`."
  @spec decode(String.t()) :: {:ok, term} | :error
  def decode(text) do
    {term, rest} = value(space(text))
    if space(rest) == "", do: {:ok, term}, else: :error
  catch
    :no_json -> :error
  end

  defp value("{" <> rest), do: members(space(rest), %{})
  defp value("[" <> rest), do: elements(space(rest), [])
  defp value("\"" <> rest), do: string(rest, [])
  defp value("true" <> rest), do: {true, rest}
  defp value("false" <> rest), do: {false, rest}
  defp value("null" <> rest), do: {nil, rest}

  defp value(text) do
    case Regex.run(~r/\A-?\d+(\.\d+)?([eE][+-]?\d+)?/, text) do
      [number | _parts] ->
        {Float.parse(number) |> elem(0), binary_part_from(text, byte_size(number))}

      nil ->
        throw(:no_json)
    end
  end

  defp members("}" <> rest, members), do: {members, rest}

  defp members("\"" <> rest, members) do
    with {name, rest} <- string(rest, []),
         ":" <> rest <- space(rest),
         {value, rest} <- value(space(rest)) do
      members = Map.put(members, name, value)

      case space(rest) do
        "," <> rest -> members(space(rest), members)
        "}" <> rest -> {members, rest}
        _other -> throw(:no_json)
      end
    else
      _other -> throw(:no_json)
    end
  end

  defp members(_text, _members), do: throw(:no_json)

  defp elements("]" <> rest, elements), do: {Enum.reverse(elements), rest}

  defp elements(text, elements) do
    {value, rest} = value(text)

    case space(rest) do
      "," <> rest -> elements(space(rest), [value | elements])
      "]" <> rest -> {Enum.reverse([value | elements]), rest}
      _other -> throw(:no_json)
    end
  end

  defp string("\"" <> rest, parts), do: {parts |> Enum.reverse() |> IO.iodata_to_binary(), rest}

  defp string("\\u" <> rest, parts) do
    {character, rest} = character(rest)
    string(rest, [<<character::utf8>> | parts])
  end

  defp string(<<"\\", escaped, rest::binary>>, parts) do
    part =
      case escaped do
        ?n -> "\n"
        ?t -> "\t"
        ?r -> "\r"
        ?b -> "\b"
        ?f -> "\f"
        same when same in [?", ?\\, ?/] -> <<same>>
        _other -> throw(:no_json)
      end

    string(rest, [part | parts])
  end

  defp string("\\", _parts), do: throw(:no_json)

  defp string(text, parts) do
    case :binary.match(text, ["\"", "\\"]) do
      {length, 1} ->
        part = binary_part(text, 0, length)
        string(binary_part_from(text, length), [part | parts])

      :nomatch ->
        throw(:no_json)
    end
  end

  # Characters above U+FFFF are written as two halves.
  defp character(text) do
    case code(text) do
      {high, "\\u" <> rest} when high in 0xD800..0xDBFF ->
        case code(rest) do
          {low, rest} when low in 0xDC00..0xDFFF ->
            {0x10000 + (high - 0xD800) * 0x400 + (low - 0xDC00), rest}

          _other ->
            throw(:no_json)
        end

      {half, _rest} when half in 0xD800..0xDFFF ->
        throw(:no_json)

      {code, rest} ->
        {code, rest}
    end
  end

  defp code(<<digits::4-bytes, rest::binary>>) do
    case Integer.parse(digits, 16) do
      {code, ""} when code >= 0 -> {code, rest}
      _other -> throw(:no_json)
    end
  end

  defp code(_text), do: throw(:no_json)

  defp space(<<space, rest::binary>>) when space in [?\s, ?\t, ?\r, ?\n], do: space(rest)
  defp space(text), do: text

  defp binary_part_from(text, from), do: binary_part(text, from, byte_size(text) - from)
end
