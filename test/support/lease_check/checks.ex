defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Checks do
  @moduledoc false
  # What has to hold of a history, whatever happened to the nodes. A history is a list of pairs of a node and
  # a row of its `History`.

  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.History

  @type violation :: %{:kind => atom, :name => term, :text => String.t(), optional(:ms) => float}

  @spec violations([{node :: term, History.row()}]) :: [violation]
  def violations(history) do
    holds =
      for {node, {{:hold, _}, name, kind, pid, asked, granted, token, vf, vl, ff, fl, ended}} <-
            history do
        %{
          node: node,
          name: name,
          kind: kind,
          pid: pid,
          asked: asked,
          granted: granted,
          token: token,
          valid: vf && {vf, vl},
          found: ff && {ff, fl},
          ended: ended
        }
      end

    Enum.concat([
      overlaps(holds, :valid),
      overlaps(holds, :found),
      tokens(holds),
      for(
        {node, {{:wrong, _}, name, pid, _time, what}} <- history,
        do: wrong(node, name, pid, what)
      )
    ])
  end

  # No two processes hold a name at the same time and pass the check of the lease, or are found by their own
  # node.
  defp overlaps(holds, track) do
    for {name, holds} <- Enum.group_by(holds, & &1.name),
        violation <- overlaps_of(name, track, Enum.filter(holds, & &1[track])),
        do: violation
  end

  defp overlaps_of(name, track, holds) do
    {violations, _latest} =
      holds
      |> Enum.sort_by(& &1[track])
      |> Enum.flat_map_reduce(nil, fn hold, latest ->
        {first, last} = hold[track]

        cond do
          latest == nil ->
            {[], hold}

          first < elem(latest[track], 1) ->
            common = min(last, elem(latest[track], 1)) - first
            {[overlap(name, track, latest, hold, common)], later(latest, hold, track)}

          true ->
            {[], later(latest, hold, track)}
        end
      end)

    violations
  end

  defp later(one, other, track), do: Enum.max_by([one, other], &elem(&1[track], 1))

  defp overlap(name, track, one, other, common) do
    ms = common / 1_000_000

    %{
      kind: if(track == :valid, do: :held_twice, else: :found_twice),
      name: name,
      ms: ms,
      text:
        "#{text(one)} and #{text(other)} held it together for at least #{Float.round(ms, 3)} ms" <>
          if(track == :found, do: ", by the lookups of their nodes", else: ", with a valid lease")
    }
  end

  # A token is greater than all that were granted before it was asked for, of any name.
  defp tokens(holds) do
    holds = Enum.filter(holds, & &1.token)

    events =
      for(hold <- holds, event <- [{hold.granted, 1, hold}, {hold.asked, 0, hold}], do: event)

    {violations, _greatest} =
      events
      |> Enum.sort_by(fn {time, kind, _hold} -> {time, kind} end)
      |> Enum.flat_map_reduce({%{}, nil}, fn
        # What was the greatest when it asked.
        {_time, 0, hold}, {asked, greatest} ->
          {[], {Map.put(asked, key(hold), greatest), greatest}}

        {_time, 1, hold}, {asked, greatest} ->
          violations =
            case asked[key(hold)] do
              %{token: token} = before when token >= hold.token -> [disorder(before, hold)]
              _none -> []
            end

          {violations, {asked, Enum.max_by(Enum.reject([greatest, hold], &is_nil/1), & &1.token)}}
      end)

    violations
  end

  defp key(hold), do: {hold.node, hold.pid, hold.asked, hold.granted}

  defp disorder(before, hold) do
    %{
      kind: :token_not_greater,
      name: hold.name,
      text:
        "#{text(hold)} has the token #{hold.token}, and #{text(before)} had #{before.token} for " <>
          "#{inspect(before.name)} before"
    }
  end

  defp wrong(node, name, pid, what) do
    kind = if is_atom(what), do: what, else: elem(what, 0)
    %{kind: kind, name: name, text: "#{inspect(pid)} on #{inspect(node)}: #{inspect(what)}"}
  end

  defp text(hold), do: "#{inspect(hold.pid)} (#{hold.kind}) on #{inspect(hold.node)}"

  @doc "What was done with the name, for a report."
  def history_of(history, name) do
    events =
      for {node, row} <- history, elem(row, 1) == name, event <- events(node, row), do: event

    sorted = Enum.sort(events)
    start = with [{time, _} | _] <- sorted, do: time

    for {time, text} <- sorted,
        do: "    #{Float.round((time - start) / 1_000_000, 3)} ms #{text}\n"
  end

  defp events(node, {{:hold, _}, _name, kind, pid, _asked, granted, token, vf, vl, ff, fl, ended}) do
    text = "#{inspect(pid)} (#{kind}) on #{inspect(node)}"

    [
      {granted, "#{text} has it, token #{inspect(token)}"},
      vl && {vl, "#{text} was valid last, first at #{vf}"},
      fl && {fl, "#{text} was found last, first at #{ff}"},
      ended && {elem(ended, 0), "#{text} #{elem(ended, 1)}"}
    ]
    |> Enum.filter(& &1)
  end

  defp events(node, {{:wrong, _}, _name, pid, time, what}),
    do: [{time, "#{inspect(pid)} on #{inspect(node)} WRONG #{inspect(what)}"}]

  defp events(_node, {{:attempt, _}, _name, _asked, nil, nil}), do: []
  defp events(_node, {{:attempt, _}, _name, _, _, {:error, {:already_registered, _}}}), do: []

  defp events(node, {{:attempt, _}, _name, asked, answered, answer}),
    do: [
      {answered,
       "on #{inspect(node)} answer #{inspect(answer)} after #{div(answered - asked, 1_000)} us"}
    ]
end
