defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Application do
  @moduledoc false
  # What runs on a node for all its registries that are part of a cluster.

  use Application

  alias WorkflowMetal.Registration.NativeRegistry.Cluster

  @impl Application
  def start(_type, _arguments) do
    Elixir.Supervisor.start_link(__MODULE__.Supervisor, nil, name: __MODULE__.Supervisor)
  end

  @doc "Runs the function in a process of its own, which is let end when the node stops."
  @spec run((() -> term)) :: {:ok, pid}
  def run(function) do
    {:ok, _pid} = Task.Supervisor.start_child(Cluster.Tasks, function)
  end

  defmodule Supervisor do
    @moduledoc false
    use Elixir.Supervisor

    # Each child may be killed and starts anew, however often.
    @restarts 1_000

    @impl Elixir.Supervisor
    def init(nil) do
      # It belongs to this process, which only says who runs.
      :ok = Cluster.Marks.create()

      children = [
        {Task.Supervisor, name: Cluster.Tasks},
        Cluster.Leaving,
        {DynamicSupervisor,
         name: Cluster.Followers, strategy: :one_for_one, max_restarts: @restarts}
      ]

      Elixir.Supervisor.init(children, strategy: :one_for_one, max_restarts: @restarts)
    end
  end
end
