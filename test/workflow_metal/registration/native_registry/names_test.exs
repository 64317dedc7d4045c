defmodule WorkflowMetal.Registration.NativeRegistry.NamesTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  import Bitwise

  alias WorkflowMetal.Registration.NativeRegistry.OtherVM

  @max_bytes 65_536
  @max_depth 256
  @max_binary 64 * 1024 * 1024

  describe "two names are one exactly when they are ===" do
    test "so terms of all kinds stand beside each other, and each is found by a copy", context do
      held =
        for term <- Terms.distinct() do
          pid = idle()
          assert register(context, term, pid) == :yes, "taken: #{inspect(term)}"
          {term, pid}
        end

      assert Native.sizes(context.registry) == {length(held), length(held)}

      for {term, pid} <- held do
        assert whereis(context, term) == pid, "lost: #{inspect(term)}"
        assert whereis(context, Terms.copy(term)) == pid, "not its copy: #{inspect(term)}"
        assert register(context, Terms.copy(term), self()) == :no
      end
    end

    test "so an integer and the float beside it are two", context do
      for integer <- [0, 1, -1, 97, 1 <<< 53, 1 <<< 63, -(1 <<< 63), 1 <<< 64, 1 <<< 80] do
        float = integer * 1.0
        assert integer == float

        for wrap <- [& &1, &{&1}, &[&1], &[0 | &1], &%{&1 => 0}, &%{0 => &1}, &Terms.closure/1] do
          assert_apart(context, wrap.(integer), wrap.(float))
        end
      end
    end

    test "so the two zeroes of a float are what they are to this VM", context do
      same? = Terms.negative_zero() === 0.0

      for wrap <- [& &1, &{&1}, &[&1], &%{&1 => 0}, &%{0 => &1}, &Terms.closure/1] do
        assert wrap.(Terms.negative_zero()) === wrap.(0.0) == same?
        assert_same_if(context, same?, wrap.(Terms.negative_zero()), wrap.(0.0))
      end
    end

    test "so a map is one name in whatever order it was built", context do
      for size <- [2, 3, 10, 31, 32, 33, 34, 64, 100, 500] do
        keys = Enum.to_list(1..size) ++ [:a, "b", 1.0, {1}, make_ref()]
        map = Terms.map_of(keys)
        backwards = keys |> Enum.reverse() |> Enum.reduce(%{}, &Map.put(&2, &1, {&1}))
        passed = Enum.reduce(1001..2000, map, &Map.put(&2, &1, &1))
        shrunk = Enum.reduce(1001..2000, passed, &Map.delete(&2, &1))

        for same <- [backwards, shrunk, Map.new(Enum.shuffle(Map.to_list(map)))] do
          assert_same(context, map, same)
          assert_same(context, %{map => map}, %{same => same})
          assert_same(context, {1, [map | map]}, {1, [same | same]})
        end

        assert_apart(context, map, Map.put(map, 1, {2}))
        assert_apart(context, map, Map.delete(map, 1))
        assert_apart(context, map, Map.put(map, :one_more, 1))
      end
    end

    test "so maps with keys and values that the VM has to open are one in any order", context do
      opened = [1 <<< 80, 1 <<< 81, Terms.closure(1), Terms.closure(2), <<1::3>>, <<2::3>>, & &1]

      # Few keys and many: the VM keeps the two kinds of map in different ways.
      for keys <- [opened, opened ++ Enum.to_list(1..40)] do
        for permutation <- [keys, Enum.reverse(keys), Enum.sort(keys), Enum.shuffle(keys)] do
          assert_same(context, Terms.map_of(keys), Map.new(permutation, &{&1, {&1}}))
        end

        assert_apart(context, Terms.map_of(keys), Terms.map_of(tl(keys)))
      end
    end

    test "so a closure is one name whichever process makes it, if its environment is", context do
      for value <- [1, 1.0, [], {:a, %{b: 1}}, "text", 1 <<< 80, <<1::1>>, &String.length/1] do
        assert_same(context, Terms.closure(value), elsewhere(fn -> Terms.closure(value) end))
        assert_apart(context, Terms.closure(value), Terms.closure({value}))
        assert_apart(context, Terms.closure(value), Terms.other_closure(value))
      end

      assert_apart(context, Terms.closure(1, 2), Terms.closure(2, 1))
      assert_same(context, &String.length/1, Function.capture(String, :length, 1))
      assert_apart(context, &String.length/1, &String.length(&1 <> ""))
    end

    test "so a function of the shell is one name", context do
      [one, same, other] =
        for text <- ["fn x -> x + 1 end", "fn x -> x + 1 end", "fn x -> x + 2 end"] do
          text |> Code.eval_string() |> elem(0)
        end

      assert_same_if(context, one === same, one, same)
      assert_same_if(context, one === other, one, other)
    end

    test "so a binary is one name wherever it is kept", context do
      for size <- [0, 1, 31, 32, 36, 63, 64, 65, 88, 300] do
        fresh = fn -> for number <- 1..size//1, into: "", do: <<number>> end
        part = binary_part("abc#{fresh.()}def", 3, size)
        # The size is matched as well, because Elixir 1.20 wants a pin where 1.14 accepts none.
        <<bytes::16, _bits::3, unaligned::binary-size(bytes), _rest::5>> =
          <<size::16, 1::3, fresh.()::binary, 1::5>>

        appended = Enum.reduce(:binary.bin_to_list(fresh.()), "", &<<&2::binary, &1>>)

        for same <- [fresh.(), part, unaligned, appended, :binary.copy(part)] do
          assert_same(context, fresh.(), same)
          assert_same(context, {1, same}, {1, fresh.()})
        end
      end
    end

    test "so a bitstring is one name wherever it is kept", context do
      for size <- [1, 7, 9, 255, 257, 4_001] do
        bits = <<5::size(size)>>

        <<length::16, _bits::3, unaligned::bitstring-size(length), _rest::bitstring>> =
          <<size::16, 7::3, bits::bits, 1::4>>

        assert_same(context, bits, unaligned)
        assert_apart(context, bits, <<bits::bits, 0::1>>)
        assert_apart(context, bits, <<bits::bits, 0::8>>)
        assert_apart(context, bits, {bits, rem(size, 8)})
      end
    end

    test "so a reference, a pid and a port are one name in every process", context do
      port = hd(Port.list())
      references = [make_ref(), :erlang.alias(), :atomics.new(1, []), :ets.new(:table, [])]
      remote = [Terms.remote_pid(1), Terms.remote_port(1), Terms.remote_reference([1, 2, 3])]

      for term <- references ++ remote ++ [self(), port] do
        assert_same(context, term, Terms.copy(term))
        assert_same(context, {term}, elsewhere(fn -> {term} end))
        assert_apart(context, term, term |> inspect() |> String.to_charlist())
      end
    end

    test "so what one process registers is found by all, whatever it is", context do
      terms = Enum.take_every(Terms.distinct(), 10)
      for term <- terms, do: assert(register(context, term, self()) == :yes)
      test = self()

      tasks =
        for _task <- 1..4 do
          Task.async(fn -> for term <- terms, do: ^test = whereis(context, term) end)
        end

      Task.await_many(tasks, 30_000)
    end

    test "so every text one character away from a UUID is a name of its own", context do
      uuid = "10f4b6e2-9b3a-4a4e-8d1c-a123456789cf"
      assert register(context, uuid, self()) == :yes

      for position <- 0..35, character <- 0..255, character != :binary.at(uuid, position) do
        before = binary_part(uuid, 0, position)
        rest = binary_part(uuid, position + 1, byte_size(uuid) - position - 1)
        near = <<before::binary, character, rest::binary>>
        assert register(context, near, self()) == :yes, "taken: #{inspect(near)}"
      end

      assert Native.sizes(context.registry) == {36 * 255 + 1, 1}
      assert register(context, Terms.copy(uuid), self()) == :no
    end

    test "so a random term and one like it are, of two thousand pairs", context do
      seed = ExUnit.configuration()[:seed]
      :rand.seed(:exsss, seed)

      equal =
        for round <- 1..2_000 do
          one = Terms.random()
          another = Enum.random([&Terms.rebuilt/1, &Terms.similar/1, &Terms.copy/1]).(one)
          another = if :rand.uniform(10) == 1, do: Terms.random(), else: another
          label = "round #{round} of --seed #{seed}: #{inspect(one)} and #{inspect(another)}"

          assert register(context, one, self()) == :yes, label
          other = idle()
          expected = if one === another, do: {:no, self()}, else: {:yes, other}
          assert {register(context, another, other), whereis(context, another)} == expected, label
          assert whereis(context, Terms.copy(one)) == self(), label

          :ok = NativeRegistry.unregister_name({context.registry, one})
          kill(other)
          assert whereis(context, one) == :undefined, label
          one === another
        end

      # Otherwise the pairs prove little.
      assert %{true: same, false: different} = Enum.frequencies(equal)
      assert same > 200 and different > 200
    end
  end

  describe "a name at the limit of its size" do
    for {kind, build} <- [
          {"binary", quote(do: &:binary.copy("a", &1))},
          {"bitstring", quote(do: &<<0::size(&1)-unit(8), 1::1>>)},
          {"big integer", quote(do: &(1 <<< (8 * &1 + 70)))},
          {"list", quote(do: &List.duplicate(:a, &1))},
          {"list of binaries", quote(do: &List.duplicate("text", &1))},
          {"charlist", quote(do: &List.duplicate(?a, &1))},
          {"improper list", quote(do: &(List.duplicate(1, &1) ++ 2))},
          {"tuple", quote(do: &Tuple.duplicate(1, &1))},
          {"map", quote(do: fn size -> Map.new(1..size//1, fn key -> {key, key} end) end)},
          {"closure", quote(do: &Terms.closure(:binary.copy("a", &1)))},
          {"closure over a list", quote(do: &Terms.closure(List.duplicate(1, &1)))},
          {"list of closures", quote(do: &List.duplicate(fn -> 1 end, &1))},
          {"tuple with one closure", quote(do: &{fn -> 1 end, :binary.copy("a", &1)})}
        ] do
      test "works as any other, above it is refused: #{kind}", context do
        build = unquote(build)
        size = largest(context, build)
        assert size in 900..@max_bytes

        name = build.(size)
        pid = idle()
        assert register(context, name, pid) == :yes
        assert whereis(context, Terms.copy(name)) == pid
        assert register(context, build.(size - 1), self()) == :yes
        assert whereis(context, build.(size)) == pid

        assert_refused(context, build.(size + 1), "#{@max_bytes} bytes")
        kill(pid)
        assert whereis(context, name) == :undefined
        eventually(fn -> Native.sizes(context.registry) == {1, 1} end)
      end
    end

    test "is a binary of nearly as many bytes", context do
      size = largest(context, &:binary.copy("a", &1))
      assert size in (@max_bytes - 16)..@max_bytes

      name = :binary.copy("a", size)
      assert register(context, name, self()) == :yes
      assert whereis(context, binary_part(name, 0, size - 1) <> "b") == :undefined
      assert whereis(context, "b" <> binary_part(name, 1, size - 1)) == :undefined
    end

    test "costs its process reductions, so that a loop of lookups is interrupted", context do
      assert lookup_reductions(context, List.duplicate({}, 16_000)) >
               lookup_reductions(context, [{}]) + 100
    end

    test "costs its process reductions also when it is refused, whatever function reads it",
         context do
      registry = context.registry
      references = for _reference <- 1..2_500, do: make_ref()

      for name <- [references, {1, references}, %{1 => references}, List.duplicate(%{}, 2_500)],
          {label, read} <- [
            whereis: &Native.whereis(registry, &1),
            lookup: &Native.lookup(registry, &1),
            check: &Native.check/1,
            pattern: &Native.pattern/1,
            wait: &Native.wait(registry, &1, self()),
            register: &Native.register(registry, &1, self(), nil, nil),
            unregister: &Native.unregister(registry, &1, self())
          ] do
        assert reductions(fn -> :too_large = read.(name) end) > 3_000, inspect(label)
      end
    end

    defp lookup_reductions(context, name) do
      reductions(fn -> :undefined = whereis(context, name) end)
    end

    defp reductions(function) do
      {:reductions, before} = Process.info(self(), :reductions)
      for _time <- 1..20, do: function.()
      {:reductions, later} = Process.info(self(), :reductions)
      div(later - before, 20)
    end

    test "is far larger than four UUIDs or a hundred", context do
      uuids = for number <- 1..100, do: "10f4b6e2-9b3a-4a4e-8d1c-#{100_000_000_000 + number}"
      assert register(context, {Worker, List.to_tuple(uuids)}, self()) == :yes
      assert whereis(context, Terms.copy({Worker, List.to_tuple(uuids)})) == self()
    end
  end

  describe "a name at the limit of its depth" do
    for {kind, wrap} <- [
          {"tuples", quote(do: &{&1})},
          {"tuples of two", quote(do: &{1, &1})},
          {"lists", quote(do: &[&1])},
          {"lists of two", quote(do: &[&1, 1])},
          {"improper lists", quote(do: &[1 | {&1}])},
          {"maps", quote(do: &%{1 => &1})},
          {"maps in keys", quote(do: &%{&1 => 1})}
        ] do
      test "works as any other, above it is refused: #{kind}", context do
        wrap = unquote(wrap)
        levels = if unquote(kind) == "improper lists", do: div(@max_depth, 2), else: @max_depth
        name = Terms.nest(:name, levels, wrap)

        assert register(context, name, self()) == :yes
        assert whereis(context, Terms.copy(name)) == self()
        assert whereis(context, Terms.nest(:other, levels, wrap)) == :undefined
        assert whereis(context, Terms.nest(:name, levels - 1, wrap)) == :undefined
        assert_refused(context, wrap.(name), "#{@max_depth} levels")
      end
    end

    test "works as any other, above it is refused: closures", context do
      for levels <- [1, 2, 10, 50, 64] do
        name = Terms.nest(:name, levels, &Terms.closure/1)
        assert register(context, name, self()) == :yes
        assert whereis(context, Terms.copy(name)) == self()
      end

      for levels <- [@max_depth + 1, 2 * @max_depth] do
        name = Terms.nest(:name, levels, &Terms.closure/1)
        assert_refused(context, name, "#{@max_depth} levels")
      end
    end

    test "may have long lists, as a list's length is no depth", context do
      for tail <- [[], :tail, 1 <<< 80, fn -> 1 end] do
        name = Enum.to_list(1..2_000) ++ tail
        assert register(context, name, self()) == :yes
        assert whereis(context, Terms.copy(name)) == self()
      end
    end

    test "may be a heap of maps that all have to be put in order, or is refused", context do
      # The larger part lies at the bottom, so that each level would move it once more.
      for levels <- [1, 10, 100, 250], size <- [10, 1_000, 30_000] do
        bottom = :binary.copy("a", size)

        wrap = fn inner -> %{1 => 1, 2 => inner, 3 => 3, a: 4, b: 5, c: "c", d: {}} end
        name = Terms.nest(bottom, levels, wrap)

        try do
          assert register(context, name, self()) == :yes
          assert whereis(context, Terms.copy(name)) == self()
        rescue
          error in ArgumentError ->
            refute error.message =~ "#{@max_depth} levels", "it has #{levels}"
            assert error.message =~ ~r/at most \d+/
        end
      end
    end
  end

  describe "on the smallest stacks that the VM takes" do
    @smallest [~c"+sss", ~c"20", ~c"+sssdcpu", ~c"20", ~c"+sssdio", ~c"20"]

    test "names as deep as may be are registered, found and given back" do
      vm = OtherVM.start(@smallest)
      assert OtherVM.call(vm, OtherVM, :hold_deep_names, []) == :ok
    end
  end

  describe "a name with a term of a kind that the library does not know" do
    # Such terms come with later releases of the VM. On all releases a test can make one that nothing else
    # makes: a part marked as opened, of a kind that does not exist.
    test "raises ArgumentError, wherever the term stands", context do
      %{registry: registry} = context

      for unknown <- [{Native.odd(), 255, "body"} | Terms.unknown()],
          name <- [
            unknown,
            {:a, unknown},
            [unknown],
            [1 | unknown],
            %{1 => unknown},
            %{unknown => 1},
            {fn -> 1 end, unknown},
            Terms.closure(unknown)
          ],
          call <- [
            &NativeRegistry.whereis_name({registry, &1}),
            &Registry.lookup(registry, &1),
            &Registry.register(registry, &1, nil),
            &NativeRegistry.register_name({registry, &1}, self()),
            &Registry.unregister(registry, &1),
            &Registry.update_value(registry, &1, fn value -> value end),
            &Registry.await(registry, &1, 10),
            &Registry.match_names(registry, &1),
            &Registry.count_names(registry, &1),
            &Registry.subscribe(registry, &1),
            &Registry.unsubscribe(registry, &1),
            &NativeRegistry.start_child(context.meta, &1, self(), Worker)
          ] do
        error = assert_raise ArgumentError, fn -> call.(name) end
        assert error.message =~ "of another kind"
      end
    end

    test "can be made on OTP 29 and later" do
      there? = String.to_integer(System.otp_release()) >= 29
      assert Terms.unknown() != [] == there?
    end

    test "can be a value, and comes back unchanged", %{registry: registry} do
      for unknown <- Terms.unknown(), value <- [unknown, {self(), [unknown]}] do
        {:ok, _pid} = Registry.register(registry, :name, value)
        assert [{_pid, ^value}] = Registry.lookup(registry, :name)
        Registry.unregister(registry, :name)
      end
    end
  end

  describe "a name far above the limits is refused," do
    for {kind, build} <- [
          {"a binary of 64 MiB", quote(do: fn -> :binary.copy("a", @max_binary) end)},
          {"a bitstring of 64 MiB",
           quote(do: fn -> <<:binary.copy("a", @max_binary)::bits, 1::1>> end)},
          {"a list of 64 MiB", quote(do: fn -> List.duplicate(1, div(@max_binary, 16)) end)},
          {"a charlist", quote(do: fn -> List.duplicate(?a, div(@max_binary, 16)) end)},
          {"a tuple of 64 MiB", quote(do: fn -> Tuple.duplicate(1, div(@max_binary, 8)) end)},
          {"a map of half a million keys", quote(do: fn -> Map.new(1..500_000, &{&1, &1}) end)},
          {"the largest integer", quote(do: &largest_integer/0)},
          {"the smallest integer", quote(do: fn -> -largest_integer() end)},
          {"a list of a hundred thousand closures",
           quote(do: fn -> List.duplicate(fn -> 1 end, 100_000) end)},
          {"a binary of 64 MiB that does not begin where a byte does",
           quote(do: &shifted_binary/0)},
          {"a tuple of a million bitstrings",
           quote(do: fn -> Tuple.duplicate(<<1::1>>, 1_000_000) end)}
        ] do
      test "by itself and inside other terms: #{kind}", context do
        huge = unquote(build).()
        assert_refused(context, huge, "#{@max_bytes} bytes")

        for wrap <- [&{1, &1}, &[1, &1], &[1 | &1], &%{1 => &1}, &%{&1 => 1}, &Terms.closure/1] do
          assert_lookup_refused(context, wrap.(huge), "#{@max_bytes} bytes")
          assert_lookup_refused(context, {fn -> 1 end, wrap.(huge)}, "#{@max_bytes} bytes")
        end
      end
    end

    for {kind, wrap} <- [
          {"tuples", quote(do: &{&1})},
          {"lists", quote(do: &[&1])},
          {"improper lists", quote(do: &[1 | {&1}])},
          {"maps", quote(do: &%{1 => &1})},
          {"maps in keys", quote(do: &%{&1 => 1})},
          {"closures", quote(do: &Terms.closure/1)},
          {"tuples with a closure each", quote(do: &{fn -> 1 end, &1})}
        ] do
      test "a million levels deep: #{kind}", context do
        deep = Terms.nest(1 <<< 80, 1_000_000, unquote(wrap))

        assert_refused(context, deep, "#{@max_depth} levels")
        assert_lookup_refused(context, {fn -> 1 end, deep}, "#{@max_depth} levels")
        assert_lookup_refused(context, Terms.closure(deep), "#{@max_depth} levels")
      end
    end

    for {kind, wrap} <- [
          {"tuples", quote(do: &{&1, &1})},
          {"lists", quote(do: &[&1, &1])},
          {"improper lists", quote(do: &[&1 | {&1}])},
          {"maps", quote(do: &%{1 => &1, 2 => &1})},
          {"maps in keys", quote(do: &%{&1 => &1})},
          {"closures", quote(do: &Terms.closure(&1, &1))}
        ] do
      test "shared a hundred levels deep, so that it would be 2^100 parts: #{kind}", context do
        for bottom <- [:name, fn -> 1 end] do
          shared = Terms.nest(bottom, 100, unquote(wrap))

          assert_lookup_refused(context, shared, "#{@max_bytes} bytes")
          assert_lookup_refused(context, Terms.closure(shared), "#{@max_bytes} bytes")
          assert_lookup_refused(context, {fn -> 1 end, shared}, "#{@max_bytes} bytes")
        end
      end
    end

    test "while other processes get answers", context do
      test = self()
      :yes = register(context, :name, self())

      builds = [
        fn -> :binary.copy("a", @max_binary) end,
        fn -> <<:binary.copy("a", @max_binary)::bits, 1::1>> end,
        fn -> List.duplicate(1, 1_000_000) end,
        fn -> Tuple.duplicate(1, 1_000_000) end,
        fn -> Terms.closure(Tuple.duplicate(1, 1_000_000)) end,
        fn -> largest_integer() end,
        fn -> Terms.nest(:name, 1_000_000, &{&1}) end,
        fn -> Terms.nest(:name, 100_000, &Terms.closure/1) end,
        fn -> Terms.nest(:name, 100, &{&1, &1}) end,
        fn -> Terms.nest(fn -> 1 end, 100, &{&1, &1}) end
      ]

      # Built where they are used, because a message would expand the shared parts.
      for build <- builds do
        Task.start_link(fn ->
          name = build.()

          for _round <- 1..20 do
            assert_lookup_refused(context, name, "at most")
            send(test, :refused)
          end
        end)
      end

      for _refusal <- 1..(20 * length(builds)) do
        assert_receive :refused, 30_000
        for _lookup <- 1..10, do: assert(whereis(context, :name) == test)
      end

      assert Native.sizes(context.registry) == {1, 1}
    end

    test "with a message that shows the name as it was given, in short", context do
      for name <- [
            {:a_name, :binary.copy("a", 100_000)},
            {:a_name, fn -> 1 end, :binary.copy("a", 100_000)},
            {:a_name, 1 <<< 80, :binary.copy("a", 100_000)},
            {:a_name, Terms.nest(:name, 1_000, &Terms.closure/1)},
            {:a_name, Terms.nest(:name, 200, &Terms.closure/1)},
            {:a_name, Terms.nest(:name, 1_000, &{&1})}
          ] do
        error = assert_raise ArgumentError, fn -> whereis(context, name) end
        assert error.message =~ "{:a_name, "
        refute error.message =~ "#Reference<"
        assert byte_size(error.message) < 1_000
      end
    end
  end

  defp register(%{registry: registry}, name, pid) do
    NativeRegistry.register_name({registry, name}, pid)
  end

  defp whereis(%{meta: meta}, name), do: NativeRegistry.whereis_name(meta, name)

  defp assert_same(context, one, another), do: assert_same_if(context, true, one, another)
  defp assert_apart(context, one, another), do: assert_same_if(context, false, one, another)

  defp assert_same_if(context, same?, one, another) do
    label = "#{inspect(one, limit: 20)} and #{inspect(another, limit: 20)}"
    assert one === another == same?, label
    assert register(context, one, self()) == :yes, label
    assert whereis(context, another) == if(same?, do: self(), else: :undefined), label

    assert elsewhere(fn -> register(context, another, self()) end) ==
             if(same?, do: :no, else: :yes),
           label

    :ok = NativeRegistry.unregister_name({context.registry, one})
    assert whereis(context, another) == :undefined, label
  end

  # No call takes the name, and each says which limit it is above. The name is not shown: that
  # would go to its bottom.
  defp assert_refused(context, name, limit) do
    via_name = {context.registry, name}
    assert_limit(limit, fn -> NativeRegistry.register_name(via_name, self()) end)
    assert_limit(limit, fn -> NativeRegistry.unregister_name(via_name) end)
    assert_limit(limit, fn -> NativeRegistry.send(via_name, :message) end)
    assert_limit(limit, fn -> NativeRegistry.start_child(context.meta, name, self(), Worker) end)
    assert_lookup_refused(context, name, limit)
  end

  defp assert_lookup_refused(context, name, limit) do
    assert_limit(limit, fn -> whereis(context, name) end)
  end

  defp assert_limit(limit, call) do
    message =
      try do
        call.()
        "the name was taken"
      rescue
        error in ArgumentError -> error.message
      end

    assert message =~ limit
  end

  # The largest size that is taken, by bisection.
  defp largest(context, build, taken \\ 0, refused \\ 2 * @max_bytes)
  defp largest(_context, _build, taken, refused) when refused - taken == 1, do: taken

  defp largest(context, build, taken, refused) do
    size = div(taken + refused, 2)

    if taken?(context, build.(size)),
      do: largest(context, build, size, refused),
      else: largest(context, build, taken, size)
  end

  defp taken?(context, name) do
    whereis(context, name) == :undefined
  rescue
    ArgumentError -> false
  end

  defp shifted_binary do
    <<_bits::3, shifted::binary-size(67_000_000), _rest::bitstring>> =
      :binary.copy("a", @max_binary)

    shifted
  end

  # The limit on integers differs between releases.
  defp largest_integer, do: largest_integer(1 <<< 23)

  defp largest_integer(bits) do
    :erlang.bsl(1, bits - 1)
  rescue
    SystemLimitError -> largest_integer(div(bits, 2))
  end
end
