defmodule WorkflowMetal.Registration.NativeRegistry.RaNode do
  @moduledoc false
  # What runs on a node in the tests of ra servers.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{
    Identity,
    Machine,
    Membership,
    Pids,
    Server
  }

  @supervisor Cluster.Supervisor

  def start(voters, directory, options) do
    options =
      Map.merge(
        %{nodes: voters, data_dir: directory, fsync: false, lease: 1_000},
        Map.new(options)
      )

    {:ok, _pid} = Supervisor.start_child(@supervisor, {Server, options})
    :ok
  end

  def stop do
    :ok = Supervisor.terminate_child(@supervisor, Server)
    :ok = Supervisor.delete_child(@supervisor, Server)
  end

  def members, do: Membership.confirmed(Server.candidates())

  def statuses do
    with {:ok, _members, leader} <- members(), do: Membership.statuses(leader)
  end

  def identity(directory) do
    with {:ok, identity} <- Identity.read(Identity.directory(directory), true), do: identity
  end

  # As if the machine had been started again since the identity was written.
  def forget_boot(directory) do
    folder = Identity.directory(directory)
    Identity.write!(folder, %{identity(directory) | boot: "another run of the machine"})
    :ok
  end

  # Kills the process that runs the ra server, and the ra server, at random times.
  def kill_servers(times, longest) do
    for _ <- 1..times do
      Process.sleep(:rand.uniform(longest))
      servers = for {name, _node} <- servers(), do: name

      for name <- [Server | servers],
          pid = Process.whereis(name),
          :rand.uniform(2) == 1,
          do: Process.exit(pid, :kill)
    end

    :ok
  end

  # The ra servers that run here.
  def servers do
    for name <- Process.registered(),
        String.starts_with?(Atom.to_string(name), "native_registry_NATIVE"),
        do: {name, node()}
  end

  # As a crash leaves it while the server is started for the first time.
  def as_if_starting(directory, data) do
    folder = Identity.directory(directory)
    identity = identity(directory)

    if data == :without_data do
      for path <- [Path.join(folder, identity.uid) | Path.wildcard(Path.join(folder, "*.wal"))],
          do: File.rm_rf!(path)
    end

    Identity.write!(folder, %{identity | phase: :starting})
    :ok
  end

  def wipe(directory), do: File.rm_rf!(Identity.directory(directory))

  # Opens a session with so many names, as that of a node would.
  def open_session(node, names) do
    sid = {node, make_ref()}
    {:ok, {:ok, number}, _leader} = command({:open, sid, node, Pids.built(), 600_000, nil})
    operations = for name <- 1..names//1, do: {:claim, :registry, name, name}
    {:ok, {:ok, 1, _tokens}, _} = command(Machine.batch(number, sid, 1, 1, operations))
    {number, sid}
  end

  def close_session({number, sid}), do: {:ok, :ok, _leader} = command({:close, number, sid})

  def names do
    {:ok, %{names: names}, _leader} = Membership.query(Server.candidates(), :overview)
    names
  end

  # A command that is not answered is sent again, as a session does it.
  defp command(command) do
    case apply(:ra, :process_command, [Server.candidates(), command, 2_000]) do
      {:ok, answer, leader} -> {:ok, answer, leader}
      _no_answer -> command(command)
    end
  end

  # Keeps a session renewed until it is stopped, and answers how many renewals were not answered in order.
  def start_renewing(node) do
    spawn(fn ->
      {number, sid} = open_session(node, 1)
      renew(number, sid, 2, 0)
    end)
  end

  def stop_renewing(pid) do
    send(pid, {:stop, self()})

    receive do
      {^pid, renewed, failed} -> {renewed, failed}
    end
  end

  defp renew(number, sid, sequence, failed) do
    receive do
      {:stop, from} -> send(from, {self(), sequence - 1, failed})
    after
      10 ->
        case command(Machine.batch(number, sid, sequence, sequence, [])) do
          {:ok, {:ok, ^sequence, []}, _leader} -> renew(number, sid, sequence + 1, failed)
          {:ok, _other, _leader} -> renew(number, sid, sequence + 1, failed + 1)
        end
    end
  end

  # Runs a Mix task, whose question is answered so. What it has printed, or the error.
  def run_task(task, arguments, answer) do
    Mix.shell(Mix.Shell.Process)
    send(self(), {:mix_shell_input, :yes?, answer})
    task.run(arguments)
    {:ok, printed()}
  rescue
    error in Mix.Error -> {:error, error.message}
  end

  defp printed do
    receive do
      {:mix_shell, _kind, [text]} -> [text | printed()]
    after
      0 -> []
    end
  end
end
