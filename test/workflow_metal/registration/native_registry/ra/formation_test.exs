defmodule WorkflowMetal.Registration.NativeRegistry.Ra.FormationTest do
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Formation

  @voters [:a@h, :b@h, :c@h]
  @first [{:a1, :a@h}, {:b1, :b@h}, {:c1, :c@h}]

  defp offered(id, voters \\ @voters),
    do: %{phase: :offered, id: id, uid: "uid", voters: voters}

  defp started(id, options \\ []) do
    options = Keyword.merge([first: @first, members: @first, leader: nil], options)
    Map.merge(%{phase: :started, id: id, uid: "uid"}, Map.new(options))
  end

  test "the first voter forms the cluster when all others are empty, and nobody else does" do
    answers = %{b@h: offered({:b1, :b@h}), c@h: offered({:c1, :c@h})}
    assert Formation.decide({:a1, :a@h}, @voters, answers) == {:form, @first}

    answers = %{a@h: offered({:a1, :a@h}), c@h: offered({:c1, :c@h})}
    assert {:wait, _reason} = Formation.decide({:b1, :b@h}, @voters, answers)

    answers = Map.put(answers, :b@h, offered({:b1, :b@h}))
    assert {:wait, _reason} = Formation.decide({:d1, :d@h}, @voters, answers)
  end

  test "a voter that does not answer, or runs no registry, is waited for" do
    for silent <- [:no_answer, :no_member] do
      answers = %{b@h: offered({:b1, :b@h}), c@h: silent}
      assert {:wait, reason} = Formation.decide({:a1, :a@h}, @voters, answers)
      assert reason =~ ":c@h"
    end
  end

  test "a node that was given other voters is named, and nothing is formed" do
    answers = %{b@h: offered({:b1, :b@h}), c@h: offered({:c1, :c@h}, [:c@h])}
    assert {:wait, reason} = Formation.decide({:a1, :a@h}, @voters, answers)
    assert reason =~ "[:c@h]"
  end

  test "a node alone on the list forms the cluster of one" do
    assert Formation.decide({:a1, :a@h}, [:a@h], %{}) == {:form, [{:a1, :a@h}]}
  end

  test "a node whose offer was taken starts with the first members, although another one is silent" do
    for {id, node} <- [{{:b1, :b@h}, :b@h}, {{:c1, :c@h}, :c@h}] do
      answers = %{a@h: started({:a1, :a@h}), b@h: :no_answer, c@h: :no_answer}
      answers = Map.delete(answers, node)
      assert Formation.decide(id, @voters, answers) == {:start, @first}
    end

    # Also when the members are others meanwhile: all of the first start the same.
    members = @first ++ [{:d1, :d@h}]
    answers = %{a@h: started({:a1, :a@h}, members: members), c@h: :no_answer}
    assert Formation.decide({:b1, :b@h}, @voters, answers) == {:start, @first}
  end

  test "a node that comes with another name than it had joins, whatever the others say" do
    answers = %{a@h: started({:a1, :a@h}), b@h: offered({:b1, :b@h})}
    assert Formation.decide({:c2, :c@h}, @voters, answers) == {:join, @first}

    # The first voter too: the cluster that it had formed is there.
    answers = %{b@h: started({:b1, :b@h}), c@h: offered({:c1, :c@h})}
    assert Formation.decide({:a2, :a@h}, @voters, answers) == {:join, @first}
  end

  test "a node that is on no list joins what the voters have formed" do
    answers = %{a@h: started({:a1, :a@h}), b@h: started({:b1, :b@h}), c@h: :no_answer}
    assert Formation.decide({:d1, :d@h}, @voters, answers) == {:join, @first}
  end

  test "a server is not wanted when a cluster with a leader goes on without it" do
    without = [{:a1, :a@h}, {:b1, :b@h}]
    id = {:c1, :c@h}
    leader = {:a1, :a@h}

    assert Formation.without(id, %{a@h: started(leader, members: without, leader: leader)}) ==
             without

    # What was may be all that a node without a leader knows.
    assert Formation.without(id, %{a@h: started(leader, members: without)}) == nil
    assert Formation.without(id, %{a@h: started(leader, leader: leader)}) == nil
    assert Formation.without(id, %{a@h: :no_answer, b@h: :no_member}) == nil
  end
end
