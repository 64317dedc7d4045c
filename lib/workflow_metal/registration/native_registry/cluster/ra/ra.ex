defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra do
  @moduledoc false
  # The engine ra, a consensus library: no two processes hold a name, not even while the network is split.
  #
  #   Server, Members     the one ra server of this node, and which nodes have one
  #   Machine             what all members agree about: sessions and the names that they hold
  #   Session             claims and frees names of this node, and renews its lease
  #   Fence, Ending       end the holders when the lease has run out
  #   Lease, Mirror       the native side: the lease's deadline, and the names of other nodes
  #   Pids, Options       pids as numbers; the options

  @behaviour WorkflowMetal.Registration.NativeRegistry.Cluster.Engine

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{
    Mirror,
    Options,
    Pids,
    Question,
    Session,
    Supervisor
  }

  # The pause between two looks at a member that has not applied a grant yet, in milliseconds.
  @pause 1

  @impl true
  def requires, do: [{:ra, Options.dependency(System.otp_release())}]

  @impl true
  def options!(registry, options), do: Options.validate!(registry, options)

  @impl true
  def start(registry, options) do
    unless Node.alive?() do
      raise ArgumentError,
            "cluster: :ra of the registry #{inspect(registry)} needs a node with a name; start " <>
              "distribution first"
    end

    _ = Application.load(:ra)
    version = :ra |> Application.spec(:vsn) |> to_string()
    :ok = Options.check_version!(version, System.otp_release())
    :ok = Options.check_same!(registry, options)
    alone(fn -> Supervisor.start(options) end)
    :ok = Session.attend(registry)
    Session
  end

  # A registry may be opened while the last one is being closed.
  @impl true
  def stop do
    alone(fn -> if Options.registries() == [], do: Supervisor.stop() end)
    :ok
  end

  defp alone(function), do: :global.trans({__MODULE__, self()}, function, [node()])

  @impl true
  def claim(registry, name, pid, timeout) do
    with {:yes, {epoch, _registry, _name, _pid} = grant} <-
           Session.claim(registry, name, pid, timeout),
         do: {:yes, epoch, grant}
  end

  @impl true
  def settled(grant, held?), do: Session.settled(grant, held?)

  @impl true
  def unregister(registry, name, pid, timeout), do: Session.release(registry, name, pid, timeout)

  @impl true
  def give_back(registry, held), do: Session.give_back(registry, held)

  @impl true
  def whereis(registry, name), do: Mirror.whereis(registry, name)

  @impl true
  def token(registry, name, pid, timeout) do
    number = Pids.number(pid)
    deadline = System.monotonic_time(:millisecond) + timeout
    token_until(registry, name, number, deadline)
  end

  # This node's member may not have applied the grant yet.
  defp token_until(registry, name, number, deadline) do
    case Question.ask(:granted, [registry, name]) do
      {:ok, {session, ^number, token}} ->
        if session == Session.number(), do: token

      _not_yet ->
        if System.monotonic_time(:millisecond) < deadline do
          Process.sleep(@pause)
          token_until(registry, name, number, deadline)
        end
    end
  end
end
