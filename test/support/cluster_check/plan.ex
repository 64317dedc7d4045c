defmodule WorkflowMetal.Registration.NativeRegistry.ClusterCheck.Plan do
  @moduledoc false
  # The faults of one round. The plan depends on the seed alone, so that a seed repeats it. What the nodes do
  # at each moment is not part of it.

  alias __MODULE__

  defstruct [
    :seed,
    :engine,
    :nodes,
    :overlaps,
    :timeout,
    :names,
    :workers,
    :steps,
    :late_start,
    :ends_hanging,
    :steady
  ]

  @type t :: %Plan{}

  # A node is a number here; its name comes with each boot and each renaming.
  @type step ::
          {:cut, [pos_integer], [pos_integer]}
          | {:heal, :all | {pos_integer, pos_integer}}
          | {:pause | :resume | :kill | :boot | :rename | :kill_owner | :restart_registry,
             pos_integer}
          | {:suspend_engine | :crash_while_it_hangs, pos_integer, milliseconds :: pos_integer}
          | {:restart_engine | :kill_engine | :crash_kept, pos_integer}

  # Steps that cut no node off.
  @steady [:suspend_engine, :crash_kept]

  @spec new(engine :: atom, seed :: integer, keyword) :: t
  def new(engine, seed, options) do
    :rand.seed(:exsss, {seed, :erlang.phash2(engine), 11})
    nodes = 2 + :rand.uniform(3)
    count = options[:steps] || 3 + :rand.uniform(8)

    state = %{
      alive: Enum.to_list(1..nodes),
      paused: [],
      dead: [],
      next: nodes + 1,
      engine: engine,
      crashes: []
    }

    # Whether all nodes stay connected: then engines hang, and nothing else happens.
    steady = one_of([true, false, false, false, false])
    only = options[:only] || if steady, do: @steady
    steady = only != nil and only -- @steady == []
    {steps, _state} = steps(count, state, only, [])

    %Plan{
      steady: steady,
      seed: seed,
      engine: engine,
      nodes: nodes,
      # Whether :global disconnects further nodes, so that no two nodes see different parts of the cluster. This is
      # its default. As an engine it needs that, and guarantees nothing without.
      overlaps: one_of([true, engine == :global]),
      timeout: one_of([300, 1_000, 5_000]),
      names: 1 + :rand.uniform(2),
      workers: one_of([1, 2]),
      # Whether the engines hang while the workers finish.
      ends_hanging: :rand.uniform(3) == 1,
      # Whether names are held before there is a distribution.
      late_start: :rand.uniform(5) == 1 and not steady,
      steps: steps
    }
  end

  defp steps(0, state, _only, steps), do: {Enum.reverse(steps), state}

  defp steps(count, state, only, steps) do
    kind = one_of(only || kinds(state.engine))

    case step(kind, state) do
      {:ok, step, state} -> steps(count - 1, state, only, [{pause(), step} | steps])
      :not_now -> steps(count - 1, state, only, steps)
    end
  end

  defp pause, do: one_of([0, 20, 100, 300, 600, 1_000])

  @any [:link, :link, :link, :part, :part, :heal, :heal, :pause, :pause, :resume, :kill, :boot] ++
         [
           :boot,
           :kill_owner,
           :suspend_engine,
           :crash_kept,
           :crash_while_it_hangs,
           :restart_registry
         ]

  # `:global` cannot be renamed under: it keeps the old name of its node in what it has locked.
  defp kinds(:global), do: @any
  defp kinds(:syn), do: @any ++ [:rename, :restart_engine, :kill_engine]

  defp step(:link, state) do
    [one, other | _rest] = Enum.shuffle(state.alive)
    {:ok, {:cut, [one], [other]}, state}
  end

  defp step(:part, state) do
    {one_side, other_side} =
      state.alive |> Enum.shuffle() |> Enum.split(:rand.uniform(length(state.alive) - 1))

    {:ok, {:cut, Enum.sort(one_side), Enum.sort(other_side)}, state}
  end

  defp step(:heal, state) do
    [one, other | _rest] = Enum.shuffle(state.alive)
    {:ok, {:heal, one_of([:all, :all, {one, other}])}, state}
  end

  # Two of them stay at work.
  defp step(:pause, state) do
    with_spare(state, fn node ->
      {:ok, {:pause, node}, %{state | paused: [node | state.paused]}}
    end)
  end

  defp step(:resume, %{paused: []}), do: :not_now

  defp step(:resume, state) do
    node = one_of(state.paused)
    {:ok, {:resume, node}, %{state | paused: state.paused -- [node]}}
  end

  defp step(:kill, state) do
    with_spare(state, fn node ->
      state = %{state | alive: state.alive -- [node], paused: state.paused -- [node]}
      {:ok, {:kill, node}, %{state | dead: [node | state.dead]}}
    end)
  end

  # A node that ended comes back under its name, or a new node joins.
  defp step(:boot, %{dead: [node | dead]} = state) do
    {:ok, {:boot, node}, %{state | dead: dead, alive: state.alive ++ [node]}}
  end

  defp step(:boot, %{next: next} = state) when next <= 5 do
    {:ok, {:boot, next}, %{state | next: next + 1, alive: state.alive ++ [next]}}
  end

  defp step(:boot, _state), do: :not_now

  defp step(:suspend_engine, state) do
    at_work(state, fn node -> {:suspend_engine, node, one_of([200, 700, 1_500])} end)
  end

  # At most so many crashes of children: their supervisors have the default intensity and must not give up.
  defp step(kind, state) when kind in [:crash_kept, :crash_while_it_hangs] do
    node = one_of(state.alive -- state.paused)
    step = if kind == :crash_kept, do: {kind, node}, else: {kind, node, 1_500}

    if Enum.count(state.crashes, &(&1 == node)) < 2,
      do: {:ok, step, %{state | crashes: [node | state.crashes]}},
      else: :not_now
  end

  defp step(kind, state), do: at_work(state, fn node -> {kind, node} end)

  defp at_work(state, step), do: {:ok, step.(one_of(state.alive -- state.paused)), state}

  defp with_spare(state, step) do
    case state.alive -- state.paused do
      [_, _, _ | _] = at_work -> step.(one_of(at_work))
      _few -> :not_now
    end
  end

  defp one_of(list), do: Enum.at(list, :rand.uniform(length(list)) - 1)

  @spec describe(t) :: String.t()
  def describe(%Plan{} = plan) do
    steps = for {pause, step} <- plan.steps, do: "    after #{pause} ms #{inspect(step)}\n"

    "  #{plan.nodes} nodes, cluster: #{inspect(plan.engine)}, cluster_timeout: #{plan.timeout}, " <>
      "#{plan.workers} workers each, names of each kind: #{plan.names}" <>
      if(plan.overlaps, do: ", overlapping partitions prevented", else: "") <>
      if(plan.ends_hanging, do: ", engines hang in the end", else: "") <>
      if(plan.steady, do: ", no node is ever cut off", else: "") <>
      if(plan.late_start, do: ", distribution starts late", else: "") <> "\n#{steps}"
  end
end
