# What script/cluster_check runs.

alias WorkflowMetal.Registration.NativeRegistry.{ClusterCheck, LeaseCheck}

[minutes | seed] = System.argv()
{minutes, ""} = Float.parse(minutes)
seed = List.first(seed)

engines =
  case System.get_env("CHECKED_ENGINE") do
    nil -> for(engine <- [:syn, :ra], Code.ensure_loaded?(engine), do: engine) ++ [:global]
    engine -> [String.to_existing_atom(engine)]
  end

# The controlling node would log the end of each node that it kills.
Logger.configure(level: :error)

first =
  case seed do
    seed when seed in [nil, ""] -> :rand.uniform(1_000_000)
    seed -> String.to_integer(seed)
  end

# Only steps of these kinds, such as "part,heal,heal".
only =
  with kinds when kinds not in [nil, ""] <- System.get_env("CHECKED_STEPS") do
    kinds |> String.split(",") |> Enum.map(&String.to_atom/1)
  else
    _all -> nil
  end

with names when names not in [nil, ""] <- System.get_env("CHECKED_NAMES") do
  case names |> String.to_integer() |> LeaseCheck.Snapshot.run() do
    {:ok, text} ->
      IO.puts(text)
      System.halt(0)

    {:error, text} ->
      IO.puts(:stderr, text)
      System.halt(1)
  end
end

deadline = System.monotonic_time(:millisecond) + round(minutes * 60_000)
verbose = System.get_env("CHECK_VERBOSE") != nil

# An engine with which no name ever runs twice is checked for that.
round = fn
  :ra, seed ->
    with {:ok, holds} <- LeaseCheck.Rounds.round(seed, verbose: verbose, only: only),
         do: {:ok, ", #{holds} holds"}

  engine, seed ->
    with :ok <- ClusterCheck.round(engine, seed, verbose: verbose, only: only), do: {:ok, ""}
end

IO.puts("engines #{inspect(engines)}, first seed #{first}")

result =
  Stream.iterate(first, &(&1 + 1))
  |> Enum.reduce_while(0, fn seed, rounds ->
    failed =
      Enum.find_value(engines, fn engine ->
        started = System.monotonic_time(:millisecond)
        answer = round.(engine, seed)
        seconds = Float.round((System.monotonic_time(:millisecond) - started) / 1_000, 1)

        case answer do
          {:ok, more} ->
            IO.puts("#{engine} #{seed}: passed in #{seconds} s#{more}")
            nil

          {:error, text} ->
            steps = if only, do: "CHECKED_STEPS=#{Enum.join(only, ",")} "

            "#{engine} #{seed} failed after #{seconds} s: #{text}" <>
              "to run it again: #{steps}CHECKED_ENGINE=#{engine} script/cluster_check 0 #{seed}"
        end
      end)

    cond do
      failed -> {:halt, {:failed, failed}}
      System.monotonic_time(:millisecond) >= deadline -> {:halt, {:ok, rounds + 1}}
      true -> {:cont, rounds + 1}
    end
  end)

case result do
  {:ok, rounds} ->
    IO.puts(
      "#{rounds * length(engines)} rounds, seeds #{first} to #{first + rounds - 1}: all passed"
    )

  {:failed, text} ->
    IO.puts(:stderr, text)
    System.halt(1)
end
