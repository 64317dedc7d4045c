defmodule WorkflowMetal.Registration.NativeRegistry.Ra.LeaseCheckTest do
  # The check of histories reports each fault that it is there for, and nothing of the unchanged code.
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.{Nodes, Rounds, Scenarios}

  @moduletag :ra
  @moduletag :nodes

  defp start(options \\ []) do
    cluster = Nodes.start(options)
    on_exit(fn -> if Process.alive?(cluster.agent), do: Nodes.stop(cluster) end)
    cluster
  end

  for {mutant, scenario, kinds} <- [
        {:expiry_shorter_than_the_lease, :isolated_follower, [:held_twice, :found_twice]},
        {:freed_at_nodedown, :isolated_follower, [:held_twice, :found_twice]},
        {:lease_from_the_answer, :late_answer, [:held_twice, :found_twice]},
        {:timers_of_the_first_leader_only, :dead_leader, [:blocked]},
        {:lease_not_checked, :late_fence, [:held_twice, :found_twice]}
      ] do
    test "reports the mutant #{mutant}" do
      cluster = start()
      apply(Scenarios, unquote(scenario), [cluster])
      Nodes.settle(cluster)
      assert_none(cluster, Nodes.violations(cluster))

      assert_reported(unquote(kinds), fn attempt ->
        if attempt > 1, do: Nodes.settle(cluster)
        Nodes.forget(cluster)
        Nodes.mutate(cluster, unquote(mutant))
        apply(Scenarios, unquote(scenario), [cluster])
        Nodes.violations(cluster)
      end)
    end
  end

  # The mutant is in the code of the nodes from their start on, as it is about their identity.
  test "reports the mutant wiped_member_keeps_its_name" do
    unchanged = start(lease: 4_000)
    Scenarios.wiped_member(unchanged)
    Nodes.settle(unchanged)
    assert_none(unchanged, Nodes.violations(unchanged))
    Nodes.stop(unchanged)

    assert_reported([:held_twice], fn _attempt ->
      mutant = start(lease: 6_000, mutant: :wiped_member_keeps_its_name)
      Scenarios.wiped_member(mutant)
      violations = Nodes.violations(mutant)
      Nodes.stop(mutant)
      violations
    end)
  end

  # What a total restart has to keep is that tokens grow, although all leases are new.
  for {what, scenario} <- [
        {"all nodes are killed and started again", :total_restart},
        {"the leader is paused for longer than its session lives", :paused_leader},
        {"one link of three is cut", :cut_link},
        {"nodes are upgraded one after another under load", :rolling_upgrade}
      ] do
    test "finds nothing when #{what}" do
      cluster = start()
      apply(Scenarios, unquote(scenario), [cluster])
      Nodes.settle(cluster)
      assert_none(cluster, Nodes.violations(cluster))
    end
  end

  for seed <- [1, 2] do
    test "finds nothing in the random round #{seed}" do
      case Rounds.round(unquote(seed), steps: 6) do
        {:ok, holds} -> assert holds > 0
        {:error, text} -> flunk(text)
      end
    end
  end

  defp assert_none(cluster, violations) do
    if violations != [], do: flunk(Nodes.report(cluster, violations))
  end

  # On a busy machine a lease may run out before the fault, so that there is nothing to see.
  defp assert_reported(kinds, scenario, attempt \\ 1) do
    violations = scenario.(attempt)
    reported = for violation <- violations, do: violation.kind

    cond do
      kinds -- reported == [] -> :ok
      attempt < 4 -> assert_reported(kinds, scenario, attempt + 1)
      true -> flunk("not all of #{inspect(kinds)} were reported: #{inspect(violations)}")
    end
  end
end
