defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Later do
  @moduledoc false
  # A later version of the state machine, as one that changes the state will be: it is asked for version 1, has
  # the code of version 0 beside it, and changes the state once all members can.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.{Machine, Question}

  @path Path.expand(
          "../../../lib/workflow_metal/registration/native_registry/cluster/ra/machine.ex",
          __DIR__
        )

  @earlier Module.concat(Machine, V0)

  @changes [
    {"def version, do: 0", "def version, do: 1"},
    {"def which_module(0), do: __MODULE__",
     """
     def which_module(0), do: #{inspect(@earlier)}
     def which_module(1), do: __MODULE__
     """},
    {"  def apply(_meta, {:open,",
     """
       def apply(_meta, {:machine_version, 0, 1}, state), do: {%{state | version: 1}, :ok}
       def apply(_meta, {:open,\
     """},
    {"  def answer(:overview, [], state)",
     """
       def answer(:version, [], state), do: state.version
       def answer(:overview, [], state)\
     """}
  ]

  @doc "The sources of both versions, each with its file."
  @spec sources() :: [{source :: String.t(), file :: Path.t()}]
  def sources do
    source = File.read!(@path)
    module = "defmodule #{inspect(Machine)} do"
    earlier = change({module, "defmodule #{inspect(@earlier)} do"}, source)
    [{earlier, @path}, {Enum.reduce(@changes, source, &change/2), @path}]
  end

  defp change({old, new}, source) do
    case String.split(source, old) do
      [before, rest] -> before <> new <> rest
      parts -> raise "#{@path} has #{length(parts) - 1} times and not once: #{old}"
    end
  end

  @doc "The version of this node's state."
  @spec version() :: 0 | 1 | :unknown_question | :error
  def version do
    with {:ok, version} <- Question.ask(:version, []), do: version
  end
end
