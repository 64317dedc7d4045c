defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Supervisor do
  @moduledoc false
  # The processes of the engine. They run from the first registry that uses it to the end of the last one.

  use Supervisor

  alias WorkflowMetal.Registration.NativeRegistry.Cluster
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Fence, Options, Server, Session}

  # Each process may be killed at any time.
  @restarts 1_000

  @spec start(Options.t()) :: :ok
  def start(options) do
    case Supervisor.start_child(Cluster.Supervisor, child_spec(options)) do
      {:ok, _pid} -> :ok
      {:error, {:already_started, _pid}} -> :ok
      {:error, reason} -> raise "the engine ra could not be started: #{inspect(reason)}"
    end
  end

  @spec stop() :: :ok
  def stop do
    with :ok <- Supervisor.terminate_child(Cluster.Supervisor, __MODULE__),
         do: Supervisor.delete_child(Cluster.Supervisor, __MODULE__)

    :ok
  end

  @spec start_link(Options.t()) :: Supervisor.on_start()
  def start_link(options), do: Supervisor.start_link(__MODULE__, options, name: __MODULE__)

  @impl Supervisor
  def init(options) do
    # The session needs the others, and the fence guards what a session before this one was granted.
    children = [{Server, options}, {Fence, {options, Session}}, {Session, options}]
    Supervisor.init(children, strategy: :rest_for_one, max_restarts: @restarts)
  end
end
