defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Formation do
  @moduledoc false
  # What a node whose ra server has never been started does next, by what the voters answer.
  #
  # A cluster is formed once, by the first of the voters in the order of their names, and only when all
  # of them have answered that they are empty too. It writes the members to disk, starts its server with
  # them, and from then on answers that it has been started. The others start theirs when they hear of
  # it, however often they crash before: their offers stay the same as long as their folders do.
  #
  # A voter that does not answer may have been a member. Without its answer nothing is formed.
  #
  # The voters may all have been members of a cluster and have lost their data. A node that has no vote may
  # still hold names of that cluster, as long as its lease lasts. So the first voter waits for that long, from
  # when it has seen that no voter can renew that lease.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Identity

  @typedoc "What a node answers of itself, see `Remote.ra_identity/0`."
  @type answer ::
          %{phase: :offered, id: Identity.server_id(), uid: binary, voters: [node]}
          | %{
              phase: :started,
              id: Identity.server_id(),
              uid: binary,
              first: [Identity.server_id()],
              members: [Identity.server_id()],
              leader: Identity.server_id() | nil
            }
          | :no_member
          | :no_answer

  @type decision ::
          {:form, first :: [Identity.server_id()]}
          | {:start, first :: [Identity.server_id()]}
          | {:join, members :: [Identity.server_id()]}
          | {:wait, reason :: String.t()}

  @doc "The decision of the node of `id`, by the answers of the other voters."
  @spec decide(Identity.server_id(), voters :: [node], %{node => answer}) :: decision
  def decide({_name, node} = id, voters, answers) do
    started = for {_node, %{phase: :started} = answer} <- answers, do: answer
    silent = for {node, answer} <- answers, answer in [:no_member, :no_answer], do: node

    differing =
      for {node, %{phase: :offered, voters: other}} <- answers, other != voters, do: node

    cond do
      formed = Enum.find(started, &(id in &1.first)) ->
        {:start, formed.first}

      started != [] ->
        {:join, started |> Enum.flat_map(& &1.members) |> Enum.uniq()}

      silent != [] ->
        {:wait, "no answer from #{inspect(silent)}: they may have the data of the cluster"}

      node not in voters ->
        {:wait, "the nodes #{inspect(voters)} have not formed a cluster yet"}

      differing != [] ->
        {:wait, "#{inspect(differing)} were given other nodes than #{inspect(voters)}"}

      node != hd(voters) ->
        {:wait, "#{inspect(hd(voters))} has not formed the cluster yet"}

      true ->
        {:form, Enum.sort([id | for({_node, answer} <- answers, do: answer.id)])}
    end
  end

  @doc """
  The members of a cluster that has a leader and goes on without the server of `id`, if one of the
  answers is of such a cluster. A majority has to confirm it.
  """
  @spec without(Identity.server_id(), %{node => answer}) :: [Identity.server_id()] | nil
  def without(id, answers) do
    Enum.find_value(answers, fn
      {_node, %{phase: :started, leader: {_, _}, members: members}} ->
        if id not in members, do: members

      _other ->
        nil
    end)
  end
end
