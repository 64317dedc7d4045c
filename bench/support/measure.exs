defmodule Bench.Measure do
  # The clock, rounds, and idle processes.

  def now, do: System.monotonic_time()

  def nanoseconds(time), do: System.convert_time_unit(time, :native, :nanosecond)

  # Nanoseconds for one of `count` calls that the function makes.
  def per(count, fun) do
    start = now()
    fun.()
    nanoseconds(now() - start) / count
  end

  # Every engine in every round, so that other work on the machine affects all of them. The order changes, so that no
  # engine always follows the same other one.
  def rounds(engines, count, fun) do
    samples =
      for round <- 0..(count - 1), engine <- rotate(engines, round) do
        {engine.key, fun.(engine, round)}
      end

    Enum.group_by(samples, &elem(&1, 0), &elem(&1, 1))
  end

  defp rotate(list, by) do
    {head, tail} = Enum.split(list, rem(by, length(list)))
    tail ++ head
  end

  # Runs the function in a process of its own.
  def apart(fun), do: 1 |> together(fn _at -> fun.() end) |> hd()

  # Runs the function in that many processes at once, and returns their results.
  def together(count, fun) do
    started =
      for at <- 0..(count - 1) do
        spawn_monitor(fn ->
          receive do
            :go -> exit({:answer, fun.(at)})
          end
        end)
      end

    for {pid, _reference} <- started, do: send(pid, :go)

    for {pid, reference} <- started do
      receive do
        {:DOWN, ^reference, :process, ^pid, {:answer, answer}} -> answer
        {:DOWN, ^reference, :process, ^pid, reason} -> exit(reason)
      end
    end
  end

  def wait_until(condition, patience \\ 120_000) do
    wait(condition, System.monotonic_time(:millisecond) + patience)
  end

  defp wait(condition, deadline) do
    cond do
      condition.() ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        raise "a condition that was waited for did not become true"

      true ->
        Process.sleep(1)
        wait(condition, deadline)
    end
  end

  def median(values) do
    sorted = Enum.sort(values)
    middle = div(length(sorted), 2)

    if rem(length(sorted), 2) == 1 do
      Enum.at(sorted, middle)
    else
      (Enum.at(sorted, middle - 1) + Enum.at(sorted, middle)) / 2
    end
  end

  def mean(values), do: Enum.sum(values) / length(values)

  # The smallest value that `share` of all do not exceed.
  def percentile(sorted, share) when is_tuple(sorted) do
    elem(sorted, max(ceil(share * tuple_size(sorted)), 1) - 1)
  end

  # The resident memory of this process of the operating system.
  def resident_bytes do
    kilobytes =
      case File.read("/proc/self/status") do
        {:ok, status} -> ~r/VmRSS:\s*(\d+)/ |> Regex.run(status) |> Enum.at(1)
        {:error, _reason} -> "ps" |> System.cmd(["-o", "rss=", "-p", System.pid()]) |> elem(0)
      end

    kilobytes |> String.trim() |> String.to_integer() |> Kernel.*(1024)
  end
end
