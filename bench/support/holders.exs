defmodule Bench.Holders do
  # The processes that hold names. Either one process holds all names of a set, or each name has a process of its
  # own. Such a process registers itself, is timed, and then starts the next one. So each registers alone and on a
  # warm scheduler, as a child does while its supervisor waits.

  import Bench.Measure, only: [median: 1, now: 0, nanoseconds: 1, per: 2]

  alias Bench.{Engines, Names}

  # Starts one process that registers all names with one engine after the other, and keeps them. Returns the
  # process and, for each engine, the nanoseconds for one registration.
  def one(engines, source) do
    starter = self()

    pid =
      spawn(fn ->
        count = Names.count(source)
        times = for engine <- engines, do: {engine.key, register_all(source, count, engine)}
        send(starter, {:held, self(), times})
        hold_all(source, count)
      end)

    receive do
      {:held, ^pid, times} -> {pid, times}
    end
  end

  # The same for one engine: nanoseconds for one registration, and for one unregistration.
  def one_timed(engine, source) do
    {pid, [{_key, registered}]} = one([engine], source)
    send(pid, {:unregister, engine, self()})

    receive do
      {:unregistered, ^pid, unregistered} ->
        send(pid, :stop)
        {registered, unregistered}
    end
  end

  defp hold_all(source, count) do
    receive do
      {:which, from} ->
        send(from, {:which, self(), :all})
        hold_all(source, count)

      {:replace, engine, before, source, from} ->
        replace_from(before, source, 0, count, engine)
        send(from, {:replaced, self()})
        hold_all(source, count)

      {:unregister, engine, from} ->
        send(from, {:unregistered, self(), unregister_all(source, count, engine)})
        hold_all(source, count)

      :stop ->
        :ok
    end
  end

  # The process that holds all names holds others instead, one after the other.
  def replace_names(pid, engine, before, source) do
    send(pid, {:replace, engine, before, source, self()})
    receive(do: ({:replaced, ^pid} -> :ok))
  end

  # For as many names as there are in the source, and no multiple of it.
  @stride 7_919

  defp replace_from(_before, _source, count, count, _engine), do: :ok

  defp replace_from(before, source, done, count, engine) do
    at = rem(done * @stride, count)
    {module, term} = Engines.via(engine, Names.at(before, at))
    module.unregister_name(term)
    {module, term} = Engines.via(engine, Names.at(source, at))
    :yes = module.register_name(term, self())
    replace_from(before, source, done + 1, count, engine)
  end

  defp register_all(source, count, engine) do
    per(count, fn -> register_from(source, 0, count, engine) end)
  end

  defp register_from(_source, count, count, _engine), do: :ok

  defp register_from(source, at, count, engine) do
    {module, term} = Engines.via(engine, Names.at(source, at))
    :yes = module.register_name(term, self())
    register_from(source, at + 1, count, engine)
  end

  defp unregister_all(source, count, engine) do
    per(count, fn -> unregister_from(source, 0, count, engine) end)
  end

  defp unregister_from(_source, count, count, _engine), do: :ok

  defp unregister_from(source, at, count, engine) do
    {module, term} = Engines.via(engine, Names.at(source, at))
    module.unregister_name(term)
    unregister_from(source, at + 1, count, engine)
  end

  # A process for each name, which registers with all engines and then stays, as small as possible. This is not
  # timed, so as many chains as schedulers run at once.
  def each(engines, source) do
    put_chain(:each, {engines, source, nil})
    count = Names.count(source)
    step = div(count - 1, System.schedulers_online()) + 1
    firsts = 0..(count - 1)//step
    for first <- firsts, do: start({:each, first, min(first + step, count) - 1, self()})
    for _first <- firsts, do: receive(do: (:held -> :ok))
  end

  # Processes of `each/2` that end, some at a time, and others with other names in their place.
  @at_once 1_000

  def replace_holders(holders, engine, {:made, _kind, from, _size} = source) do
    put_chain({:replacing, from}, {[engine], source, nil})

    holders
    |> Enum.chunk_every(@at_once)
    |> Enum.reduce(0, fn chunk, at ->
      references = for pid <- chunk, do: Process.monitor(pid)
      for pid <- chunk, do: Process.exit(pid, :kill)
      for reference <- references, do: receive(do: ({:DOWN, ^reference, _, _, _} -> :ok))
      start({{:replacing, from}, at, at + length(chunk) - 1, self()})
      receive(do: (:held -> at + length(chunk)))
    end)
  end

  # A process for each name and one engine, in a single chain: nanoseconds for a registration and for an
  # unregistration, each measured by the process that has the name. Medians, because one process that the
  # operating system interrupts would outweigh a thousand others.
  def each_timed(engine, source) do
    count = Names.count(source)
    {registered, unregistered} = times = times(engine, count)
    put_chain({:timed, engine.key}, {[engine], source, times})
    first = start({{:timed, engine.key}, 0, count - 1, self()})
    receive(do: (:held -> :ok))
    send(first, :unregister)
    receive(do: (:unregister -> :ok))
    send(first, :stop)
    receive(do: (:stop -> :ok))
    {median_of(registered, count), median_of(unregistered, count)}
  end

  # The processes of a chain write their times here.
  defp times(engine, count) do
    case :persistent_term.get({__MODULE__, {:timed, engine.key}}, nil) do
      nil -> {:atomics.new(count, []), :atomics.new(count, [])}
      {_engines, _source, times} -> times
    end
  end

  defp median_of(times, count) do
    median(for at <- 1..count, do: nanoseconds(:atomics.get(times, at)))
  end

  # The arguments of a chain are a persistent term, so that no process has a copy. Putting an equal term again
  # costs nothing; putting another one scans all processes.
  defp put_chain(chain, term), do: :persistent_term.put({__MODULE__, chain}, term)

  defp start(link), do: spawn(fn -> run(link) end)

  defp run({chain, at, last, starter}) do
    {engines, source, times} = :persistent_term.get({__MODULE__, chain})
    name = Names.at(source, at)
    for engine <- engines, do: register(engine, name, times, at)

    # The last process answers the process that started the chain.
    next =
      if at < last do
        start({chain, at + 1, last, starter})
      else
        send(starter, :held)
        starter
      end

    # Only a process that is not timed again gives up its heap.
    if times do
      hold(chain, at, next)
    else
      :erlang.hibernate(__MODULE__, :hold, [chain, at, next])
    end
  end

  @doc false
  def hold(chain, at, next) do
    receive do
      {:which, from} ->
        send(from, {:which, self(), at})
        hold(chain, at, next)

      :unregister ->
        {[engine], source, times} = :persistent_term.get({__MODULE__, chain})
        unregister(engine, Names.at(source, at), times, at)
        send(next, :unregister)
        hold(chain, at, next)

      :stop ->
        send(next, :stop)
    end
  end

  defp register(engine, name, times, at) do
    {module, term} = Engines.via(engine, name)
    start = now()
    :yes = module.register_name(term, self())
    if times, do: :atomics.put(elem(times, 0), at + 1, now() - start)
  end

  defp unregister(engine, name, times, at) do
    {module, term} = Engines.via(engine, name)
    start = now()
    module.unregister_name(term)
    :atomics.put(elem(times, 1), at + 1, now() - start)
  end

  # Raises unless the engine finds the holder of the name: the process that holds all names, or the one at the
  # place `at` of its chain.
  def check!(engine, name, at, one) do
    found = Engines.whereis(engine, name)
    send(found, {:which, self()})

    receive do
      {:which, ^found, :all} when found == one -> :ok
      {:which, ^found, ^at} when one == nil -> :ok
      {:which, ^found, other} -> raise "#{engine.label} found #{inspect(other)} for #{at}"
    end
  end
end
