defmodule WorkflowMetal.Registration.NativeRegistry.Ra.LeaseChecksTest do
  # What the check reports of histories that are made up here.
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Checks

  @ms 1_000_000

  # A hold from the first to the last sample, in milliseconds; asked for one before.
  defp hold(node, name, first, last, options \\ []) do
    valid = Keyword.get(options, :valid, true)
    found = Keyword.get(options, :found, true)

    {node,
     {{:hold, System.unique_integer()}, name, :bare, {:pid, System.unique_integer()},
      (first - 2) * @ms, (first - 1) * @ms, options[:token], valid && first * @ms,
      valid && last * @ms, found && first * @ms, found && last * @ms, nil}
     |> nils()}
  end

  defp nils(row), do: row |> Tuple.to_list() |> Enum.map(&(&1 || nil)) |> List.to_tuple()

  defp kinds(history), do: for(violation <- Checks.violations(history), do: violation.kind)

  test "two holders of one name that overlap, whichever nodes they are on" do
    assert kinds([hold(1, :a, 10, 20), hold(2, :a, 20, 30)]) == []
    assert kinds([hold(1, :a, 10, 20), hold(2, :b, 15, 30)]) == []
    assert [:held_twice, :found_twice] = kinds([hold(1, :a, 10, 20), hold(2, :a, 19, 30)])
    assert [:held_twice, :found_twice] = kinds([hold(1, :a, 10, 20), hold(1, :a, 12, 13)])
    # The third one overlaps the first one alone.
    history = [hold(1, :a, 10, 40), hold(2, :a, 12, 13), hold(3, :a, 35, 50)]
    assert length(kinds(history)) == 4
  end

  test "only what was noted of the lease, or by lookups, counts" do
    assert [:held_twice] = kinds([hold(1, :a, 10, 20, found: false), hold(2, :a, 15, 30)])
    assert [:found_twice] = kinds([hold(1, :a, 10, 20), hold(2, :a, 15, 30, valid: false)])
    assert [] = kinds([hold(1, :a, 10, 20, valid: false, found: false), hold(2, :a, 15, 30)])

    assert [%{kind: :held_twice, ms: 5.0}] =
             Checks.violations([
               hold(1, :a, 10, 20, found: false),
               hold(2, :a, 15, 30, found: false)
             ])
  end

  test "a token that is not greater than one that was granted before it was asked for" do
    assert [] = kinds([hold(1, :a, 10, 20, token: 1), hold(2, :a, 30, 40, token: 2)])

    assert [:token_not_greater] =
             kinds([hold(1, :a, 10, 20, token: 2), hold(2, :a, 30, 40, token: 2)])

    assert [:token_not_greater] =
             kinds([hold(1, :a, 10, 20, token: 3), hold(2, :b, 30, 40, token: 2)])

    # Both at once: either may be the greater one.
    assert [] = kinds([hold(1, :a, 10, 20, token: 3), hold(2, :b, 10, 40, token: 2)])
    # Not known.
    assert [] =
             kinds([
               hold(1, :a, 10, 20, token: 3),
               hold(2, :a, 30, 40),
               hold(3, :a, 50, 60, token: 4)
             ])
  end

  test "what a holder has found wrong itself" do
    row = {{:wrong, 1}, :a, self(), 0, :registered_after_it_was_refused}
    assert [:registered_after_it_was_refused] = kinds([{1, row}])
    row = {{:wrong, 1}, :a, self(), 0, {:held_but_not_found, {:hold, 1}}}
    assert [:held_but_not_found] = kinds([{1, row}])
  end
end
