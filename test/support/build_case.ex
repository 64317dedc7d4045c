defmodule WorkflowMetal.Registration.NativeRegistry.BuildCase do
  @moduledoc """
  Tests of the build, in an empty project and with programs in place of cargo and rustc. They change the
  environment and the folder of the VM, so they are not async.
  """
  use ExUnit.CaseTemplate

  alias WorkflowMetal.Registration.NativeRegistry.Build

  @settings ~w(CARGO_HOME CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_BUILD_TARGET CARGO_ENCODED_RUSTFLAGS
    RUSTFLAGS RUSTC CARGO_BUILD_RUSTC CARGO_BUILD_RUSTFLAGS RUSTUP_HOME RUSTUP_TOOLCHAIN CC CROSSCOMPILE
    REBAR_TARGET_ARCH TARGET_ARCH TARGET_OS TARGET_ABI TARGET_CPU MIX_TARGET MIX_BUILD_PATH
    WORKFLOW_METAL_NATIVE_REGISTRY_PRECOMPILED)

  # Builds what it is told by the variables FAKE_*, and keeps what it was called with.
  @cargo """
  #!/bin/sh
  case "$1 $*" in
    --version*) echo "cargo 1.99.0 (test)"; exit ;;
    *--manifest-path*) exit 0 ;;
  esac
  {
    echo "arguments: $*"
    env | grep -E '^(CARGO|RUSTFLAGS|RUSTC)' | sort
  } >>"$FAKE/calls"
  while [ $# -gt 0 ] && [ "$1" != --target ]; do shift; done
  triple=$2
  echo "   Compiling native_registry v0.1.0" >&2
  if [ -e "$FAKE/script" ]; then . "$FAKE/script"; fi
  folder=${FAKE_FOLDER:-$CARGO_TARGET_DIR}/$triple/release
  mkdir -p "$folder"
  cat "$PWD"/native/native_registry/src/*.rs >"$folder/libnative_registry.so"
  echo '{"reason":"compiler-artifact","target":{"crate_types":["lib"],"name":"libc"},"filenames":["/x.rlib"]}'
  printf '{"reason":"compiler-artifact","target":{"kind":["cdylib"],"crate_types":["cdylib"],"name":"native_registry"},"filenames":["%s/libnative_registry.so"],"fresh":true}\\n' "$folder"
  echo '{"reason":"build-finished","success":true}'
  """

  @rustc """
  #!/bin/sh
  echo "$*" >>"$FAKE/rustc_calls"
  case "$*" in
    --version) echo "rustc 1.99.0 (test)" ;;
    -vV) printf 'rustc 1.99.0 (%s)\\nhost: %s\\n' "$(cat "$FAKE/commit")" "$(cat "$FAKE/host")" ;;
    *sysroot*) echo "$FAKE/sysroot" ;;
  esac
  """

  using do
    quote do
      import WorkflowMetal.Registration.NativeRegistry.BuildCase
      alias WorkflowMetal.Registration.NativeRegistry.Build
    end
  end

  setup do
    kept = System.get_env()
    shell = Mix.shell()

    folder =
      Path.join(System.tmp_dir!(), "native [registry] {登録} #{System.unique_integer([:positive])}")

    root = Path.join(folder, "project")

    for {path, content} <- [
          {"project/mix.exs", project()},
          {"project/Cargo.toml", "version = \"0.1.0\"\nrust-version = \"1.91\"\n"},
          {"project/Cargo.lock", ""},
          {"project/native/native_registry/Cargo.toml", ""},
          {"project/native/native_registry/src/lib.rs", "first"},
          {"commit", "one"},
          {"host", Build.Target.of_vm()},
          {"sysroot/bin/rustc", ""},
          {"cargo_home/bin/none", ""}
        ],
        do: write!(Path.join(folder, path), content)

    program!(Path.join(folder, "bin/cargo"), @cargo)
    program!(Path.join(folder, "bin/rustc"), @rustc)
    Enum.each(@settings, &System.delete_env/1)

    System.put_env(%{
      "FAKE" => folder,
      "PATH" => Path.join(folder, "bin") <> ":" <> kept["PATH"],
      "CARGO_HOME" => Path.join(folder, "cargo_home"),
      "RUSTUP_HOME" => Path.join(folder, "rustup_home")
    })

    Mix.shell(Mix.Shell.Process)

    on_exit(fn ->
      for {name, _value} <- System.get_env(),
          not is_map_key(kept, name),
          do: System.delete_env(name)

      System.put_env(kept)
      Mix.shell(shell)
      File.rm_rf!(folder)
    end)

    %{folder: folder, root: root}
  end

  defp project do
    """
    defmodule NativeRegistryFake#{System.unique_integer([:positive])} do
      use Mix.Project
      def project, do: [app: :native_registry_fake, version: "0.1.0"]
    end
    """
  end

  @doc "Writes a file, and the folders that it lies in."
  def write!(path, content) do
    File.mkdir_p!(Path.dirname(path))
    File.write!(path, content)
  end

  @doc "Writes a program. Answers its path."
  def program!(path, content) do
    write!(path, content)
    File.chmod!(path, 0o755)
    path
  end

  @doc "Runs a function in the project, as Mix does."
  def in_project(root, function) do
    Mix.Project.in_project(:native_registry_fake, root, fn _module -> function.() end)
  end

  @doc "With what the program in place of cargo was called to build, last call first."
  def calls(folder) do
    case File.read(Path.join(folder, "calls")) do
      {:ok, text} -> text |> String.split("arguments: ", trim: true) |> Enum.reverse()
      {:error, :enoent} -> []
    end
  end

  @doc "The lines that were shown."
  def shown do
    receive do
      {:mix_shell, _kind, [line]} -> [line | shown()]
    after
      0 -> []
    end
  end
end
