defmodule WorkflowMetal.Registration.NativeRegistry.RegistryTest do
  use ExUnit.Case, async: true

  import WorkflowMetal.Registration.NativeRegistry.RegistryCase,
    only: [idle: 0, kill: 1, eventually: 1, unique_registry: 0, elsewhere: 1]

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.{CrashLog, Registry, Terms}

  setup context do
    CrashLog.watch(context)
    registry = unique_registry()
    start_supervised!({Registry, keys: :unique, name: registry})
    %{registry: registry}
  end

  describe "a registry that is started" do
    test "has its own name for its process", %{registry: registry} do
      owner = Process.whereis(registry)
      assert Process.alive?(owner)
      assert {:error, {:already_started, ^owner}} = Registry.start_link(name: registry)
    end

    test "is used by the adapter as well", %{registry: registry} do
      {:ok, _pid} = Registry.register(registry, :name, nil)
      assert NativeRegistry.whereis_name({registry, :name}) == self()
      assert NativeRegistry.whereis_name(%{registry: registry}, :name) == self()
    end

    test "is not started under a name that is in use, and says so" do
      registry = unique_registry()
      {:ok, agent} = Agent.start_link(fn -> nil end, name: registry)

      assert {:error, {%ArgumentError{message: message}, []}} =
               Registry.start_link(keys: :unique, name: registry)

      assert message =~ inspect(agent)
    end

    test "answers calls that it does not know, so that none waits for ever", context do
      assert {:error, :unknown_call} = Supervisor.which_children(context.registry)
    end

    test "may have the name Foo while another has the name :Foo" do
      one = unique_registry()
      other = :"#{inspect(one)}"

      for registry <- [one, other] do
        {:ok, _pid} = Registry.start_link(keys: :unique, name: registry)
        {:ok, _pid} = Registry.register(registry, :name, registry)
      end

      assert Registry.values(one, :name, self()) == [one]
      assert Registry.values(other, :name, self()) == [other]
    end

    test "has the child specification of Elixir's Registry" do
      assert %{id: :custom_name} = Registry.child_spec(name: :custom_name)

      assert %{id: Registry, start: {Registry, :start_link, [[]]}} = Registry.child_spec([])
    end

    test "ends when it is stopped, when it was started without a supervisor" do
      registry = unique_registry()
      {:ok, pid} = Registry.start_link(keys: :unique, name: registry)
      {:ok, _pid} = Registry.register(registry, :name, nil)
      :ok = GenServer.stop(pid)
      assert_raise ArgumentError, ~r/unknown registry/, fn -> Registry.count(registry) end
      {:ok, _pid} = Registry.start_link(keys: :unique, name: registry)
      assert Registry.count(registry) == 0
    end

    test "keeps what it holds when its own process is killed", %{registry: registry} do
      {:ok, _pid} = Registry.register(registry, :name, :value)
      owner = Process.whereis(registry)
      kill(owner)
      assert Registry.lookup(registry, :name) == [{self(), :value}]
      eventually(fn -> Process.whereis(registry) not in [nil, owner] end)
      assert Registry.lookup(registry, :name) == [{self(), :value}]
    end

    test "comes back with what it held when its supervisor starts the same child again" do
      registry = unique_registry()
      children = [{Registry, keys: :unique, name: registry, meta: [colour: :red]}]
      {:ok, supervisor} = Supervisor.start_link(children, strategy: :one_for_one)
      {:ok, _pid} = Registry.register(registry, :name, :value)
      :ok = Registry.put_meta(registry, :colour, :blue)
      :ok = Supervisor.terminate_child(supervisor, registry)
      assert_raise ArgumentError, fn -> Registry.lookup(registry, :name) end
      {:ok, _pid} = Supervisor.restart_child(supervisor, registry)
      assert Registry.lookup(registry, :name) == [{self(), :value}]
      assert Registry.meta(registry, :colour) == {:ok, :blue}
      :ok = Supervisor.terminate_child(supervisor, registry)
      :ok = Supervisor.delete_child(supervisor, registry)
      {:ok, _pid} = Supervisor.start_child(supervisor, hd(children))
      assert Registry.lookup(registry, :name) == []
      assert Registry.meta(registry, :colour) == {:ok, :red}
    end
  end

  describe "options" do
    test "are those of Elixir's Registry with unique keys" do
      registry = unique_registry()

      options = [keys: :unique, name: registry, partitions: 8, compressed: true, listeners: []]
      assert {:ok, _pid} = Registry.start_link(options)
    end

    test "that cannot be used are named in the error" do
      name = unique_registry()

      for {options, message} <- [
            {[keys: :unique], ~r/expected :name option to be present/},
            {[keys: :unique, name: []], ~r/expected :name to be an atom, got: \[\]/},
            {[keys: :unique, name: nil], ~r/expected :name to be an atom, got: nil/},
            {[keys: :duplicate, name: name], ~r/expected :keys to be :unique, got: :duplicate/},
            {[keys: nil, name: name], ~r/expected :keys to be :unique, got: nil/},
            {[name: name, partitions: 0], ~r/expected :partitions to be a positive integer/},
            {[name: name, compressed: :no], ~r/expected :compressed to be a boolean, got: :no/},
            {[name: name, meta: [{"a", 1}]], ~r/expected :meta to be a keyword list/},
            {[name: name, meta: [a: String.duplicate("a", 2_000_000)]],
             ~r/at most 1048576 bytes/},
            {[name: name, listeners: [:a | :b]], ~r/expected :listeners to be a list of atoms/},
            {[name: name, colour: :red], ~r/unknown option :colour.*known options are: \[:name/}
          ] do
        assert_raise ArgumentError, message, fn -> Registry.start_link(options) end
      end
    end
  end

  describe "values" do
    test "are those of the holder alone", %{registry: registry} do
      {:ok, _pid} = Registry.register(registry, :name, :value)
      assert Registry.values(registry, :name, self()) == [:value]
      assert Registry.values(registry, :name, idle()) == []
      assert Registry.values(registry, :nobody, self()) == []
    end
  end

  describe "unregister" do
    test "frees a name of another process when that is named", %{registry: registry} do
      [holder, other] = [idle(), idle()]
      :yes = Registry.register_name({registry, :name, :value}, holder)
      assert Registry.unregister(registry, :name) == :ok
      assert Registry.unregister(registry, :name, other) == :ok
      assert Registry.lookup(registry, :name) == [{holder, :value}]
      assert Registry.unregister(registry, :name, holder) == :ok
      assert Registry.lookup(registry, :name) == []
    end

    test "raises for a pid of another node", %{registry: registry} do
      for pid <- [Terms.remote_pid(1), :pid, nil] do
        assert_raise ArgumentError, ~r/expected a pid of this node, got: /, fn ->
          Registry.unregister(registry, :name, pid)
        end
      end
    end

    test "is told to subscribers", %{registry: registry} do
      holder = idle()
      :yes = Registry.register_name({registry, :name}, holder)
      :ok = Registry.subscribe(registry)
      :ok = Registry.unregister(registry, :name, holder)
      assert_receive {:unregister, ^registry, :name, ^holder}
    end
  end

  describe "match" do
    test "finds a name whose value matches pattern and guards", %{registry: registry} do
      value = {1, :atom, 2}
      {:ok, _pid} = Registry.register(registry, "name", value)
      found = [{self(), value}]
      assert Registry.match(registry, "name", :_) == found
      assert Registry.match(registry, "name", {1, :_, :_}) == found
      assert Registry.match(registry, "name", {1.0, :_, :_}) == []
      assert Registry.match(registry, "name", {:"$1", :_, :"$1"}) == []
      assert Registry.match(registry, "name", {:_, :_, :"$1"}, [{:>, :"$1", 1}]) == found
      assert Registry.match(registry, "name", {:_, :_, :"$1"}, [{:>, :"$1", 2}]) == []
      assert Registry.match(registry, "another", :_) == []
      assert Registry.match(registry, :_, :_) == []
      assert Registry.count_match(registry, "name", {1, :_, :_}) == 1
      assert Registry.count_match(registry, "name", {2, :_, :_}) == 0
    end

    test "takes the name literally, whatever it contains", %{registry: registry} do
      for name <- [:_, {:"$1", :_}, [:"$$"], %{a: :_}, 1, 1.0, 2 ** 100, <<1::1>>] do
        {:ok, _pid} = Registry.register(registry, name, {:value, name})
        assert Registry.match(registry, name, {:value, :_}) == [{self(), {:value, name}}]
        :ok = Registry.unregister_match(registry, name, {:value, :_})
        assert Registry.lookup(registry, name) == []
      end
    end

    test "finds values of every kind", %{registry: registry} do
      for value <- [nil, "text", %{a: 1, b: 2}, self(), make_ref(), & &1, 2 ** 100, [1 | 2]] do
        {:ok, _pid} = Registry.register(registry, :name, {:value, value})
        assert [{_pid, {:value, ^value}}] = Registry.match(registry, :name, {:value, :"$1"})
        :ok = Registry.unregister(registry, :name)
      end

      {:ok, _pid} = Registry.register(registry, :map, %{a: 1, b: 2})
      assert [_found] = Registry.match(registry, :map, %{b: 2})
    end

    test "raises for bad guards", %{registry: registry} do
      {:ok, _pid} = Registry.register(registry, :name, nil)

      for guards <- [[{:no_function, 1}], [{:>, 1}], [{:>, 1} | :tail]] do
        assert_raise ArgumentError, ~r/expected a match specification/, fn ->
          Registry.match(registry, :name, :_, guards)
        end
      end

      # By `apply`, as Elixir 1.20 warns of such a call.
      assert_raise FunctionClauseError, fn ->
        apply(Registry, :match, [registry, :name, :_, :guards])
      end
    end

    test "frees no name of another process", %{registry: registry} do
      holder = idle()
      :yes = Registry.register_name({registry, :name, :value}, holder)
      assert Registry.unregister_match(registry, :name, :value) == :ok
      assert Registry.lookup(registry, :name) == [{holder, :value}]
    end
  end

  describe "select" do
    setup %{registry: registry} do
      for number <- 1..500, do: {:ok, _} = Registry.register(registry, {:case, number}, number)
      {:ok, _} = Registry.register(registry, "text", %{a: 1, b: 2})
      :ok
    end

    test "answers the results of the clauses for the records", %{registry: registry} do
      me = self()

      assert Registry.select(registry, [{{"text", :"$1", :"$2"}, [], [{{:"$2", :"$1"}}]}]) ==
               [{%{a: 1, b: 2}, me}]

      assert Registry.select(registry, [{{:"$1", :_, %{b: 2}}, [], [:"$1"]}]) == ["text"]
      assert Registry.select(registry, [{{:_, :_, 7}, [], [:"$_"]}]) == [{{:case, 7}, {me, 7}}]
      assert Registry.select(registry, [{{:_, idle(), :_}, [], [:"$_"]}]) == []

      assert registry
             |> Registry.select([
               {{{:case, :"$1"}, me, :"$1"}, [{:>, :"$1", 498}], [:"$1"]},
               {{"text", :_, :_}, [], [:text]}
             ])
             |> Enum.sort() == [499, 500, :text]
    end

    test "tells names apart by ===, and leaves out processes that have ended", context do
      %{registry: registry} = context
      holder = idle()
      :yes = Registry.register_name({registry, 1.0, :float}, holder)
      assert Registry.select(registry, [{{1, :_, :"$1"}, [], [:"$1"]}]) == []
      assert Registry.select(registry, [{{1.0, :_, :"$1"}, [], [:"$1"]}]) == [:float]
      kill(holder)
      assert Registry.select(registry, [{{1.0, :_, :"$1"}, [], [:"$1"]}]) == []
      assert Registry.select(registry, [{{:_, :_, :"$1"}, [{:is_atom, :"$1"}], [:"$1"]}]) == []
    end

    # The same by another way: all records, and the specification run over them.
    test "answers what Elixir's Registry does, for heads of every kind", %{registry: registry} do
      names = [:_, :"$1", {:"$1", :_}, [:a, :b], [:a | :b], %{k: {:case, 1}}, 2 ** 100, & &1]
      for name <- names, do: {:ok, _pid} = Registry.register(registry, name, {:of, name})
      elixirs = unique_registry()
      {:ok, _pid} = Elixir.Registry.start_link(keys: :unique, name: elixirs)

      for {name, _pid, value} <- Registry.match_names(registry, :_),
          do: {:ok, _pid} = Elixir.Registry.register(elixirs, name, value)

      keys =
        names ++
          [{:case, :_}, {:case, :"$1"}, {:"$1", :"$1"}, [:"$1" | :"$2"], [:a | :_], [:_, :b]] ++
          [
            %{k: :_},
            %{k: {:case, :_}},
            {:case, 7},
            "text",
            {:_, 7},
            {},
            [],
            :"$a",
            {:"$01", :"$$"},
            & &1
          ]

      for key <- keys, value <- [:_, :"$1", 7] do
        spec = [{{key, :"$9", value}, [], [:"$_"]}]
        ours = registry |> Registry.select(spec) |> Enum.sort()
        theirs = elixirs |> Elixir.Registry.select(spec) |> Enum.sort()
        assert ours == theirs, inspect(spec)
        count = [{{key, :"$9", value}, [], [true]}]

        assert Registry.count_select(registry, count) ==
                 Elixir.Registry.count_select(elixirs, count)
      end
    end

    # Elixir's Registry does so from OTP 27 on. On OTP 25 a map without variables is one key to it.
    test "takes a map in a head for a pattern of maps with these pairs", %{registry: registry} do
      for name <- [%{a: 1}, %{a: 1, b: 2}, {%{b: 2}}], do: Registry.register(registry, name, nil)

      select = fn head ->
        Enum.sort(Registry.select(registry, [{{head, :_, :_}, [], [:"$_"]}]))
      end

      names = fn head -> for {name, _holder} <- select.(head), do: name end

      assert names.(%{}) == [%{a: 1}, %{a: 1, b: 2}]
      assert names.(%{b: 2}) == [%{a: 1, b: 2}]
      assert names.({%{}}) == [{%{b: 2}}]
      assert names.(%{a: 2}) == []
    end

    test "looks several names up by several clauses", %{registry: registry} do
      clause = fn key, body -> {{key, :_, :_}, [], [body]} end
      spec = [clause.({:case, 1}, :one), clause.({:case, 1}, :again), clause.("text", :text)]
      assert registry |> Registry.select(spec) |> Enum.sort() == [:one, :text]
      assert Registry.select(registry, []) == []
      assert Registry.count_select(registry, []) == 0
    end

    test "counts the records for which the answer is true", %{registry: registry} do
      assert Registry.count_select(registry, [{{{:case, :_}, :_, :_}, [], [true]}]) == 500
      assert Registry.count_select(registry, [{{:_, :_, :_}, [], [:yes]}]) == 0
      assert Registry.count_select(registry, [{{:_, :_, :"$1"}, [{:<, :"$1", 3}], [true]}]) == 2
    end

    test "raises for a term that is no match specification", %{registry: registry} do
      for spec <- [
            [:_],
            [{:_, [], []}],
            [{{:_, :_}, [], [true]}],
            [{{:_, :_, :_}, [{:no_function}], [true]}],
            [{{:_, :_, :_}, :guards, [true]}],
            [{{:_, :_, :_}, [], [{:no_function, 1}]}],
            [{{:_, :_, :_}, [], [true]} | :tail],
            [{{:_, :_, :_}, [], true}],
            {:case, :_}
          ],
          function <- [&Registry.select/2, &Registry.count_select/2] do
        if is_list(spec) do
          assert_raise ArgumentError, ~r/expected a match specification/, fn ->
            function.(registry, spec)
          end
        else
          assert_raise FunctionClauseError, fn -> function.(registry, spec) end
        end
      end
    end

    test "raises for one that is too large, too deep or has too many parts", context do
      %{registry: registry} = context
      shared = Enum.reduce(1..60, :a, fn _, term -> {term, term} end)
      deep = Enum.reduce(1..20_000, true, fn _, term -> {:not, term} end)

      for spec <- [
            [{{:_, :_, shared}, [], [true]}],
            [{{:_, :_, :_}, [], [{:const, String.duplicate("a", 100_000)}]}],
            [{{:_, :_, :_}, [Enum.reduce(1..5, deep, fn _, term -> {:not, term} end)], [true]}],
            List.duplicate({{:_, :_, :_}, [], [true]}, 100_000)
          ] do
        error = assert_raise ArgumentError, fn -> Registry.select(registry, spec) end
        assert byte_size(error.message) < 1_000
      end
    end

    test "costs reductions, so that other processes get their turn", %{registry: registry} do
      # A garbage collection costs reductions, too, hence the least of ten calls.
      reductions = fn guard ->
        Enum.min(
          for _call <- 1..10 do
            {:reductions, before} = Process.info(self(), :reductions)
            0 = Registry.count_select(registry, [{{:_, :_, :"$1"}, [guard], [true]}])
            {:reductions, afterwards} = Process.info(self(), :reductions)
            afterwards - before
          end
        )
      end

      plain = reductions.({:==, :"$1", 0})
      large = reductions.({:==, :"$1", {:const, Enum.to_list(1..20_000)}})
      # Some twenty for each of 501 records, and as many again for each kilobyte.
      assert plain > 501 * 5
      assert large > plain + 501 * 200
    end
  end

  describe "dispatch" do
    test "calls a function or a function of a module once, in the calling process", context do
      %{registry: registry} = context
      {:ok, _pid} = Registry.register(registry, :name, :value)
      test = self()

      assert Registry.dispatch(registry, :name, fn entries -> send(test, {self(), entries}) end) ==
               :ok

      assert_received {^test, [{^test, :value}]}
      assert Registry.dispatch(registry, :name, {__MODULE__, :tell, [test, :told]}) == :ok
      assert_received {:told, [{^test, :value}]}
      refute_received _message
      assert Registry.dispatch(registry, :name, fn _entries -> :done end, parallel: true) == :ok
    end

    test "calls nothing when no process holds the name", %{registry: registry} do
      assert Registry.dispatch(registry, :name, fn _entries -> raise "called" end) == :ok
    end

    test "raises for a term that cannot be called", %{registry: registry} do
      for dispatcher <- [:function, fn -> :ok end, {__MODULE__, :tell}] do
        assert_raise FunctionClauseError, fn ->
          Registry.dispatch(registry, :name, dispatcher)
        end
      end
    end
  end

  def tell(entries, pid, tag), do: send(pid, {tag, entries})

  describe "meta" do
    test "is kept with the registry, and not with a process", %{registry: registry} do
      assert Registry.meta(registry, :key) == :error
      elsewhere(fn -> :ok = Registry.put_meta(registry, :key, %{since: 2024}) end)
      assert Registry.meta(registry, :key) == {:ok, %{since: 2024}}
      :ok = Registry.put_meta(registry, :key, self())
      assert Registry.meta(registry, :key) == {:ok, self()}
      assert Registry.delete_meta(registry, :key) == :ok
      assert Registry.delete_meta(registry, :key) == :ok
      assert Registry.meta(registry, :key) == :error
    end

    test "takes atoms and tuples as keys", %{registry: registry} do
      for key <- [:key, {:custom, 1}, {}, {2 ** 100, & &1}] do
        :ok = Registry.put_meta(registry, key, {:value, key})
        assert Registry.meta(registry, key) == {:ok, {:value, key}}
      end

      for key <- ["key", 1, [:key]],
          call <- [&Registry.meta/2, &Registry.delete_meta/2, &Registry.put_meta(&1, &2, 1)] do
        assert_raise FunctionClauseError, fn -> call.(registry, key) end
      end
    end

    test "is initialised by the option :meta, which does not replace a value that is there" do
      registry = unique_registry()
      start_supervised!({Registry, keys: :unique, name: registry, meta: [a: 1, b: 2]})
      :ok = Registry.put_meta(registry, :a, 3)
      owner = Process.whereis(registry)
      kill(owner)
      eventually(fn -> Process.whereis(registry) not in [nil, owner] end)
      # It answers when it has started.
      {:error, :unknown_call} = GenServer.call(registry, :anything)
      assert Registry.meta(registry, :a) == {:ok, 3}
      assert Registry.meta(registry, :b) == {:ok, 2}
    end

    test "is refused as a value is", %{registry: registry} do
      assert_raise ArgumentError, ~r/at most 1048576 bytes/, fn ->
        Registry.put_meta(registry, :key, String.duplicate("a", 1_048_577))
      end
    end
  end

  describe "the via functions" do
    test "name processes", %{registry: registry} do
      {:ok, pid} =
        WorkflowMetal.Registration.NativeRegistry.Worker.start_link(
          name: {:via, Registry, {registry, "a", :value}}
        )

      assert Registry.lookup(registry, "a") == [{pid, :value}]
      assert Registry.whereis_name({registry, "a", :any}) == pid
      assert GenServer.whereis({:via, Registry, {registry, "a"}}) == pid
      assert Registry.register_name({registry, "a"}, self()) == :no
      assert Registry.send({registry, "a"}, :message) == pid
      assert Registry.unregister_name({registry, "a"}) == :ok
      assert Registry.whereis_name({registry, "a"}) == pid

      assert catch_exit(Registry.send({registry, "b"}, :hello)) ==
               {:badarg, {{registry, "b"}, :hello}}
    end

    test "are harmless when there is no registry" do
      assert Registry.unregister_name({:there_is_no_such_registry, :name}) == :ok
    end
  end

  test "every function raises for a registry that does not run, and names it" do
    spec = [{{:_, :_, :_}, [], [true]}]

    for call <- [
          &Registry.values(&1, :name, self()),
          &Registry.unregister(&1, :name, self()),
          &Registry.match(&1, :name, :_),
          &Registry.count_match(&1, :name, :_),
          &Registry.unregister_match(&1, :name, :_),
          &Registry.select(&1, spec),
          &Registry.count_select(&1, spec),
          &Registry.dispatch(&1, :name, fn _entries -> :ok end),
          &Registry.meta(&1, :key),
          &Registry.put_meta(&1, :key, 1),
          &Registry.delete_meta(&1, :key),
          &Registry.whereis_name({&1, :name}),
          &Registry.register_name({&1, :name}, self()),
          &Registry.send({&1, :name}, :message),
          &Registry.drain/1
        ],
        registry <- [:there_is_no_such_registry, "no atom", nil] do
      assert_raise ArgumentError, ~r/unknown registry: #{inspect(registry)}/, fn ->
        call.(registry)
      end
    end
  end
end
