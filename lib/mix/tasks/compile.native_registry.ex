defmodule Mix.Tasks.Compile.NativeRegistry do
  @shortdoc "Builds the Rust library of workflow_metal_native_registry"
  @moduledoc """
  Builds the Rust library with cargo and copies it to `priv/native` of the built application, where the
  VM loads it from.

  Does nothing if the library is newer than all of its sources. The output of cargo is printed. Cargo builds
  in the application's build folder, so that `mix clean` removes everything; the environment variable
  `CARGO_TARGET_DIR` names another folder.
  """
  use Mix.Task.Compiler

  alias WorkflowMetal.Registration.NativeRegistry.Build.{Cargo, Precompiled, Target}

  @sources ["Cargo.toml", "Cargo.lock", "native/*/Cargo.toml", "native/*/src/**/*.rs"]

  @impl Mix.Task.Compiler
  def run(_args) do
    root = File.cwd!()
    {:ok, target} = Target.asked()

    library =
      Path.join([Mix.Project.app_path(), "priv", "native", Target.library_name(target.triple)])

    sources = Enum.flat_map(@sources, &Path.wildcard(Path.join(root, &1)))

    case Precompiled.find(root, target) do
      {:ok, path, _fingerprint} ->
        put(path, library)

      :none ->
        if Mix.Utils.stale?(sources, [library]) do
          Mix.shell().info("Compiling the Rust library of workflow_metal_native_registry")
          put(Cargo.build!(root, target, []), library)
        else
          {:noop, []}
        end
    end
  end

  defp put(built, library) do
    File.mkdir_p!(Path.dirname(library))
    # Removed first: a VM may have mapped the old file, which must not change then.
    _ = File.rm(library)
    File.cp!(built, library)
    File.touch!(library)
    {:ok, []}
  end
end
