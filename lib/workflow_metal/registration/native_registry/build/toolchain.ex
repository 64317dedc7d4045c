defmodule WorkflowMetal.Registration.NativeRegistry.Build.Toolchain do
  @moduledoc false
  # Finds a Rust that can build the library, and tests that it can link. Says what to install if not.

  alias WorkflowMetal.Registration.NativeRegistry.Build.{Manifest, Settings}

  @typedoc """
  The programs, the first line of `rustc --version`, and the variables with which to run cargo: it looks for
  rustc on the `PATH`.
  """
  @type t :: %{
          cargo: Path.t(),
          rustc: Path.t(),
          version: String.t(),
          env: [{String.t(), String.t()}]
        }

  @doc """
  The Rust on the `PATH` or, if there is none or it cannot build the library, the one in the folder into
  which rustup installs. Raises `Mix.Error` with advice.
  """
  @spec cargo!(Path.t()) :: t
  def cargo!(root) do
    case Enum.uniq(for cargo <- [on_path("cargo"), in_home("cargo")], cargo, do: cargo) do
      [] -> none!(root)
      cargos -> first!(cargos, root)
    end
  end

  defp first!(cargos, root) do
    outcomes = Stream.map(cargos, &examine(&1, root))

    case Enum.find(outcomes, &is_map/1) do
      nil -> root |> raise_first(Enum.at(outcomes, 0))
      toolchain -> toolchain
    end
  end

  defp examine(cargo, root) do
    env = if cargo == on_path("cargo"), do: [], else: [{"PATH", path_with(Path.dirname(cargo))}]

    with {:ok, cargo_version, _line} <- version(cargo, root, env),
         :ok <- new_enough(cargo, cargo_version, root),
         {:ok, rustc} <- rustc(cargo, env),
         {:ok, rustc_version, line} <- version(rustc, root, env),
         :ok <- new_enough(rustc, rustc_version, root) do
      %{cargo: cargo, rustc: rustc, version: line, env: env}
    end
  end

  # As cargo finds it: a variable names it, or it is on the `PATH`.
  defp rustc(cargo, env) do
    name = System.get_env("RUSTC") || System.get_env("CARGO_BUILD_RUSTC") || "rustc"
    {"PATH", path} = List.keyfind(env, "PATH", 0, {"PATH", System.get_env("PATH", "")})

    case :os.find_executable(String.to_charlist(name), String.to_charlist(path)) do
      false -> {:no_rustc, cargo, name}
      found -> {:ok, List.to_string(found)}
    end
  end

  # In the package's root: with rustup, files there and above may choose another Rust.
  defp version(program, root, env) do
    {text, status} = run(program, ["--version"], cd: root, env: env)
    lines = text |> String.split(["\r\n", "\n"], trim: true)

    with 0 <- status,
         line when line != nil <- Enum.find(lines, &(&1 =~ ~r/^(cargo|rustc) \d+\.\d+\.\d+/)) do
      [version] = Regex.run(~r/\d+\.\d+\.\d+/, line)
      {:ok, version, line}
    else
      _other ->
        {:no_version, program, Enum.find(lines, List.first(lines) || "", &(&1 =~ "error"))}
    end
  end

  defp new_enough(program, version, root) do
    if Version.compare(version, Manifest.rust(root) <> ".0") == :lt,
      do: {:old, program, version},
      else: :ok
  end

  @spec raise_first(Path.t(), tuple) :: no_return
  defp raise_first(root, outcome) do
    case outcome do
      {:no_rustc, cargo, name} ->
        Mix.raise(
          "cargo is here, #{cargo}, but no #{name}, which cargo needs. " <>
            wanted(root) <> install()
        )

      {:old, program, version} ->
        Mix.raise(
          "the Rust here is too old: #{program} is of version #{version}. " <>
            wanted(root) <> if(rustup(), do: "run `rustup update stable`", else: install())
        )

      {:no_version, program, said} ->
        if said =~ ~r/rustup|toolchain/ do
          Mix.raise(
            "rustup is here, but has no Rust for this folder: `#{program} --version` says #{inspect(said)}. " <>
              wanted(root) <> "run `rustup default stable`"
          )
        else
          Mix.raise(
            "`#{program} --version` does not answer a version, but says #{inspect(said)}. " <>
              wanted(root) <> install()
          )
        end
    end
  end

  @spec none!(Path.t()) :: no_return
  defp none!(root) do
    if rustup() do
      Mix.raise("rustup is here, but no cargo. " <> wanted(root) <> "run `rustup default stable`")
    else
      Mix.raise(
        "no Rust was found, neither on the PATH nor in #{home() || "~/.cargo/bin"}. " <>
          wanted(root) <>
          install() <> ". guides/installing.md says how to do without Rust on this machine"
      )
    end
  end

  defp wanted(root) do
    "workflow_metal_native_registry is built with Rust #{Manifest.rust(root)} or newer: "
  end

  defp install, do: "install it from https://rustup.rs"

  @doc """
  Builds an empty library in `folder` as the build does, with the same `arguments` and variables, together
  with a build script, which is a program for this machine. So a missing linker, C library or standard library
  is told in one sentence, after a build that has failed. Raises `Mix.Error`.
  """
  @spec link!(t, Path.t(), Path.t(), [String.t()], [{String.t(), String.t() | nil}]) :: :ok
  def link!(toolchain, root, folder, arguments \\ [], env \\ []) do
    _ = File.rm_rf!(folder)
    File.mkdir_p!(Path.join(folder, "src"))

    File.write!(Path.join(folder, "Cargo.toml"), """
    [package]
    name = "link"
    version = "0.0.0"
    edition = "2021"

    [lib]
    crate-type = ["cdylib"]

    [workspace]
    """)

    File.write!(Path.join(folder, "build.rs"), "fn main() {}\n")
    File.write!(Path.join(folder, "src/lib.rs"), "")

    # In the package's root, whose configuration of cargo may name a linker.
    manifest = ["--manifest-path", Path.join(folder, "Cargo.toml")]
    into = [{"CARGO_TARGET_DIR", Path.join(folder, "target")}, {"CARGO_TERM_COLOR", "never"}]
    # Of a variable that is there twice, the last counts.
    options = [cd: root, env: Map.new(toolchain.env ++ env ++ into)]
    {text, status} = run(toolchain.cargo, ["build", "--offline" | manifest ++ arguments], options)
    _ = File.rm_rf!(folder)
    if status == 0, do: :ok, else: cannot_link!(text)
  end

  @development_files "On Debian and Ubuntu install the packages gcc and libc6-dev, on Alpine gcc and musl-dev, on " <>
                       "Fedora gcc and glibc-devel, on macOS run `xcode-select --install`, on Windows install the " <>
                       "Visual Studio Build Tools with C++"

  @spec cannot_link!(String.t()) :: no_return
  defp cannot_link!(text) do
    cond do
      linker = found(~r/linker `([^`]+)` not found/, text) ->
        Mix.raise("Rust needs a C linker, and there is no #{linker}. " <> @development_files)

      missing = found(~r/can't find crate for `(?:std|core)`[^`]*?the `([^`]+)` target/s, text) ->
        Mix.raise(
          "this Rust has no standard library for the target #{missing}: run `rustup target add #{missing}`"
        )

      text =~ "error: linking with" ->
        Mix.raise(
          "there is a C linker, but it cannot link: #{why(text)}. The files for development of the C " <>
            "library are probably missing. " <> @development_files
        )

      true ->
        IO.write(text)
        Mix.raise("Rust cannot build an empty library here, its output above has the reason")
    end
  end

  defp found(regex, text) do
    with [_all, found] <- Regex.run(regex, text), do: found
  end

  # The first line in which a linker, whichever it is, names what it does not find.
  defp why(text) do
    text
    |> String.split(["\r\n", "\n"])
    |> Enum.map(&String.trim/1)
    |> Enum.find("its output has no reason", &(&1 =~ ~r/cannot |unable to |not found|fatal/))
    |> String.replace(~r/^= note:\s*/, "")
  end

  defp run(program, arguments, options) do
    System.cmd(program, arguments, [stderr_to_stdout: true] ++ options)
  rescue
    error in ErlangError -> {"it cannot be started: #{inspect(error.original)}", 1}
  end

  defp rustup, do: on_path("rustup") || in_home("rustup")

  defp on_path(name), do: System.find_executable(name)

  defp in_home(name) do
    with folder when folder != nil <- home(),
         found when found != false <-
           :os.find_executable(String.to_charlist(name), String.to_charlist(folder)) do
      List.to_string(found)
    else
      _none -> nil
    end
  end

  # Where rustup installs programs.
  defp home do
    with folder when folder != nil <- Settings.cargo_home(System.get_env()),
         do: Path.join(folder, "bin")
  end

  defp path_with(folder) do
    separator = if match?({:win32, _name}, :os.type()), do: ";", else: ":"
    folder <> separator <> System.get_env("PATH", "")
  end
end
