defmodule Consumer.Order do
  @moduledoc """
  An order: a list of things.
  """
  use GenServer, restart: :transient

  def start_link(arguments) do
    GenServer.start_link(__MODULE__, arguments[:id], name: arguments[:name])
  end

  def add(server, thing), do: GenServer.call(server, {:add, thing})

  @impl GenServer
  def init(id), do: {:ok, {id, []}}

  @impl GenServer
  def handle_call({:add, thing}, _from, {id, things}) do
    things = [thing | things]
    {:reply, {id, Enum.reverse(things)}, {id, things}}
  end
end
