defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.GlobalLock do
  @moduledoc false
  # Frees the lock of `:global` on this node when its holder does not know that it has it.
  #
  # Another node asks for the lock while this node's `:global_name_server` is busy or hangs, and the
  # connection is lost: the other node counts this one out and never sends the order to free the lock.
  # When the connection is made again before the server comes to that request, it grants the lock and
  # monitors a process that lives, so nothing ever frees it. The two nodes cannot synchronise without
  # that very lock, and no name is registered or freed on this node until they are disconnected again.

  require Logger

  alias WorkflowMetal.Registration.NativeRegistry.Cluster
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Marks

  @server :global_name_server

  # The lock as it was seen, and since when.
  @seen {__MODULE__, :seen}

  # For how long a lock is held before its holder is asked, and how long each answer may take, in
  # milliseconds. A lock that is waited for or held with reason is held for milliseconds as a rule.
  @long 2_000
  @question 1_000

  @doc "Looks at the lock; called each second or so. Others do what takes time."
  @spec attend() :: :ok
  def attend do
    case lock() do
      nil ->
        :ok

      # It holds a reference of its own for each time that it was taken.
      lock ->
        now = System.monotonic_time(:millisecond)

        case Marks.get(@seen) do
          {^lock, since} when now - since >= @long ->
            Marks.put(@seen, {lock, now})
            {:ok, _pid} = Cluster.Application.run(fn -> free_if_forgotten(lock) end)
            :ok

          {^lock, _since} ->
            :ok

          _another ->
            Marks.put(@seen, {lock, now})
        end
    end

    :ok
  end

  # `{requester, holders}`. The table is `:global`'s own and everybody may read it.
  defp lock do
    case :ets.lookup(:global_locks, :global) do
      [{:global, requester, [_ | _] = holders}] -> {requester, holders}
      _free_or_unknown -> nil
    end
  rescue
    # `:global` has ended.
    ArgumentError -> nil
  end

  # The tag of a call: an alias, here of nobody.
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

      # What the holder would send; nobody waits for the answer.
      Kernel.send(
        @server,
        {:"$gen_call", {pid, [:alias | make_ref()]}, {:del_lock, {:global, requester}}}
      )
    end
  end

  # Two nodes that synchronise with each other use the same lock each time, and free it in the end. The
  # requester is both processes then.
  defp synchronising?(requester),
    do: is_list(requester) and Enum.any?(requester, &(is_pid(&1) and node(&1) == node()))

  # A node locks those that its `:global` knows, itself among them. It cannot get to know this one while
  # the lock is held here, so what is found stays true until the lock is freed.
  defp forgotten?(node, requester) do
    known = :gen_server.call({@server, node}, :get_known, @question)
    locks = :erpc.call(node, :ets, :lookup, [:global_locks, :global], @question)

    node() not in known and not Enum.any?(locks, &match?({:global, ^requester, _holders}, &1))
  catch
    # Not connected, or it hangs itself: it is asked again.
    _kind, _reason -> false
  end
end
