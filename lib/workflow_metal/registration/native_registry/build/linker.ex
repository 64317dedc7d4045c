defmodule WorkflowMetal.Registration.NativeRegistry.Build.Linker do
  @moduledoc false
  # The linker for another machine, where the user names none to cargo.

  alias WorkflowMetal.Registration.NativeRegistry.Build.Target

  @typedoc "The machine that Rust runs on, and the folder with its libraries."
  @type rust :: %{host: String.t(), sysroot: Path.t()}

  @doc """
  The variables that name the linker for `triple` to cargo. `config` is the text of cargo's configuration, and
  files may be kept in `folder`. Raises `Mix.Error` if cargo's own choice would make a library that does not
  load.
  """
  @spec env!(String.t(), rust, %{String.t() => String.t()}, String.t(), Path.t()) :: [
          {String.t(), String.t()}
        ]
  def env!(triple, rust, environment, config, folder) do
    if Target.same_machine?(triple, rust.host) or triple =~ "windows-msvc" or
         named?(triple, environment, config) do
      []
    else
      case found!(triple, rust, environment, folder) do
        nil -> []
        linker -> [{variable(triple), linker}]
      end
    end
  end

  defp variable(triple), do: Target.variable(triple, "LINKER")

  # A variable counts more than a configuration, which therefore has to be looked at. It is enough to see
  # that somebody cared.
  defp named?(triple, environment, config) do
    flags = for name <- ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"], do: environment[name] || ""

    Target.given(environment, variable(triple)) != nil or
      Enum.any?(flags, &(&1 =~ "linker=")) or
      (config =~ "linker" and (config =~ triple or config =~ "cfg("))
  end

  defp found!(triple, rust, environment, folder) do
    cc = Target.given(environment, "CC")
    prefix = Target.given(environment, "CROSSCOMPILE")
    musl? = triple =~ "musl"

    cond do
      cc -> program!(cc, triple)
      prefix -> prefix <> "-gcc"
      gcc = musl? and musl_gcc(triple, rust) -> with_unwinder(gcc, triple, rust, folder)
      gcc = System.find_executable(usual(triple)) -> gcc
      musl? and not (rust.host =~ "musl") -> no_linker!(triple)
      true -> nil
    end
  end

  defp program!(cc, triple) do
    cond do
      program = System.find_executable(cc) ->
        program

      cc =~ ~r/\s/ ->
        Mix.raise(
          "CC is #{inspect(cc)}, which is a command of several words, and cargo takes one program as its " <>
            "linker: set #{variable(triple)} to a program that runs this command"
        )

      true ->
        Mix.raise(
          "CC is #{inspect(cc)}, which is to link the library for #{triple}, but there is no such program"
        )
    end
  end

  # As distributions name them: without the vendor, and by the family of the processor.
  defp usual(triple) do
    [processor, _vendor | others] = String.split(triple <> "-", "-", parts: 3)

    family =
      processor
      |> String.replace(~r/^armv\w+$/, "arm")
      |> String.replace(~r/^riscv64\w*$/, "riscv64")

    Enum.join([family | others], "-") <> "gcc"
  end

  # The compiler of this machine, and therefore for its processor, with musl in place of its C library.
  defp musl_gcc(triple, rust) do
    if hd(String.split(triple, "-")) == hd(String.split(rust.host, "-")),
      do: System.find_executable("musl-gcc")
  end

  # It has no libgcc_s for musl, which Rust takes the unwinding of panics from. Rust brings the same functions
  # itself, for programs. To the linker, a text in place of a library names others. Rust knows from the name of
  # a linker which options it takes.
  defp with_unwinder(gcc, triple, rust, folder) do
    unwinder = Path.join([rust.sysroot, "lib/rustlib", triple, "lib/self-contained/libunwind.a"])

    if File.exists?(unwinder) do
      folder = Path.join([folder, "linker", triple])
      linker = Path.join(folder, "musl-gcc")
      File.mkdir_p!(folder)
      File.write!(Path.join(folder, "libgcc_s.so"), ~s[INPUT("#{unwinder}")\n])
      File.write!(linker, ~s[#!/bin/sh\nexec #{quoted(gcc)} #{quoted("-L" <> folder)} "$@"\n])
      File.chmod!(linker, 0o755)
      linker
    else
      gcc
    end
  end

  defp quoted(text), do: "'" <> String.replace(text, "'", "'\\''") <> "'"

  # The linker of this machine would take this machine's C library, without a word.
  @spec no_linker!(String.t()) :: no_return
  defp no_linker!(triple) do
    Mix.raise(
      "no linker for #{triple} was found. Install one, which Debian and Ubuntu have in the package " <>
        "musl-tools, or set #{variable(triple)}"
    )
  end
end
