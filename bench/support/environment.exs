defmodule Bench.Environment do
  # The machine and the versions that the figures are from.

  alias Bench.Engines
  alias WorkflowMetal.Registration.NativeRegistry.Native

  @doc "A list of labels and texts."
  def describe do
    [
      {"Elixir, Erlang/OTP",
       "#{System.version()}, #{otp()} (#{:erlang.system_info(:emu_flavor)})"},
      {"Rust", rust()},
      {"processor", processor()},
      {"schedulers", "#{System.schedulers_online()}"},
      {"system", to_string(:erlang.system_info(:system_architecture))},
      {"NativeRegistry", "#{version(:workflow_metal_native_registry)}, #{reading()}"},
      {"LocalRegistry", local()},
      {"telemetry", telemetry()},
      {"others", others()}
    ]
  end

  defp telemetry do
    if Code.ensure_loaded?(:telemetry),
      do: "#{version(:telemetry)} in all VMs but those without",
      else: "not on the code path, so its cost is not measured"
  end

  # The exact version is in a file of the installation, which some packages leave out.
  defp otp do
    release = to_string(:erlang.system_info(:otp_release))

    case File.read(Path.join([:code.root_dir(), "releases", release, "OTP_VERSION"])) do
      {:ok, version} -> String.trim(version)
      {:error, _reason} -> release
    end
  end

  defp rust do
    with rustc when rustc != nil <- System.find_executable("rustc"),
         {text, 0} <- System.cmd(rustc, ["--version"], stderr_to_stdout: true) do
      String.trim(text)
    else
      _none -> "no rustc found"
    end
  end

  defp processor do
    with {:ok, text} <- File.read("/proc/cpuinfo"),
         [_all, model] <- Regex.run(~r/^model name\s*: (.+)$/m, text) do
      model
    else
      _unknown -> "unknown"
    end
  end

  defp reading do
    if Native.reads_words(), do: "reads terms directly", else: "reads terms by the documented API"
  end

  defp local do
    case Engines.local_adapter() do
      Bench.ElixirRegistry -> "done the same way here, WorkflowMetal is not on the code path"
      _adapter -> "of WorkflowMetal #{version(:workflow_metal)}"
    end
  end

  defp others do
    present =
      for application <- [:gproc, :syn, :horde], version = version(application) do
        "#{application} #{version}"
      end

    absent = for engine <- Engines.absent(), do: "no #{engine.label} on the code path"
    Enum.join(present ++ absent, ", ")
  end

  defp version(application) do
    Application.load(application)
    Application.spec(application, :vsn)
  end
end
