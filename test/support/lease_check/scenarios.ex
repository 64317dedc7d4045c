defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Scenarios do
  @moduledoc false
  # Faults in a fixed order, each of which shows what a part of the protocol is for. They leave the cluster as
  # it is after the fault.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Fence, Machine, Server, Session}
  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.{Later, Member, Nodes}

  import WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Nodes

  # How long two holders may be seen together, after the second one has the name, in milliseconds.
  @together 300

  @doc "A follower that holds a name is cut off, and another node wants the name."
  def isolated_follower(cluster) do
    {leader, [follower, _other]} = roles(cluster)
    hold(cluster, follower, :name)
    isolate(cluster, follower)
    hold(cluster, leader, :name)
    Process.sleep(@together)
  end

  @doc "The same with a node whose fence is late."
  def late_fence(cluster) do
    {leader, [follower, _other]} = roles(cluster)
    hold(cluster, follower, :name)
    keeper = call(cluster, follower, Member, :suspend, [Fence])
    isolate(cluster, follower)
    hold(cluster, leader, :name)
    Process.sleep(@together)
    call(cluster, follower, Member, :resume, [keeper])
  end

  @doc """
  A renewal is applied, its answer reaches the node's session late, and the node is cut off meanwhile.
  """
  def late_answer(%{lease: lease} = cluster) do
    {leader, [follower, _other]} = roles(cluster)
    hold(cluster, follower, :name)
    {server, _node} = call(cluster, leader, Server, :id, [])
    leader_keeper = call(cluster, leader, Member, :suspend, [server])

    eventually(
      fn -> match?({:batch, _, _, _, _, _}, call(cluster, follower, Member, :in_flight, [])) end,
      "a renewal is on its way"
    )

    session_keeper = call(cluster, follower, Member, :suspend, [Session])
    call(cluster, leader, Member, :resume, [leader_keeper])
    # The leader answers commands in their order.
    await_registers(cluster, [leader])
    isolate(cluster, follower)
    wanted = spawn_holder(cluster, leader, :name, [])
    # Before the lease that the renewal before this one had begun has run out.
    Process.sleep(div(lease * 6, 10))
    call(cluster, follower, Member, :resume, [session_keeper])
    await_hold(cluster, leader, wanted)
    Process.sleep(@together)
  end

  @doc "The leader's VM is killed, and does not come back. Others want what it held."
  def dead_leader(%{lease: lease} = cluster) do
    {leader, [one, _other]} = roles(cluster)
    hold(cluster, leader, :name)
    kill(cluster, leader)
    # There is a new leader, which counts from now.
    await_registers(cluster, [one])
    wanted = spawn_holder(cluster, one, :name, [])

    if within(fn -> holds?(cluster, one, wanted) end, blocked_limit(cluster)) == :error do
      time = blocked_limit(cluster)
      expiry = Machine.expiry(lease)
      text = "for #{time} ms after its holder's node was killed, of which it may be for #{expiry}"
      wrong(cluster, :blocked, :name, text)
    end
  end

  @doc """
  Of three members one does not have the latest entries, one is wiped, and the third, which has them, is cut
  off. The two must not take themselves for a majority.
  """
  def wiped_member(%{lease: lease} = cluster) do
    {leader, [stale, wiped]} = roles(cluster)
    isolate(cluster, stale)
    hold(cluster, leader, :name)
    close(cluster, wiped)
    isolate(cluster, leader)
    cut(cluster, [wiped], [stale])
    Nodes.wipe(cluster, wiped)
    heal(cluster, stale, wiped)
    open(cluster, wiped)
    wanted = spawn_holder(cluster, stale, :name, [])
    # For as long as the leader's processes may hold names.
    within(fn -> holds?(cluster, stale, wanted) end, lease)
    Process.sleep(@together)
  end

  @doc "All VMs are killed and come back. What they held is free after a while, and had again."
  def total_restart(cluster) do
    for number <- numbers(), do: hold(cluster, number, {:name, number})
    for number <- numbers(), do: kill(cluster, number)
    Nodes.together(numbers(), &boot(cluster, &1))
    await_registers(cluster)
    # Each by another node than before.
    for number <- numbers(), do: hold(cluster, rem(number, 3) + 1, {:name, number})
  end

  @doc "The leader's VM is paused until its names have been given away, and goes on then."
  def paused_leader(cluster) do
    {leader, [one, _other]} = roles(cluster)
    for name <- [:name, :other], do: hold(cluster, leader, name, stubborn: name == :other)
    pause(cluster, leader)
    for name <- [:name, :other], do: hold(cluster, one, name)
    resume(cluster, leader)
    Process.sleep(@together)
  end

  @doc "One link of three is cut for longer than a session lives without a renewal: first between followers."
  def cut_link(%{lease: lease} = cluster) do
    {leader, [one, other]} = roles(cluster)
    for number <- numbers(), do: hold(cluster, number, {:name, number})
    cut(cluster, [one], [other])
    Process.sleep(2 * Machine.expiry(lease))
    # All of them reach the leader, as long as it leads.
    eventually(fn -> leader_now(cluster) != leader or all_register?(cluster) end, "all register")
    heal(cluster)
    cut(cluster, [leader], [one])
    for number <- numbers(), do: spawn_holder(cluster, number, {:name, rem(number, 3) + 1}, [])
    Process.sleep(2 * Machine.expiry(lease))
  end

  @doc """
  The nodes are stopped one after another, and come back with a later version of the state machine, while processes
  on all of them register names.
  """
  def rolling_upgrade(cluster) do
    for number <- numbers(), do: hold(cluster, number, {:kept, number})
    work = [cluster.registry, for(number <- 1..6, do: {:name, number}), 2]
    for number <- numbers(), do: call(cluster, number, Member, :work, work ++ [number])

    for number <- numbers() do
      close(cluster, number)
      kill(cluster, number)
      boot(cluster, number, later: true)
      await_registers(cluster, [number])
      hold(cluster, number, {:kept, number})
      call(cluster, number, Member, :work, work ++ [10 + number])
    end

    await_registers(cluster)
    versions = fn -> for number <- numbers(), do: call(cluster, number, Later, :version, []) end
    eventually(fn -> versions.() == [1, 1, 1] end, "all members have the later version")
  end

  # The leader and the followers.
  defp roles(cluster) do
    leader = leader(cluster)
    {leader, numbers() -- [leader]}
  end
end
