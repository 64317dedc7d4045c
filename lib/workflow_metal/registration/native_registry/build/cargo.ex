defmodule WorkflowMetal.Registration.NativeRegistry.Build.Cargo do
  @moduledoc false
  # Builds the library with cargo.

  alias WorkflowMetal.Registration.NativeRegistry.Build.{
    Command,
    Flags,
    Json,
    Linker,
    Rustc,
    Settings,
    Target,
    Toolchain
  }

  @package "native_registry"

  @doc """
  Builds the library and answers where cargo says that it has put it. Shows what cargo says while it builds.
  Raises `Mix.Error` with cargo's errors.
  """
  @spec build!(Path.t(), Target.t()) :: Path.t()
  def build!(root, target) do
    environment = System.get_env()
    toolchain = Toolchain.cargo!(root)
    rustc = Rustc.ask(root, toolchain)
    machine = %{host: Rustc.host(rustc), sysroot: rustc.sysroot}
    triple = Target.in_rust(target, machine.host)
    config = Settings.config(root, environment)
    linker = Linker.env!(triple, machine, environment, config, folder())
    env = toolchain.env ++ folder(environment) ++ colours(environment) ++ linker
    Mix.shell().info("Compiling the Rust library of workflow_metal_native_registry for #{triple}")

    build = %{root: root, toolchain: toolchain, triple: triple, env: env}
    attempt(build, Flags.choices(triple, environment))
  end

  defp attempt(build, [flags | others]) do
    env = build.env ++ flags

    case cargo(build, env) do
      {:ok, library} ->
        library

      {:error, status, errors} ->
        if others != [] and errors =~ "does not support these crate types" do
          attempt(build, others)
        else
          # If not even an empty library can be built, this says why in one sentence.
          link = Path.join(Mix.Project.app_path(), "link")
          Toolchain.link!(build.toolchain, build.root, link, ["--target", build.triple], env)

          Mix.raise(
            "cargo could not build the Rust library, it ended with status #{status}:\n#{errors}"
          )
        end
    end
  end

  # Always for a named target: one that a file of cargo's configuration names is not where this VM runs. The
  # diagnostics come as text, the rest as JSON.
  defp cargo(build, env) do
    arguments =
      ~w(build --release --locked --package #{@package} --lib --target #{build.triple}) ++
        ["--message-format=json-render-diagnostics"]

    options = [cd: build.root, env: env]
    heard = &heard(&1, &2, build.triple)

    {status, {library, errors}} =
      Command.run(build.toolchain.cargo, arguments, options, {nil, []}, heard)

    cond do
      status != 0 -> {:error, status, errors |> Enum.reverse() |> Enum.join("\n")}
      library != nil -> {:ok, library}
      true -> Mix.raise("cargo built no library for #{build.triple}, or does not say where it is")
    end
  end

  defp heard(line, {library, errors}, triple) do
    case said(line, triple) do
      {:library, path} ->
        {path, errors}

      :other ->
        {library, errors}

      :text ->
        # The errors are shown at the end, in one piece, whatever shell Mix has.
        if errors != [] or plain(line) =~ ~r/^error\b/ do
          {library, [line | errors]}
        else
          Mix.shell().info(line)
          {library, errors}
        end
    end
  end

  defp plain(line), do: String.replace(line, ~r/\e\[[\d;]*m/, "")

  defp said("{" <> _rest = line, triple) do
    case Json.decode(line) do
      {:ok, %{"reason" => "compiler-artifact", "target" => %{} = target} = artifact} ->
        library(target, artifact["filenames"], triple)

      {:ok, %{"reason" => _reason}} ->
        :other

      _no_message ->
        :text
    end
  end

  defp said(_line, _triple), do: :text

  defp library(%{"name" => @package, "crate_types" => types}, files, triple) do
    ending = triple |> Target.cargo_name() |> Path.extname()
    file = Enum.find(files, &(Path.extname(&1) == ending))
    if "cdylib" in types and file != nil, do: {:library, file}, else: :other
  end

  defp library(_target, _files, _triple), do: :other

  @doc """
  The folder that all builds of a project share: every environment, and every target, has a folder of its own in
  it. It lies where an environment with that name would have this package, so `mix clean` and
  `mix deps.clean` find it. With `MIX_BUILD_PATH` there is nothing to share.
  """
  @spec folder() :: Path.t()
  def folder do
    if System.get_env("MIX_BUILD_PATH", "") == "" do
      app = Path.basename(Mix.Project.app_path())
      Path.join([Path.dirname(Mix.Project.build_path()), "native_registry_cargo", "lib", app])
    else
      Path.join(Mix.Project.app_path(), "cargo")
    end
  end

  # A folder of a file of cargo's configuration is not asked for. It may be shared by all that the user builds.
  defp folder(environment) do
    if Target.given(environment, "CARGO_TARGET_DIR") ||
         Target.given(environment, "CARGO_BUILD_TARGET_DIR"),
       do: [],
       else: [{"CARGO_TARGET_DIR", folder()}]
  end

  # Cargo does not see the terminal.
  defp colours(environment) do
    if IO.ANSI.enabled?() and Target.given(environment, "CARGO_TERM_COLOR") == nil,
      do: [{"CARGO_TERM_COLOR", "always"}],
      else: []
  end
end
