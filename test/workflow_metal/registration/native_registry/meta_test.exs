defmodule WorkflowMetal.Registration.NativeRegistry.MetaTest do
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Value

  describe "a value kept with a registry as a whole" do
    test "is the one that was put last, until it is deleted", %{registry: registry} do
      assert Native.meta(registry, :key) == :error
      assert put(registry, :key, 1) == :ok
      assert put(registry, :key, %{two: 2}) == :ok
      assert get(registry, :key) == {:ok, %{two: 2}}
      assert Native.delete_meta(registry, :key) == :ok
      assert Native.meta(registry, :key) == :error
      assert Native.delete_meta(registry, :key) == :ok
    end

    test "may be nil", %{registry: registry} do
      assert put(registry, :key, nil) == :ok
      assert get(registry, :key) == {:ok, nil}
    end

    test "has keys that are equal as names are", %{registry: registry} do
      keys = [1, 1.0, "1", {1}, {:via, 1}, %{1 => 2}, self(), make_ref(), [1 | 2]]
      for {key, number} <- Enum.with_index(keys), do: put(registry, key, number)

      for {key, number} <- Enum.with_index(keys),
          do: assert(get(registry, key) == {:ok, number})

      assert Native.meta(registry, fn -> 1 end) == :odd
      assert Native.put_meta(registry, String.duplicate("a", 70_000), nil) == :too_large
    end

    test "keeps an object alive to which only a term refers", %{registry: registry} do
      put(registry, :counter, :counters.new(1, []))
      put(registry, :counters.new(1, []), :found)
      :erlang.garbage_collect()
      {:ok, counter} = get(registry, :counter)
      assert :counters.add(counter, 1, 2) == :ok
      assert :counters.get(counter, 1) == 2
    end

    test "is copied on a dirty scheduler where that takes long", %{registry: registry} do
      large = {self(), Enum.to_list(1..20_000)}
      assert Native.put_meta(registry, :key, Value.encode!(large)) == :heavy
      assert Native.put_meta_heavy(registry, :key, Value.encode!(large)) == :ok
      assert Native.meta(registry, :key) == :heavy
      assert {:ok, kept} = Native.meta_heavy(registry, :key)
      assert Value.decode(kept) == large
    end

    test "is not a name, and belongs to one registry", %{registry: registry} do
      %{registry: another} = start_registry()
      put(registry, :key, 1)
      assert Native.whereis(registry, :key) == :undefined
      assert Native.meta(another, :key) == :error
    end

    test "outlives the registry's owner, and is gone with the registry", context do
      %{registry: registry, owner: owner, id: id} = context
      put(registry, :key, 1)
      kill(owner)
      eventually(fn -> Native.meta(registry, :key) != :no_registry end)
      assert get(registry, :key) == {:ok, 1}

      :ok = stop_supervised(id)
      assert Native.meta(registry, :key) == :no_registry
      assert Native.put_meta(registry, :key, 2) == :no_registry
      assert Native.delete_meta(registry, :key) == :no_registry
      start_registry(registry)
      assert Native.meta(registry, :key) == :error
    end

    defp put(registry, key, value), do: Native.put_meta(registry, key, Value.encode!(value))

    defp get(registry, key) do
      with {:ok, kept} <- Native.meta(registry, key), do: {:ok, Value.decode(kept)}
    end
  end

  describe "the native library" do
    test "has a function for each stub" do
      stubs = Native.__info__(:functions) -- [load: 0]
      assert Enum.sort(Native.module_info(:nifs)) == Enum.sort(stubs)
    end

    test "says whether a registry is part of a cluster", %{registry: registry} do
      assert Native.clustered(registry) == false
      assert Native.clustered(:"no such registry") == :no_registry
      assert Native.clustered(1) == :no_registry

      clustered = unique_registry()
      :ok = Native.open(clustered, self(), :clustered)
      assert Native.clustered(clustered) == true
      assert Native.close(clustered, self())
    end

    test "has a text for each error about a name, a pattern or a value" do
      {name_bytes, depth, map_work, value_bytes} = Native.limits()

      texts = [
        too_large: "expected a name of at most #{name_bytes} bytes in canonical form",
        too_deep: "expected a name nested at most #{depth} levels deep",
        too_many_maps:
          "expected a name whose maps can be put in order by moving at most #{map_work} bytes, " <>
            "a map in a map once more for each level",
        odd:
          "expected a name of atoms, numbers, bitstrings, pids, ports, references, functions, " <>
            "tuples, lists and maps",
        bad_pattern: "expected a pattern without :_ in the key of a map",
        value_too_large: "expected a value of at most #{value_bytes} bytes in external format"
      ]

      for {error, text} <- texts, do: assert(Native.message(error) == text)
      assert_raise ArgumentError, fn -> Native.message(:something_else) end
      assert_raise ArgumentError, fn -> Native.message("too_large") end
    end

    test "accepts a term just within a limit, and refuses one just beyond" do
      {name_bytes, depth, _map_work, _value_bytes} = Native.limits()
      # A long binary takes five bytes more.
      assert Native.check(String.duplicate("a", name_bytes - 5)) == :ok
      assert Native.check(String.duplicate("a", name_bytes - 4)) == :too_large
      nested = fn levels -> Enum.reduce(1..levels, 0, fn _level, inner -> {inner} end) end
      assert Native.check(nested.(depth)) == :ok
      assert Native.check(nested.(depth + 1)) == :too_deep
    end
  end
end
