defmodule Consumer.Application do
  @moduledoc false
  use Application

  @impl Application
  def start(_type, _args) do
    Supervisor.start_link([Consumer.Shop | workflows()],
      strategy: :one_for_one,
      name: Consumer.Supervisor
    )
  end

  # A release has WorkflowMetal only where it is a dependency.
  defp workflows do
    if Code.ensure_loaded?(WorkflowMetal.Application) and Code.ensure_loaded?(Consumer.Workflows),
      do: [Consumer.Workflows],
      else: []
  end
end
