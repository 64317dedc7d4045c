defmodule WorkflowMetal.Registration.NativeRegistry.Build.Flags do
  @moduledoc false
  # Rust links programs for musl without a dynamic C library, and a library like this one cannot be made so.
  # The flag against that is added to those of the user.

  alias WorkflowMetal.Registration.NativeRegistry.Build.Target

  @flag "-Ctarget-feature=-crt-static"

  @doc """
  The variables to try, one set after the other, until cargo can build a library.

  Cargo takes flags from one place only, the first of these that has any: `CARGO_ENCODED_RUSTFLAGS`,
  `RUSTFLAGS`, what it is told of the target, what it is told of every build. In the last two it joins the
  variable with the files of its configuration. Which of them the files use is known to cargo alone. A
  variable for the target would hide what they say of every build, so that comes second.
  """
  @spec choices(String.t(), %{String.t() => String.t()}) :: [[{String.t(), String.t()}]]
  def choices(triple, environment) do
    of_target = Target.variable(triple, "RUSTFLAGS")

    cond do
      not (triple =~ "musl") ->
        [[]]

      Map.has_key?(environment, "CARGO_ENCODED_RUSTFLAGS") ->
        [[joined(environment, "CARGO_ENCODED_RUSTFLAGS", "\x1f")]]

      Map.has_key?(environment, "RUSTFLAGS") ->
        [[joined(environment, "RUSTFLAGS", " ")]]

      Target.given(environment, of_target) ->
        [[joined(environment, of_target, " ")]]

      true ->
        [
          [joined(environment, "CARGO_BUILD_RUSTFLAGS", " ")],
          [joined(environment, of_target, " ")]
        ]
    end
  end

  defp joined(environment, name, separator) do
    case Target.given(environment, name) do
      nil -> {name, @flag}
      flags -> {name, flags <> separator <> @flag}
    end
  end
end
