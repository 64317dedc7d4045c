defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Members do
  @moduledoc false
  # Changes of the members that a person asks for. Each is refused when names or the majority would be
  # lost by it, before anything is changed. `NativeRegistry.Members` has the documentation.
  #
  # Nodes join and leave the members by themselves, see `Server`: a change is only needed to give a node a
  # vote, and when a node is gone for good.

  # The types of the public functions.
  alias WorkflowMetal.Registration.NativeRegistry.Members

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Peers, Tasks}

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{
    Identity,
    Machine,
    Membership,
    Question,
    Server
  }

  # How long another node is waited for, and how long a node may take to get all that the others have
  # before it votes, in milliseconds.
  @wait 2_000
  # How long a connection is tried; the kernel gives up after seven seconds.
  @connect 8_000
  @caught_up 30_000
  @pause 100

  @spec list() :: {:ok, [Members.member()]} | Members.refusal()
  def list do
    with {:ok, id} <- own() do
      case Membership.confirmed(Server.candidates()) do
        {:ok, _members, leader} -> list(leader, leader)
        # What this node knows is all that there is.
        {:error, _no_quorum} -> list(id, nil)
      end
    end
  end

  defp list(asked, leader) do
    with {:ok, members, voters} <- checked(Membership.local(asked)) do
      names =
        case Question.ask(:counts, []) do
          {:ok, names} -> names
          :error -> %{}
        end

      identities = identities(nodes(members))

      list =
        for {_name, node} = id <- members do
          %{
            node: node,
            voter?: id in voters,
            leader?: id == leader,
            reachable?: match?(%{^node => %{id: ^id}}, identities),
            names: Map.get(names, node, 0)
          }
        end

      {:ok, Enum.sort_by(list, & &1.node)}
    else
      {:error, refusal} -> {:error, refusal}
    end
  end

  @spec add(node) :: :ok | Members.refusal()
  def add(node) do
    with {:ok, _id} <- own(),
         {:ok, members, leader} <- quorum(),
         {:ok, %{id: id, uid: uid}} <- running_member(node, members),
         {:ok, statuses} <- checked(Membership.statuses(leader)) do
      if statuses[id] == :voter, do: :ok, else: give_vote(node, id, uid, leader)
    else
      {:error, refusal} -> {:error, refusal}
    end
  end

  defp give_vote(node, id, uid, leader) do
    case checked(Membership.put(leader, id, uid, :promotable)) do
      :ok -> await_vote(node, id, now() + @caught_up)
      {:error, refusal} -> {:error, refusal}
    end
  end

  # It votes when it has the whole log.
  defp await_vote(node, id, deadline) do
    with {:ok, _members, leader} <- Membership.confirmed(Server.candidates()),
         {:ok, %{^id => :voter}} <- Membership.statuses(leader) do
      :ok
    else
      _not_yet ->
        if now() < deadline do
          Process.sleep(@pause)
          await_vote(node, id, deadline)
        else
          refuse(
            :not_caught_up,
            "#{inspect(node)} gets its vote when it has all that the others have; that takes longer " <>
              "than #{@caught_up} ms, look at list/0 later"
          )
        end
    end
  end

  @spec remove(node) :: :ok | Members.refusal()
  def remove(node) do
    with {:ok, _id} <- own(),
         {:ok, members, leader} <- quorum(),
         {:ok, ids} <- removable(node, members),
         :ok <- checked(Membership.remove_all(leader, ids)) do
      :ok
    else
      {:error, refusal} -> {:error, refusal}
    end
  end

  @spec replace(old :: node, new :: node) :: :ok | Members.refusal()
  def replace(old, new) do
    # Both are checked before anything is changed. The new one first: a node that cannot be added leaves
    # the members as they were.
    with {:ok, _id} <- own(),
         {:ok, members, _leader} <- quorum(),
         {:ok, _ids} <- removable(old, members),
         :ok <- add(new) do
      remove(old)
    else
      {:error, refusal} -> {:error, refusal}
    end
  end

  defp removable(node, members) do
    ids = for {_name, ^node} = id <- members, do: id

    cond do
      ids == [] ->
        refuse(
          :not_a_member,
          "#{inspect(node)} is no member; the members are #{inspect(nodes(members))}"
        )

      identity(node) not in [:no_member, :no_answer] ->
        refuse(
          :still_running,
          "#{inspect(node)} runs, and would join again: stop its registries first, or the node"
        )

      true ->
        removable_without_names(node, ids)
    end
  end

  # A node that is cut off from this one may be connected with the others.
  defp removable_without_names(node, ids) do
    with {:ok, counts, _leader} <- checked(Membership.query(Server.candidates(), :counts)) do
      case counts do
        %{^node => count} when count > 0 ->
          refuse(
            :holds_names,
            "#{inspect(node)} holds #{count} names. A node that is gone loses them at most " <>
              "#{Machine.expiry(Server.lease())} ms after it; one that is not is removed after it was " <>
              "stopped"
          )

        _none ->
          {:ok, ids}
      end
    else
      {:error, refusal} -> {:error, refusal}
    end
  end

  @spec force_alone() :: :ok | Members.refusal()
  def force_alone do
    with {:ok, id} <- own(),
         :ok <- no_quorum(),
         {:ok, members, voters} <- checked(Membership.local(id)),
         :ok <- votes(id, voters),
         :ok <- foremost(id, voters),
         # A node that cannot be heard of may hold names under a lease that this server has never heard
         # of: the members that are lost had granted it. It has run out when no majority has answered for so
         # long.
         Process.sleep(Machine.expiry(Server.lease())),
         :ok <- no_quorum(),
         :ok <- foremost(id, voters) do
      _ = Membership.force_alone(id)
      await_alone(id, members, now() + @caught_up)
    else
      {:error, refusal} -> {:error, refusal}
    end
  end

  defp no_quorum do
    case Membership.confirmed(Server.candidates()) do
      {:error, _reason} ->
        :ok

      {:ok, members, _leader} ->
        refuse(
          :has_quorum,
          "a majority of the voters answers, so nothing has to be forced: use remove/1 or replace/2; " <>
            "the members are #{inspect(nodes(members))}"
        )
    end
  end

  defp votes(id, voters) do
    if id in voters do
      :ok
    else
      refuse(
        :not_a_voter,
        "#{inspect(node())} has no vote, so that it may lack what the voters had agreed on: call this on " <>
          "one of #{inspect(nodes(voters))}"
      )
    end
  end

  # Of the voters that are left, the one with the longest log has the most of what was agreed on.
  defp foremost(id, voters) do
    with {:ok, own} <- checked(Membership.log(id)) do
      # One that is not connected at this moment is not lost.
      _ = Tasks.map(nodes(voters), &Node.connect/1, @connect)
      identities = identities(nodes(voters))

      logs =
        for {_name, node} = other <- voters,
            other != id,
            match?(%{^node => %{id: ^other}}, identities),
            do: {node, Membership.log(other)}

      ahead = for {node, {:ok, log}} <- logs, log > own, do: node
      unread = for {node, {:error, reason}} <- logs, do: {node, reason}

      case {ahead, unread} do
        {[], []} ->
          :ok

        {[ahead | _others], _unread} ->
          refuse(
            :behind,
            "#{inspect(ahead)} is left too and has more than #{inspect(node())} of what was agreed on, " <>
              "which would be lost: call this there"
          )

        {[], [{node, reason} | _others]} ->
          refuse(
            :failed,
            "#{inspect(node)} is left too and does not say how much it has of what was agreed on: " <>
              inspect(reason)
          )
      end
    else
      {:error, refusal} -> {:error, refusal}
    end
  end

  defp await_alone(id, members, deadline) do
    case Membership.confirmed([id]) do
      {:ok, [^id], ^id} ->
        :ok

      _not_yet ->
        if now() < deadline do
          Process.sleep(@pause)
          await_alone(id, members, deadline)
        else
          refuse(:failed, "the members are still #{inspect(nodes(members))}")
        end
    end
  end

  defp own do
    with nil <- Server.id() do
      refuse(
        :not_running,
        "#{inspect(node())} has no ra server: it runs no registry with cluster: {:ra, options}, or is " <>
          "not a member yet"
      )
    else
      id -> {:ok, id}
    end
  end

  defp quorum, do: checked(Membership.confirmed(Server.candidates()))

  defp running_member(node, members) do
    case identity(node) do
      %{phase: :started, id: id} = identity ->
        if id in members, do: {:ok, identity}, else: not_joined(node)

      %{phase: :offered} ->
        not_joined(node)

      :no_member ->
        refuse(
          :not_reachable,
          "#{inspect(node)} runs no registry with cluster: {:ra, options}: start one there first, and " <>
            "it joins without a vote"
        )

      :no_answer ->
        refuse(
          :not_reachable,
          "#{inspect(node)} does not answer: start it first, and it joins without a vote"
        )
    end
  end

  defp not_joined(node),
    do: refuse(:not_joined, "#{inspect(node)} runs and has not joined yet: try again in a moment")

  defp identity(node), do: identities([node])[node]

  defp identities(nodes) do
    others = nodes |> Enum.uniq() |> List.delete(node())
    answers = Peers.ra_identities(others, @wait)
    if node() in nodes, do: Map.put(answers, node(), Server.answer()), else: answers
  end

  @spec nodes([Identity.server_id()]) :: [node]
  defp nodes(ids), do: Enum.uniq(for {_name, node} <- ids, do: node)

  defp checked({:error, :no_quorum}) do
    refuse(
      :no_quorum,
      "no majority of the voters answers. When it comes back, all goes on by itself; when it is lost for " <>
        "good, see force_alone/0"
    )
  end

  defp checked({:error, reason}), do: refuse(:failed, inspect(reason))
  defp checked(answer), do: answer

  defp refuse(reason, explanation), do: {:error, {reason, explanation}}

  defp now, do: System.monotonic_time(:millisecond)
end
