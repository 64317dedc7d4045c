defmodule WorkflowMetal.Registration.NativeRegistry.Ra.MachineTest do
  # The state machine alone: what each command makes of the state. Numbers of sessions and of names are of this
  # test only, as the mirror of the node is one for all.
  use ExUnit.Case, async: false

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Machine, Mirror, Pids}

  # How the pids of the node `other@127.0.0.1` are built: a pid's tag, the node, and its creation.
  @other "other@127.0.0.1"
  @pids {<<131, 88, 119, byte_size(@other), @other::binary>>, <<7::32>>}

  @lease 8_000
  @expiry 10_400

  setup do
    Mirror.clear()
    on_exit(&Mirror.clear/0)
    {:ok, registry: :"registry_#{System.unique_integer([:positive])}"}
  end

  defp open(state, sid, node \\ :"other@127.0.0.1", replaces \\ nil) do
    {state, {:ok, number}, effects} = run(state, {:open, sid, node, @pids, @lease, replaces})

    assert effects == [{:timer, {:lease, number, 0}, @expiry}]
    {state, number}
  end

  defp run(state, command, index \\ 1) do
    case Machine.apply(%{index: index}, command, state) do
      {state, answer} -> {state, answer, []}
      answer -> answer
    end
  end

  defp batch(state, number, sid, sequence, operations) do
    {state, answer, _effects} =
      run(state, Machine.batch(number, sid, sequence, sequence, operations))

    {state, answer}
  end

  defp new, do: Machine.init(%{})

  defp pid(id) do
    {prefix, suffix} = @pids
    :erlang.binary_to_term(<<prefix::binary, id::32, 0::32, suffix::binary>>)
  end

  test "one of two sessions gets a name, and tokens grow with each grant", %{registry: registry} do
    {state, one} = open(new(), :one)
    {state, other} = open(state, :other)
    claim = &{:claim, registry, &1, &2}

    assert {state, {:ok, 1, [1, 2]}} = batch(state, one, :one, 1, [claim.(:a, 7), claim.(:b, 7)])

    assert {state, {:ok, 1, [0, 3]}} =
             batch(state, other, :other, 1, [claim.(:a, 7), claim.(:c, 7)])

    assert {state, {:ok, 2, [0]}} = batch(state, one, :one, 2, [{:free, registry, :a, 7}])
    assert {state, {:ok, 2, [4]}} = batch(state, other, :other, 2, [claim.(:a, 8)])
    assert Machine.granted(registry, :a, state) == {other, 8, 4}
  end

  test "a name that is claimed again by its holder, which has given it back, gets a new token",
       %{registry: registry} do
    {state, one} = open(new(), :one)
    {state, {:ok, 1, [1]}} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])
    assert {state, {:ok, 2, [2]}} = batch(state, one, :one, 2, [{:claim, registry, :a, 7}])
    assert Machine.granted(registry, :a, state) == {one, 7, 2}
    assert %{names: 1} = Machine.overview(state)
  end

  test "a session's other process takes the name over, and the former holder frees nothing",
       %{registry: registry} do
    {state, one} = open(new(), :one)
    {state, {:ok, 1, [1]}} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])
    operations = [{:claim, registry, :a, 8}, {:free, registry, :a, 7}]
    {state, {:ok, 2, [2, 0]}} = batch(state, one, :one, 2, operations)
    assert Machine.granted(registry, :a, state) == {one, 8, 2}
  end

  test "a batch that is sent twice is applied once, with the same answer", %{registry: registry} do
    {state, one} = open(new(), :one)
    {state, answer} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])
    assert {^state, ^answer} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])
    {state, {:ok, 2, [0]}} = batch(state, one, :one, 2, [{:free, registry, :a, 7}])
    assert {^state, :superseded} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])
  end

  test "an open that is sent twice opens one session" do
    {state, one} = open(new(), :one)
    command = {:open, :one, :"other@127.0.0.1", @pids, @lease, nil}
    assert {^state, {:ok, ^one}, []} = run(state, command)
  end

  test "only the timer of the last renewal ends a session", %{registry: registry} do
    {state, one} = open(new(), :one)
    command = Machine.batch(one, :one, 1, 1, [{:claim, registry, :a, 7}])
    {state, {:ok, 1, [1]}, effects} = run(state, command)

    assert {:timer, {:lease, one, 0}, :infinity} in effects
    assert {:timer, {:lease, one, 1}, @expiry} in effects
    assert {^state, :ok, []} = run(state, {:timeout, {:lease, one, 0}})
    assert {state, :ok, []} = run(state, {:timeout, {:lease, one, 1}})
    assert Machine.granted(registry, :a, state) == nil
    assert {^state, :expired} = batch(state, one, :one, 2, [])
  end

  test "a new leader starts the timer of each session anew", %{registry: registry} do
    {state, one} = open(new(), :one)
    {state, other} = open(state, :other)
    {state, _answer} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])

    assert Enum.sort(Machine.state_enter(:leader, state)) == [
             {:timer, {:lease, one, 1}, @expiry},
             {:timer, {:lease, other, 0}, @expiry}
           ]

    assert Machine.state_enter(:follower, state) == []
  end

  test "nothing but the log ends a session: nodes that are gone free nothing", %{
    registry: registry
  } do
    {state, one} = open(new(), :one)
    {state, _answer} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])

    for command <- [
          {:nodedown, :"other@127.0.0.1"},
          {:nodeup, :"other@127.0.0.1"},
          {:down, self(), :noconnection},
          {:down, self(), :normal}
        ] do
      assert {^state, :unknown_command, []} = run(state, command)
    end
  end

  test "a session that is resumed is renewed, and no timer of before ends it" do
    {state, one} = open(new(), :one)
    {state, {:ok, 7, []}} = batch(state, one, :one, 7, [])

    assert {state, {:ok, ^one, 8}, effects} = run(state, {:resume, one, :two, :one})

    assert effects == [
             {:timer, {:lease, one, 7}, :infinity},
             {:timer, {:lease, one, 8}, @expiry}
           ]

    for renewal <- 0..7,
        do: assert({^state, :ok, []} = run(state, {:timeout, {:lease, one, renewal}}))

    {state, :ok, []} = run(state, {:timeout, {:lease, one, 8}})
    assert {^state, :expired, []} = run(state, {:resume, one, :three, :two})
  end

  test "a member that has not applied what a session was granted does not answer its names",
       %{registry: registry} do
    {state, one} = open(new(), :one)
    {granted, {:ok, 1, [1]}} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])

    assert Machine.held(:_, one, :one, 1, state) == :behind
    assert Machine.held(:_, one, :one, 1, granted) == [{registry, :a, 7}]
    assert Machine.held(:_, one, :two, 0, granted) == :behind
    {resumed, {:ok, ^one, _}, _effects} = run(granted, {:resume, one, :two, :one})
    assert Machine.held(registry, one, :two, 0, resumed) == [{registry, :a, 7}]
  end

  test "a session that is resumed keeps its names, and its former process gets nothing more",
       %{registry: registry} do
    {state, one} = open(new(), :one)
    {state, _answer} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])
    {state, {:ok, ^one, _renewal}, _effects} = run(state, {:resume, one, :two, :one})
    assert {^state, {:ok, ^one, _renewal}, []} = run(state, {:resume, one, :two, :one})
    assert Machine.granted(registry, :a, state) == {one, 7, 1}
    assert {^state, :expired} = batch(state, one, :one, 2, [{:free, registry, :a, 7}])
    assert {state, {:ok, 1, [2]}} = batch(state, one, :two, 1, [{:claim, registry, :b, 7}])
    {state, :ok, []} = run(state, {:close, one, :two})
    assert {^state, :expired, []} = run(state, {:resume, one, :three, :two})
  end

  test "an open closes the session that it replaces", %{registry: registry} do
    {state, one} = open(new(), :one)
    {state, _answer} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])
    {state, other} = open(state, :other, :"other@127.0.0.1", {one, :one})
    assert Machine.granted(registry, :a, state) == nil
    assert {_state, {:ok, 1, [2]}} = batch(state, other, :other, 1, [{:claim, registry, :a, 9}])
  end

  test "the entries of a session that has ended are deleted bit by bit", %{registry: registry} do
    {state, one} = open(new(), :one)
    {state, other} = open(state, :other)
    claims = for number <- 1..5_000, do: {:claim, registry, number, 7}
    {state, _answer} = batch(state, one, :one, 1, claims)
    {state, {:ok, 1, [5_001]}} = batch(state, other, :other, 1, [{:claim, registry, :stays, 7}])
    {state, :ok, []} = run(state, {:close, one, :one})
    assert Machine.granted(registry, 1, state) == nil
    assert state.count == 5_001
    assert Mirror.whereis(registry, 1) == :undefined

    {state, _answer} = batch(state, other, :other, 2, [])
    assert state.count < 5_001 and state.count > 4_000

    state =
      for sequence <- 3..200, reduce: state do
        state -> state |> batch(other, :other, sequence, []) |> elem(0)
      end

    assert state.count == 1
    assert map_size(state.names) == 1
    assert {1, _bytes} = Mirror.info()
    assert is_pid(Mirror.whereis(registry, :stays))
  end

  test "a name of an ended session can be had at once", %{registry: registry} do
    {state, one} = open(new(), :one)
    {state, other} = open(state, :other)
    {state, _answer} = batch(state, one, :one, 1, [{:claim, registry, :a, 7}])
    {state, :ok, []} = run(state, {:close, one, :one})
    {state, {:ok, 1, [2]}} = batch(state, other, :other, 1, [{:claim, registry, :a, 9}])
    assert state.count == 1
    assert Mirror.whereis(registry, :a) == pid(9)

    # What is left of the ended session must not delete it.
    state =
      for sequence <- 2..200, reduce: state do
        state -> state |> batch(other, :other, sequence, []) |> elem(0)
      end

    assert Machine.granted(registry, :a, state) == {other, 9, 2}
    assert Mirror.whereis(registry, :a) == pid(9)
  end

  test "names of this node's own sessions are not in the mirror", %{registry: registry} do
    {state, own} = open(new(), :own, node())
    {_state, {:ok, 1, [1]}} = batch(state, own, :own, 1, [{:claim, registry, :a, 7}])
    assert Mirror.whereis(registry, :a) == :undefined
    assert {0, _bytes} = Mirror.info()
  end

  test "the mirror is written anew from a snapshot", %{registry: registry} do
    {state, one} = open(new(), :one)
    {state, ended} = open(state, :ended)
    {state, _answer} = batch(state, one, :one, 1, [{:claim, registry, {:a, self()}, 7}])
    {state, _answer} = batch(state, ended, :ended, 1, [{:claim, registry, :b, 8}])
    {state, :ok, []} = run(state, {:close, ended, :ended})

    for enter <- [
          fn -> Machine.state_enter(:recover, state) end,
          fn -> Machine.snapshot_installed(%{}, state, %{}, new()) end
        ] do
      Mirror.clear()
      {other, number} = open(new(), :stale)
      _stale = batch(other, number, :stale, 1, [{:claim, registry, :stale, 7}])
      assert enter.() == []
      assert Mirror.whereis(registry, {:a, self()}) == pid(7)
      assert Mirror.whereis(registry, :b) == :undefined
      assert Mirror.whereis(registry, :stale) == :undefined
    end
  end

  test "a snapshot is taken after so many operations, and after half as many as there are names",
       %{registry: registry} do
    {state, one} = open(new(), :one)
    claims = fn from, to -> for number <- from..to, do: {:claim, registry, number, 7} end
    {state, _answer, effects} = run(state, Machine.batch(one, :one, 1, 1, claims.(1, 40_000)), 17)
    refute List.keymember?(effects, :release_cursor, 0)

    {state, _answer, effects} =
      run(state, Machine.batch(one, :one, 2, 2, claims.(40_001, 200_000)), 18)

    assert {:release_cursor, 18, ^state} = List.keyfind(effects, :release_cursor, 0)
    {state, _answer, effects} = run(state, Machine.batch(one, :one, 3, 3, claims.(1, 99_000)), 19)
    refute List.keymember?(effects, :release_cursor, 0)
    {_state, _answer, effects} = run(state, Machine.batch(one, :one, 4, 4, claims.(1, 1_000)), 20)
    assert List.keymember?(effects, :release_cursor, 0)
  end

  test "the numbers of pids are theirs" do
    for pid <- [self(), spawn(fn -> :ok end), Process.whereis(:init)] do
      assert pid |> Pids.number() |> Pids.pid() == pid
    end
  end

  test "a question of a later version is answered, as one that raises would end the ra server",
       %{registry: registry} do
    {state, _one} = open(new(), :one)
    assert Machine.answer(:overview, [], state) == Machine.overview(state)
    assert Machine.answer(:granted, [registry, :a], state) == nil
    assert Machine.answer(:counts, [], state) == %{:"other@127.0.0.1" => 0}
    assert Machine.answer(:of_a_later_version, [], state) == :unknown_question
    assert Machine.answer(:granted, [], state) == :unknown_question
  end
end
