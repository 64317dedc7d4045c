defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Ending do
  @moduledoc false
  # Ends many holders politely: each by its supervisor, which neither restarts nor counts what it has
  # terminated itself.
  #
  # The order is put into the supervisor's mailbox without waiting for it. So the supervisor reads it before
  # the signal that the child has ended, whatever ends the child: when the `Fence` kills the child in the
  # end, the supervisor does not take that for a crash.

  require Logger

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Evictor, Report, Tasks}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Options
  alias WorkflowMetal.Registration.NativeRegistry.Table

  # How many holders one process asks about their supervisors. A holder that does not answer delays these.
  @group 200

  @doc "Starts it, for these holders."
  @spec start([pid]) :: {:ok, pid}
  def start(holders) do
    Tasks.run(fn ->
      among = MapSet.new(holders)
      {:ok, _pid} = Tasks.run(fn -> report(among) end)

      for group <- Enum.chunk_every(holders, @group),
          do: {:ok, _pid} = Tasks.run(fn -> end_group(group, among) end)
    end)
  end

  # What runs beneath another holder ends with it.
  defp end_group(holders, among) do
    highest = for pid <- holders, not Enum.any?(Evictor.ancestors(pid), &(&1 in among)), do: pid

    for {supervisor, pids} <- Enum.group_by(highest, &Evictor.supervisor/1) do
      {:ok, _pid} =
        Tasks.run(fn ->
          if supervisor,
            do: Evictor.end_children(supervisor, pids),
            else: Enum.each(pids, &end_by_itself/1)
        end)
    end
  end

  defp end_by_itself(pid) do
    case Process.info(pid, :trap_exit) do
      {:trap_exit, true} -> :sys.terminate(pid, {:shutdown, :no_quorum}, :infinity)
      {:trap_exit, false} -> Process.exit(pid, {:shutdown, :no_quorum})
      nil -> :ok
    end
  catch
    # It has ended meanwhile.
    :exit, _reason -> :ok
  end

  # The names are listed before they are free; in a large table that takes longer than it takes to end
  # the first holders, whose names are missing then.
  defp report(holders) do
    for registry <- Options.registries(),
        {name, pid} <- held(registry),
        pid in holders,
        do: Report.fenced(registry, name, pid, :no_quorum)

    Logger.warning(
      "no majority of the registry's cluster has renewed the lease of this node in time: the " <>
        "#{MapSet.size(holders)} processes here that hold names are ended"
    )
  end

  defp held(registry) do
    Table.held(registry)
  rescue
    # It is suspended, or was closed.
    ArgumentError -> []
  end
end
