defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Tasks do
  @moduledoc false
  # The supervisor of all tasks of clustered registries.

  @spec child_spec(term) :: Supervisor.child_spec()
  def child_spec(_options), do: Task.Supervisor.child_spec(name: __MODULE__)

  @doc "Runs the function in a process of its own, and does not wait for it."
  @spec run((() -> term)) :: {:ok, pid}
  def run(function), do: {:ok, _pid} = Task.Supervisor.start_child(__MODULE__, function)

  @doc """
  What the function answers, or the error of this call: `{:error, :cluster_timeout}` when the function
  takes longer than `timeout`, after which it is killed, and `{:error, reason}` when it fails.
  """
  @spec await(timeout, (() -> answer)) :: answer | {:error, reason :: term} when answer: term
  def await(timeout, function) do
    task = Task.Supervisor.async_nolink(__MODULE__, fn -> catch_failure(function) end)

    case Task.yield(task, timeout) || Task.shutdown(task, :brutal_kill) do
      {:ok, {:ok, answer}} -> answer
      {:ok, {:failed, kind, reason, _stacktrace}} -> {:error, {kind, reason}}
      {:exit, reason} -> {:error, reason}
      nil -> {:error, :cluster_timeout}
    end
  catch
    # The supervisor was killed and has not been restarted yet.
    :exit, reason -> {:error, {:exit, reason}}
  end

  @doc """
  What the function answers, or raises. The function is carried out as a whole even if the caller is
  killed meanwhile.
  """
  @spec complete((() -> answer)) :: answer when answer: term
  def complete(function) do
    task = Task.Supervisor.async_nolink(__MODULE__, fn -> catch_failure(function) end)

    case Task.await(task, :infinity) do
      {:ok, answer} -> answer
      {:failed, kind, reason, stacktrace} -> :erlang.raise(kind, reason, stacktrace)
    end
  end

  @doc "What the function answers for each element, in parallel; `nil` when it takes too long or fails."
  @spec map(Enumerable.t(), (term -> answer), timeout) :: [answer | nil] when answer: term
  def map(elements, function, timeout) do
    options = [timeout: timeout, on_timeout: :kill_task, max_concurrency: 64]

    for answer <- Task.Supervisor.async_stream_nolink(__MODULE__, elements, function, options) do
      case answer do
        {:ok, answer} -> answer
        {:exit, _reason} -> nil
      end
    end
  end

  # A task that fails logs a crash report. Here the caller is told of the failure instead.
  defp catch_failure(function) do
    {:ok, function.()}
  catch
    kind, reason -> {:failed, kind, reason, __STACKTRACE__}
  end
end
