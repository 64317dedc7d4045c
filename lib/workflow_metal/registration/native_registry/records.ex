defmodule WorkflowMetal.Registration.NativeRegistry.Records do
  @moduledoc false
  # Match specifications over the records of this node, and over the record of one name.
  #
  # As in Elixir's `Registry`, the head of a clause is `{key, pid, value}`, and the object that `:"$_"`
  # stands for is `{key, {pid, value}}`.

  alias WorkflowMetal.Registration.NativeRegistry.{Name, Names, Native, Registry, Table, Value}

  @typep registry :: Registry.registry()
  @typep name :: Registry.name()

  @spec select(registry, Registry.spec()) :: [term]
  def select(registry, spec), do: reduce(registry, spec, [], &(&1 ++ &2))

  @spec count_select(registry, Registry.spec()) :: non_neg_integer
  def count_select(registry, spec) do
    reduce(registry, spec, 0, &(&2 + Enum.count(&1, fn answer -> answer == true end)))
  end

  # Only records of the names that can match are copied out of the table.
  defp reduce(registry, [], acc, _fun) do
    # Raises for a registry that does not run.
    _names = Table.count(registry)
    acc
  end

  defp reduce(registry, spec, acc, fun) do
    compiled = compile!(clauses!(spec, spec), spec)

    case scope(spec) do
      {:names, names} ->
        for name <- names, {pid, value} <- Table.lookup_here(registry, name), reduce: acc do
          acc -> fun.(run({name, {pid, value}}, compiled), acc)
        end

      {:pattern, pattern} ->
        Table.reduce(registry, pattern, acc, fn {name, pid, value}, acc ->
          fun.(run({name, {pid, value}}, compiled), acc)
        end)
    end
  end

  defp clauses!([{{key, pid, value}, guards, body} | rest], spec),
    do: [{{key, {pid, value}}, guards, body} | clauses!(rest, spec)]

  defp clauses!([], _spec), do: []
  defp clauses!(_other, spec), do: bad_spec!(spec)

  @spec match(registry, name, Registry.match_pattern(), Registry.guards()) ::
          [{pid, Registry.value()}]
  def match(registry, name, pattern, guards),
    do: matching(Names.lookup(registry, name), name, pattern, guards)

  @spec count_match(registry, name, Registry.match_pattern(), Registry.guards()) :: 0 | 1
  def count_match(registry, name, pattern, guards),
    do: length(match(registry, name, pattern, guards))

  # Only its holder changes the value, so it is still what matched.
  @spec unregister_match(registry, name, Registry.match_pattern(), Registry.guards()) :: :ok
  def unregister_match(registry, name, pattern, guards) do
    caller = self()

    case matching(Table.lookup_here(registry, name), name, pattern, guards) do
      [{^caller, _value}] -> Names.unregister(registry, name, caller)
      _not_its_own -> :ok
    end
  end

  defp matching(found, name, pattern, guards) do
    spec = [{{:_, {:_, pattern}}, guards, [{:element, 2, :"$_"}]}]
    compiled = compile!(spec, {pattern, guards})
    Enum.flat_map(found, &run({name, &1}, compiled))
  end

  @spec dispatch(registry, name, Registry.dispatcher()) :: :ok
  def dispatch(registry, name, dispatcher) do
    case {Names.lookup(registry, name), dispatcher} do
      {[], _dispatcher} -> :ok
      {found, {module, function, arguments}} -> apply(module, function, [found | arguments])
      {found, fun} -> fun.(found)
    end

    :ok
  end

  # The compiled specification, and how many reductions one run of it counts for besides the call. Neither
  # its compilation nor its run on one record can be interrupted, so its size is bounded, as a name's.
  defp compile!(spec, given) do
    {limit, _depth, _map_work, _value} = Native.limits()

    case Value.size(spec, limit) do
      :too_large ->
        raise ArgumentError,
              "expected a match specification of at most #{limit} bytes in external format, " <>
                "got: #{Name.brief(given)}"

      size ->
        {match_spec_compile!(spec, given), div(size, 128)}
    end
  end

  defp match_spec_compile!(spec, given) do
    :ets.match_spec_compile(spec)
  rescue
    # `SystemLimitError` is for guards and bodies that are nested too deep.
    _fault in [ArgumentError, SystemLimitError] -> bad_spec!(given)
  end

  # One record at a time: the function looks at the clock between two calls only.
  defp run(object, {compiled, cost}) do
    if cost > 0, do: :erlang.bump_reductions(cost)
    :ets.match_spec_run([object], compiled)
  end

  # The only names that the specification can match, or a pattern of all that it can.
  defp scope(spec) do
    keys = for {{key, _pid, _value}, _guards, _body} <- spec, do: generalize(key)

    if Enum.all?(keys, fn {_key, exact?} -> exact? end) do
      {:names, Enum.uniq(for {name, true} <- keys, do: name)}
    else
      case keys do
        [{pattern, false}] -> {:pattern, pattern}
        _several -> {:pattern, :_}
      end
    end
  end

  # The key as a pattern over names, and whether it matches one name only. A map matches any map with these
  # pairs, which no pattern over names does. (An ETS table of OTP 25 takes a map without variables for one
  # key, later ones do not.)
  defp generalize(atom) when is_atom(atom) do
    if variable?(atom), do: {:_, false}, else: {atom, true}
  end

  defp generalize([head | tail]) do
    {head, exact_head?} = generalize(head)
    {tail, exact_tail?} = generalize(tail)
    {[head | tail], exact_head? and exact_tail?}
  end

  defp generalize(tuple) when is_tuple(tuple) do
    {elements, exact?} = tuple |> Tuple.to_list() |> generalize()
    {List.to_tuple(elements), exact?}
  end

  defp generalize(map) when is_map(map), do: {:_, false}

  defp generalize(term), do: {term, true}

  defp variable?(:_), do: true

  defp variable?(atom) do
    case Atom.to_string(atom) do
      "$" <> digits -> digits != "" and String.match?(digits, ~r/\A[0-9]+\z/)
      _other -> false
    end
  end

  @spec bad_spec!(term) :: no_return
  defp bad_spec!(given) do
    raise ArgumentError,
          "expected a match specification over {key, pid, value}, as :ets.select/2 takes it, " <>
            "got: #{Name.brief(given)}"
  end
end
