defmodule WorkflowMetal.Registration.NativeRegistry.Build.Machine do
  @moduledoc false
  # For which operating system and processor a native library is, by its first bytes, and by the name of
  # Rust's target.

  @type t :: {format :: String.t(), processor :: String.t()}

  # The numbers that the formats have for processors. Rust's names of targets begin with these names; those
  # with a digit more, as in "armv7", are of the same family.
  @elf %{
    3 => "i686",
    8 => "mips",
    20 => "powerpc",
    21 => "powerpc64",
    22 => "s390x",
    40 => "arm",
    43 => "sparc64",
    62 => "x86_64",
    183 => "aarch64",
    243 => "riscv",
    258 => "loongarch64"
  }
  @mach_o %{0x01000007 => "x86_64", 0x0100000C => "aarch64"}
  @pe %{0x014C => "i686", 0x8664 => "x86_64", 0xAA64 => "aarch64"}

  @doc "That of a library. A processor that is not known is answered by its number."
  @spec of_library(binary) :: t | :unknown
  def of_library(
        <<0x7F, "ELF", _class, 1, _ident::10-bytes, _type::16, machine::16-little, _::bytes>>
      ),
      do: {"ELF", name(@elf, machine)}

  def of_library(
        <<0x7F, "ELF", _class, 2, _ident::10-bytes, _type::16, machine::16-big, _::bytes>>
      ),
      do: {"ELF", name(@elf, machine)}

  def of_library(<<0xFEEDFACF::32-little, processor::32-little, _::bytes>>),
    do: {"Mach-O", name(@mach_o, processor)}

  def of_library(<<"MZ", _::58-bytes, offset::32-little, _::bytes>> = library) do
    with true <- byte_size(library) >= offset + 6,
         <<"PE", 0, 0, machine::16-little>> <- binary_part(library, offset, 6) do
      {"PE", name(@pe, machine)}
    else
      _other -> :unknown
    end
  end

  def of_library(_bytes), do: :unknown

  @doc "That of a target."
  @spec of_target(String.t()) :: t
  def of_target(target) do
    format =
      cond do
        target =~ "windows" -> "PE"
        target =~ "-apple-" -> "Mach-O"
        true -> "ELF"
      end

    {format, target |> String.split("-") |> hd() |> family()}
  end

  defp name(names, number), do: Map.get(names, number, "number #{number}")

  defp family("i" <> <<_digit, "86">>), do: "i686"
  defp family("arm64" <> _variant), do: "aarch64"
  defp family("aarch64" <> _variant), do: "aarch64"
  defp family("x86_64" <> _variant), do: "x86_64"
  defp family("arm" <> _variant), do: "arm"
  defp family("thumb" <> _variant), do: "arm"
  defp family("riscv" <> _variant), do: "riscv"
  defp family("powerpc64" <> _variant), do: "powerpc64"
  defp family("mips" <> _variant), do: "mips"
  defp family("sparcv9"), do: "sparc64"
  defp family(processor), do: processor
end
