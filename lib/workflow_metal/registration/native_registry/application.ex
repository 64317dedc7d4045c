defmodule WorkflowMetal.Registration.NativeRegistry.Application do
  @moduledoc false

  use Application

  alias WorkflowMetal.Registration.NativeRegistry.Cluster

  @impl Application
  def start(_type, _arguments) do
    Supervisor.start_link([Cluster.Supervisor], strategy: :one_for_one)
  end
end
