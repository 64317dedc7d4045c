if Code.ensure_loaded?(WorkflowMetal.Application) do
  defmodule Consumer.Workflows do
    @moduledoc """
    The WorkflowMetal application of this project.
    """
    use WorkflowMetal.Application,
      registry: WorkflowMetal.Registration.NativeRegistry,
      storage: WorkflowMetal.Storage.Adapters.InMemory

    alias WorkflowMetal.Storage.Schema

    defmodule Ask do
      @moduledoc "Leaves the work to the process that the transition names."
      use WorkflowMetal.Executor, application: Consumer.Workflows

      @impl WorkflowMetal.Executor
      def execute(workitem, options) do
        send(options[:executor_params].worker, {:asked, workitem})
        :started
      end

      def done(workitem) do
        {:ok, _tokens} = preexecute(workitem)
        :ok = complete_workitem(workitem, %{done: true})
      end
    end

    @doc "start -> (pack) -> packed -> (ship) -> done, each step by `worker`."
    def insert(id, worker) do
      WorkflowMetal.Storage.insert_workflow(
        __MODULE__,
        %Schema.Workflow{id: id, state: :active},
        %{
          places:
            for {place, type} <- [start: :start, packed: :normal, done: :end] do
              %Schema.Place{id: "#{id}, #{place}", type: type, workflow_id: id}
            end,
          transitions:
            for transition <- [:pack, :ship] do
              %Schema.Transition{
                id: "#{id}, #{transition}",
                join_type: :none,
                split_type: :none,
                executor: Ask,
                executor_params: %{worker: worker},
                workflow_id: id
              }
            end,
          arcs:
            for {place, transition, direction} <- [
                  {:start, :pack, :out},
                  {:packed, :pack, :in},
                  {:packed, :ship, :out},
                  {:done, :ship, :in}
                ] do
              %Schema.Arc{
                id: "#{id}, #{place} and #{transition}",
                place_id: "#{id}, #{place}",
                transition_id: "#{id}, #{transition}",
                direction: direction,
                workflow_id: id
              }
            end
        }
      )
    end
  end
end
