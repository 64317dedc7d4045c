defmodule Bench.Builds do
  # Builds of this project that are compared. A VM has one of them on its code path, and the VMs of the builds
  # take turns.

  @application :workflow_metal_native_registry

  @doc "This build, as it is on the code path."
  def this, do: %{key: :this, label: "this build", path: :code.get_path()}

  @doc """
  The build in a directory: of a checkout, which is compiled first, or the directory of an application that is
  compiled, or the one around that.
  """
  def other!(directory) do
    directory = Path.expand(directory)

    if File.exists?(Path.join(directory, "mix.exs")), do: compile!(directory)

    candidates = [
      Path.join([directory, "_build", "#{Mix.env()}", "lib", "#{@application}", "ebin"]),
      Path.join([directory, "#{@application}", "ebin"]),
      Path.join(directory, "ebin")
    ]

    case Enum.find(candidates, &File.exists?(Path.join(&1, "#{@application}.app"))) do
      nil -> raise ArgumentError, "no build of this project in #{directory}"
      ebin -> %{key: :other, label: "the other build", path: path_with(ebin)}
    end
  end

  # With its own settings, but the same libraries: those are in ERL_LIBS.
  defp compile!(directory) do
    options = [cd: directory, into: IO.stream(:stderr, :line), env: [{"MIX_BUILD_PATH", nil}]]
    {_output, 0} = System.cmd("mix", ["compile"], [stderr_to_stdout: true] ++ options)
  end

  @doc "This build without telemetry, and with it; nothing if telemetry is not on the code path."
  def telemetry do
    case :code.which(:telemetry) do
      file when is_list(file) ->
        ebin = Path.dirname(file)
        without = Enum.reject(:code.get_path(), &(Path.expand(&1) == Path.expand(ebin)))

        [
          %{key: :without, label: "without telemetry", path: compiled("without", without)},
          %{key: :with, label: "with telemetry", path: compiled("with", :code.get_path())}
        ]

      _not_found ->
        []
    end
  end

  @doc "The keys and labels of `telemetry/0`."
  def telemetry_rows, do: [without: "without telemetry", with: "with telemetry"]

  # Whether telemetry is there is decided when this project is compiled. So its modules are compiled again with
  # this code path; the native library is the same.
  defp compiled(name, path) do
    this = Application.app_dir(@application)
    app = Path.join([Mix.Project.build_path(), "bench", name, "#{@application}"])
    ebin = Path.join(app, "ebin")
    File.rm_rf!(app)
    File.mkdir_p!(ebin)

    File.cp!(
      Path.join([this, "ebin", "#{@application}.app"]),
      Path.join(ebin, "#{@application}.app")
    )

    File.ln_s!(Path.join(this, "priv"), Path.join(app, "priv"))
    sources = Path.wildcard(Path.join(File.cwd!(), "lib/workflow_metal/**/*.ex"))

    Bench.VM.run(without_this(path), fn vm ->
      arguments = [sources, ebin]

      {:ok, _modules, _warnings} =
        Bench.VM.call(vm, Kernel.ParallelCompiler, :compile_to_path, arguments)
    end)

    path_with(ebin, path)
  end

  defp path_with(ebin, path \\ :code.get_path()), do: [to_charlist(ebin) | without_this(path)]

  defp without_this(path) do
    Enum.reject(path, &File.exists?(Path.join(&1, "#{@application}.app")))
  end
end
