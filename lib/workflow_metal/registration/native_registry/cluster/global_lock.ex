defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.GlobalLock do
  @moduledoc false
  # Frees the lock of `:global` on this node when its holder does not know that it holds it.
  #
  # Another node asks for the lock while this node's `:global_name_server` is busy or hangs, and then the
  # connection is lost. The other node counts this node out and never asks it to free the lock. When the
  # connection is made again before the server gets to that request, the server grants the lock and
  # monitors a process that is alive, so nothing frees it. The two nodes need that lock to synchronise,
  # and no name is registered or freed on this node until they are disconnected again.

  require Logger

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Tasks

  @server :global_name_server

  # For how long a lock is held before its holder is asked, and how long each answer may take, in
  # milliseconds. Usually a lock is held for milliseconds.
  @long 2_000
  @question 1_000

  @typedoc "A lock that was found, and since when."
  @type seen :: {lock :: term, since :: integer} | nil

  @doc """
  Looks at the lock, and has it freed if need be. Called each second or so with the previous answer.
  """
  @spec attend(seen | []) :: seen
  def attend(seen) do
    now = System.monotonic_time(:millisecond)

    case {lock(), seen} do
      {nil, _seen} ->
        nil

      # A lock that is taken again has another reference.
      {lock, {lock, since}} when now - since >= @long ->
        {:ok, _pid} = Tasks.run(fn -> free_if_forgotten(lock) end)
        {lock, now}

      {lock, {lock, since}} ->
        {lock, since}

      {lock, _another_lock} ->
        {lock, now}
    end
  end

  # `{requester, holders}`, from the table of `:global`, which every process may read.
  defp lock do
    case :ets.lookup(:global_locks, :global) do
      [{:global, requester, [_ | _] = holders}] -> {requester, holders}
      _free_or_unknown -> nil
    end
  rescue
    # `:global` has ended.
    ArgumentError -> nil
  end

  # The tag of a call with an alias is an improper list.
  @dialyzer {:no_improper_lists, free_if_forgotten: 1}
  defp free_if_forgotten({requester, holders} = lock) do
    for {pid, _monitor} <- holders,
        is_pid(pid) and node(pid) != node(),
        not synchronising?(requester),
        forgotten?(node(pid), requester),
        lock() == lock do
      Logger.warning(
        "#{inspect(pid)} of #{node(pid)} holds the lock of :global on #{node()} and does not know it; " <>
          "it is freed"
      )

      # What the holder would send. The alias in it belongs to no process, as no process waits for the answer.
      send(
        @server,
        {:"$gen_call", {pid, [:alias | make_ref()]}, {:del_lock, {:global, requester}}}
      )
    end
  end

  # Two nodes that synchronise with each other use the same lock each time, and free it in the end. Its
  # requester is a list of one process on each node.
  defp synchronising?(requester),
    do: is_list(requester) and Enum.any?(requester, &(is_pid(&1) and node(&1) == node()))

  # A node locks the nodes that its `:global` knows and itself. It cannot learn of this node while the lock
  # is held here, so the finding stays true until the lock is freed.
  defp forgotten?(node, requester) do
    known = :gen_server.call({@server, node}, :get_known, @question)
    locks = :erpc.call(node, :ets, :lookup, [:global_locks, :global], @question)

    node() not in known and not Enum.any?(locks, &match?({:global, ^requester, _holders}, &1))
  catch
    # The node is not connected, or hangs itself. It is asked again later.
    _kind, _reason -> false
  end
end
