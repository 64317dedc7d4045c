defmodule WorkflowMetal.Registration.NativeRegistry.KeptTerms do
  @moduledoc false
  # Checks what a registry gives back while its node gets a name, loses it and gets another one, and what memory it
  # releases. Called in a VM of its own. Raises if a term is not what it was.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{Native, OtherVM, Terms}

  @registry OtherVM.registry()

  # All in one process, which keeps the original terms: a message would copy them as they are now.
  def gives_back_what_was_put_in do
    # A value may be larger than a name.
    nameless = [List.duplicate(make_ref(), 20_000) | terms()]
    nameless_self = :erlang.term_to_binary(self())
    keep(:nameless, nameless)

    rename(:"one@127.0.0.1")
    # This process, by the name that its node had before.
    one = [:erlang.binary_to_term(nameless_self) | terms()]
    one_self = :erlang.term_to_binary(self())
    keep(:one, one)
    check(nameless: nameless, one: one)

    rename(nil)
    again = [:erlang.binary_to_term(one_self) | terms()]
    keep(:again, again)
    check(nameless: nameless, one: one, again: again)

    rename(:"two@127.0.0.1")
    check(nameless: nameless, one: one, again: again)

    true = :code.delete(Native)
    :code.purge(Native)
    {:module, Native} = :code.load_file(Native)
    check(nameless: nameless, one: one, again: again)
    rename(nil)
  end

  # A name that was freed in any way takes no memory any more.
  def lets_go_of_what_is_given_back do
    before = :erlang.memory(:total)

    for give_back <- [
          fn holder -> ask(holder, &NativeRegistry.Registry.unregister(@registry, &1)) end,
          fn holder ->
            ask(holder, &NativeRegistry.Registry.update_value(@registry, &1, fn _ -> nil end))
          end,
          fn holder -> Process.exit(holder, :kill) end
        ] do
      holder = spawn(&serve/0)
      # Eight megabytes each.
      ask(holder, &NativeRegistry.Registry.register(@registry, &1, :counters.new(1_000_000, [])))
      true = :erlang.memory(:total) > before + 100_000_000
      give_back.(holder)
      await(fn -> :erlang.memory(:total) < before + 50_000_000 end)
      Process.exit(holder, :kill)
      await(fn -> NativeRegistry.Registry.count(@registry) == 0 end)
    end

    :ok
  end

  # The process calls the function for each of twenty names.
  defp ask(holder, function) do
    send(holder, {self(), fn -> for number <- 1..20, do: function.(number) end})

    receive do
      {^holder, :done} -> :ok
    end
  end

  defp serve do
    receive do
      {caller, function} ->
        function.()
        :erlang.garbage_collect()
        send(caller, {self(), :done})
        serve()
    end
  end

  defp await(condition, left \\ 2_000) do
    cond do
      condition.() -> :ok
      left == 0 -> raise "what was waited for did not happen"
      true -> Process.sleep(5) && await(condition, left - 1)
    end
  end

  # Events that are sent after the node's name has changed since the event.
  def tells_what_was_put_in do
    this = self()
    :ok = NativeRegistry.Registry.subscribe(@registry, :_)

    for {stage, other} <- [nameless: :"one@127.0.0.1", named: nil] do
      for term <- terms() do
        name = {stage, term}
        {:ok, ^this} = NativeRegistry.Registry.register(@registry, name, term)
        told!({:register, @registry, name, this, term})
        :ok = NativeRegistry.Registry.unregister(@registry, name)
        told!({:unregister, @registry, name, this})

        # What has been kept since the node had another name.
        {:ok, ^this} = NativeRegistry.Registry.register(@registry, name, term)
        told!({:register, @registry, name, this, term})
        rename(other)
        :ok = NativeRegistry.Registry.unregister(@registry, name)
        told!({:unregister, @registry, name, this})
        rename(if other, do: nil, else: :"one@127.0.0.1")
      end

      if other, do: rename(other)
    end

    :ok = NativeRegistry.Registry.unsubscribe(@registry, :_)
  end

  defp told!(event) do
    receive do
      ^event -> :ok
    after
      5_000 ->
        raise "not told #{inspect(event)}: #{inspect(Process.info(self(), :messages), limit: 50)}"
    end
  end

  defp terms do
    pid = self()
    reference = make_ref()
    table = :ets.new(:table, [])
    counters = :counters.new(1, [])

    [pid, reference, table, counters, hd(Port.list()), :erlang.alias(), fn -> reference end] ++
      [
        {pid, reference},
        [reference | pid],
        %{reference => pid},
        fn -> {counters, fn -> pid end} end
      ] ++
      [Terms.remote_pid(1), Terms.remote_reference([1, 2, 3]), Terms.remote_port(1)] ++
      [:plain, {"plain", [1.5]}]
  end

  defp keep(key, terms) do
    for {term, at} <- Enum.with_index(terms) do
      {:ok, _pid} = NativeRegistry.Registry.register(@registry, {key, at}, term)

      if name?(term),
        do: {:ok, _pid} = NativeRegistry.Registry.register(@registry, {key, at, term}, at)
    end
  end

  defp check(kept), do: for({key, terms} <- kept, do: check(key, terms))

  defp check(key, terms) do
    this = self()
    keys = NativeRegistry.Registry.keys(@registry, this)
    selected = NativeRegistry.Registry.match_names(@registry, :_)

    for {term, at} <- Enum.with_index(terms) do
      [{^this, found}] = NativeRegistry.Registry.lookup(@registry, {key, at})
      same!(found, term)
      [found] = for {{^key, ^at}, ^this, found} <- selected, do: found
      same!(found, term)
      {_new, old} = NativeRegistry.Registry.update_value(@registry, {key, at}, & &1)
      same!(old, term)

      if name?(term) do
        name = {key, at, term}
        ^this = NativeRegistry.whereis_name({@registry, name})
        [found] = for {^key, ^at, _term} = found <- keys, do: found
        same!(found, name)
        [found] = for {{^key, ^at, _term} = found, ^this, ^at} <- selected, do: found
        same!(found, name)
        {_new, ^at} = NativeRegistry.Registry.update_value(@registry, name, & &1)
      end
    end
  end

  # The long list is too large for one.
  defp name?(term), do: not match?([_, _, _ | _], term)

  defp same!(one, other) do
    unless one === other, do: raise("#{inspect(one)} is not #{inspect(other)}")
  end

  defp rename(nil), do: :ok = :net_kernel.stop()

  defp rename(node) do
    {:ok, _pid} = :net_kernel.start(node, %{name_domain: :longnames, dist_listen: false})
    ^node = node()
  end
end
