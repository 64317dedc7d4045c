defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Supervisor do
  @moduledoc false
  # What runs on a node for all of its clustered registries.

  use Supervisor

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.{
    Deadlines,
    Evictor,
    Global,
    Monitors,
    NameLock,
    Tasks
  }

  # Each child may be killed at any time and is restarted, however often.
  @restarts 1_000

  @spec start_link(term) :: Supervisor.on_start()
  def start_link(_options), do: Supervisor.start_link(__MODULE__, nil, name: __MODULE__)

  @impl Supervisor
  def init(nil) do
    # This process owns the tables, as it does nothing else and so has no reason to fail.
    for owner <- [NameLock, Deadlines, Global], do: :ok = owner.create_table()

    children = [
      Tasks,
      Evictor,
      {Monitors, @restarts}
    ]

    Supervisor.init(children, strategy: :one_for_one, max_restarts: @restarts)
  end
end
