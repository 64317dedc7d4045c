defmodule WorkflowMetal.Registration.NativeRegistry.Build.FlagsTest do
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Build.Flags

  @musl "x86_64-unknown-linux-musl"
  @flag "-Ctarget-feature=-crt-static"
  @target "CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS"

  test "are the user's alone for other targets than musl" do
    for triple <- ["x86_64-unknown-linux-gnu", "aarch64-apple-darwin", "x86_64-pc-windows-msvc"],
        do: assert(Flags.choices(triple, %{"RUSTFLAGS" => "-Copt-level=1"}) == [[]])
  end

  test "are added where cargo takes the user's from" do
    for {environment, choices} <- [
          {%{}, [{"CARGO_BUILD_RUSTFLAGS", @flag}, {@target, @flag}]},
          {%{"CARGO_BUILD_RUSTFLAGS" => "-Cx"},
           [{"CARGO_BUILD_RUSTFLAGS", "-Cx " <> @flag}, {@target, @flag}]},
          {%{@target => "-Cx", "CARGO_BUILD_RUSTFLAGS" => "-Cy"}, [{@target, "-Cx " <> @flag}]},
          {%{"RUSTFLAGS" => "-Cx -Cy", @target => "-Cz"}, [{"RUSTFLAGS", "-Cx -Cy " <> @flag}]},
          # Set and empty, it hides what the files say.
          {%{"RUSTFLAGS" => ""}, [{"RUSTFLAGS", @flag}]},
          {%{"CARGO_ENCODED_RUSTFLAGS" => "-C\x1fx y", "RUSTFLAGS" => "-Cz"},
           [{"CARGO_ENCODED_RUSTFLAGS", "-C\x1fx y\x1f" <> @flag}]}
        ],
        do: assert(Flags.choices(@musl, environment) == Enum.map(choices, &[&1]))
  end
end
