defmodule WorkflowMetal.Registration.NativeRegistry.Build.Rustc do
  @moduledoc false
  # Which Rust compiler builds the library. To ask it takes as long as everything else that a build without
  # work does, so the answer is kept, together with what tells that it is still true.

  alias WorkflowMetal.Registration.NativeRegistry.Build.{Settings, Toolchain}

  @typedoc "What `rustc -vV` prints, and what it was true for."
  @type t :: %{text: String.t(), true_for: term, program: Path.t(), sysroot: Path.t()}

  @doc """
  The compiler that builds in `root`. `known` is an earlier answer. Where there is no Rust at all, that one
  holds.
  """
  @spec current(Path.t(), t | nil) :: t | nil
  def current(root, known) do
    cond do
      known != nil and known.true_for == true_for(root, known.program, known.sysroot) -> known
      found() == nil -> known
      true -> ask(root, Toolchain.cargo!(root))
    end
  end

  @doc "The compiler of a toolchain."
  @spec ask(Path.t(), Toolchain.t()) :: t
  def ask(root, toolchain) do
    text = run!(root, toolchain, ["-vV"])
    sysroot = run!(root, toolchain, ["--print", "sysroot"]) |> String.trim()

    %{
      text: text,
      program: toolchain.rustc,
      sysroot: sysroot,
      true_for: true_for(root, toolchain.rustc, sysroot)
    }
  end

  @doc "The machine that a compiler runs on."
  @spec host(t) :: String.t()
  def host(%{text: text}) do
    case Regex.run(~r/^host: (\S+)/m, text) do
      [_line, host] -> host
      nil -> Mix.raise("`rustc -vV` does not name the machine it runs on: #{inspect(text)}")
    end
  end

  # rustup's program is the same for all of its toolchains; the one behind it is in the sysroot.
  defp true_for(root, program, sysroot) do
    programs = [found(), program, Path.join([sysroot, "bin", "rustc"])]
    {Enum.map(programs, &{&1, stat(&1)}), Settings.rustup(root)}
  end

  defp stat(nil), do: nil

  defp stat(path) do
    with {:ok, stat} <- File.stat(path, time: :posix), do: {stat.size, stat.mtime}
  end

  # Not checked, only looked for: it costs a few system calls.
  defp found do
    System.get_env("RUSTC") || System.get_env("CARGO_BUILD_RUSTC") ||
      System.find_executable("rustc") || in_home()
  end

  defp in_home do
    with home when home != nil <- Settings.cargo_home(System.get_env()),
         path = Path.join([home, "bin", "rustc"]),
         true <- File.exists?(path) do
      path
    else
      _none -> nil
    end
  end

  defp run!(root, toolchain, arguments) do
    options = [cd: root, env: toolchain.env, stderr_to_stdout: false]

    case System.cmd(toolchain.rustc, arguments, options) do
      {text, 0} ->
        text

      {text, status} ->
        command = Enum.join([toolchain.rustc | arguments], " ")
        Mix.raise("`#{command}` ended with status #{status}: #{inspect(text)}")
    end
  end
end
