defmodule Bench.Timed do
  # Stands between WorkflowMetal and a registry, and measures each call.
  #
  # The start of a new child is not measured, as most of it is the child's own work, but its registration is. What a
  # registry does when a process ends is not measured either.

  @calls [
    running: "start_child, running name",
    lookup: "lookups, also to send",
    register: "register",
    other: "unregister, via tuples"
  ]

  # So many times of each kind of call are kept: the last ones.
  @kept 50_000

  def calls, do: @calls

  @doc "To be called first."
  def start do
    numbers = :counters.new(length(@calls), [])
    times = List.to_tuple(for _call <- @calls, do: :atomics.new(@kept, []))
    :persistent_term.put(__MODULE__, {numbers, times})
  end

  @doc "From now on."
  def reset do
    {numbers, _times} = :persistent_term.get(__MODULE__)
    for at <- 1..length(@calls), do: :counters.put(numbers, at, 0)
  end

  @doc "For each kind of call, the times in nanoseconds, and how many calls there were."
  def read do
    {numbers, times} = :persistent_term.get(__MODULE__)

    for {{call, _label}, at} <- Enum.with_index(@calls),
        number = :counters.get(numbers, at + 1) do
      times = for place <- 1..min(number, @kept)//1, do: :atomics.get(elem(times, at), place)
      {call, number, times}
    end
  end

  # A call within another one is a part of it.
  defp timed(call, fun) do
    if Process.get(__MODULE__) do
      fun.()
    else
      Process.put(__MODULE__, true)
      start = System.monotonic_time()

      try do
        fun.()
      after
        keep(place(call), System.monotonic_time() - start)
        Process.delete(__MODULE__)
      end
    end
  end

  for {{call, _label}, at} <- Enum.with_index(@calls) do
    defp place(unquote(call)), do: unquote(at)
  end

  # Two processes that end a call at the same time may keep one time instead of two.
  defp keep(at, time) do
    {numbers, times} = :persistent_term.get(__MODULE__)
    :counters.add(numbers, at + 1, 1)
    place = rem(:counters.get(numbers, at + 1) - 1, @kept) + 1
    time = System.convert_time_unit(time, :native, :nanosecond)
    :atomics.put(elem(times, at), place, time)
  end

  ## The adapter, with the one behind it and that one's meta

  def child_spec(adapter, application, config) do
    {:ok, child_spec, meta} = adapter.child_spec(application, config)
    {:ok, child_spec, %{adapter: adapter, meta: meta}}
  end

  def via_tuple(%{adapter: adapter, meta: meta}, name) do
    {:via, module, term} = timed(:other, fn -> adapter.via_tuple(meta, name) end)
    {:via, __MODULE__, {module, term}}
  end

  def whereis_name(%{adapter: adapter, meta: meta}, name),
    do: timed(:lookup, fn -> adapter.whereis_name(meta, name) end)

  def start_child(%{adapter: adapter, meta: meta} = timed, name, supervisor, child_spec) do
    if is_pid(adapter.whereis_name(meta, name)) do
      timed(:running, fn -> adapter.start_child(meta, name, supervisor, child_spec) end)
    else
      # The new child gets a name that is timed.
      {module, arguments} = if is_atom(child_spec), do: {child_spec, []}, else: child_spec
      child = [module: module, arguments: arguments, timed: via_tuple(timed, name)]
      adapter.start_child(meta, name, supervisor, {Bench.Timed.Child, child})
    end
  end

  ## The module of its via tuples

  def register_name({module, term}, pid),
    do: timed(:register, fn -> module.register_name(term, pid) end)

  def unregister_name({module, term}),
    do: timed(:other, fn -> module.unregister_name(term) end)

  def whereis_name({module, term}), do: timed(:lookup, fn -> module.whereis_name(term) end)

  def send({module, term}, message), do: timed(:lookup, fn -> module.send(term, message) end)
end

defmodule Bench.Timed.Child do
  # The registry has put its own via tuple in as `:name`; the one that is timed takes its place.
  def child_spec(options) do
    arguments = Keyword.put(options[:arguments], :name, options[:timed])
    Supervisor.child_spec({options[:module], arguments}, [])
  end
end

for {name, adapter} <- [
      {Bench.Timed.Local, WorkflowMetal.Registration.LocalRegistry},
      {Bench.Timed.Native, WorkflowMetal.Registration.NativeRegistry}
    ] do
  defmodule name do
    @adapter adapter

    def child_spec(application, config), do: Bench.Timed.child_spec(@adapter, application, config)
    defdelegate via_tuple(meta, name), to: Bench.Timed
    defdelegate whereis_name(meta, name), to: Bench.Timed
    defdelegate start_child(meta, name, supervisor, child_spec), to: Bench.Timed
  end
end
