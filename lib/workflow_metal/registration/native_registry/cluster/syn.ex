defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Syn do
  @moduledoc false
  # syn 3: tens of thousands of registrations a second. Two nodes may register a name at once; the
  # conflict is resolved as soon as they hear of each other. A registry is a scope of its own.
  #
  # This is syn's event handler as well, of which there is one for all scopes. What is said of scopes
  # that are no registries goes to the handler that was there before.

  @behaviour WorkflowMetal.Registration.NativeRegistry.Cluster.Engine

  alias WorkflowMetal.Registration.NativeRegistry.Cluster

  # How long syn waits for itself, in milliseconds.
  @limit 5_000

  # How long syn is asked again for what nobody waits for any more but has to be taken back.
  @late 300_000

  # Between two attempts at a name whose holder has ended, of which syn has not heard yet.
  @pause 1

  @other_handler {__MODULE__, :other_handler}

  @impl true
  def requires, do: [{:syn, "{:syn, \"~> 3.3\"}"}]

  @impl true
  def start(registry) do
    {:ok, _started} = Application.ensure_all_started(:syn)

    with other when other != __MODULE__ <- Application.get_env(:syn, :event_handler) do
      :persistent_term.put(@other_handler, other)
      syn(:set_event_handler, [__MODULE__])
    end

    # After the handler, which is told of all that the other nodes have.
    :ok = syn(:add_node_to_scopes, [[registry]])
    :"syn_registry_#{registry}"
  end

  # A process that registers itself asks syn itself, which answers within five seconds or exits: a
  # process between the two would cost a fifth of the whole.
  @impl true
  def register(registry, name, pid, timeout) when pid == self() and timeout >= @limit do
    with {:error, :cluster_timeout} <- attempt(registry, name, pid, now() + timeout, :once) do
      spawn(fn -> take_back(registry, name, pid) end)
      {:error, :cluster_timeout}
    end
  end

  def register(registry, name, pid, timeout) do
    attempt = fn -> attempt(registry, name, pid, now() + @late, :again) end
    Cluster.within(timeout, attempt, fn _late -> free(registry, name, pid) end)
  end

  defp take_back(registry, name, pid) do
    if attempt(registry, name, pid, now() + @late, :again) == :yes, do: free(registry, name, pid)
  end

  defp attempt(registry, name, pid, deadline, silence) do
    case ask(registry, name, pid) do
      :ok -> :yes
      {:error, :not_alive} -> :no
      {:error, :taken} -> if whereis(registry, name) == :undefined, do: :again, else: :no
      :no_answer when silence == :once -> {:error, :cluster_timeout}
      :no_answer -> :again
      {:error, reason} -> {:error, reason}
    end
    |> again(fn -> attempt(registry, name, pid, deadline, silence) end, deadline)
  end

  defp again(:again, attempt, deadline) do
    if now() > deadline do
      {:error, :cluster_timeout}
    else
      Process.sleep(@pause)
      attempt.()
    end
  end

  defp again(answer, _attempt, _deadline), do: answer

  # Without Hex, syn is no dependency that Mix or Dialyzer knows of.
  defp syn(function, arguments), do: apply(:syn, function, arguments)

  defp now, do: System.monotonic_time(:millisecond)

  # It may have done it, or do it yet. To ask again does no harm.
  defp ask(registry, name, pid) do
    syn(:register, [registry, name, pid, nil])
  catch
    :exit, {:timeout, _call} -> :no_answer
    # syn has been stopped.
    kind, reason -> {:error, {kind, reason}}
  end

  @impl true
  def unregister(registry, name, pid, timeout) do
    Cluster.within(timeout, fn -> free(registry, name, pid) end)
    :ok
  end

  defp free(registry, name, pid) do
    if whereis(registry, name) == pid, do: syn(:unregister, [registry, name])
    :ok
  end

  @impl true
  def whereis(registry, name) do
    case syn(:lookup, [registry, name]) do
      {pid, _meta} -> pid
      :undefined -> :undefined
    end
  rescue
    # syn has been stopped.
    _error in [ErlangError, ArgumentError] -> :undefined
  end

  @doc false
  def on_process_registered(scope, name, pid, meta, reason) do
    if ours?(scope),
      do: mirror(&Cluster.mirror/3, scope, name, pid),
      else: forward(:on_process_registered, [scope, name, pid, meta, reason])
  end

  @doc false
  def on_process_unregistered(scope, name, pid, meta, reason) do
    if ours?(scope),
      do: mirror(&Cluster.unmirror/3, scope, name, pid),
      else: forward(:on_process_unregistered, [scope, name, pid, meta, reason])
  end

  # Names of this node stand in the table.
  defp mirror(tell, registry, name, pid) when node(pid) != node(), do: tell.(registry, name, pid)
  defp mirror(_tell, _registry, _name, _pid), do: :ok

  # A registry of another engine may have the name of a user's scope.
  defp ours?(scope), do: match?(%{engine: __MODULE__}, Cluster.config(scope))

  # Called on both nodes of a conflict, each of which sees to its own process.
  @doc false
  def resolve_registry_conflict(registry, name, {one, _, _} = first, {other, _, _} = second) do
    if ours?(registry) do
      winner = Cluster.decide(registry, name, one, other)

      for loser <- [one, other], loser != winner, node(loser) == node() do
        Cluster.leave(registry, name, loser, winner)
      end

      winner
    else
      resolve_for_others(registry, name, first, second)
    end
  end

  # Without a handler of the user's, what syn itself does: the younger stays, the other is killed.
  defp resolve_for_others(scope, name, {one, _, since} = first, {other, _, other_since} = second) do
    if handles?(:resolve_registry_conflict, 4) do
      forward(:resolve_registry_conflict, [scope, name, first, second])
    else
      {winner, {loser, meta, _since}} =
        if {since, one} > {other_since, other}, do: {one, second}, else: {other, first}

      if node(loser) == node(), do: Process.exit(loser, {:syn_resolve_kill, name, meta})
      winner
    end
  end

  for {callback, arity} <- [
        on_registry_process_updated: 5,
        on_registry_process_updated: 6,
        on_process_joined: 5,
        on_group_process_updated: 5,
        on_group_process_updated: 6,
        on_process_left: 5
      ] do
    arguments = Macro.generate_arguments(arity, __MODULE__)
    @doc false
    def unquote(callback)(unquote_splicing(arguments)) do
      forward(unquote(callback), [unquote_splicing(arguments)])
    end
  end

  defp forward(callback, arguments) do
    if handles?(callback, length(arguments)), do: apply(other_handler(), callback, arguments)
  end

  defp handles?(callback, arity) do
    handler = other_handler()

    handler != nil and Code.ensure_loaded?(handler) and
      function_exported?(handler, callback, arity)
  end

  defp other_handler, do: :persistent_term.get(@other_handler, nil)
end
