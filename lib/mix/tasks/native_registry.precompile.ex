defmodule Mix.Tasks.NativeRegistry.Precompile do
  @shortdoc "Makes an archive with the compiled Rust library of workflow_metal_native_registry"
  @moduledoc """
  Makes an archive with the compiled Rust library, for machines that have no Rust.

      mix native_registry.precompile [--target TARGET] [--output FOLDER]

  Run it in this project, or in one that depends on it.

    * `--target`: the target, as Rust names it; may be given several times. Without it, the target for which
      `mix compile` builds here.
    * `--output`: where the archives are put, `precompiled` if it is not given.

  An archive is named by the version, the version of the VM's native interface and the target, such as
  `libnative_registry-v0.1.0-nif-2.15-x86_64-unknown-linux-gnu.so.tar.gz`. It has the library and its SHA-256
  digest, the digest of the sources, the licence of this project and those of the crates in the library. The
  digest of each archive is in the file
  `checksum-Elixir.WorkflowMetal.Registration.NativeRegistry.Native.exs` beside it. The names, and the format
  of this file, are those of the package `rustler_precompiled`.

  `mix compile` takes the library from such an archive if the environment variable
  `WORKFLOW_METAL_NATIVE_REGISTRY_PRECOMPILED`, or `config :workflow_metal_native_registry, :precompiled`,
  names the archive or its folder by an absolute path. The library runs where the C library of the system is
  the same or newer than where it was built.
  """
  use Mix.Task

  alias WorkflowMetal.Registration.NativeRegistry.Build.{
    Archive,
    Cargo,
    Digest,
    Licences,
    Manifest,
    Target,
    Toolchain
  }

  @application :workflow_metal_native_registry

  @impl Mix.Task
  def run(arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: [target: :keep, output: :string])
    if rest != [], do: Mix.raise("unexpected arguments: #{Enum.join(rest, " ")}")

    output = Path.expand(Keyword.get(options, :output, "precompiled"))

    targets =
      for triple <- Keyword.get_values(options, :target), do: %{triple: triple, explicit?: true}

    in_this_project(fn ->
      root = File.cwd!()
      toolchain = Toolchain.cargo!(root)

      for target <- if(targets == [], do: [elem(Target.asked(), 1)], else: Enum.uniq(targets)) do
        archive = precompile(root, toolchain, target, output)
        Mix.shell().info("Made #{archive} (#{File.stat!(archive).size} bytes)")
      end
    end)
  end

  defp precompile(root, toolchain, target, output) do
    library = Cargo.build!(root, target)
    facts = %{version: Manifest.version(root), nif: Manifest.nif(root), target: target.triple}

    Archive.write!(output, facts, %{
      library: File.read!(library),
      sources: Digest.sources(root),
      licence: File.read!(Path.join(root, "LICENSE")),
      third_party: Licences.third_party!(root, toolchain, target.triple)
    })
  end

  # As Mix compiles a dependency, so that cargo's folder is the same.
  defp in_this_project(function) do
    if Mix.Project.config()[:app] == @application do
      function.()
    else
      root =
        Mix.Project.deps_paths()[@application] ||
          Mix.raise("no project is here that has #{@application}")

      # Mix adds the environment to the first one.
      build = Path.dirname(Mix.Project.build_path())
      paths = [build_path: build, deps_path: Mix.Project.deps_path()]
      Mix.Project.in_project(@application, root, paths, fn _project -> function.() end)
    end
  end
end
