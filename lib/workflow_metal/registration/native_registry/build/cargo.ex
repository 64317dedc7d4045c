defmodule WorkflowMetal.Registration.NativeRegistry.Build.Cargo do
  @moduledoc false
  # Builds the library with cargo.

  alias WorkflowMetal.Registration.NativeRegistry.Build.{Target, Toolchain}

  @spec build!(Path.t(), Target.t(), keyword) :: Path.t()
  def build!(root, target, _options) do
    toolchain = Toolchain.cargo!(root)
    folder = System.get_env("CARGO_TARGET_DIR") || Path.join(Mix.Project.build_path(), "cargo")
    cross = if target.explicit?, do: ["--target", target.triple], else: []
    Toolchain.link!(toolchain, root, Path.join(Mix.Project.app_path(), "link"), cross)

    arguments = [
      "build",
      "--release",
      "--locked",
      "--package",
      "native_registry",
      "--quiet" | cross
    ]

    environment = [{"CARGO_TARGET_DIR", folder}, {"CARGO_BUILD_TARGET", nil} | toolchain.env]
    options = [cd: root, env: environment, into: IO.stream(), stderr_to_stdout: true]

    case System.cmd(toolchain.cargo, arguments, options) do
      {_output, 0} ->
        in_folder = if target.explicit?, do: [target.triple, "release"], else: ["release"]
        Path.join([folder | in_folder] ++ [Target.cargo_name(target.triple)])

      {_output, status} ->
        Mix.raise("cargo could not build the Rust library, it ended with status #{status}")
    end
  end
end
