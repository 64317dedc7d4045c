defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Holder do
  @moduledoc false
  # A process that registers a name, and notes, again and again while it holds it, whether the lease is valid
  # and whether a lookup on its node finds it.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.{Child, History}
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  # Between two samples, and between two looks at whether a refused name comes later, in milliseconds.
  @pause 1
  @late_pause 20
  # Before a patient process tries again.
  @again 10

  # How long a process that was refused is watched, in milliseconds.
  @late 3_000

  @type options :: [
          life: timeout,
          # Registers again after it has given the name back, so many times.
          again: non_neg_integer,
          # Ends with the name in the end, instead of giving it back.
          ends: boolean,
          # Tries again until it gets the name.
          patient: boolean,
          # Traps exits and reads no messages, so that it lives until it is killed.
          stubborn: boolean
        ]

  @doc "Registers in a process of its own. Does not wait for it."
  @spec spawn(atom, term, options) :: pid
  def spawn(registry, name, options) do
    spawn(fn ->
      if options[:stubborn], do: Process.flag(:trap_exit, true)
      Process.put(:lease_check_holder, true)
      register(registry, name, options)
    end)
  end

  @doc "A child of the supervisor."
  def start_child(registry, name, supervisor, options) do
    attempt = History.asked(name)
    asked = History.now()
    child = {Child, [asked: asked, life: options[:life], holds: {registry, name}]}

    answer =
      caught(fn ->
        NativeRegistry.start_child(%{registry: registry}, name, supervisor, child)
      end)

    History.answered(attempt, answer)
    answer
  end

  defp register(registry, name, options) do
    attempt = History.asked(name)
    asked = History.now()
    answer = caught(fn -> Registry.register(registry, name, nil) end)
    History.answered(attempt, answer)
    this = self()

    case answer do
      {:ok, ^this} ->
        hold = granted(registry, name, :bare, asked)
        hold(hold, registry, name, ends(options[:life]))
        again = Keyword.get(options, :again, 0)

        if again == 0 and options[:ends] do
          History.ended(hold, :ended)
        else
          give_back(hold, registry, name)
          if again > 0, do: register(registry, name, Keyword.put(options, :again, again - 1))
        end

      _refused ->
        unless expected?(answer), do: History.wrong(name, {:register, answer})

        if options[:patient] do
          Process.sleep(@again)
          register(registry, name, options)
        else
          watch(registry, name, ends(@late))
        end
    end
  end

  defp give_back(hold, registry, name) do
    History.ended(hold, :given_back)
    answer = caught(fn -> Registry.unregister(registry, name) end)
    unless answer == :ok or expected?(answer), do: History.wrong(name, {:unregister, answer})
  end

  defp expected?({:error, {:already_registered, pid}}), do: is_pid(pid)
  defp expected?({:error, reason}), do: reason in [:no_quorum, :cluster_timeout, :draining]
  # The registry is being stopped or started.
  defp expected?({:caught, :error, %ArgumentError{message: "unknown registry" <> _}}), do: true
  defp expected?(_other), do: false

  @doc "Notes that this process has the name, and the token as soon as it is known."
  def granted(registry, name, kind, asked) do
    hold = History.granted(name, kind, asked)
    holder = self()
    spawn(fn -> note_token(hold, holder, registry, name) end)
    hold
  end

  # A process of its own, as this waits for the member of this node. A token that is read while the hold has not
  # ended is the hold's.
  defp note_token(hold, holder, registry, name) do
    if Process.alive?(holder) do
      case caught(fn -> Registry.lookup(registry, name, token: true) end) do
        [{^holder, nil, token}] when is_integer(token) ->
          unless History.ended?(hold), do: History.put_token(hold, token)

        _not_known ->
          Process.sleep(@late_pause)
          note_token(hold, holder, registry, name)
      end
    end
  end

  defp hold(hold, registry, name, ends) do
    sample(hold, registry, name)

    receive do
      :finish -> :ok
    after
      @pause -> unless now() > ends, do: hold(hold, registry, name, ends)
    end
  end

  @doc "One look at the lease and at the name."
  def sample(hold, registry, name) do
    start = History.now()
    valid? = Registry.lease_valid?(registry)
    between = History.now()
    found? = NativeRegistry.whereis_name({registry, name}) == self()
    finish = History.now()
    if valid?, do: History.sample(hold, :valid, start, between)
    if found?, do: History.sample(hold, :found, between, finish)

    # A lease does not become valid again, so it was valid in between.
    if valid? and not found? and Registry.lease_valid?(registry),
      do: History.wrong(name, {:held_but_not_found, hold})
  rescue
    # The registry was stopped.
    ArgumentError -> :ok
  end

  # A registration that was refused must not be made afterwards.
  defp watch(registry, name, ends) do
    if caught(fn -> NativeRegistry.whereis_name({registry, name}) end) == self() do
      History.wrong(name, :registered_after_it_was_refused)
    else
      receive do
        :finish -> :ok
      after
        @late_pause -> unless now() > ends, do: watch(registry, name, ends)
      end
    end
  end

  defp caught(function) do
    function.()
  catch
    kind, reason -> {:caught, kind, reason}
  end

  def ends(:infinity), do: :infinity
  def ends(life), do: now() + life

  def now, do: System.monotonic_time(:millisecond)
end

defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Child do
  @moduledoc false
  # The same as a child of a supervisor.
  use GenServer, restart: :transient

  alias WorkflowMetal.Registration.NativeRegistry.LeaseCheck.{History, Holder}

  def start_link(options),
    do: GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))

  @impl GenServer
  def init(options) do
    {registry, name} = options[:holds]
    Process.put(:lease_check_holder, true)
    hold = Holder.granted(registry, name, :child, options[:asked])
    {:ok, {hold, registry, name, Holder.ends(options[:life])}, 0}
  end

  @impl GenServer
  def handle_info(:finish, {hold, _, _, _} = state) do
    History.ended(hold, :ended)
    {:stop, :normal, state}
  end

  def handle_info(_timeout, {hold, registry, name, ends} = state) do
    if Holder.now() > ends do
      handle_info(:finish, state)
    else
      Holder.sample(hold, registry, name)
      {:noreply, state, 1}
    end
  end
end
