defmodule WorkflowMetal.Registration.NativeRegistry.Attempts do
  @moduledoc false
  # Starts a child that other processes may start and end at the same time. A start that fails is tried
  # again while that may be the reason.

  # How often a child is started again after it was killed in its `init`, and after its name had a holder
  # that is gone. When other processes start and kill children of the same name without pause on busy
  # processors, one start in seven meets a holder that is gone.
  @killed 4
  @gone 9

  # How often it is started again after a conflict. A conflict ends with another process under the
  # name.
  @conflicts 100

  @typedoc "Looks the name up."
  @type find :: (() -> pid | :undefined)

  @typedoc "Starts the child."
  @type start :: (() -> DynamicSupervisor.on_start_child())

  @type answer :: {:ok, pid} | {:error, term} | :ignore

  @typedoc """
  What the error of a start means: the process that has the name, an error for the caller, or that it
  is worth another try: the child was killed, the holder of the name is gone, or two nodes had a
  conflict over the name.
  """
  @type reading ::
          {:ok, pid}
          | {:error, term}
          | :killed
          | {:gone, holder :: pid | :undefined}
          | :conflict

  @doc """
  Calls `start`, and again while there is a reason to and `find` answers `:undefined`. Answers what
  `find` has found, or the result of the last call.
  `refused` says what the error of a start means.
  """
  @spec start(find, start, refused :: (reason :: term -> reading)) :: answer
  def start(find, start, refused),
    do: try_start({find, start, refused}, {@killed, @gone, @conflicts}, nil)

  # `last` is the holder that was gone in the previous attempt.
  defp try_start({_find, start, refused} = job, attempts, last) do
    case start.() do
      {:ok, pid} -> {:ok, pid}
      {:ok, pid, _info} -> {:ok, pid}
      {:error, reason} -> failed(refused.(reason), reason, job, attempts, last)
      other -> other
    end
  end

  defp failed({:ok, pid}, _reason, _job, _attempts, _last), do: {:ok, pid}
  defp failed({:error, reason}, _reason, _job, _attempts, _last), do: {:error, reason}

  defp failed(:killed, _reason, job, {killed, gone, conflicts} = attempts, last)
       when killed > 0 do
    pause(attempts)
    find_or_start(job, {killed - 1, gone, conflicts}, last)
  end

  # A registry does not name an ended process twice, so this error is the child's own.
  defp failed({:gone, last}, reason, _job, _attempts, last) when is_pid(last),
    do: {:error, reason}

  defp failed({:gone, holder}, _reason, job, {killed, gone, conflicts} = attempts, _last)
       when gone > 0 do
    pause(attempts)
    find_or_start(job, {killed, gone - 1, conflicts}, holder)
  end

  defp failed(:conflict, _reason, job, {killed, gone, conflicts}, last) when conflicts > 0,
    do: find_or_start(job, {killed, gone, conflicts - 1}, last)

  defp failed(_no_attempt_left, reason, _job, _attempts, _last), do: {:error, reason}

  # Another caller may have started the child during the pause. A lookup runs no `init`.
  defp find_or_start({find, _start, _refused} = job, attempts, last) do
    with :undefined <- find.() do
      try_start(job, attempts, last)
    else
      pid -> {:ok, pid}
    end
  end

  # No pause the first time. Later the pause leaves the processors to the processes that end the child or
  # its holder again and again.
  defp pause({@killed, @gone, _conflicts}), do: :ok
  defp pause({killed, gone, _conflicts}), do: Process.sleep(@killed - killed + @gone - gone)

  @doc "What the error of a start means in a registry that is this node's alone."
  @spec refused(find, reason :: term) ::
          {:ok, pid} | {:error, term} | :killed | {:gone, holder :: pid | :undefined}
  def refused(find, {:already_started, holder} = reason) do
    case find.() do
      pid when is_pid(pid) -> {:ok, pid}
      :undefined -> refused_by(holder, reason)
    end
  end

  # The child had the name already, and was killed before its `init` was done.
  def refused(_find, :killed), do: :killed
  def refused(_find, reason), do: {:error, reason}

  # If the process is of this node and lives, it has another name, which is why the child did not start.
  # OTP says `:undefined` when the holder has ended before it could be named.
  defp refused_by(holder, reason) when is_pid(holder) and node(holder) == node() do
    if Process.alive?(holder), do: {:error, reason}, else: {:gone, holder}
  end

  defp refused_by(holder, _reason) when is_pid(holder) or holder == :undefined,
    do: {:gone, holder}

  defp refused_by(_holder, reason), do: {:error, reason}
end
