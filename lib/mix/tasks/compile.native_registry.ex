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

  @sources ["Cargo.toml", "Cargo.lock", "native/*/Cargo.toml", "native/*/src/**/*.rs"]

  @impl Mix.Task.Compiler
  def run(_args) do
    root = File.cwd!()
    library = Path.join([Mix.Project.app_path(), "priv", "native", library_name()])
    sources = Enum.flat_map(@sources, &Path.wildcard(Path.join(root, &1)))

    if Mix.Utils.stale?(sources, [library]) do
      build(root, library)
    else
      {:noop, []}
    end
  end

  defp build(root, library) do
    cargo = cargo!(wanted_rust(root))
    target = System.get_env("CARGO_TARGET_DIR") || Path.join(Mix.Project.app_path(), "cargo")
    Mix.shell().info("Compiling the Rust library of workflow_metal_native_registry")

    arguments = ["build", "--release", "--locked", "--package", "native_registry", "--quiet"]
    environment = [{"CARGO_TARGET_DIR", target}, {"CARGO_BUILD_TARGET", nil}]
    options = [cd: root, env: environment, into: IO.stream(), stderr_to_stdout: true]

    case System.cmd(cargo, arguments, options) do
      {_output, 0} ->
        File.mkdir_p!(Path.dirname(library))
        # Removed first: a VM may have mapped the old file, which must not change then.
        _ = File.rm(library)
        File.cp!(Path.join([target, "release", cargo_name()]), library)

        # If cargo had nothing to do, its file may be older than the sources, and would be stale again.
        File.touch!(library)
        {:ok, []}

      {_output, status} ->
        Mix.raise("cargo could not build the Rust library, it ended with status #{status}")
    end
  end

  defp wanted_rust(root) do
    manifest = File.read!(Path.join(root, "Cargo.toml"))
    [_line, version] = Regex.run(~r/^rust-version = "([\d.]+)"/m, manifest)
    version
  end

  defp cargo!(wanted) do
    how =
      "workflow_metal_native_registry is built with Rust #{wanted} or newer; " <>
        "install it from https://rustup.rs or, if you have rustup, run `rustup update stable`"

    cargo = System.find_executable("cargo") || Mix.raise("no cargo was found. " <> how)

    with {text, 0} <- System.cmd(cargo, ["--version"], stderr_to_stdout: true),
         [version] <- Regex.run(~r/\d+\.\d+\.\d+/, text) do
      if Version.compare(version, wanted <> ".0") == :lt do
        Mix.raise("the Rust here is #{version}. " <> how)
      end

      cargo
    else
      _other -> Mix.raise("`#{cargo} --version` does not answer a version. " <> how)
    end
  end

  # On macOS the VM also looks for a name that ends in ".so".
  defp library_name do
    if windows?(), do: "native_registry.dll", else: "native_registry.so"
  end

  defp cargo_name do
    case :os.type() do
      {:win32, _name} -> "native_registry.dll"
      {:unix, :darwin} -> "libnative_registry.dylib"
      {:unix, _name} -> "libnative_registry.so"
    end
  end

  defp windows?, do: match?({:win32, _name}, :os.type())
end
