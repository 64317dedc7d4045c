defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Syn do
  @moduledoc false
  # syn 3: tens of thousands of registrations a second. Two nodes may register a name at once; the
  # conflict is resolved as soon as they hear of each other. A registry is a scope of its own.
  #
  # This is syn's event handler as well, of which there is one for all scopes. What is said of scopes
  # that are no registries goes to the handler that was there before.

  @behaviour WorkflowMetal.Registration.NativeRegistry.Cluster.Engine

  alias WorkflowMetal.Registration.NativeRegistry.Cluster

  # Between two attempts at a name whose holder has ended, of which syn has not heard yet, in
  # milliseconds.
  @pause 1

  @other_handler {__MODULE__, :other_handler}
  @forwarding {__MODULE__, :forwarding}

  @impl true
  def requires, do: [{:syn, "{:syn, \"~> 3.3\"}"}]

  @impl true
  def start(registry) do
    {:ok, _started} = Application.ensure_all_started(:syn)
    # Before the scope, which may find conflicts as soon as it is there.
    attend(registry)
    :ok = syn(:add_node_to_scopes, [[registry]])
    scope(registry)
  end

  # The handler of whoever has set his after us is the other one from now on.
  @impl true
  def attend(_registry) do
    with other when other != __MODULE__ <- Application.get_env(:syn, :event_handler) do
      :persistent_term.put(@other_handler, other)
      syn(:set_event_handler, [__MODULE__])
    end

    :ok
  end

  @impl true
  def up?, do: Process.whereis(:syn_sup) != nil

  @impl true
  def stop do
    if Application.get_env(:syn, :event_handler) == __MODULE__ do
      case other_handler() do
        nil -> Application.delete_env(:syn, :event_handler)
        other -> Application.put_env(:syn, :event_handler, other)
      end
    end

    :persistent_term.erase(@other_handler)
    :ok
  end

  # syn is asked as its nodes ask each other, by messages that it keeps to within its version 3: its
  # functions wait for five seconds whatever anybody wants, free a name whoever has it, and in
  # strict mode let nobody wait for a process but itself.
  #
  # What goes with the name is the node. A name that was registered before the node had its own name
  # is told to no other until something about it changes.
  @impl true
  def register(registry, name, pid, timeout) do
    register_until(registry, name, pid, node(), timeout, :unknown)
  end

  # syn tells nobody of a registration that changes nothing.
  @impl true
  def retell(registry, name, pid, timeout) do
    register_until(registry, name, pid, {node(), System.unique_integer()}, timeout, :unknown)
  end

  defp register_until(registry, name, pid, meta, timeout, deadline) do
    request = {:"3.0", :register_or_update_on_node, node(), name, pid, meta}

    case call(registry, request, timeout) do
      {:ok, _written} -> :yes
      {:noop, _meta} -> :yes
      {:error, :taken} -> taken(registry, name, pid, meta, timeout, deadline)
      {:error, :not_alive} -> :no
      {:error, reason} -> {:error, reason}
    end
  end

  defp taken(registry, name, pid, meta, timeout, :unknown),
    do: taken(registry, name, pid, meta, timeout, now() + timeout)

  defp taken(registry, name, pid, meta, _timeout, deadline) do
    left = deadline - now()

    cond do
      whereis(registry, name) != :undefined ->
        :no

      left <= 0 ->
        {:error, :cluster_timeout}

      true ->
        Process.sleep(@pause)
        register_until(registry, name, pid, meta, left, deadline)
    end
  end

  @impl true
  def unregister(registry, name, pid, timeout) do
    case call(registry, {:"3.0", :unregister_on_node, node(), name, pid}, timeout) do
      {:ok, _table} -> :ok
      # It is not registered, or for another process.
      {:error, reason} when reason in [:undefined, :race_condition] -> :ok
      {:error, reason} -> {:error, reason}
    end
  end

  defp call(registry, request, timeout) do
    :gen_server.call(scope(registry), request, timeout)
  catch
    :exit, {:timeout, _call} -> {:error, :cluster_timeout}
    # syn has been stopped.
    :exit, reason -> {:error, {:exit, reason}}
  end

  defp scope(registry), do: :"syn_registry_#{registry}"

  # Without Hex, syn is no dependency that Mix or Dialyzer knows of.
  defp syn(function, arguments), do: apply(:syn, function, arguments)

  defp now, do: System.monotonic_time(:millisecond)

  @impl true
  def whereis(registry, name) do
    case syn(:lookup, [registry, name]) do
      # syn asks whether a process of this node lives unless the node had another name then.
      {pid, _meta} -> if Cluster.alive?(pid), do: pid, else: :undefined
      :undefined -> :undefined
    end
  rescue
    # syn has been stopped.
    _error in [ErlangError, ArgumentError] -> :undefined
  end

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
    if handles?(:resolve_registry_conflict, 4) and not Process.get(@forwarding, false) do
      forward(:resolve_registry_conflict, [scope, name, first, second])
    else
      {winner, {loser, meta, _since}} =
        if {since, one} > {other_since, other}, do: {one, second}, else: {other, first}

      if node(loser) == node(), do: Process.exit(loser, {:syn_resolve_kill, name, meta})
      winner
    end
  end

  for {callback, arity} <- [
        on_process_registered: 5,
        on_process_unregistered: 5,
        on_registry_process_updated: 5,
        on_registry_process_updated: 6
      ] do
    [scope | _rest] = arguments = Macro.generate_arguments(arity, __MODULE__)
    @doc false
    def unquote(callback)(unquote_splicing(arguments)) do
      unless ours?(unquote(scope)), do: forward(unquote(callback), [unquote_splicing(arguments)])
    end
  end

  for {callback, arity} <- [
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

  # A handler that was set after ours may hand on to ours what ours hands on to it.
  defp forward(callback, arguments) do
    if handles?(callback, length(arguments)) and not Process.get(@forwarding, false) do
      Process.put(@forwarding, true)

      try do
        apply(other_handler(), callback, arguments)
      after
        Process.delete(@forwarding)
      end
    end
  end

  defp handles?(callback, arity) do
    handler = other_handler()

    handler != nil and Code.ensure_loaded?(handler) and
      function_exported?(handler, callback, arity)
  end

  defp other_handler, do: :persistent_term.get(@other_handler, nil)
end
