defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Boot do
  @moduledoc false
  # Which run of the machine this is. What was written without `fsync` is on disk for sure only as long as
  # the machine has not been restarted.

  @linux "/proc/sys/kernel/random/boot_id"

  # macOS, and the BSDs.
  @sysctl ["kern.bootsessionuuid", "kern.boot_id", "kern.boottime"]

  @doc "The same until the machine starts again; `nil` where that cannot be known."
  @spec id() :: binary | nil
  def id do
    case File.read(@linux) do
      {:ok, id} -> String.trim(id)
      {:error, _reason} -> sysctl(System.find_executable("sysctl"))
    end
  end

  defp sysctl(nil), do: nil

  defp sysctl(program) do
    Enum.find_value(@sysctl, fn name ->
      case System.cmd(program, ["-n", name], stderr_to_stdout: true) do
        {id, 0} -> name <> "=" <> String.trim(id)
        {_message, _status} -> nil
      end
    end)
  end
end
