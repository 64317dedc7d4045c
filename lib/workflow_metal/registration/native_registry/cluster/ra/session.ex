defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Session do
  @moduledoc false
  # This node's session with the ra cluster: every registration and release of this node goes through this
  # process, which sends them to the cluster in batches, one batch at a time.
  #
  # A batch has a sequence number, so that one that is sent again is applied once, and renews the lease: when it
  # is known to have been applied, this node may hold names until the time at which it was *first* sent plus
  # the lease. The machine ends the session later than that, see `Machine.expiry/1`.
  #
  # A claim has two states. The cluster is asked; the claim is granted, until the caller has written the name
  # into the table (`settled/2`). Meanwhile the table does not tell who holds the name, so that nothing else
  # is done about it. At any other time the table says whether a process still holds what it
  # was granted: `release/4` and the events of the registry lead here, and what the table does not have is
  # freed.
  #
  # When the lease has run out, the `Fence` ends the holders and casts `:fenced`, and this process opens another
  # session. A session whose process was killed is resumed by the next process: the holders keep their names.

  use GenServer

  alias WorkflowMetal.Registration.NativeRegistry.{Events, Registry, Table}
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Tasks}

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{
    Fence,
    Lease,
    Machine,
    Options,
    Pids,
    Question,
    Server
  }

  # The lease is renewed so many times before it runs out.
  @renewals 12

  # A command that is not answered is sent again after this part of the lease, at most after so many
  # milliseconds; one that was refused, because the leader is another member or unknown, after the pause.
  @resends 8
  @longest_resend 2_000
  @pause 50

  # A batch has at most so many operations, so that no member is busy with one for long.
  @batch 2_000

  # A grant that the caller has not settled after so many milliseconds is looked at: it may have been killed.
  @forgotten 1_000

  # A claim that waits for less, in milliseconds, may get no answer from a cluster that has a majority.
  @short 500

  # How long the cluster may take to close the session when this process stops, in milliseconds.
  @close 1_000

  # In words, 256 KB. With the VM's least heap there was a garbage collection for every ten claims.
  @heap 32_768

  # Only this process writes it: the session that a process before this one had open.
  @open {__MODULE__, :open}

  @typedoc "What a claim was granted under; `Table.hold/6` refuses it when that lease has ended."
  @type grant :: {epoch :: pos_integer, Registry.registry(), Registry.name(), pid}

  defstruct [
    :lease,
    # `nil`, or the session: its number, id, the epoch of its native lease, renewal and sequence.
    :open,
    # Until when the lease lasts, by `Lease.clock/0`, in nanoseconds.
    deadline: 0,
    # `:opening` while the cluster has not answered `:open` or `:resume`, `:open`, or `:fenced` while
    # the holders of the ended session are still being ended.
    status: :opening,
    # Whether this process has sent itself `:send_waiting`.
    soon: false,
    # The command that is on its way: `{correlation, command, first sent, timer}`.
    sent: nil,
    # What its operations were for.
    callers: [],
    # Operations that wait, the newest first: `{operation, caller}`.
    waiting: [],
    # Claims that are not settled: from `{registry, name}` to `{number, pid, from, since}`. They are numbered in
    # their order, which is also the order of the answers.
    claims: %{},
    # The number of the last claim, and of the last one that was answered. One that is still among the claims
    # then was granted.
    asked: 0,
    answered: 0,
    # Of the claims, those whose caller has given up while they were on their way, and those whose process has given
    # the name back or ended since. Nearly always empty, which costs an answer less than a look at the claims.
    given_up: %{},
    freed: %{},
    # What has to be looked at again, because the registry is suspended: `{registry, name, pid}`.
    postponed: [],
    leader: nil,
    candidates: [],
    # When the last renewal of this session was sent; `nil` when none was.
    renewed: nil,
    # Whether the holders were ended and no session has been opened since.
    fenced: false,
    # The ended session that the next `:open` closes.
    replaces: nil,
    # The lives that were begun here, so that each has an id of its own.
    lives: 0
  ]

  @spec start_link(Options.t()) :: GenServer.on_start()
  def start_link(options) do
    memory = [min_heap_size: @heap, message_queue_data: :off_heap]
    GenServer.start_link(__MODULE__, options, name: __MODULE__, spawn_opt: memory)
  end

  @doc "Has this process told of names of the registry that are free."
  @spec attend(Registry.registry()) :: :ok
  def attend(registry), do: GenServer.call(__MODULE__, {:attend, registry}, :infinity)

  @doc "Claims a name for a process of this node. What is granted has to be settled."
  @spec claim(Registry.registry(), Registry.name(), pid, timeout :: pos_integer) ::
          {:yes, grant} | :no | {:error, :no_quorum | :cluster_timeout | term}
  def claim(registry, name, pid, timeout) do
    since = now()

    try do
      # Not all of the grant comes back, as the name may be large.
      with {:yes, epoch} <-
             GenServer.call(__MODULE__, {:claim, registry, name, pid, Pids.number(pid)}, timeout),
           do: {:yes, {epoch, registry, name, pid}}
    catch
      :exit, {:timeout, _call} ->
        GenServer.cast(__MODULE__, {:give_up, registry, name, pid})
        {:error, if(answered_since?(since), do: :cluster_timeout, else: :no_quorum)}

      :exit, _reason ->
        {:error, :no_quorum}
    end
  end

  @doc "Says whether the table has taken a name that was granted."
  @spec settled(grant, held? :: boolean) :: :ok
  def settled(grant, held?), do: GenServer.cast(__MODULE__, {:settled, grant, held?})

  @doc "Frees a name that the process has given back. An error when that is not known after the time."
  @spec release(Registry.registry(), Registry.name(), pid, timeout :: pos_integer) ::
          :ok | {:error, :no_quorum}
  def release(registry, name, pid, timeout) do
    GenServer.call(__MODULE__, {:release, registry, name, pid}, timeout)
  catch
    # This process frees it all the same: as soon as it can, or with the session.
    :exit, _reason -> {:error, :no_quorum}
  end

  @doc "Frees the names of a registry that was closed, soon."
  @spec give_back(Registry.registry(), [{Registry.name(), pid}]) :: :ok
  def give_back(registry, held), do: GenServer.cast(__MODULE__, {:give_back, registry, held})

  @doc "The number of the session that is open, or was open last; `nil` when there was none."
  @spec number() :: Machine.session_number() | nil
  def number do
    with {number, _sid} <- :persistent_term.get(@open, nil), do: number
  end

  @impl GenServer
  def init(%{lease: lease}) do
    # So that `terminate/2` is called.
    Process.flag(:trap_exit, true)
    :persistent_term.put({__MODULE__, :answered}, :atomics.new(1, signed: true))
    state = %__MODULE__{lease: lease}
    {:ok, begin(state, :persistent_term.get(@open, nil)), {:continue, :attend}}
  end

  @impl GenServer
  def handle_continue(:attend, state) do
    for registry <- Options.registries(), do: listen(registry)
    tick(state)
    {:noreply, state}
  end

  @impl GenServer
  def handle_call({:attend, registry}, _from, state), do: {:reply, listen(registry), state}

  def handle_call({:claim, registry, name, pid, number}, from, state) do
    key = {registry, name}

    cond do
      refuses?(state) -> {:reply, {:error, :no_quorum}, state}
      # Another claim of this node is not settled. The caller looks for its winner, and tries again.
      is_map_key(state.claims, key) -> {:reply, :no, state}
      # It was settled after the caller had looked at the table. The machine would give the name to `pid`,
      # because both are of this session.
      held_or_unknown?(registry, name) -> {:reply, :no, state}
      true -> {:noreply, state |> put_claim(key, pid, number, from) |> send_soon()}
    end
  end

  def handle_call({:release, registry, name, pid}, from, state) do
    key = {registry, name}

    cond do
      # The names of an ended session are free without this.
      refuses?(state) ->
        {:reply, :ok, state}

      # It has claimed the name again.
      match?(%{^key => {_number, ^pid, _from, _since}}, state.claims) ->
        {:reply, :ok, state}

      true ->
        {:noreply, state |> add(free(registry, name, pid), {:reply, from}) |> send_soon()}
    end
  end

  @impl GenServer
  def handle_cast({:settled, {epoch, registry, name, pid}, held?}, state) do
    {:noreply, state |> settle(epoch, {registry, name}, pid, held?) |> send_soon()}
  end

  def handle_cast({:give_up, registry, name, pid}, state) do
    key = {registry, name}

    case state.claims do
      %{^key => {number, ^pid, _from, _since}} when number <= state.answered ->
        # The grant was on its way when the caller gave up, so that nobody will settle it.
        {:noreply, state |> settle(state.open.epoch, key, pid, false) |> send_waiting()}

      %{^key => {_number, ^pid, _from, _since}} ->
        case Enum.split_with(state.waiting, &match?({_operation, {:claim, ^key, _, _, _}}, &1)) do
          {[], _waiting} ->
            # It is on its way.
            {:noreply, put_in(state.given_up[key], true)}

          {[_claim], waiting} ->
            {:noreply, forget(%{state | waiting: waiting}, key)}
        end

      _settled ->
        {:noreply, state}
    end
  end

  def handle_cast({:give_back, registry, held}, state) do
    state =
      for {name, pid} <- held, reduce: state do
        state -> freed(state, registry, name, pid)
      end

    {:noreply, send_waiting(state)}
  end

  def handle_cast(:fenced, state) do
    replaces = :persistent_term.get(@open, nil)
    :persistent_term.erase(@open)
    state = refuse_all(state)
    {:noreply, begin(%{state | open: nil, replaces: replaces, fenced: true}, nil)}
  end

  @impl GenServer
  def handle_info({:ra_event, from, {:applied, answers}}, state) do
    state = %{state | leader: from}
    {:noreply, Enum.reduce(answers, state, &answered/2)}
  end

  def handle_info({:ra_event, _from, {:rejected, {_reason, leader, correlation}}}, state) do
    # One timer, as a member that rejects at once would otherwise be asked thousands of times a second.
    state = %{state | leader: if(leader == :undefined, do: nil, else: leader)}
    {:noreply, resend_after(state, correlation, @pause)}
  end

  # To the leader that the member which rejected it has named.
  def handle_info({:resend, correlation}, %{sent: {correlation, _, _, _}} = state),
    do: {:noreply, transmit_again(state)}

  def handle_info({:no_answer, correlation}, %{sent: {correlation, _, _, _}} = state),
    do: {:noreply, transmit_again(%{state | leader: nil})}

  def handle_info({:unregister, registry, name, pid}, state) do
    {:noreply, state |> freed(registry, name, pid) |> send_soon()}
  end

  def handle_info(:gather, state) do
    # Processes that are ready run before this one does.
    :erlang.yield()
    send(self(), :send_waiting)
    {:noreply, state}
  end

  def handle_info(:send_waiting, state), do: {:noreply, send_waiting(%{state | soon: false})}

  # The courier dropped events, some of which may have been about names that are free.
  def handle_info({:events_lost, registry, _count}, state) do
    compare(registry, state)
    {:noreply, state}
  end

  def handle_info({:held, held}, state) do
    state =
      for {registry, name, pid} <- held, reduce: state do
        state -> freed(state, registry, name, pid)
      end

    {:noreply, send_waiting(state)}
  end

  def handle_info(:tick, state) do
    tick(state)
    state = state |> refuse_if_expired() |> settle_forgotten() |> look_again() |> send_waiting()
    {:noreply, state}
  end

  def handle_info(_message, state), do: {:noreply, state}

  # A node that stops in order frees its names at once. Otherwise they stay blocked until the session ends by
  # itself, and so they do if holders are left.
  @impl GenServer
  def terminate(reason, %{open: %{number: number, sid: sid}} = state)
      when reason in [:normal, :shutdown] or (is_tuple(reason) and elem(reason, 0) == :shutdown) do
    if Fence.finish_if_idle() do
      :persistent_term.erase(@open)
      server = state.leader || Server.id()
      if server, do: apply(:ra, :process_command, [server, {:close, number, sid}, @close])
    end
  catch
    :exit, _reason -> :ok
  end

  def terminate(_reason, _state), do: :ok

  ## Lives

  # A new session, or the one of the process before this one.
  defp begin(state, nil) do
    state = %{state | lives: state.lives + 1, status: :opening, deadline: 0}

    sid = sid(state)
    open = {:open, sid, node(), Pids.built(), state.lease, state.replaces}
    send_command(state, open)
  end

  defp begin(state, {number, instead_of}) do
    state = %{state | lives: state.lives + 1, status: :opening}

    sid = sid(state)
    # What the process before this one granted is not taken by the table any more.
    send_command(state, {:resume, number, sid, instead_of})
  end

  defp sid(%{lives: lives}),
    do: {node(), System.os_time(), lives, make_ref() |> :erlang.ref_to_list() |> to_string()}

  # `renewal` is 0 unless the session was resumed.
  defp opened(state, number, sid, first_sent, renewal) do
    resumed? = renewal > 0
    deadline = first_sent + state.lease * 1_000_000

    if resumed?, do: :persistent_term.put(@open, {number, sid})

    if deadline > Lease.clock() do
      epoch = System.unique_integer([:positive, :monotonic])
      deadline = Fence.begin_lease(epoch, deadline, resumed?)
      :persistent_term.put(@open, {number, sid})
      open = %{number: number, sid: sid, epoch: epoch, renewal: renewal, sequence: 0}
      state = %{state | status: :open, open: open, deadline: deadline}
      state = %{state | replaces: nil, fenced: false, renewed: nil}
      if resumed?, do: compare(:_, state)
      send_waiting(state)
    else
      # The answer came too late: a new id, as the machine counts from its own application. The holders of
      # a session that was resumed end first.
      if resumed?, do: ended(state), else: begin(%{state | replaces: {number, sid}}, nil)
    end
  end

  # The machine has ended the session: the `Fence` need not wait for the deadline.
  defp ended(state) do
    Fence.fence_now(if state.open, do: state.open.epoch)
    refuse_all(%{state | status: :fenced})
  end

  defp expired?(%{status: :open, deadline: deadline}), do: deadline <= Lease.clock()
  defp expired?(_state), do: false

  # After a fence the cluster is not expected to answer soon.
  defp refuses?(%{status: :opening, fenced: fenced?}), do: fenced?
  defp refuses?(%{status: :fenced}), do: true
  defp refuses?(state), do: expired?(state)

  defp refuse_if_expired(state) do
    if expired?(state), do: refuse_all(%{state | status: :fenced}), else: state
  end

  # Claims that were granted are left: their holders find that the lease has ended.
  defp refuse_all(state) do
    for {_key, {number, _pid, from, _since}} <- state.claims,
        number > state.answered,
        do: GenServer.reply(from, {:error, :no_quorum})

    for {_operation, {:reply, from}} <- state.waiting, do: GenServer.reply(from, :ok)
    for {:reply, from} <- state.callers, do: GenServer.reply(from, :ok)

    %{
      drop_command(state)
      | claims: %{},
        given_up: %{},
        freed: %{},
        waiting: [],
        callers: [],
        postponed: []
    }
  end

  ## Operations

  defp free(registry, name, pid), do: {:free, registry, name, Pids.number(pid)}

  defp add(state, operation, caller),
    do: %{state | waiting: [{operation, caller} | state.waiting]}

  defp put_claim(state, {registry, name} = key, pid, pid_number, from) do
    number = state.asked + 1
    operation = {:claim, registry, name, pid_number}

    %{
      state
      | asked: number,
        claims: Map.put(state.claims, key, {number, pid, from, now()}),
        waiting: [{operation, {:claim, key, number, pid, from}} | state.waiting]
    }
  end

  # A process may have given the name back, or have ended. What it still holds is left.
  defp freed(state, registry, name, pid) do
    key = {registry, name}

    case state.claims do
      # That was before this claim, or is looked at when this is settled.
      %{^key => {_number, ^pid, _from, _since}} ->
        put_in(state.freed[key], true)

      _no_claim when state.status != :open ->
        state

      _no_claim ->
        case holds?(registry, name, pid) do
          true -> state
          false -> add(state, free(registry, name, pid), nil)
          :unknown -> %{state | postponed: [{registry, name, pid} | state.postponed]}
        end
    end
  end

  # `:unknown` in a registry that is suspended: it keeps its names, and does not tell them.
  defp holds?(registry, name, pid) do
    case Table.here(registry, name) do
      :no_registry -> if Config.get(registry), do: :unknown, else: false
      holder -> holder == pid
    end
  end

  defp held_or_unknown?(registry, name) do
    case Table.here(registry, name) do
      nil -> false
      :no_registry -> true
      holder -> Process.alive?(holder)
    end
  end

  defp settle(state, epoch, {registry, name} = key, pid, held?) do
    case state.claims do
      # Claims are forgotten when a session ends: this one is of the session that is open.
      %{^key => {number, ^pid, _from, _since}}
      when number <= state.answered and epoch == state.open.epoch ->
        holds? = held? and not is_map_key(state.freed, key)
        state = forget(state, key)
        if holds?, do: state, else: freed(state, registry, name, pid)

      # It was granted by a session that has ended, or by the process before this one.
      _unknown when held? ->
        state

      _unknown ->
        freed(state, registry, name, pid)
    end
  end

  # Grants whose callers were killed.
  defp settle_forgotten(state) do
    before = now() - @forgotten

    for {{registry, name} = key, {number, pid, {caller, _tag}, since}} <- state.claims,
        number <= state.answered,
        since < before,
        not Process.alive?(caller),
        reduce: state do
      state ->
        case holds?(registry, name, pid) do
          :unknown -> state
          held? -> settle(state, state.open.epoch, key, pid, held?)
        end
    end
  end

  defp look_again(state) do
    for {registry, name, pid} <- state.postponed, reduce: %{state | postponed: []} do
      state -> freed(state, registry, name, pid)
    end
  end

  # What the machine has for this session is compared with the table, in a process of its own.
  defp compare(_registry, %{open: nil}), do: :ok

  defp compare(registry, %{open: open}) do
    session = self()
    {:ok, _pid} = Tasks.run(fn -> send(session, {:held, not_in_table(registry, open)}) end)
    :ok
  end

  # This node's member may not have applied yet what was granted.
  defp not_in_table(registry, %{number: number, sid: sid, sequence: sequence} = open) do
    case Question.ask(:held, [registry, number, sid, sequence]) do
      {:ok, held} when is_list(held) ->
        for {registry, name, number} <- held,
            pid = Pids.pid(number),
            holds?(registry, name, pid) != true,
            do: {registry, name, pid}

      _behind_or_error ->
        Process.sleep(@pause)

        if :persistent_term.get(@open, nil) == {number, sid},
          do: not_in_table(registry, open),
          else: []
    end
  end

  ## Commands

  # After the messages that have come already, as each batch costs all members the same, however much is in it.
  defp send_soon(%{soon: false, sent: nil} = state) do
    send(self(), :send_waiting)
    %{state | soon: true}
  end

  defp send_soon(state), do: state

  # Callers that were answered together claim their next names at the same time. If the names that wait were sent
  # at once, the two groups would take turns for ever, with twice the batches.
  defp send_with_next(%{soon: false} = state, [_one, _another | _more]) do
    send(self(), :gather)
    %{state | soon: true}
  end

  defp send_with_next(state, _few), do: send_soon(state)

  defp send_waiting(%{status: :open, sent: nil, open: open} = state) do
    renew? = state.renewed == nil or now() - state.renewed >= div(state.lease, @renewals)

    if state.waiting != [] or renew? do
      {batch, waiting} = take(state.waiting)
      operations = for {operation, _caller} <- batch, do: operation
      open = %{open | sequence: open.sequence + 1, renewal: open.renewal + 1}

      state = %{state | open: open, waiting: waiting, renewed: now()}
      state = %{state | callers: for({_operation, caller} <- batch, do: caller)}

      send_command(
        state,
        Machine.batch(open.number, open.sid, open.sequence, open.renewal, operations)
      )
    else
      state
    end
  end

  defp send_waiting(state), do: state

  defp take(waiting) do
    {batch, rest} = waiting |> Enum.reverse() |> Enum.split(@batch)
    {batch, Enum.reverse(rest)}
  end

  defp send_command(state, command),
    do: transmit(state, System.unique_integer([:positive]), command, Lease.clock())

  defp transmit_again(%{sent: {correlation, command, first_sent, _timer}} = state),
    do: transmit(state, correlation, command, first_sent)

  defp transmit(state, correlation, command, first_sent) do
    state = choose(state)

    with {_name, _node} = server <- state.leader,
         do: apply(:ra, :pipeline_command, [server, command, correlation, :normal])

    after_ms = if state.leader, do: min(div(state.lease, @resends), @longest_resend), else: @pause
    timer = Process.send_after(self(), {:no_answer, correlation}, after_ms)
    %{state | sent: {correlation, command, first_sent, timer}}
  end

  defp resend_after(%{sent: {correlation, command, first_sent, timer}} = state, correlation, ms) do
    _ = Process.cancel_timer(timer)
    timer = Process.send_after(self(), {:resend, correlation}, ms)
    %{state | sent: {correlation, command, first_sent, timer}}
  end

  defp resend_after(state, _of_another_command, _ms), do: state

  defp drop_command(%{sent: {_correlation, _command, _first_sent, timer}} = state) do
    _ = if timer, do: Process.cancel_timer(timer)
    %{state | sent: nil}
  end

  defp drop_command(state), do: state

  # The leader that answered last is asked first, then each member in turn: one that hangs does not answer.
  # Nothing is sent to a node that is not connected, as each command that is not answered costs a part of
  # the lease. When a leader's node has crashed, the others go on naming it until they have elected another.
  defp choose(state) do
    connected = [node() | Node.list()]

    case state.leader do
      {_name, node} -> if node in connected, do: state, else: choose_from(state, connected)
      nil -> choose_from(state, connected)
    end
  end

  defp choose_from(state, connected) do
    candidates = if state.candidates == [], do: Server.candidates(), else: state.candidates

    case Enum.drop_while(candidates, fn {_name, node} -> node not in connected end) do
      [] -> %{state | leader: nil, candidates: []}
      [first | rest] -> %{state | leader: first, candidates: rest}
    end
  end

  defp answered({correlation, answer}, %{sent: {correlation, command, first_sent, _}} = state) do
    :atomics.put(:persistent_term.get({__MODULE__, :answered}), 1, now())
    answer(command, answer, first_sent, drop_command(state))
  end

  # Of a command that was sent twice.
  defp answered(_answer, state), do: state

  defp answer({:open, sid, _, _, _, _}, {:ok, number}, first_sent, state),
    do: opened(state, number, sid, first_sent, 0)

  defp answer({:resume, number, sid, _}, {:ok, number, renewal}, first_sent, state),
    do: opened(state, number, sid, first_sent, renewal)

  defp answer({:resume, _, _, _}, :expired, _first_sent, state), do: ended(state)

  defp answer({:batch, _, _, sequence, _, _}, {:ok, sequence, results}, first_sent, state) do
    deadline = first_sent + state.lease * 1_000_000

    if Lease.extend(state.open.epoch, deadline) do
      callers = state.callers
      state = %{state | callers: [], deadline: max(state.deadline, deadline)}
      callers |> reply_all(results, state) |> send_with_next(callers)
    else
      # The fence has begun.
      refuse_all(%{state | status: :fenced})
    end
  end

  defp answer({:batch, _, _, _, _, _}, _expired, _first_sent, state), do: ended(state)

  defp reply_all([caller | callers], [result | results], state),
    do: reply_all(callers, results, reply(caller, result, state))

  defp reply_all([], [], state), do: state

  defp reply(nil, _result, state), do: state

  defp reply({:reply, from}, _result, state) do
    GenServer.reply(from, :ok)
    state
  end

  defp reply({:claim, key, number, pid, from}, result, state) do
    state = %{state | answered: number}

    cond do
      is_map_key(state.given_up, key) -> reply_to_nobody(key, pid, result, state)
      result == 0 -> refuse(key, from, state)
      true -> grant(from, state)
    end
  end

  defp grant(from, state) do
    GenServer.reply(from, {:yes, state.open.epoch})
    state
  end

  defp refuse(key, from, state) do
    GenServer.reply(from, :no)
    forget(state, key)
  end

  defp reply_to_nobody({registry, name} = key, pid, result, state) do
    state = forget(state, key)
    if result == 0, do: state, else: freed(state, registry, name, pid)
  end

  defp forget(state, key) do
    %{
      state
      | claims: Map.delete(state.claims, key),
        given_up: Map.delete(state.given_up, key),
        freed: Map.delete(state.freed, key)
    }
  end

  defp listen(registry) do
    Events.listen_to_releases(registry, [__MODULE__])
  rescue
    # It was closed meanwhile.
    ArgumentError -> :ok
  end

  defp tick(%{lease: lease}),
    do: Process.send_after(self(), :tick, max(div(lease, 2 * @renewals), 1))

  # What a claim that had a moment only says of the cluster is what the renewals before it say.
  defp answered_since?(since) do
    now = now()
    short? = now - since < @short
    since = if short?, do: now - div(2 * (Server.lease() || 0), @renewals), else: since
    :atomics.get(:persistent_term.get({__MODULE__, :answered}), 1) >= since
  end

  defp now, do: System.monotonic_time(:millisecond)
end
