defmodule Consumer.Shop do
  @moduledoc """
  A registry without WorkflowMetal: processes that are opened and found by name.
  """
  use Supervisor

  alias Consumer.Order
  alias WorkflowMetal.Registration.NativeRegistry

  @orders Consumer.Shop.Orders

  def start_link(_arguments), do: Supervisor.start_link(__MODULE__, nil, name: __MODULE__)

  @impl Supervisor
  def init(nil) do
    {:ok, registry, _meta} = NativeRegistry.child_spec(__MODULE__, [])

    Supervisor.init([registry, {DynamicSupervisor, name: @orders}], strategy: :one_for_one)
  end

  @doc "The process of an order, which is started if it does not run."
  def open(id), do: NativeRegistry.start_child(meta(), {Order, id}, @orders, {Order, id: id})

  @doc "The process of an order, or `:undefined`."
  def whereis(id), do: NativeRegistry.whereis_name(meta(), {Order, id})

  @doc "The name of an order."
  def via(id), do: NativeRegistry.via_tuple(meta(), {Order, id})

  @doc "The registry's own process."
  def registry do
    {:ok, %{id: id}, _meta} = NativeRegistry.child_spec(__MODULE__, [])
    {^id, pid, :worker, _modules} = List.keyfind(Supervisor.which_children(__MODULE__), id, 0)
    pid
  end

  defp meta do
    {:ok, _registry, meta} = NativeRegistry.child_spec(__MODULE__, [])
    meta
  end
end
