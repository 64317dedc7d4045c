defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Question do
  @moduledoc false
  # Questions to this node's member about the state, which may lag behind that of the leader.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Machine, Server}

  @doc "What `Machine.answer/3` says."
  @spec ask(atom, [term]) :: {:ok, answer :: term} | :error
  def ask(question, arguments) do
    with {_name, _node} = server <- Server.id(),
         query = {Machine, :answer, [question, arguments]},
         {:ok, {_index_and_term, answer}, _leader} <- apply(:ra, :local_query, [server, query]) do
      {:ok, answer}
    else
      _no_server_or_timeout -> :error
    end
  catch
    # The server has ended.
    :exit, _reason -> :error
  end
end
