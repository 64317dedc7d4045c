defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Server do
  @moduledoc false
  # Runs the one ra server of this node: forms the cluster or joins it, starts the server again after it
  # or the node has ended, and keeps the nodes connected. `Identity` has the rule that a server which
  # has lost its data comes back under a new name.
  #
  # Each step is tried again until it succeeds, so that neither an order of starts nor a pause between
  # them is needed. Nobody waits for this process: what others want to know of it is in persistent terms.

  # It may have to wait for a member while it stops.
  use GenServer, shutdown: 15_000

  require Logger

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Peers, Tasks}

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{
    Formation,
    Identity,
    Machine,
    Membership
  }

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.System, as: RaSystem

  # Between two steps before the server runs, and after, in milliseconds.
  @step 200
  @attend 1_000

  # How long a connection is waited for before a server is started again, in milliseconds.
  @connect 3_000

  # How long the answers of other nodes are waited for, in milliseconds.
  @wait 1_000

  # How often this node makes sure that it is a member, and when for the first time, in milliseconds.
  @check 10_000
  @first_check 2_000

  # How long nothing happens before it is logged why, in milliseconds.
  @patience 30_000

  @id {__MODULE__, :id}
  @candidates {__MODULE__, :candidates}
  @answer {__MODULE__, :answer}
  @lease {__MODULE__, :lease}

  defstruct [
    :options,
    :directory,
    # The name of this node when the server was started.
    :node,
    :identity,
    # The monitor of the ra server.
    :monitor,
    # Since when the server is being started.
    :opened,
    # The process that connects nodes.
    :connecting,
    # Since when all voters are known to be empty.
    :empty,
    # Since when nothing has happened; `nil` when that was logged.
    :since,
    # When it was made sure last that this node is a member.
    checked: 0,
    # Whether the server knew no leader a moment ago.
    leaderless?: false
  ]

  @type options :: %{
          :nodes => [node],
          :data_dir => Path.t(),
          :fsync => boolean,
          optional(atom) => term
        }

  @spec start_link(options | keyword) :: GenServer.on_start()
  def start_link(options),
    do: GenServer.start_link(__MODULE__, Map.new(options), name: __MODULE__)

  @doc "The ra server of this node; `nil` as long as there is none."
  @spec id() :: Identity.server_id() | nil
  def id, do: :persistent_term.get(@id, nil)

  @doc "The servers to ask for the leader: that of this node first, then the members known last."
  @spec candidates() :: [Identity.server_id()]
  def candidates, do: :persistent_term.get(@candidates, [])

  @doc "The lease of this node's holders, in milliseconds; `nil` when this process does not run."
  @spec lease() :: pos_integer | nil
  def lease, do: :persistent_term.get(@lease, nil)

  @doc "What this node answers to another one that looks for the cluster."
  @spec answer() :: Formation.answer()
  def answer, do: :persistent_term.get(@answer, :no_member)

  @impl GenServer
  def init(options) do
    Process.flag(:trap_exit, true)
    options = %{options | nodes: options.nodes |> Enum.uniq() |> Enum.sort()}
    warn(options)
    put(@lease, options.lease)
    state = %__MODULE__{options: options, since: now()}
    {:ok, state, {:continue, :step}}
  end

  defp warn(options) do
    if length(options.nodes) == 2 do
      Logger.warning(
        "The cluster of #{inspect(options.nodes)} has two voters: when one of them is gone, no name " <>
          "can be registered. Three go on when one is gone."
      )
    end

    if Application.get_env(:kernel, :prevent_overlapping_partitions, true) do
      Logger.warning(
        "The kernel's prevent_overlapping_partitions is on: when one connection of the cluster is " <>
          "lost, :global disconnects further nodes. Set it to false for a registry with cluster: {:ra, _}."
      )
    end
  end

  @impl GenServer
  def handle_continue(:step, state), do: handle_info(:step, state)

  @impl GenServer
  def handle_info(:step, %{node: node} = state) when node not in [nil, node()] do
    {:stop, {:shutdown, :renamed}, state}
  end

  def handle_info(:step, state) do
    {outcome, state} = state |> connect() |> try_step() |> report()
    attend? = outcome == :failed or state.monitor != nil
    Process.send_after(self(), :step, if(attend?, do: @attend, else: @step))
    {:noreply, state}
  end

  def handle_info({:DOWN, monitor, :process, _pid, reason}, %{monitor: monitor} = state) do
    Logger.error("The ra server of the registry has ended: #{inspect(reason)}")
    {:noreply, %{state | monitor: nil, since: now()}}
  end

  def handle_info(_message, state), do: {:noreply, state}

  @impl GenServer
  def terminate(reason, state) do
    if in_order?(reason), do: leave(state)
    for term <- [@id, @candidates, @answer, @lease], do: :persistent_term.erase(term)
    RaSystem.stop()
  end

  defp in_order?(reason), do: reason in [:normal, :shutdown] or match?({:shutdown, _}, reason)

  # A node without a vote is not missed, and may never come back under its name. A voter stays a member: it
  # is counted on, and its data is good.
  defp leave(%{identity: %{id: id}, monitor: monitor} = state) when monitor != nil do
    with {:ok, _members, leader} <- Membership.confirmed(candidates()),
         {:ok, %{^id => :non_voter}} <- Membership.statuses(leader),
         :ok <- Membership.remove_all(leader, [id]) do
      RaSystem.stop()
      Identity.wipe!(state.directory)
    else
      _a_voter_or_unknown -> :ok
    end
  end

  defp leave(_not_a_member), do: :ok

  # What a step did: `:ok` when it has done something, `:wait` when something else has to happen first,
  # `:failed` when nobody but the user can help.
  defp try_step(state) do
    step(state)
  rescue
    error in [File.Error, File.RenameError] -> {:failed, Exception.message(error), state}
  end

  defp step(state) do
    cond do
      not Node.alive?() -> {:wait, "this node has no name", state}
      state.identity == nil -> open(state)
      state.monitor != nil -> attend(state)
      state.identity.phase != :offered -> restart(state)
      true -> form_or_join(state)
    end
  end

  defp open(state) do
    %{data_dir: data_dir, fsync: fsync?} = state.options
    directory = Identity.directory(data_dir)
    state = %{state | directory: directory, node: node(), opened: now()}

    case Identity.read(state.directory, fsync?) do
      {:ok, identity} -> state |> put_identity(identity) |> start_system()
      {:empty, reason} -> renew(state, reason)
    end
  end

  # Gives up the name and the data.
  defp renew(state, reason) do
    if reason do
      Logger.warning(
        "The data of the cluster in #{state.directory} is given up, and this node becomes a new " <>
          "member: #{reason}."
      )
    end

    %{fsync: fsync?} = state.options
    :persistent_term.erase(@id)
    RaSystem.stop()
    Identity.wipe!(state.directory)
    {:ok, _started} = Application.ensure_all_started(:ra)
    identity = Identity.write!(state.directory, Identity.new(fsync?))
    state |> put_identity(identity) |> start_system()
  end

  defp start_system(state) do
    case RaSystem.start(state.directory, state.options.fsync) do
      :ok -> {:ok, state}
      {:error, reason} -> {:failed, "ra does not start: #{inspect(reason)}", state}
    end
  end

  # Other nodes are asked first, if they can be connected soon.
  defp restart(%{opened: opened} = state) do
    if connecting?(state) and now() - opened < @connect,
      do: {:wait, "the other nodes are being connected", state},
      else: restart_if_member(state)
  end

  # The cluster may have gone on without this server, by `remove/1` or `force_alone/0`. It must not start then:
  # with others that missed the same it could be a majority of the old members.
  defp restart_if_member(%{identity: %{id: id}} = state) do
    with members when members != nil <- Formation.without(id, answers(state)),
         {:ok, confirmed, _leader} <- Membership.confirmed(members),
         false <- id in confirmed do
      renew(state, "it was removed from the cluster")
    else
      _still_a_member_or_unknown -> restart_server(state)
    end
  end

  defp restart_server(%{identity: %{phase: phase}} = state) do
    with {:ok, state} <- start_system(state) do
      case RaSystem.restart_server(state.identity) do
        :ok -> {:ok, started(state)}
        {:error, :not_there} when phase == :starting -> start_again(state)
        {:error, :not_there} -> renew(state, "the server that was started there is not in it")
        {:error, reason} -> does_not_start(state, reason)
      end
    end
  end

  # This process, or the node, has ended before the server had any data.
  defp start_again(state) do
    with {:failed, reason, state} <- start_server(state), do: renew(state, reason)
  end

  defp does_not_start(state, reason) do
    {:failed,
     "the ra server does not start: #{inspect(reason)}; if its data in #{state.directory} is damaged, " <>
       "stop this node and remove the folder: the node comes back as a new member", state}
  end

  defp answers(%{options: %{nodes: voters}}),
    do: Peers.ra_identities(List.delete(voters, node()), @wait)

  defp form_or_join(%{identity: %{id: id}, options: %{nodes: voters}} = state) do
    case Formation.decide(id, voters, answers(state)) do
      {:form, members} -> form(state, members)
      {:start, members} -> start(state, members, :voter)
      {:join, members} -> join(%{state | empty: nil}, members)
      {:wait, reason} -> {:wait, reason, %{state | empty: nil}}
    end
  end

  # See `Formation`.
  defp form(%{empty: nil} = state, members), do: form(%{state | empty: now()}, members)

  defp form(%{empty: since} = state, members) do
    left = since + Machine.expiry(state.options.lease) - now()

    if left <= 0,
      do: start(state, members, :voter),
      else: {:wait, "leases of a cluster that was lost last #{left} ms at most", state}
  end

  # The members get this node's server before it is started: it never runs outside the cluster.
  defp join(%{identity: %{id: id, uid: uid}} = state, candidates) do
    membership = if node() in state.options.nodes, do: :promotable, else: :non_voter

    with {:ok, members, leader} <- Membership.confirmed(candidates),
         :ok <-
           Membership.remove_all(
             leader,
             for({_, node} = old <- members, node == node() and old != id, do: old)
           ),
         :ok <- if(id in members, do: :ok, else: Membership.put(leader, id, uid, membership)) do
      start(state, Enum.uniq([id | members]), membership)
    else
      {:error, reason} ->
        {:wait, "the members #{inspect(candidates)} do not take it in: #{inspect(reason)}", state}
    end
  end

  defp start(state, members, membership) do
    identity = %{state.identity | phase: :starting, members: members, membership: membership}
    identity = Identity.write!(state.directory, identity)
    state |> put_identity(identity) |> start_server()
  end

  defp start_server(%{identity: identity} = state) do
    with {:ok, state} <- start_system(state) do
      case RaSystem.start_server(identity) do
        :ok ->
          state = started(state)
          # ra waits for that when a server has never had a leader.
          RaSystem.elect(identity.id)
          {:ok, state}

        {:error, reason} ->
          does_not_start(state, reason)
      end
    end
  end

  defp started(%{identity: %{phase: :starting} = identity} = state) do
    identity = Identity.write!(state.directory, %{identity | phase: :started})
    started(%{state | identity: identity})
  end

  defp started(%{identity: %{phase: :started, id: {name, _node} = id}} = state) do
    monitor = Process.monitor(name)
    put(@id, id)
    publish(%{state | monitor: monitor, checked: now() - @check + @first_check})
  end

  defp attend(state) do
    state = state |> publish() |> elect()

    if now() - state.checked >= @check,
      do: check(%{state | checked: now()}),
      else: {:ok, state}
  end

  # Another member may have removed this one, which hears no more of the cluster then. And a node that is
  # on the list of voters by now gets its vote.
  defp check(%{identity: %{id: id, uid: uid}, options: %{nodes: voters}} = state) do
    with {:ok, members, leader} <- Membership.confirmed(others_first(id)),
         true <- id in members,
         {:ok, %{^id => :non_voter}} <- Membership.statuses(leader) do
      # The next check tries it again.
      _ = if node() in voters, do: Membership.put(leader, id, uid, :promotable)
      {:ok, state}
    else
      false -> renew(forget_server(state), "it was removed from the cluster")
      _a_voter_or_unknown -> {:ok, state}
    end
  end

  # A server that was removed still takes the old leader for its own.
  defp others_first(id), do: List.delete(candidates(), id) ++ [id]

  # A leader makes itself known to a server that was started again, within a second.
  defp elect(%{identity: %{id: id}} = state) do
    case RaSystem.known() do
      {nil, _members} when state.leaderless? -> RaSystem.elect(id)
      _leader_or_new -> :ok
    end

    %{state | leaderless?: match?({nil, _members}, RaSystem.known())}
  end

  defp forget_server(state) do
    Process.demonitor(state.monitor, [:flush])
    %{state | monitor: nil, since: now()}
  end

  defp put_identity(%{options: %{nodes: voters}} = state, %{phase: :offered, id: id} = identity) do
    put(@answer, %{phase: :offered, id: id, uid: identity.uid, voters: voters})
    put(@candidates, [])
    %{state | identity: identity}
  end

  defp put_identity(state, identity),
    do: publish(%{state | identity: identity})

  # A persistent term is written only when it changes, as each write costs all processes a look.
  defp publish(%{identity: %{id: id, uid: uid, members: first}} = state) do
    {leader, known} = RaSystem.known()
    members = if known == [], do: first, else: Enum.sort(known)
    put(@candidates, [id | List.delete(members, id)])

    put(@answer, %{
      phase: :started,
      id: id,
      uid: uid,
      first: first,
      members: members,
      leader: leader
    })

    state
  end

  defp put(key, value),
    do: if(:persistent_term.get(key, nil) != value, do: :persistent_term.put(key, value))

  # ra connects nodes at its start only. To connect takes seconds when a node does not answer.
  defp connect(%{options: %{nodes: voters}} = state) do
    if Node.alive?() and not connecting?(state) do
      members = for {_name, node} <- candidates(), do: node

      case Enum.uniq(voters ++ members) -- [node() | Node.list()] do
        [] -> state
        missing -> %{state | connecting: connecting(missing)}
      end
    else
      state
    end
  end

  defp connecting?(%{connecting: pid}), do: is_pid(pid) and Process.alive?(pid)

  defp connecting(nodes) do
    {:ok, pid} = Tasks.run(fn -> Enum.each(nodes, &Node.connect/1) end)
    pid
  end

  defp report({:ok, state}), do: {:ok, %{state | since: now()}}
  defp report({outcome, _reason, %{since: nil} = state}), do: {outcome, state}
  defp report({:failed, reason, state}), do: {:failed, log(reason, state)}

  defp report({:wait, reason, %{since: since} = state}),
    do: {:wait, if(now() - since < @patience, do: state, else: log(reason, state))}

  defp log(reason, state) do
    Logger.error("This node cannot be a member of the registry's cluster: #{reason}.")
    %{state | since: nil}
  end

  defp now, do: System.monotonic_time(:millisecond)
end
