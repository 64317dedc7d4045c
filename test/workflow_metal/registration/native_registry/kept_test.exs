defmodule WorkflowMetal.Registration.NativeRegistry.KeptTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  import Bitwise

  alias WorkflowMetal.Registration.NativeRegistry.{KeptTerms, OtherVM, Value}

  describe "a kept name or value means the same when the node" do
    test "gets a name, loses it and gets another, and when the module is loaded again" do
      assert OtherVM.call(OtherVM.start(), KeptTerms, :gives_back_what_was_put_in, []) == :ok
    end

    test "gets or loses a name between a change and the event of it" do
      assert OtherVM.call(OtherVM.start(), KeptTerms, :tells_what_was_put_in, []) == :ok
    end
  end

  describe "an object that lives only as long as a term refers to it is kept" do
    test "in a value", %{registry: registry} do
      holder = holding(fn -> Registry.register(registry, :counter, :counters.new(1, [])) end)

      assert [{^holder, counter}] = Registry.lookup(registry, :counter)
      assert counts?(counter)
      assert [{:counter, ^holder, counter}] = Registry.match_names(registry, :counter)
      assert counts?(counter)
    end

    test "in a value that took the place of another", %{registry: registry} do
      holding(fn ->
        Registry.register(registry, :name, 1)
        Registry.update_value(registry, :name, fn 1 -> {:atomics.new(1, [])} end)
      end)

      assert [{_holder, {atomic}}] = Registry.lookup(registry, :name)
      assert :atomics.add(atomic, 1, 1) == :ok
    end

    test "in a name, in a function in a name, and below them", %{registry: registry} do
      for build <- [& &1, &{:c, [&1]}, &%{&1 => 1}, &Terms.closure/1, &{fn -> 1 end, &1}] do
        holder =
          holding(fn ->
            name = build.(:counters.new(1, []))
            Registry.register(registry, name, :value)
            # The value of a name changes, and the name stays what it is.
            Registry.update_value(registry, name, & &1)
          end)

        assert [name] = Registry.keys(registry, holder)
        assert [{^name, ^holder, :value}] = Registry.match_names(registry, :_)
        for name <- Registry.keys(registry, holder), do: assert(counts?(inside(name)))
        for {name, _, _} <- Registry.match_names(registry, :_), do: assert(counts?(inside(name)))
        kill(holder)
      end
    end

    test "in an event, also when the holder has ended", %{registry: registry} do
      :ok = Registry.subscribe(registry, :_)

      holder =
        holding(fn ->
          name = {:name, :counters.new(1, [])}
          Registry.register(registry, name, {:value, :counters.new(1, [])})
        end)

      assert_receive {:register, ^registry, {:name, counter}, ^holder, {:value, value}}, 5_000
      assert counts?(counter) and counts?(value)
      kill(holder)
      assert_receive {:unregister, ^registry, {:name, counter}, ^holder}, 5_000
      assert counts?(counter)
    end

    test "if it is a resource of native code", %{registry: registry} do
      this = self()

      {:ok, ^this} = Registry.register(registry, :stream, open_stream())
      :erlang.garbage_collect()
      assert [{^this, stream}] = Registry.lookup(registry, :stream)
      assert :zlib.inflate(stream, :zlib.compress("data")) == ["data"]
    end

    test "as long as the name or value, and no longer" do
      assert OtherVM.call(OtherVM.start(), KeptTerms, :lets_go_of_what_is_given_back, []) == :ok
    end
  end

  describe "a value" do
    test "that is only data is kept in external format, any other as it is" do
      for data <-
            [1, 1 <<< 80, -1.5, :a, "a", <<1::1>>, [], [1 | 2], {}, %{a: [%{}]}, ~D[2024-01-01]] ++
              [Map.new(1..100, &{&1, &1}), &String.length/1, {:ok, [&Enum.map/2]}] do
        assert is_binary(Value.encode!(data))
        assert Value.decode(Value.encode!(data)) === data
      end

      for term <- [self(), make_ref(), fn -> 1 end, hd(Port.list()) | Terms.unknown()],
          wrap <- [& &1, &{1, &1}, &[1, &1], &[1 | &1], &%{1 => &1}, &%{&1 => 1}] do
        assert {size, value} = Value.encode!(wrap.(term))
        assert size == :erlang.external_size(wrap.(term))
        assert value === wrap.(term)
      end
    end

    test "of up to 1 MiB is taken, of more is refused, whatever is in it", %{registry: registry} do
      for {fits, build} <- [
            {1_048_576 - 6, &:binary.copy("a", &1)},
            {1_048_576 - 12, &{:binary.copy("a", &1 - 6), 1}},
            {div(1_048_576 - 7, 2), &List.duplicate(1_000_000, div(&1 * 2, 5))}
          ],
          wrap <- [& &1, &{self(), &1}] do
        room = :erlang.external_size({self(), 1})
        taken = wrap.(build.(fits - room))
        assert {:ok, _pid} = Registry.register(registry, :name, taken)
        assert [{_pid, ^taken}] = Registry.lookup(registry, :name)
        assert {^taken, ^taken} = Registry.update_value(registry, :name, & &1)
        :ok = Registry.unregister(registry, :name)

        assert_raise ArgumentError, ~r/at most 1048576 bytes in external format/, fn ->
          Registry.register(registry, :name, wrap.(build.(2 * fits)))
        end

        assert Registry.lookup(registry, :name) == []
      end
    end

    test "that takes long to copy works as any other, whatever its name", %{registry: registry} do
      this = self()
      value = List.duplicate({this, ~c"some text"}, 10_000)

      for name <- [:name, 1 <<< 80, fn -> 1 end, {make_ref(), fn -> 1 end}],
          first <- [1, value] do
        assert {:ok, ^this} = Registry.register(registry, name, first)
        assert {^value, ^first} = Registry.update_value(registry, name, fn _ -> value end)
        assert [{^this, ^value}] = Registry.lookup(registry, name)
        assert [{^name, ^this, ^value}] = Registry.match_names(registry, :_)
        assert {1, ^value} = Registry.update_value(registry, name, fn _ -> 1 end)
        assert :ok = Registry.unregister(registry, name)
      end
    end

    test "that shares its parts a hundred levels deep is refused", %{registry: registry} do
      for bottom <- [1, self(), fn -> 1 end],
          wrap <- [&{&1, &1}, &[&1, &1], &[&1 | &1], &%{1 => &1, 2 => &1}, &Terms.closure(&1, &1)] do
        shared = Terms.nest(bottom, 100, wrap)

        assert_raise ArgumentError, ~r/at most 1048576 bytes/, fn ->
          Registry.register(registry, :name, shared)
        end
      end
    end
  end

  # Makes a process that holds what the function registers, and keeps no term of it.
  defp holding(register) do
    test = self()

    holder =
      spawn_link(fn ->
        register.()
        Process.unlink(test)
        :erlang.garbage_collect()
        send(test, {:held, self()})
        Process.sleep(:infinity)
      end)

    receive do
      {:held, ^holder} -> holder
    end
  end

  defp open_stream do
    stream = :zlib.open()
    :ok = :zlib.inflateInit(stream)
    stream
  end

  # The counter somewhere in a term.
  defp inside({kind, reference} = counter) when is_atom(kind) and is_reference(reference),
    do: counter

  defp inside([head | tail]), do: inside(head) || inside(tail)
  defp inside(tuple) when is_tuple(tuple), do: tuple |> Tuple.to_list() |> inside()
  defp inside(map) when is_map(map), do: map |> Map.to_list() |> inside()
  defp inside(fun) when is_function(fun), do: fun |> :erlang.fun_info(:env) |> elem(1) |> inside()
  defp inside(_term), do: nil

  defp counts?(counter), do: :counters.add(counter, 1, 1) == :ok and :counters.get(counter, 1) > 0
end
