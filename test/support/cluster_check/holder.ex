defmodule WorkflowMetal.Registration.NativeRegistry.ClusterCheck.Holder do
  @moduledoc false
  # A child that knows which name it has: by its dictionary, where the check finds it.

  use GenServer, restart: :transient

  def start_link(options) do
    GenServer.start_link(__MODULE__, options, Keyword.take(options, [:name]))
  end

  def put_held(options) do
    case options[:name] do
      nil -> Process.put(:held, [])
      {:via, _module, {registry, name}} -> Process.put(:held, [{registry, name}])
    end
  end

  @impl GenServer
  def init(options) do
    Process.flag(:trap_exit, Keyword.get(options, :trap_exit, false))
    put_held(options)
    # Those whose names are given away while they start.
    Process.sleep(Keyword.get(options, :starts_for, 0))
    {:ok, options}
  end

  @impl GenServer
  def handle_info(_message, options), do: {:noreply, options}

  for {name, restart} <- [Permanent: :permanent, Temporary: :temporary] do
    defmodule Module.concat(__MODULE__, name) do
      @moduledoc false
      alias WorkflowMetal.Registration.NativeRegistry.ClusterCheck.Holder

      def child_spec(options) do
        %{
          id: __MODULE__,
          restart: unquote(restart),
          start: {Holder, :start_link, [options]}
        }
      end
    end
  end

  defmodule Supervisor do
    @moduledoc false
    use DynamicSupervisor

    alias WorkflowMetal.Registration.NativeRegistry.ClusterCheck.Holder

    def start_link(options) do
      DynamicSupervisor.start_link(__MODULE__, options, Keyword.take(options, [:name]))
    end

    @impl DynamicSupervisor
    def init(options) do
      Holder.put_held(options)
      DynamicSupervisor.init(strategy: :one_for_one, max_restarts: 100_000)
    end
  end
end
