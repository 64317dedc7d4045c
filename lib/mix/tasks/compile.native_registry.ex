defmodule Mix.Tasks.Compile.NativeRegistry do
  @shortdoc "Builds the Rust library of workflow_metal_native_registry"
  @moduledoc """
  Builds the Rust library with cargo, or takes a precompiled one, and copies it to `priv/native` of the built
  application, where the VM loads it from.

  Does nothing if the library there is the one that was built from the same sources, for the same target, by the
  same compiler and with the same settings. With `--force` cargo decides what to do. What cargo says is
  shown.

  It builds for the machine of this VM, or for the one that `CARGO_BUILD_TARGET` or the variables of Nerves name.
  Cargo's folder is shared by the environments of a project, and removed by `mix clean`; the environment
  variable `CARGO_TARGET_DIR` names another one. The guide to installing has the details.
  """
  use Mix.Task.Compiler

  alias WorkflowMetal.Registration.NativeRegistry.Build.{
    Cargo,
    Digest,
    Precompiled,
    Record,
    Rustc,
    Target
  }

  @impl Mix.Task.Compiler
  def run(arguments) do
    root = File.cwd!()
    {:ok, target} = Target.asked()
    record = if "--force" in arguments, do: %{Record.read() | library: nil}, else: Record.read()

    case Precompiled.find(root, target) do
      {:ok, path, fingerprint} ->
        provide(target, record, %{record | built_from: fingerprint}, fn ->
          Mix.shell().info("Taking the precompiled Rust library for #{target.triple}")
          path
        end)

      :none ->
        rustc = Rustc.current(root, record.rustc)
        built_from = rustc && Digest.of(root, target, rustc.text)
        wanted = %{record | built_from: built_from, rustc: rustc}
        provide(target, record, wanted, fn -> Cargo.build!(root, target) end)
    end
  end

  defp provide(target, record, wanted, build) do
    library = library(target)

    if wanted.built_from != nil and wanted.built_from == record.built_from and
         record.library != nil and Digest.file(library) == record.library do
      _ = if wanted != record, do: Record.write(wanted)
      {:noop, []}
    else
      replace(library, build.())
      Record.write(%{wanted | library: Digest.file(library)})
      {:ok, []}
    end
  end

  # Renamed into place: a VM may have mapped the old file, which must not change then, and another one may
  # load it at any moment.
  defp replace(library, built) do
    File.mkdir_p!(Path.dirname(library))
    new = "#{library}.#{System.pid()}"
    File.cp!(built, new)
    File.rename!(new, library)
  end

  defp library(target), do: Path.join(folder(), Target.library_name(target.triple))
  defp folder, do: Path.join([Mix.Project.app_path(), "priv", "native"])

  @impl Mix.Task.Compiler
  def manifests, do: [Record.path()]

  # No `clean/0`: Mix removes the application's folders, cargo's among them, and has removed the modules that
  # this one calls by then.
end
