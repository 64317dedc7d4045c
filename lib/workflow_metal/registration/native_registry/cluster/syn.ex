defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Syn do
  @moduledoc false
  # The engine syn 3: tens of thousands of registrations a second. Two nodes may register a name at once;
  # the conflict is resolved when they hear of each other. Each registry is a scope of syn.
  #
  # This module is also syn's event handler, of which there is one for all scopes. It forwards events of
  # scopes that are no registries to the handler that was set before.

  @behaviour WorkflowMetal.Registration.NativeRegistry.Cluster.Engine

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{Config, Conflict, Peers}

  # The pause before a name is registered again whose holder has ended without syn having noticed, in
  # milliseconds.
  @pause 1

  @other_handler {__MODULE__, :other_handler}
  @forwarding {__MODULE__, :forwarding}

  @impl true
  def requires, do: [{:syn, "{:syn, \"~> 3.3\"}"}]

  @impl true
  def start(registry, _options) do
    {:ok, _started} = Application.ensure_all_started(:syn)
    # Before the scope is started, which may find conflicts at once.
    attend(registry)
    :ok = syn(:add_node_to_scopes, [[registry]])
    scope(registry)
  end

  # A handler that was set after this one replaced it. It becomes the one that events are forwarded to.
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

  # syn's process is called by the messages that syn's nodes send each other, which stay the same within
  # its version 3. Its functions always wait for five seconds, free a name whichever process holds it, and in strict
  # mode register no process but the caller.
  #
  # The meta data of a name is this node's name. syn does not tell other nodes of a name that was
  # registered before this node had its name until the meta data changes.
  @impl true
  def register(registry, name, pid, timeout) do
    register_until(registry, name, pid, node(), timeout, :unknown)
  end

  # syn does not tell other nodes of a registration that changes nothing.
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
      # syn does not do this for a process that was registered while this node had another name.
      {pid, _meta} when node(pid) == node() -> if Process.alive?(pid), do: pid, else: :undefined
      {pid, _meta} -> pid
      :undefined -> :undefined
    end
  rescue
    # syn has been stopped.
    _error in [ErlangError, ArgumentError] -> :undefined
  end

  # A scope of the user may have the name of a registry with another engine.
  defp ours?(scope), do: match?(%{engine: __MODULE__}, Config.get(scope))

  # Called on both nodes of a conflict. Each ends its own process.
  @doc false
  def resolve_registry_conflict(registry, name, {one, _, _} = first, {other, _, _} = second) do
    if ours?(registry) do
      winner = Conflict.decide(registry, name, one, other)

      for loser <- [one, other], loser != winner, node(loser) == node() do
        Peers.leave(registry, name, loser, winner)
      end

      winner
    else
      resolve_for_others(registry, name, first, second)
    end
  end

  # Without another handler, what syn does by default: the younger process stays, the other is killed.
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

  # A handler that was set after this one may forward to this one what it gets from it.
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
