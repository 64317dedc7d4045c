defmodule WorkflowMetal.Registration.NativeRegistry.LeaseTest do
  # Alone, as the VM has one lease.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: false

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Lease
  alias WorkflowMetal.Registration.NativeRegistry.{Table, Value}

  import Bitwise

  # Longer than any test takes.
  @hour 3_600_000_000_000

  setup do
    # The VM has one lease for all registries, and those of the test before are closed while this one begins.
    eventually(fn -> Lease.holders() == [] end)
    supervisor = idle()
    leased = unique_registry()
    :ok = Table.open(leased, supervisor, :leased)
    %{leased: leased, supervisor: supervisor, epoch: begin()}
  end

  defp begin(deadline \\ Lease.clock() + @hour) do
    epoch = System.unique_integer([:positive, :monotonic])
    :ok = Lease.begin(epoch, deadline)
    on_exit(fn -> Lease.finish(epoch) end)
    epoch
  end

  # Ends the lease and begins one whose deadline has passed.
  defp pass(epoch) do
    true = Lease.finish(epoch)
    begin(Lease.clock() - 1)
  end

  defp nobody(_registry, _name), do: :asked

  defp whereis(registry, name), do: Table.whereis(registry, name, &nobody/2)

  defp hold(registry, name, pid, epoch, value \\ nil),
    do: Table.hold(registry, name, pid, nil, Value.encode!(value), epoch)

  describe "past the deadline" do
    test "no function finds a holder of this node, but those by which the cluster gives names back",
         %{leased: leased, epoch: epoch} do
      holder = idle()
      :yes = hold(leased, :name, holder, epoch, :value)
      heavy = Enum.to_list(1..20_000) ++ [make_ref()]
      :yes = hold(leased, :heavy, self(), epoch, heavy)

      answers = fn ->
        [
          whereis(leased, :name),
          Table.lookup(leased, :name),
          Table.lookup(leased, :heavy),
          Table.lookup_here(leased, :name),
          Table.claim(leased, :name, self(), nil),
          Table.keys(leased, holder),
          Table.count(leased),
          Table.count(leased, :name),
          Table.records(leased, :name)
        ]
      end

      found = [
        holder,
        [{holder, :value}],
        [{self(), heavy}],
        [{holder, :value}],
        {:held, holder},
        [:name],
        2,
        1,
        [{:name, holder, :value}]
      ]

      held = [{:heavy, self()}, {:name, holder}]
      assert answers.() == found
      assert Table.lease_valid?(leased)
      assert Enum.sort(Table.held(leased)) == held

      epoch = pass(epoch)
      elsewhere = {:elsewhere, nil}
      assert answers.() == [:asked, :elsewhere, :elsewhere, [], elsewhere, [], 0, 0, []]
      assert Table.update_value(leased, :heavy, fn _value -> :changed end) == :error
      refute Table.lease_valid?(leased)
      assert Lease.left() <= 0
      assert Table.here(leased, :name) == holder
      assert Enum.sort(Table.held(leased)) == held

      assert Lease.extend(epoch, Lease.clock() + @hour)
      assert answers.() == found
    end

    test "a name is given back as before", %{leased: leased, epoch: epoch} do
      :yes = hold(leased, :name, self(), epoch)
      pass(epoch)
      assert Table.release(leased, :name, self()) == :elsewhere
      assert Table.here(leased, :name) == nil
    end

    test "registries without a lease answer as before",
         %{registry: registry, supervisor: supervisor, epoch: epoch} do
      clustered = unique_registry()
      :ok = Table.open(clustered, supervisor, :clustered)
      :yes = hold(clustered, :name, self(), 0)
      {:ok, _pid} = Registry.register(registry, :name, nil)
      pass(epoch)

      for registry <- [registry, clustered] do
        assert Table.lease_valid?(registry)
        assert whereis(registry, :name) == self()
        assert Table.count(registry) == 1
        assert [{:name, _pid, nil}] = Table.records(registry, :_)
      end
    end

    test "names are not found from that instant on, without a call",
         %{leased: leased} = context do
      :yes = hold(leased, :name, self(), context.epoch)
      true = Lease.finish(context.epoch)
      deadline = Lease.clock() + 50_000_000
      begin(deadline)

      found_until =
        Stream.repeatedly(fn -> {whereis(leased, :name), Lease.clock()} end)
        |> Enum.find_value(fn {answer, at} -> if answer == :asked, do: at end)

      assert found_until >= deadline
      assert whereis(leased, :name) == :asked
    end
  end

  describe "an epoch" do
    test "is extended while it runs, and never made shorter", %{epoch: epoch} do
      left = Lease.left()
      assert left > 0 and left <= @hour
      assert Lease.extend(epoch, Lease.clock() + 2 * @hour)
      assert Lease.extend(epoch, Lease.clock() + 1)
      assert Lease.left() > @hour
      assert Lease.finish(epoch)
      assert Lease.left() <= 0
      refute Lease.finish(epoch)
      refute Lease.extend(epoch, Lease.clock() + @hour)
      assert Lease.left() <= 0
    end

    test "begins after the end of the one before, with a greater number", %{epoch: epoch} do
      assert_raise ArgumentError, ~r/got: #{epoch + 1}/, fn ->
        Lease.begin(epoch + 1, Lease.clock() + @hour)
      end

      assert Lease.finish(epoch)

      for old <- [epoch, epoch - 1] do
        assert_raise ArgumentError, ~r/greater than all before/, fn ->
          Lease.begin(old, Lease.clock() + @hour)
        end
      end

      assert Lease.left() <= 0
    end

    test "that does not run gives no name, whatever the name and value", context do
      %{leased: leased, epoch: epoch} = context
      names = [:name, Terms.closure(make_ref()), 1 <<< 100, <<1::3>>, String.duplicate("n", 500)]
      values = [nil, :value, make_ref(), Enum.to_list(1..20_000) ++ [make_ref()]]

      for name <- names, value <- values, other <- [epoch + 1, epoch - 1] do
        assert hold(leased, name, self(), other, value) == :no_lease
        assert Table.here(leased, name) == nil
      end

      for {name, value} <- Enum.zip(names, Stream.cycle(values)) do
        assert hold(leased, name, self(), epoch, value) == :yes
        assert Table.lookup(leased, name) == [{self(), value}]
        # In a registry without a lease, or of another engine.
        assert hold(leased, {:without, name}, self(), 0, value) == :yes
      end

      assert Lease.finish(epoch)
      assert hold(leased, :late, self(), epoch) == :no_lease
    end

    test "answers the holder, or that the process has ended, while it runs", context do
      %{leased: leased, epoch: epoch} = context
      holder = idle()
      :yes = hold(leased, :name, holder, epoch)
      assert hold(leased, :name, self(), epoch) == {:held, holder}
      kill(holder)
      assert hold(leased, :other, holder, epoch) == :ended
      assert hold(leased, :name, self(), epoch) == :yes
      assert Lease.holds() == 0
    end

    @tag timeout: 300_000
    test "gives no name after its end, when no call holds", %{leased: leased, epoch: epoch} do
      for round <- 1..50, reduce: epoch do
        epoch ->
          {test, holder} = {self(), idle()}

          holding =
            for number <- 1..4 do
              Task.async(fn ->
                send(test, :ready)
                hold_until_the_end(leased, {round, number}, epoch, holder, 0)
              end)
            end

          for _task <- holding, do: assert_receive(:ready)
          assert Lease.finish(epoch)
          eventually(fn -> Lease.holds() == 0 end)
          held = length(Table.held(leased))
          assert held == holding |> Task.await_many(:infinity) |> Enum.sum()
          kill(holder)
          eventually(fn -> Table.held(leased) == [] end)
          begin()
      end
    end
  end

  # Answers how many names it was given. Its process holds them until the test has counted.
  defp hold_until_the_end(leased, name, epoch, holder, count) do
    case hold(leased, {name, count}, holder, epoch) do
      :yes -> hold_until_the_end(leased, name, epoch, holder, count + 1)
      :no_lease -> count
    end
  end

  describe "the holders" do
    test "are the processes that hold names under a lease, each once", context do
      %{leased: leased, supervisor: supervisor, epoch: epoch} = context
      [other, suspended, clustered] = for _registry <- 1..3, do: unique_registry()
      :ok = Table.open(other, supervisor, :leased)
      :ok = Table.open(suspended, supervisor, :leased)
      :ok = Table.open(clustered, supervisor, :clustered)
      [one, two, three, four, five, six, seven] = for _holder <- 1..7, do: idle()

      for name <- 1..3, do: :yes = hold(leased, name, one, epoch)
      :yes = hold(other, :name, one, epoch)
      :yes = hold(other, :two, two, epoch)
      :yes = hold(suspended, :three, three, epoch)
      {_id, _number} = Table.suspend(suspended, supervisor)
      # Not these.
      :yes = hold(clustered, :four, four, 0)
      :yes = hold(leased, :five, five, epoch)
      :elsewhere = Table.release(leased, :five, five)
      :ok = Native.subscribe(leased, Native.pattern(:_), six)
      number = Native.wait(leased, :awaited, seven)
      assert is_integer(number)
      {:ok, _pid} = Registry.register(context.registry, :name, nil)

      assert Enum.sort(Lease.holders()) == Enum.sort([one, two, three])
      # Whether or not the lease is valid.
      pass(epoch)
      assert Enum.sort(Lease.holders()) == Enum.sort([one, two, three])
      kill(one)
      eventually(fn -> Enum.sort(Lease.holders()) == Enum.sort([two, three]) end)
      :ok = Table.open(suspended, supervisor, :leased)
      assert Enum.sort(Lease.holders()) == Enum.sort([two, three])
      assert Table.close(suspended, supervisor)
      assert Lease.holders() == [two]
    end

    test "are listed on a dirty scheduler", %{leased: leased, epoch: epoch} do
      holders = for name <- 1..5_000, do: tap(idle(), &(:yes = hold(leased, name, &1, epoch)))
      assert Enum.sort(Lease.holders()) == Enum.sort(holders)
    end
  end

  test "the clock goes on as the VM's does" do
    {before, at} = {System.monotonic_time(:nanosecond), Lease.clock()}
    Process.sleep(20)
    {later, then} = {System.monotonic_time(:nanosecond), Lease.clock()}
    # The VM may correct its clock by a hundredth.
    assert_in_delta later - before, then - at, 20_000_000
    assert then - at >= 19_000_000
  end

  test "an unknown registry has no lease to ask for" do
    assert_raise ArgumentError, ~r/NoSuchRegistry/, fn -> Table.lease_valid?(NoSuchRegistry) end
  end
end
