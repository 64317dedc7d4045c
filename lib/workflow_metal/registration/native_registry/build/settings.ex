defmodule WorkflowMetal.Registration.NativeRegistry.Build.Settings do
  @moduledoc false
  # What the user tells cargo and Rust besides the sources: variables and files.

  @prefixes ~w(CARGO_PROFILE_ CARGO_TARGET_ CARGO_BUILD_RUST)
  @names ~w(CARGO_ENCODED_RUSTFLAGS RUSTFLAGS RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
    RUSTC_BOOTSTRAP MACOSX_DEPLOYMENT_TARGET SDKROOT)
  # These choose the linker for another machine.
  @cross ~w(CC CROSSCOMPILE)

  @doc "The variables that change what cargo builds, sorted. Where it builds changes nothing."
  @spec variables(%{String.t() => String.t()}, explicit? :: boolean) :: [{String.t(), String.t()}]
  def variables(environment, explicit?) do
    names = if explicit?, do: @cross ++ @names, else: @names

    for {name, value} <- Enum.sort(environment),
        name in names or (String.starts_with?(name, @prefixes) and name != "CARGO_TARGET_DIR"),
        do: {name, value}
  end

  @doc "The text of cargo's configuration for the folder `root`: of it, of those above it, of the user."
  @spec config(Path.t(), %{String.t() => String.t()}) :: String.t()
  def config(root, environment \\ System.get_env()) do
    folders = for folder <- above(root), do: Path.join(folder, ".cargo")

    for folder <- Enum.uniq(folders ++ List.wrap(cargo_home(environment))),
        name <- ["config.toml", "config"],
        {:ok, text} <- [File.read(Path.join(folder, name))],
        into: "",
        do: text <> "\n"
  end

  @doc """
  What chooses the toolchain where rustup is: its variable, its own settings and the files in `root` and
  above it.
  """
  @spec rustup(Path.t(), %{String.t() => String.t()}) :: [term]
  def rustup(root, environment \\ System.get_env()) do
    home = environment["RUSTUP_HOME"] || Path.join(user_home(environment) || ".", ".rustup")

    files =
      for folder <- above(root), name <- ["rust-toolchain.toml", "rust-toolchain"] do
        Path.join(folder, name)
      end

    read = for file <- [Path.join(home, "settings.toml") | files], do: File.read(file)
    [environment["RUSTUP_TOOLCHAIN"], home | for({:ok, text} <- read, do: text)]
  end

  @doc "Where cargo and, unless it is told otherwise, rustup install. There may be no home, as in a service."
  @spec cargo_home(%{String.t() => String.t()}) :: Path.t() | nil
  def cargo_home(environment) do
    case Map.get(environment, "CARGO_HOME", "") do
      "" -> with home when home != nil <- user_home(environment), do: Path.join(home, ".cargo")
      folder -> folder
    end
  end

  defp user_home(environment), do: environment["HOME"] || environment["USERPROFILE"]

  defp above(folder) do
    case Path.dirname(folder) do
      ^folder -> [folder]
      parent -> [folder | above(parent)]
    end
  end
end
