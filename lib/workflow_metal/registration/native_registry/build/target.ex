defmodule WorkflowMetal.Registration.NativeRegistry.Build.Target do
  @moduledoc false
  # For which target the library is wanted, and how its file is named.

  @type t :: %{triple: String.t(), explicit?: boolean}

  @spec asked() :: {:ok, t} | {:error, String.t()}
  def asked do
    case System.get_env("CARGO_BUILD_TARGET", "") do
      "" -> {:ok, %{triple: of_vm(), explicit?: false}}
      triple -> {:ok, %{triple: triple, explicit?: true}}
    end
  end

  @spec of_vm() :: String.t()
  def of_vm do
    case :erlang.system_info(:system_architecture) |> List.to_string() |> String.split("-") do
      [processor, _vendor, "linux", abi] -> "#{processor}-unknown-linux-#{abi}"
      [processor, "apple" | _rest] -> "#{processor}-apple-darwin"
      ["win32"] -> "x86_64-pc-windows-msvc"
    end
  end

  @spec library_name(String.t()) :: String.t()
  def library_name(triple) do
    if triple =~ "windows", do: "native_registry.dll", else: "native_registry.so"
  end

  @spec cargo_name(String.t()) :: String.t()
  def cargo_name(triple) do
    cond do
      triple =~ "windows" -> "native_registry.dll"
      triple =~ "apple" -> "libnative_registry.dylib"
      true -> "libnative_registry.so"
    end
  end
end
