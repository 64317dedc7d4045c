defmodule WorkflowMetal.Registration.NativeRegistry.Waiting do
  @moduledoc false
  # Waiting for a name: the native library sends the waiting process a message
  # `{:workflow_metal_native_registry, number, pid | :closed}`, once for each number.

  alias WorkflowMetal.Registration.NativeRegistry.{Events, Name, Names, Native, Registry, Table}

  # Engines do not say when another node registers a name. This is the time between two lookups in a
  # cluster, in milliseconds.
  @poll 50

  @spec await(Registry.registry(), Registry.name(), timeout) :: {:ok, pid} | {:error, :timeout}
  def await(registry, name, :infinity), do: await_until(registry, name, :infinity)

  def await(registry, name, timeout) when is_integer(timeout) and timeout >= 0 do
    await_until(registry, name, System.monotonic_time(:millisecond) + timeout)
  end

  def await(_registry, _name, timeout) do
    raise ArgumentError,
          "expected a timeout in milliseconds or :infinity, got: #{inspect(timeout)}"
  end

  defp await_until(registry, name, deadline) do
    with :undefined <- Names.whereis(registry, name) do
      number = wait(registry, name)

      case answer(registry, name, deadline, number) do
        {:told, :closed} ->
          Name.unknown_registry!(registry)

        {:told, pid} ->
          # A holder that has ended since is not the one that is waited for.
          if Process.alive?(pid), do: {:ok, pid}, else: await_until(registry, name, deadline)

        answer ->
          stop_waiting(registry, number)
          answer
      end
    else
      pid -> {:ok, pid}
    end
  end

  defp wait(registry, name) do
    case Native.wait(registry, name, self()) do
      number when is_integer(number) -> number
      :no_thread -> Events.no_thread!()
      refusal -> wait(registry, Name.prepare!(refusal, registry, name))
    end
  end

  # The lookup finds a name that was registered before the wait began. It raises when the registry has
  # been stopped.
  defp answer(registry, name, deadline, number) do
    with :undefined <- Names.whereis(registry, name) do
      receive_answer(registry, name, deadline, number, poll(registry))
    else
      pid -> {:ok, pid}
    end
  catch
    kind, reason ->
      stop_waiting(registry, number)
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp poll(registry), do: if(Table.clustered?(registry), do: @poll, else: :infinity)

  defp receive_answer(registry, name, deadline, number, poll) do
    receive do
      {:workflow_metal_native_registry, ^number, answer} -> {:told, answer}
    after
      # In the order of terms every number comes before the atom `:infinity`.
      min(left(deadline), poll) ->
        case {Names.whereis(registry, name), left(deadline)} do
          {:undefined, 0} -> {:error, :timeout}
          {:undefined, _left} -> receive_answer(registry, name, deadline, number, poll)
          {pid, _left} -> {:ok, pid}
        end
    end
  end

  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)

  # Leaves no message behind. When the wait cannot be taken back any more, its message has been sent,
  # and it is received here. A registry that is closed sends one to each that waits, too.
  defp stop_waiting(registry, number) do
    if Native.stop_waiting(registry, self(), number) != true do
      receive do
        {:workflow_metal_native_registry, ^number, _answer} -> :ok
      end
    end
  end
end
