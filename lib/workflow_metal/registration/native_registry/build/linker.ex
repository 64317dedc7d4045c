defmodule WorkflowMetal.Registration.NativeRegistry.Build.Linker do
  @moduledoc false
  # The linker for another machine, where the user names none to cargo.

  alias WorkflowMetal.Registration.NativeRegistry.Build.Target

  @doc """
  The variables that name the linker for `triple` to cargo, on a machine of `host`. `config` is the text of
  cargo's configuration. Raises `Mix.Error` if cargo's own choice would make a library that does not load.
  """
  @spec env!(String.t(), String.t(), %{String.t() => String.t()}, String.t()) :: [
          {String.t(), String.t()}
        ]
  def env!(triple, host, environment, config) do
    if Target.same_machine?(triple, host) or triple =~ "windows-msvc" or
         named?(triple, environment, config) do
      []
    else
      case found!(triple, host, environment) do
        nil -> []
        linker -> [{variable(triple), linker}]
      end
    end
  end

  defp variable(triple) do
    "CARGO_TARGET_" <> (triple |> String.upcase() |> String.replace(["-", "."], "_")) <> "_LINKER"
  end

  # A variable counts more than a configuration, which therefore has to be looked at. It is enough to see
  # that somebody cared.
  defp named?(triple, environment, config) do
    flags = for name <- ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"], do: environment[name] || ""

    Target.given(environment, variable(triple)) != nil or
      Enum.any?(flags, &(&1 =~ "linker=")) or
      (config =~ "linker" and (config =~ triple or config =~ "cfg("))
  end

  defp found!(triple, host, environment) do
    cc = Target.given(environment, "CC")
    prefix = Target.given(environment, "CROSSCOMPILE")

    cond do
      cc -> program!(cc, triple)
      prefix -> prefix <> "-gcc"
      found = Enum.find_value(usual(triple, host), &System.find_executable/1) -> found
      triple =~ "musl" and not (host =~ "musl") -> no_linker!(triple)
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
  defp usual(triple, host) do
    [processor | others] = String.split(triple, "-")

    family =
      processor
      |> String.replace(~r/^armv\w+$/, "arm")
      |> String.replace(~r/^riscv64\w*$/, "riscv64")

    same_processor? = hd(String.split(host, "-")) == processor
    musl = if triple =~ "musl" and same_processor?, do: ["musl-gcc"], else: []
    [Enum.join([family | Enum.drop(others, 1)], "-") <> "-gcc" | musl]
  end

  # The linker of this machine would take this machine's C library, without a word.
  defp no_linker!(triple) do
    Mix.raise(
      "no linker for #{triple} was found. Install one, which Debian and Ubuntu have in the package " <>
        "musl-tools, or set #{variable(triple)}"
    )
  end
end
