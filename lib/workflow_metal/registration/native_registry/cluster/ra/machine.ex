defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Machine do
  @moduledoc false
  # The state machine that all members of the ra cluster apply the same commands to: which session holds
  # which name.
  #
  # A session is one life of one node's `Session`. Its names are held as long as it is open, and it is
  # open until `:close`, or until no renewal has been applied for `expiry/1` milliseconds. Only the log
  # ends a session: the leader's timer appends a command, which ends the session if no later renewal was
  # applied before it. A node that is not connected, or was never heard of again, frees nothing.
  #
  # A name's entry is `{number of the session, number of the pid, token}`. An entry whose session has
  # ended counts as free, so a session with a million names ends at once. Such entries are deleted some
  # at a time with the commands that follow.
  #
  # `apply/3` also writes to this node's `Mirror`, which is what lookups read. That is no part of the
  # state: it is written again from the state by `state_enter/2` and `snapshot_installed/4`.

  import Bitwise

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Mirror
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  # Names are divided among so many maps for each registry, so that one map at a time is searched for
  # entries of ended sessions, one with each batch. With a million names that is 8,000 entries. Maps of up to 32
  # keys, which the VM compares one by one, are what a registry of 4,000 names has.
  @buckets 128

  # A snapshot is taken after so many operations, or after half as many as there are names, so that
  # writing the state out costs less than what was done to it. So many operations are applied again in half a
  # second when a member starts.
  @snapshot 65_536

  @typedoc "Identifies one life of a session; no other life has the same."
  @type sid :: term

  @typedoc "Numbers of sessions grow, and are not given out twice."
  @type session_number :: pos_integer

  @typedoc "Grows with each grant of any name. A storage can refuse what has a lower one."
  @type token :: pos_integer

  @typedoc "The two numbers of a pid in external format: `serial` times 2^32 plus `id`."
  @type pid_number :: non_neg_integer

  @type operation ::
          {:claim, Registry.registry(), Registry.name(), pid_number}
          | {:free, Registry.registry(), Registry.name(), pid_number}

  @typedoc """
  The operations of a batch in external format. A binary is not copied on its way through the processes, tables and
  files of all members, and what takes it apart has no part of the binaries that callers made their names of.
  """
  @type packed :: binary

  @typedoc "For each operation: the token of a claim that was granted, else 0."
  @type results :: [token | 0]

  @type batch ::
          {:batch, session_number, sid, sequence :: pos_integer, renewal :: pos_integer, packed}

  @type command ::
          {:open, sid, node, how_pids_are_built :: {binary, binary}, lease :: pos_integer,
           replaces :: {session_number, sid} | nil}
          | {:resume, session_number, sid, instead_of :: sid}
          | batch
          | {:close, session_number, sid}
          | {:timeout, {:lease, session_number, renewal :: non_neg_integer}}

  @type state :: map

  @doc "The version of the commands and of the state, which all members have to have before it is used."
  def version, do: 0

  def which_module(0), do: __MODULE__

  @doc """
  After how many milliseconds without a renewal a session of this lease ends.

  A node's holders are dead when the lease and the fence's time, at most a quarter of a lease, have passed
  on its clock. The clocks of two nodes may differ by one in a hundred: 1.3 > 1.02 * (1 + 0.25).
  """
  @spec expiry(lease :: pos_integer) :: pos_integer
  def expiry(lease), do: div(lease * 13, 10)

  @doc "The command that carries out operations of a session."
  @spec batch(session_number, sid, sequence :: pos_integer, renewal :: pos_integer, [operation]) ::
          batch
  def batch(number, sid, sequence, renewal, operations),
    do: {:batch, number, sid, sequence, renewal, :erlang.term_to_binary(operations)}

  @spec init(map) :: state
  def init(_config) do
    %{
      version: 0,
      sessions: %{},
      names: %{},
      registries: [],
      count: 0,
      next: 1,
      token: 0,
      operations: 0,
      # The bucket to search next, and how many are left to search.
      search: {0, 0}
    }
  end

  @spec apply(map, command | term, state) :: {state, reply :: term} | {state, term, list}
  def apply(_meta, {:open, sid, node, pids, lease, replaces}, state) do
    state = close_replaced(state, replaces)

    case Enum.find(state.sessions, fn {_number, session} -> session.sid == sid end) do
      # The command was sent twice.
      {number, _session} ->
        {state, {:ok, number}}

      nil ->
        number = state.next

        session = %{
          sid: sid,
          node: node,
          pids: pids,
          lease: lease,
          renewal: 0,
          sequence: 0,
          results: []
        }

        open_mirror(number, session)
        sessions = Map.put(state.sessions, number, session)
        state = %{state | sessions: sessions, next: number + 1}
        {state, {:ok, number}, [timer(number, session)]}
    end
  end

  def apply(_meta, {:resume, number, sid, instead_of}, state) do
    case state.sessions do
      %{^number => %{sid: ^instead_of} = session} ->
        # A renewal too, as its lease is counted from this command. The renewals after it must not have
        # the numbers of those before it, whose timeouts may still come.
        before = session.renewal
        session = %{session | sid: sid, sequence: 0, results: [], renewal: before + 1}
        timers = [{:timer, {:lease, number, before}, :infinity}, timer(number, session)]
        {put_in(state.sessions[number], session), {:ok, number, session.renewal}, timers}

      %{^number => %{sid: ^sid, renewal: renewal}} ->
        {state, {:ok, number, renewal}}

      _ended ->
        {state, :expired}
    end
  end

  def apply(meta, {:batch, number, sid, sequence, renewal, operations}, state) do
    case state.sessions do
      %{^number => %{sid: ^sid} = session} ->
        apply_batch(meta, session, {number, sequence, renewal, operations}, state)

      _ended ->
        {state, :expired}
    end
  end

  def apply(_meta, {:close, number, sid}, state),
    do: {close_replaced(state, {number, sid}), :ok}

  def apply(_meta, {:timeout, {:lease, number, renewal}}, state) do
    case state.sessions do
      %{^number => %{renewal: ^renewal}} -> {end_session(state, number), :ok}
      _renewed_or_ended -> {state, :ok}
    end
  end

  # Of a later version of this project, or of ra itself.
  def apply(_meta, _unknown, state), do: {state, :unknown_command}

  defp close_replaced(state, {number, sid}) do
    case state.sessions do
      %{^number => %{sid: ^sid}} -> end_session(state, number)
      _ended -> state
    end
  end

  defp close_replaced(state, nil), do: state

  defp end_session(state, number) do
    Mirror.drop(number)
    {bucket, _left} = state.search
    sessions = Map.delete(state.sessions, number)
    %{state | sessions: sessions, search: {bucket, @buckets}}
  end

  # It was sent twice, and has been applied.
  defp apply_batch(_meta, %{sequence: sequence} = session, {_number, sequence, _, _}, state),
    do: {state, {:ok, sequence, session.results}}

  defp apply_batch(_meta, %{sequence: last}, {_number, sequence, _, _}, state)
       when sequence < last,
       do: {state, :superseded}

  defp apply_batch(meta, session, {number, sequence, renewal, packed}, state) do
    operations = :erlang.binary_to_term(packed)
    grants = {state.names, state.count, state.token}
    {results, {names, count, token}} = operate(operations, number, session, state, grants, [])

    before = session.renewal
    session = %{session | sequence: sequence, renewal: renewal, results: results}

    state =
      search(%{
        state
        | names: names,
          count: count,
          token: token,
          registries: registries(operations, state.registries),
          sessions: Map.put(state.sessions, number, session),
          operations: state.operations + length(operations) + 1
      })

    {state, snapshot} = snapshot(meta, state)
    timers = [{:timer, {:lease, number, before}, :infinity}, timer(number, session)]
    {state, {:ok, sequence, results}, timers ++ snapshot}
  end

  # What changes is apart from the state, as a copy of the state for each operation takes longer than the operation.
  defp operate([operation | operations], number, session, state, grants, results) do
    {result, grants} = operate(operation, number, session, state, grants)
    operate(operations, number, session, state, grants, [result | results])
  end

  defp operate([], _number, _session, _state, grants, results),
    do: {Enum.reverse(results), grants}

  defp operate({:claim, registry, name, pid}, number, session, state, {names, count, token}) do
    {key, bucket} = bucket(registry, name, names)

    case bucket do
      # A process of this session, perhaps the same one, does not hold the name any more: its node looks before it
      # claims. That the name was given back has been lost with a `Session` that was killed.
      %{^name => {holder, _pid, _token}}
      when holder != number and is_map_key(state.sessions, holder) ->
        {0, {names, count, token}}

      _free ->
        token = token + 1
        mirror(registry, name, number, pid, session)
        put = Map.put(bucket, name, {number, pid, token})
        count = count + map_size(put) - map_size(bucket)
        {token, {Map.put(names, key, put), count, token}}
    end
  end

  defp operate({:free, registry, name, pid}, number, _session, _state, {names, count, token}) do
    {key, bucket} = bucket(registry, name, names)

    case bucket do
      %{^name => {^number, ^pid, _token}} ->
        Mirror.delete(registry, name, number)
        {0, {put_bucket(names, key, Map.delete(bucket, name)), count - 1, token}}

      _not_held ->
        {0, {names, count, token}}
    end
  end

  defp bucket(registry, name, names) do
    key = {registry, :erlang.phash2(name, @buckets)}
    {key, Map.get(names, key, %{})}
  end

  defp put_bucket(names, key, bucket) when bucket == %{}, do: Map.delete(names, key)
  defp put_bucket(names, key, bucket), do: Map.put(names, key, bucket)

  # Most batches are of one registry.
  defp registries([{:claim, registry, _, _} | operations], [registry | _] = known),
    do: registries(operations, known)

  defp registries([{:claim, registry, _, _} | operations], known),
    do: registries(operations, if(registry in known, do: known, else: [registry | known]))

  defp registries([{:free, _, _, _} | operations], known), do: registries(operations, known)
  defp registries([], known), do: known

  # Deletes entries of ended sessions.
  defp search(%{search: {_bucket, 0}} = state), do: state

  defp search(%{search: {bucket, left}} = state) do
    state =
      for registry <- state.registries,
          key = {registry, bucket},
          is_map_key(state.names, key),
          reduce: state,
          do: (state -> delete_ended(state, key))

    %{state | search: {rem(bucket + 1, @buckets), left - 1}}
  end

  defp delete_ended(%{sessions: sessions} = state, {registry, _number} = key) do
    bucket = state.names[key]

    ended =
      for {name, {number, _pid, _token}} <- bucket, not is_map_key(sessions, number) do
        Mirror.delete(registry, name, number)
        name
      end

    names = put_bucket(state.names, key, Map.drop(bucket, ended))
    %{state | names: names, count: state.count - length(ended)}
  end

  # By operations and not by entries of the log, as an entry has up to thousands.
  defp snapshot(%{index: index}, %{operations: operations, count: count} = state) do
    if operations >= max(@snapshot, div(count, 2)) do
      state = %{state | operations: 0}
      {state, [{:release_cursor, index, state}]}
    else
      {state, []}
    end
  end

  defp timer(number, session),
    do: {:timer, {:lease, number, session.renewal}, expiry(session.lease)}

  # Timers are the leader's own, so a new leader starts them anew. That makes sessions live longer, never
  # shorter.
  @spec state_enter(atom, state) :: list
  def state_enter(:leader, state),
    do: for({number, session} <- state.sessions, do: timer(number, session))

  def state_enter(:recover, state) do
    mirror_all(state)
    []
  end

  def state_enter(_other, _state), do: []

  @spec snapshot_installed(map, state, map, state) :: list
  def snapshot_installed(_meta, state, _old_meta, _old_state) do
    mirror_all(state)
    []
  end

  defp mirror_all(%{sessions: sessions} = state) do
    Mirror.clear()
    for {number, session} <- sessions, do: open_mirror(number, session)

    for {{registry, _number}, bucket} <- state.names,
        {name, {number, pid, _token}} <- bucket,
        session = sessions[number],
        session != nil,
        do: mirror(registry, name, number, pid, session)

    :ok
  end

  # This node's table has the names of its own session.
  defp mirror(_registry, _name, _number, _pid, %{node: node}) when node == node(), do: :ok

  defp mirror(registry, name, number, pid, _session) do
    Mirror.put(registry, name, number, pid &&& 0xFFFFFFFF, pid >>> 32)
  rescue
    ArgumentError -> :ok
  end

  defp open_mirror(_number, %{node: node}) when node == node(), do: :ok

  defp open_mirror(number, %{pids: {prefix, suffix}}) do
    Mirror.node(number, prefix, suffix)
  rescue
    # All members apply the same commands, and none may fail for what only its own VM cannot have.
    ArgumentError -> :ok
  end

  @spec overview(state) :: map
  def overview(state),
    do: %{type: __MODULE__, names: state.count, sessions: map_size(state.sessions)}

  ## Questions to the state of one member

  @doc """
  The answer to a question: what the function of that name answers. A ra server ends when a question raises, and
  this member may be asked by one that runs a later version of this project.
  """
  @spec answer(question :: atom, arguments :: list, state) :: term | :unknown_question
  def answer(:overview, [], state), do: overview(state)
  def answer(:granted, [registry, name], state), do: granted(registry, name, state)
  def answer(:counts, [], state), do: counts(state)

  def answer(:held, [registry, number, sid, sequence], state),
    do: held(registry, number, sid, sequence, state)

  def answer(_question, _arguments, _state), do: :unknown_question

  @doc "The grant of a name: its session's node, the pid's number, and the token."
  @spec granted(Registry.registry(), Registry.name(), state) ::
          {session_number, pid_number, token} | nil
  def granted(registry, name, state) do
    {_key, bucket} = bucket(registry, name, state.names)

    case bucket do
      %{^name => {number, _pid, _token} = entry} when is_map_key(state.sessions, number) -> entry
      _free -> nil
    end
  end

  @doc """
  The names of a registry that a session holds, each with the number of its pid. `:behind` when this
  member has not applied the batch of that sequence, or the command that gave the session that id.
  """
  @spec held(Registry.registry() | :_, session_number, sid, sequence :: non_neg_integer, state) ::
          [{Registry.registry(), Registry.name(), pid_number}] | :behind
  def held(registry, number, sid, sequence, state) do
    case state.sessions do
      %{^number => %{sid: ^sid, sequence: applied}} when applied >= sequence ->
        for {{of, _bucket}, bucket} <- state.names,
            registry in [:_, of],
            {name, {^number, pid, _token}} <- bucket,
            do: {of, name, pid}

      _not_yet_or_ended ->
        :behind
    end
  end

  @doc "How many names each open session holds, by its node."
  @spec counts(state) :: %{node => non_neg_integer}
  def counts(state) do
    none = Map.new(state.sessions, fn {_number, session} -> {session.node, 0} end)

    for {_key, bucket} <- state.names,
        {_name, {number, _pid, _token}} <- bucket,
        session = state.sessions[number],
        session != nil,
        reduce: none,
        do: (counts -> Map.update!(counts, session.node, &(&1 + 1)))
  end
end
