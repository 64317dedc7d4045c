# What script/fuzz runs in the VM. The same seed gives the same names, except for pids and references.

alias WorkflowMetal.Registration.NativeRegistry
alias WorkflowMetal.Registration.NativeRegistry.Fuzz

defmodule WorkflowMetal.Registration.NativeRegistry.Fuzz.Worker do
  # Bytes that have made a term of a new shape are kept, to be changed further: at most so many.
  @most 5_000

  def run(worker, seed, seconds) do
    :rand.seed(:exsss, {seed, worker, 0})
    registry = :"Elixir.Fuzz#{worker}"

    {:ok, _supervisor} =
      Supervisor.start_link([{NativeRegistry, name: registry}], strategy: :one_for_one)

    corpus = Enum.map(Fuzz.corpus(), &File.read!/1)
    deadline = System.monotonic_time(:second) + seconds

    loop(%{
      registry: registry,
      corpus: List.to_tuple(corpus),
      shapes: MapSet.new(),
      before: nil,
      living: Fuzz.living(),
      counts: %{tried: 0, terms: 0, name: 0, refused: 0},
      deadline: deadline
    })
  end

  defp loop(state) do
    if System.monotonic_time(:second) >= state.deadline do
      state.counts
    else
      bytes = Fuzz.bytes(state.corpus)
      state = count(state, :tried)

      case Fuzz.decode(bytes) do
        {:ok, name} -> state |> count(:terms) |> check(bytes, living(state, name)) |> loop()
        :error -> loop(state)
      end
    end
  end

  # Some names get a term that bytes cannot make, such as a living pid.
  defp living(state, name) do
    if :rand.uniform(10) == 1,
      do: Fuzz.with_living(name, Enum.random(state.living)),
      else: name
  end

  defp check(state, bytes, name) do
    outcome = outcome(state, bytes, name)
    shape = shape(name, 3)
    state = count(%{state | before: name}, outcome)

    if MapSet.member?(state.shapes, shape) or byte_size(bytes) > 2_000 do
      state
    else
      %{state | shapes: MapSet.put(state.shapes, shape), corpus: add(state.corpus, bytes)}
    end
  end

  defp outcome(state, bytes, name) do
    Fuzz.check!(state.registry, name, [state.before])
  catch
    kind, reason ->
      IO.puts("Neither registered nor refused: #{Fuzz.keep(bytes)}")
      :erlang.raise(kind, reason, __STACKTRACE__)
  end

  defp count(state, what), do: update_in(state.counts[what], &(&1 + 1))

  defp add(corpus, bytes) when tuple_size(corpus) < @most,
    do: :erlang.append_element(corpus, bytes)

  defp add(corpus, bytes), do: put_elem(corpus, :rand.uniform(@most) - 1, bytes)

  defp shape(_term, 0), do: :deep
  defp shape([], _depth), do: :empty
  defp shape([head | tail], depth), do: {:list, shape(head, depth - 1), shape(tail, depth - 1)}

  defp shape(tuple, depth) when is_tuple(tuple) do
    parts = tuple |> Tuple.to_list() |> Enum.take(4)
    {:tuple, tuple_size(tuple), for(part <- parts, do: shape(part, depth - 1))}
  end

  defp shape(map, depth) when is_map(map) do
    parts = map |> :maps.to_list() |> Enum.take(3)
    {:map, map_size(map), for(part <- parts, do: shape(part, depth - 1))}
  end

  defp shape(fun, _depth) when is_function(fun), do: {:fun, :erlang.fun_info(fun, :type)}

  defp shape(bits, _depth) when is_bitstring(bits),
    do: {:bits, rem(bit_size(bits), 8), bit_size(bits) < 512}

  defp shape(integer, _depth) when is_integer(integer),
    do: {:integer, abs(integer) >= 0x7FFFFFFFFFFFFFFF}

  defp shape(float, _depth) when is_float(float), do: :float
  defp shape(atom, _depth) when is_atom(atom), do: :atom
  defp shape(pid, _depth) when is_pid(pid), do: {:pid, node(pid) == node()}
  defp shape(port, _depth) when is_port(port), do: {:port, node(port) == node()}

  defp shape(reference, _depth) when is_reference(reference),
    do: {:reference, node(reference) == node()}

  defp shape(_unknown, _depth), do: :unknown
end

{seconds, seed} =
  case Enum.map(System.argv(), &String.to_integer/1) do
    [seconds] -> {seconds, :rand.uniform(0x7FFFFFFF)}
    [seconds, seed] -> {seconds, seed}
  end

IO.puts("script/fuzz #{seconds} #{seed}")
workers = System.schedulers_online()

counts =
  1..workers
  |> Enum.map(&Task.async(Fuzz.Worker, :run, [&1, seed, seconds]))
  |> Task.await_many(:infinity)
  |> Enum.reduce(&Map.merge(&1, &2, fn _what, one, other -> one + other end))

IO.puts(
  "#{counts.tried} inputs, #{counts.terms} of them terms: #{counts.name} registered, #{counts.refused} refused"
)
