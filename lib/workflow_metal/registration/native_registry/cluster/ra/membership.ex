defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Membership do
  @moduledoc false
  # The members of the ra cluster: reading them, and changing one at a time, which is all that ra does.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Identity, Machine}

  # In milliseconds.
  @timeout 2_000
  @pause 100

  @type status :: :voter | :promotable | :non_voter
  @type error :: {:error, :no_quorum | (reason :: term)}

  @doc """
  The members, and the leader that has just been confirmed by a majority: one that was cut off without
  noticing it would answer what was.
  """
  @spec confirmed([Identity.server_id()]) ::
          {:ok, [Identity.server_id()], leader :: Identity.server_id()} | error
  def confirmed(candidates) do
    # Any question does: ra answers it when a majority has confirmed the leader.
    with {:ok, _overview, leader} <- query(candidates, :overview),
         do: answer(ra(:members, [leader, @timeout]))
  end

  @doc "What `Machine.answer/3` says of the state, as a majority has it; and the leader."
  @spec query([Identity.server_id()], atom) ::
          {:ok, term, leader :: Identity.server_id()} | error
  def query(candidates, question) do
    # ra asks one after another, and waits for each.
    connected = [node() | Node.list()]

    case for({_name, node} = id <- candidates, node in connected, do: id) do
      [] -> {:error, :no_quorum}
      # As an MFA: the leader may run another version of this module.
      ids -> answer(ra(:consistent_query, [ids, {Machine, :answer, [question, []]}, @timeout]))
    end
  end

  @doc "How each member takes part, as the leader has it."
  @spec statuses(leader :: Identity.server_id()) ::
          {:ok, %{Identity.server_id() => status}} | error
  def statuses(leader) do
    with {:ok, members, _leader} <- answer(ra(:members_info, [leader, @timeout])) do
      {:ok, Map.new(members, fn {id, info} -> {id, status(info)} end)}
    end
  end

  # Those that the cluster was formed with have none.
  defp status(%{voter_status: %{membership: status}}), do: status
  defp status(_info), do: :voter

  @doc "The members and the voters, as a server knows them without asking the others."
  @spec local(Identity.server_id()) ::
          {:ok, members :: [Identity.server_id()], voters :: [Identity.server_id()]} | error
  def local(id) do
    with {:ok, members, _id} <- answer(ra(:members, [{:local, id}, @timeout])),
         {:ok, voters, _id} <- answer(ra_server(:local_state_query, [id, :voters, @timeout])),
         do: {:ok, members, voters}
  end

  @doc "How far the log of a server goes, in the order in which logs count when a leader is elected."
  @spec log(Identity.server_id()) :: {:ok, {ra_term :: integer, index :: integer}} | error
  def log(id) do
    case answer(ra(:member_overview, [id, @timeout])) do
      {:ok, %{log: %{last_written_index_term: {index, ra_term}}}, _id} -> {:ok, {ra_term, index}}
      {:ok, _of_another_version, _id} -> {:error, :unknown_log}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Makes a server the only member, whatever the others say."
  @spec force_alone(Identity.server_id()) :: :ok | error
  def force_alone(id) do
    case ra_server(:force_shrink_members_to_current_member, [id]) do
      :ok -> :ok
      other -> failed(other)
    end
  end

  @doc "Adds a server, or changes how a member takes part."
  @spec put(leader :: Identity.server_id(), Identity.server_id(), uid :: binary, status) ::
          :ok | error
  def put(leader, id, uid, status) do
    change(fn -> ra(:add_member, [leader, %{id: id, uid: uid, membership: status}, @timeout]) end)
  end

  @spec remove_all(leader :: Identity.server_id(), [Identity.server_id()]) :: :ok | error
  def remove_all(leader, ids) do
    Enum.reduce_while(ids, :ok, fn id, :ok ->
      case change(fn -> ra(:remove_member, [leader, id, @timeout]) end) do
        :ok -> {:cont, :ok}
        error -> {:halt, error}
      end
    end)
  end

  # The leader takes a change when the one before it is committed.
  defp change(function, deadline \\ now() + @timeout) do
    case function.() do
      {:ok, _answer, _leader} ->
        :ok

      {:error, reason} when reason in [:already_member, :not_member] ->
        :ok

      {:error, :cluster_change_not_permitted} = error ->
        if now() < deadline do
          Process.sleep(@pause)
          change(function, deadline)
        else
          error
        end

      other ->
        failed(other)
    end
  end

  defp answer({:ok, answer, server}), do: {:ok, answer, server}
  defp answer(other), do: failed(other)

  defp failed(:timeout), do: {:error, :no_quorum}
  defp failed({:timeout, _server}), do: {:error, :no_quorum}
  defp failed({:error, {:no_more_servers_to_try, _errors}}), do: {:error, :no_quorum}

  defp failed({:error, reason}) when reason in [:noproc, :nodedown, :shutdown],
    do: {:error, :no_quorum}

  defp failed({:error, reason}), do: {:error, reason}

  defp now, do: System.monotonic_time(:millisecond)

  # Without Hex, ra is no dependency that Mix or Dialyzer knows of.
  defp ra(function, arguments), do: call(:ra, function, arguments)
  defp ra_server(function, arguments), do: call(:ra_server_proc, function, arguments)

  defp call(module, function, arguments) do
    apply(module, function, arguments)
  catch
    # The server that was asked has ended meanwhile.
    :exit, _reason -> {:error, :no_quorum}
  end
end
