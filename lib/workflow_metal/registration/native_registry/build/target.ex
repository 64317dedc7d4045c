defmodule WorkflowMetal.Registration.NativeRegistry.Build.Target do
  @moduledoc false
  # For which machine the library is built, by Rust's name for it.

  @typedoc "`explicit?` says that the environment names the target. Otherwise it is that of this VM."
  @type t :: %{triple: String.t(), explicit?: boolean}

  @doc """
  The target that the environment asks for: that of `CARGO_BUILD_TARGET`, that of the variables which Nerves
  sets, or the machine of this VM. Raises `Mix.Error` if another machine is asked for and not known.
  """
  @spec asked(%{String.t() => String.t()}) :: {:ok, t}
  def asked(environment \\ System.get_env()) do
    triple = given(environment, "CARGO_BUILD_TARGET")

    cond do
      triple -> {:ok, %{triple: named!(triple), explicit?: true}}
      device?(environment) -> {:ok, %{triple: device!(environment), explicit?: true}}
      true -> {:ok, %{triple: of_vm(), explicit?: false}}
    end
  end

  @doc "The value of a variable, or `nil` if it is not set or empty."
  @spec given(%{String.t() => String.t()}, String.t()) :: String.t() | nil
  def given(environment, name) do
    with "" <- Map.get(environment, name), do: nil
  end

  @doc "The variable by which cargo is told `what` of a target: `\"LINKER\"`, `\"RUSTFLAGS\"`."
  @spec variable(String.t(), String.t()) :: String.t()
  def variable(triple, what) do
    "CARGO_TARGET_#{triple |> String.upcase() |> String.replace(["-", "."], "_")}_#{what}"
  end

  defp named!(triple) do
    if triple =~ ~r/\A\w+(-[\w.]+)+\z/,
      do: triple,
      else:
        Mix.raise(
          "CARGO_BUILD_TARGET is #{inspect(triple)}, which is not the name of a target of Rust: " <>
            "`rustc --print target-list` lists them"
        )
  end

  # Tools that pack a release for another machine set the variables of Nerves without `MIX_TARGET`.
  defp device?(environment) do
    given(environment, "MIX_TARGET") not in [nil, "host"] or
      (given(environment, "TARGET_ARCH") != nil and given(environment, "TARGET_OS") != nil)
  end

  defp device!(environment) do
    case parts(environment) do
      {:ok, parts} -> device!(parts, triple(parts))
      :none -> no_parts!(environment)
    end
  end

  defp device!(_parts, {:ok, triple}), do: triple

  defp device!(parts, :unknown) do
    named = parts |> Map.reject(&match?({_part, nil}, &1)) |> Enum.sort()

    Mix.raise(
      "the environment asks for a library for another machine, #{inspect(named)}, and no target of " <>
        "Rust is known for that. " <> advice()
    )
  end

  @spec no_parts!(map) :: no_return
  defp no_parts!(environment) do
    Mix.raise(
      "MIX_TARGET is #{inspect(environment["MIX_TARGET"])}, but neither TARGET_ARCH, TARGET_OS and " <>
        "TARGET_ABI nor REBAR_TARGET_ARCH say for which machine that is. A library for this computer would not " <>
        "load there. " <> advice()
    )
  end

  defp advice do
    "Set CARGO_BUILD_TARGET to Rust's name of the target, which `rustc --print target-list` lists"
  end

  # Nerves' systems have set TARGET_ARCH and the others since 2021, and REBAR_TARGET_ARCH always.
  defp parts(environment) do
    arch = given(environment, "TARGET_ARCH")
    os = given(environment, "TARGET_OS")
    cpu = given(environment, "TARGET_CPU")
    prefix = given(environment, "REBAR_TARGET_ARCH") || given(environment, "CROSSCOMPILE")

    cond do
      arch != nil and os != nil ->
        {:ok, %{arch: arch, os: os, abi: given(environment, "TARGET_ABI"), cpu: cpu}}

      prefix ->
        {:ok, prefix |> Path.basename() |> split() |> Map.put(:cpu, cpu)}

      true ->
        :none
    end
  end

  defp split(name) do
    case String.split(name, "-") do
      [arch, "linux", abi] -> %{arch: arch, os: "linux", abi: abi}
      [arch, _vendor, os, abi] -> %{arch: arch, os: os, abi: abi}
      [arch, _vendor, os] -> %{arch: arch, os: os, abi: nil}
      [arch | _others] -> %{arch: arch, os: nil, abi: nil}
    end
  end

  defp triple(parts) do
    os = parts.os && String.replace(parts.os, ~r/[\d.]+\z/, "")

    case triple(os, parts.arch, parts.abi, Map.get(parts, :cpu) || "") do
      nil -> :unknown
      triple -> {:ok, triple}
    end
  end

  defp triple("linux", "arm" <> _version = arch, abi, cpu)
       when arch != "arm64" and abi in ~w(gnueabi gnueabihf musleabi musleabihf) do
    case {arm(arch, cpu), String.ends_with?(abi, "hf")} do
      {7, _hard} -> "armv7-unknown-linux-#{abi}"
      {6, _hard} -> "arm-unknown-linux-#{abi}"
      {5, false} -> "armv5te-unknown-linux-#{abi}"
      _unknown -> nil
    end
  end

  defp triple("linux", arch, abi, _cpu) when abi in [nil, "gnu", "musl"] do
    rust =
      case family(arch) do
        "riscv64" -> "riscv64gc"
        "i686" -> "i686"
        known when known in ~w(x86_64 aarch64 powerpc64le s390x loongarch64) -> known
        _other -> nil
      end

    rust && "#{rust}-unknown-linux-#{abi || "gnu"}"
  end

  defp triple(os, arch, _abi, _cpu) when os in ["darwin", "macos"] do
    if family(arch) in ~w(x86_64 aarch64), do: "#{family(arch)}-apple-darwin"
  end

  defp triple("freebsd", arch, _abi, _cpu) do
    if family(arch) in ~w(x86_64 aarch64 i686), do: "#{family(arch)}-unknown-freebsd"
  end

  defp triple("windows", arch, abi, _cpu) when abi in [nil, "msvc", "gnu"] do
    if family(arch) in ~w(x86_64 aarch64 i686),
      do: "#{family(arch)}-pc-windows-#{abi || "msvc"}"
  end

  defp triple(_os, _arch, _abi, _cpu), do: nil

  # The version of the instructions. Every processor whose name begins with "cortex" has the seventh or a newer
  # one. Without a version it is the sixth, which those run as well.
  defp arm(arch, cpu) do
    cond do
      arch =~ ~r/^armv[78]/ or cpu =~ ~r/^cortex/ -> 7
      arch =~ ~r/^armv5/ or cpu =~ ~r/^arm9/ -> 5
      arch =~ ~r/^arm(v6\w*|hf|el)?$/ -> 6
      true -> nil
    end
  end

  # What processors are called that run the same code.
  defp family("amd64"), do: "x86_64"
  defp family("arm64" <> _variant), do: "aarch64"
  defp family("riscv64" <> _extensions), do: "riscv64"
  defp family("ppc64le"), do: "powerpc64le"
  defp family("x86"), do: "i686"
  defp family("i" <> <<_digit, "86">>), do: "i686"
  defp family("arm" <> _version), do: "arm"
  defp family(arch), do: arch

  @doc "The machine of this VM. No Rust is asked."
  @spec of_vm() :: String.t()
  def of_vm, do: :system_architecture |> :erlang.system_info() |> List.to_string() |> of_vm()

  @doc "The same, of a name that a VM has for its machine. One that is not known is answered as it is."
  @spec of_vm(String.t()) :: String.t()
  def of_vm("win32") do
    if :erlang.system_info(:wordsize) == 8,
      do: "x86_64-pc-windows-msvc",
      else: "i686-pc-windows-msvc"
  end

  def of_vm(architecture) do
    case architecture |> split() |> triple() do
      {:ok, triple} -> triple
      :unknown -> architecture
    end
  end

  @doc """
  The target to ask of a Rust whose own machine is `host`. Distributions have names of their own for the
  same machine, and only `host` is certain to be there.
  """
  @spec in_rust(t, String.t()) :: String.t()
  def in_rust(%{explicit?: true, triple: triple}, _host), do: triple

  def in_rust(%{triple: triple}, host) do
    if same_machine?(triple, host) or system(triple) == :other, do: host, else: triple
  end

  @doc "Whether a library for one of the targets loads where the other one's do."
  @spec same_machine?(String.t(), String.t()) :: boolean
  def same_machine?(triple, other) do
    processor(triple) == processor(other) and system(triple) == system(other)
  end

  defp processor(triple), do: triple |> String.split("-") |> hd() |> family()

  defp system(triple) do
    cond do
      triple =~ "-linux" and triple =~ "musl" -> :musl
      triple =~ "-linux" -> :linux
      triple =~ ~r/apple|darwin/ -> :macos
      triple =~ ~r/windows|mingw/ -> :windows
      triple =~ "freebsd" -> :freebsd
      true -> :other
    end
  end

  @doc "The name of the library in `priv/native`. On macOS the VM also looks for one that ends in `.so`."
  @spec library_name(String.t()) :: String.t()
  def library_name(triple) do
    if system(triple) == :windows, do: "native_registry.dll", else: "native_registry.so"
  end

  @doc "The name that cargo gives to the library."
  @spec cargo_name(String.t()) :: String.t()
  def cargo_name(triple) do
    case system(triple) do
      :windows -> "native_registry.dll"
      :macos -> "libnative_registry.dylib"
      _other -> "libnative_registry.so"
    end
  end
end
