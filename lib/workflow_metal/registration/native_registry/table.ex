defmodule WorkflowMetal.Registration.NativeRegistry.Table do
  @moduledoc false
  # The table of names of this node's processes: the only module that calls the NIFs about names.
  #
  # A NIF answers in one of these ways, and each is dealt with here:
  #
  #   * what was asked for;
  #   * a refusal: `Name.prepare!/3` raises, or answers the name in a form that the NIF takes;
  #   * `:heavy`: the value takes long to copy, and the NIF of that name does it on a dirty
  #     scheduler;
  #   * a holder that may have ended, because only the VM knows of the signals that are on their way
  #     to a process. A lookup does not answer it, and a registration takes its place;
  #   * `:elsewhere`: no process of this node has the name, and the registry is part of a cluster.
  #     This is also the answer here, and `Names` asks the cluster then; a lookup of the
  #     holder alone is given the function that asks it. In a registry with a lease no process of this node
  #     has a name once the deadline of the lease has passed, except for the functions that say so.

  alias WorkflowMetal.Registration.NativeRegistry.{Name, Native, Registry, Value}

  @typep registry :: Registry.registry()
  @typep name :: Registry.name()

  @doc """
  The process that holds the name. `elsewhere` is called instead of answering `:elsewhere`.
  """
  @spec whereis(registry, name, elsewhere :: (registry, name -> pid | :undefined)) ::
          pid | :undefined
  def whereis(registry, name, elsewhere), do: whereis(registry, name, name, elsewhere)

  # `given` is the name as the caller gave it, `name` the form that the NIF takes.
  defp whereis(registry, name, given, elsewhere) do
    case Native.whereis(registry, name) do
      pid when is_pid(pid) ->
        cond do
          Process.alive?(pid) -> pid
          # A name whose holder here has ended may have a new one on another node.
          clustered?(registry) -> elsewhere.(registry, given)
          true -> :undefined
        end

      :undefined ->
        :undefined

      :elsewhere ->
        elsewhere.(registry, given)

      # Of another node, by the native library's mirror.
      {pid} ->
        pid

      refusal ->
        whereis(registry, Name.prepare!(refusal, registry, given), given, elsewhere)
    end
  end

  @doc "The process that holds the name, and its value."
  @spec lookup(registry, name) :: [{pid, Registry.value()}] | :elsewhere
  def lookup(registry, name) do
    case record(registry, name) do
      {pid, value} ->
        cond do
          Process.alive?(pid) -> [{pid, Value.decode(value)}]
          # As in `whereis/4`.
          clustered?(registry) -> :elsewhere
          true -> []
        end

      :undefined ->
        []

      :elsewhere ->
        :elsewhere
    end
  end

  @doc "As `lookup/2`, for this node's processes alone."
  @spec lookup_here(registry, name) :: [{pid, Registry.value()}]
  def lookup_here(registry, name), do: with(:elsewhere <- lookup(registry, name), do: [])

  defp record(registry, name) do
    answer = with :heavy <- Native.lookup(registry, name), do: Native.lookup_heavy(registry, name)

    case answer do
      {pid, _value} when is_pid(pid) -> answer
      answer when answer in [:undefined, :elsewhere] -> answer
      refusal -> record(registry, Name.prepare!(refusal, registry, name))
    end
  end

  @doc "The holder of the name by the table, also if it has ended, and past the deadline of the lease."
  @spec here(registry, name) :: pid | nil | :no_registry
  def here(registry, name) do
    case Native.here(registry, name) do
      pid when is_pid(pid) -> pid
      :undefined -> nil
      :no_registry -> :no_registry
      refusal -> here(registry, Name.prepare!(refusal, registry, name))
    end
  end

  @doc """
  Makes the process the holder of the name.

  Answers `{:held, holder}` when a process of this node has the name; the holder is `pid` itself when
  that has ended. `{:elsewhere, ended}` says that a cluster has to be asked; `ended` was the holder here
  until it ended, if there was one.
  """
  @spec claim(registry, name, pid, Value.encoded()) ::
          :yes | {:held, pid} | {:elsewhere, ended :: pid | nil}
  def claim(registry, name, pid, value), do: claim(registry, name, pid, nil, value)

  defp claim(registry, name, pid, ended, value) do
    case Native.register(registry, name, pid, ended, value) do
      # Nearly every registration.
      :yes -> :yes
      answer -> claimed(answer, registry, name, pid, ended, value)
    end
  end

  defp claimed(:yes, _registry, _name, _pid, _ended, _value), do: :yes

  defp claimed(:heavy, registry, name, pid, ended, value) do
    answer = Native.register_heavy(registry, name, pid, ended, value)
    claimed(answer, registry, name, pid, ended, value)
  end

  defp claimed(:elsewhere, _registry, _name, _pid, ended, _value), do: {:elsewhere, ended}

  defp claimed(:ended, _registry, _name, pid, _ended, _value) when node(pid) == node(),
    do: {:held, pid}

  defp claimed(:ended, _registry, _name, pid, _ended, _value), do: Name.not_of_this_node!(pid)

  defp claimed(holder, registry, name, pid, _ended, value) when is_pid(holder) do
    if Process.alive?(holder),
      do: {:held, holder},
      else: claim(registry, name, pid, holder, value)
  end

  defp claimed(refusal, registry, name, pid, ended, value) do
    opened = Name.prepare!(refusal, registry, name)
    claim(registry, opened, pid, ended, {:name, name, value})
  end

  @doc """
  Writes down that the process holds a name, which the engine of a cluster has given to it. `ended` is
  a holder that has ended, if there is one.

  `epoch` is that of the lease under which the engine has given it, or 0 without a lease. `:no_lease` says that
  this epoch has ended.
  """
  @spec hold(registry, name, pid, ended :: pid | nil, Value.encoded(), epoch :: non_neg_integer) ::
          :yes | {:held, pid} | :ended | :no_lease | :no_registry
  def hold(registry, name, pid, ended, value, epoch) do
    case insert_held(registry, name, pid, ended, value, epoch) do
      holder when is_pid(holder) ->
        if Process.alive?(holder),
          do: {:held, holder},
          else: hold(registry, name, pid, holder, value, epoch)

      answer ->
        answer
    end
  end

  defp insert_held(registry, name, pid, ended, value, epoch) do
    answer =
      with :heavy <- Native.hold(registry, name, pid, ended, value, epoch),
           do: Native.hold_heavy(registry, name, pid, ended, value, epoch)

    case answer do
      answer when is_pid(answer) or answer in [:yes, :ended, :no_lease, :no_registry] ->
        answer

      refusal ->
        opened = Name.prepare!(refusal, registry, name)
        insert_held(registry, opened, pid, ended, {:name, name, value}, epoch)
    end
  end

  @doc """
  Frees the name if the process holds it. `:elsewhere` says that it held the name, and that a cluster has to be
  told.
  """
  @spec release(registry, name, pid) :: :yes | :no | :elsewhere | :no_registry
  def release(registry, name, pid) do
    case Native.unregister(registry, name, pid) do
      answer when answer in [:yes, :no, :elsewhere, :no_registry] -> answer
      refusal -> release(registry, Name.prepare!(refusal, registry, name), pid)
    end
  end

  @doc "Whether a process of this node held the name until it ended, a short time ago."
  @spec was_held?(registry, name) :: boolean
  def was_held?(registry, name) do
    case Native.was_held(registry, name) do
      answer when is_boolean(answer) -> answer
      :no_registry -> false
      refusal -> was_held?(registry, Name.prepare!(refusal, registry, name))
    end
  end

  @doc "Replaces the value of a name of the calling process by what the function makes of it."
  @spec update_value(registry, name, (Registry.value() -> Registry.value())) ::
          {new :: Registry.value(), old :: Registry.value()} | :error
  def update_value(registry, name, fun) when is_function(fun, 1) do
    caller = self()

    with [{^caller, old}] <- lookup_here(registry, name),
         new = fun.(old),
         :yes <- update(registry, name, caller, Value.encode!(new)) do
      {new, old}
    else
      _not_its_own -> :error
    end
  end

  def update_value(_registry, _name, fun) do
    raise ArgumentError, "expected a function of one argument, got: #{inspect(fun)}"
  end

  defp update(registry, name, pid, value) do
    answer =
      with :heavy <- Native.update(registry, name, pid, value),
           do: Native.update_heavy(registry, name, pid, value)

    case answer do
      answer when answer in [:yes, :no] ->
        answer

      refusal ->
        update(registry, Name.prepare!(refusal, registry, name), pid, {:name, name, value})
    end
  end

  @doc "The names that a process of this node holds."
  @spec keys(registry, pid) :: [name]
  def keys(registry, pid) when is_pid(pid) and node(pid) == node() do
    case Native.keys(registry, pid) do
      :no_registry -> Name.unknown_registry!(registry)
      # The names of a process that has ended may not all be free yet.
      names -> if Process.alive?(pid), do: names, else: []
    end
  end

  def keys(_registry, pid), do: Name.not_of_this_node!(pid)

  @doc "How many names processes of this node hold."
  @spec count(registry) :: non_neg_integer
  def count(registry) do
    case Native.sizes(registry) do
      {names, _processes} -> names
      :no_registry -> Name.unknown_registry!(registry)
    end
  end

  @doc "How many of them match the pattern."
  @spec count(registry, Registry.pattern()) :: non_neg_integer
  def count(registry, pattern) do
    with :no_registry <- Native.count_matching(registry, Name.pattern!(pattern)) do
      Name.unknown_registry!(registry)
    end
  end

  @doc "Every name of this node that matches the pattern, with its holder and value, in no order."
  @spec records(registry, Registry.pattern()) :: [{name, pid, Registry.value()}]
  def records(registry, pattern), do: reduce(registry, pattern, [], &[&1 | &2])

  @doc """
  Reduces these records with the function, beginning with `acc`. The table is copied in pieces, so that
  no copy of the whole is ever in memory.
  """
  @spec reduce(registry, Registry.pattern(), acc, ({name, pid, Registry.value()}, acc -> acc)) ::
          acc
        when acc: term
  def reduce(registry, pattern, acc, fun) do
    reduce(registry, Name.pattern!(pattern), 0, acc, fun)
  end

  defp reduce(_registry, _prepared, nil, acc, _fun), do: acc

  defp reduce(registry, prepared, from, acc, fun) do
    case Native.piece(registry, prepared, from) do
      {records, next} ->
        acc =
          for {name, pid, value} <- records, Process.alive?(pid), reduce: acc do
            acc -> fun.({name, pid, Value.decode(value)}, acc)
          end

        reduce(registry, prepared, next, acc, fun)

      :no_registry ->
        Name.unknown_registry!(registry)
    end
  end

  @doc """
  Every name of this node with its holder, in no order, also past the deadline of the lease. The cluster
  gives these names back.
  """
  @spec held(registry) :: [{name, pid}]
  def held(registry), do: held(registry, 0, [])

  defp held(_registry, nil, held), do: held

  defp held(registry, from, held) do
    case Native.held_piece(registry, from) do
      {records, next} ->
        alive = Enum.filter(records, fn {_name, pid} -> Process.alive?(pid) end)
        held(registry, next, alive ++ held)

      :no_registry ->
        Name.unknown_registry!(registry)
    end
  end

  @doc "The figures of the registry on this node."
  @spec info(registry) :: Registry.info()
  def info(registry) do
    case Native.info(registry) do
      :no_registry -> Name.unknown_registry!(registry)
      info -> Map.put(info, :terms, if(Native.reads_words(), do: :direct, else: :documented))
    end
  end

  @typedoc "Identifies one suspension of one registry."
  @type suspended :: Native.suspended()

  @doc """
  Opens the table for a supervisor, whose end closes it, or resumes it. Answers the supervisor that has it
  open already.
  """
  @spec open(registry, supervisor :: pid, Native.kind()) :: :ok | pid
  def open(registry, supervisor, kind), do: Native.open(registry, supervisor, kind)

  @doc "Closes the table if this supervisor has it open."
  @spec close(registry, supervisor :: pid) :: boolean
  def close(registry, supervisor), do: Native.close(registry, supervisor)

  @doc "Suspends the table if this supervisor has it open: it answers nothing, and keeps its names."
  @spec suspend(registry, supervisor :: pid) :: suspended | :no_registry
  def suspend(registry, supervisor), do: Native.suspend(registry, supervisor)

  @doc "Closes a table that is still suspended. Answers whether it was."
  @spec close_suspended(registry, suspended) :: boolean
  def close_suspended(registry, suspended), do: Native.close_suspended(registry, suspended)

  @doc "Whether processes of this node may hold names of the registry: always, if it has no lease."
  @spec lease_valid?(registry) :: boolean
  def lease_valid?(registry) do
    with :no_registry <- Native.lease_valid(registry), do: Name.unknown_registry!(registry)
  end

  @doc "Whether the registry runs and is part of a cluster."
  @spec clustered?(registry) :: boolean
  def clustered?(registry), do: Native.clustered(registry) == true
end
