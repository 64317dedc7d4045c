defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.System do
  @moduledoc false
  # The ra system of this node, which has the disk, and the one ra server in it.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Identity, Machine}

  @system :native_registry
  @cluster :native_registry

  # What the log has since its file was begun is in memory, on each member. About 20,000 registrations.
  @wal_bytes 4_000_000

  # In milliseconds.
  @timeout 1_000

  # ra logs each election and each file at `:debug` and `:info`.
  @level :warning

  @doc "Starts ra and the system in the folder, unless it runs there."
  @spec start(Path.t(), fsync? :: boolean) :: :ok | {:error, reason :: term}
  def start(directory, fsync?) do
    quiet()
    {:ok, _started} = Application.ensure_all_started(:ra)
    File.mkdir_p!(directory)
    sync_method = if fsync?, do: :datasync, else: :none

    config =
      Map.merge(ra_system(:default_config, []), %{
        name: @system,
        names: ra_system(:derive_names, [@system]),
        data_dir: to_charlist(directory),
        wal_data_dir: to_charlist(directory),
        wal_max_size_bytes: @wal_bytes,
        wal_sync_method: sync_method
      })

    # One of another folder, or with another method, was left by a process that was killed.
    unless ra_system(:fetch, [@system]) in [:undefined, config], do: stop()

    case ra_system(:start, [config]) do
      {:ok, _pid} -> :ok
      {:error, {:already_started, _pid}} -> :ok
      {:error, reason} -> {:error, reason}
    end
  end

  @spec stop() :: :ok
  def stop do
    _ = if ra_system(:fetch, [@system]) != :undefined, do: ra_system(:stop, [@system])
    :ok
  end

  @doc "Starts a server that has never been started."
  @spec start_server(Identity.t()) :: :ok | {:error, reason :: term}
  def start_server(%{id: {name, _node} = id, uid: uid} = identity) do
    config = %{id: id, uid: uid, membership: identity.membership}

    # A start that was cut short may have left it in ra's list of servers. Since 2.16 ra starts none that is there.
    _ = apply(:ra_directory, :unregister_name, [@system, uid])

    # ra writes down which servers it has after their start, half a second later. After a crash in between
    # it would throw the server's data away.
    {:ok, servers} = ra_system(:lookup_name, [@system, :directory_rev])
    :ok = :dets.insert(servers, {name, uid})
    :ok = :dets.sync(servers)
    ra(:start_server, [@system, @cluster, config, machine(), identity.members])
  end

  @spec restart_server(Identity.t()) :: :ok | {:error, :not_there | (reason :: term)}
  def restart_server(%{id: id}) do
    case ra(:restart_server, [@system, id]) do
      :ok -> :ok
      {:error, {:already_started, _pid}} -> :ok
      # It is not in the list of the servers, or its folder is gone.
      {:error, reason} when reason in [:name_not_registered, :enoent] -> {:error, :not_there}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc "Has the server ask for votes, unless it has none itself. It becomes no candidate when others refuse."
  @spec elect(Identity.server_id()) :: :ok
  def elect(id) do
    _ = ra(:trigger_election, [id, @timeout])
    :ok
  catch
    # It has ended, or is busy.
    :exit, _reason -> :ok
  end

  @doc "The leader and the members, as far as the server of this node knows."
  @spec known() :: {leader :: Identity.server_id() | nil, [Identity.server_id()]}
  def known do
    leader = apply(:ra_leaderboard, :lookup_leader, [@cluster])
    members = apply(:ra_leaderboard, :lookup_members, [@cluster])
    {if(leader != :undefined, do: leader), if(members != :undefined, do: members, else: [])}
  end

  defp machine, do: {:module, Machine, %{}}

  # Unless the user wants to see it: a level that was set for ra stays, and so does a higher one of all.
  defp quiet do
    _ = Application.load(:ra)
    module_level = :logger.get_module_level(:ra_server)
    %{level: level} = :logger.get_primary_config()

    # When ra cannot be loaded, its start says why.
    _ =
      if module_level == [] and :logger.compare_levels(level, @level) == :lt,
        do: :logger.set_application_level(:ra, @level)

    :ok
  end

  # Without Hex, ra is no dependency that Mix or Dialyzer knows of.
  defp ra(function, arguments), do: apply(:ra, function, arguments)
  defp ra_system(function, arguments), do: apply(:ra_system, function, arguments)
end
