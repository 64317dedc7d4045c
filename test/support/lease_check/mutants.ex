defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.Mutants do
  @moduledoc false
  # Faults of the engine `:ra` that the check must report. Each is the code of this project in which some text
  # is replaced. It is compiled on the nodes alone.

  @folder Path.expand(
            "../../../lib/workflow_metal/registration/native_registry/cluster/ra",
            __DIR__
          )

  @mutants %{
    # T' < F: the machine gives names away before the lease has run out.
    expiry_shorter_than_the_lease: [
      {"machine.ex", "div(lease * 13, 10)", "div(lease, 2)"}
    ],
    # The lease is counted from the answer instead of the first sending.
    lease_from_the_answer: [
      {"session.ex",
       """
           deadline = first_sent + state.lease * 1_000_000

           if Lease.extend(\
       """,
       """
           _ = first_sent
           deadline = Lease.clock() + state.lease * 1_000_000

           if Lease.extend(\
       """}
    ],
    # The names of a node are freed when the connection to it is lost.
    freed_at_nodedown: [
      {"machine.ex", "timers ++ snapshot}",
       "timers ++ snapshot ++ [{:monitor, :node, session.node}]}"},
      {"machine.ex", "  # Of a later version of this project, or of ra itself.\n",
       """
         def apply(_meta, {:nodedown, node}, state) do
           gone = for {number, %{node: ^node}} <- state.sessions, do: number
           {Enum.reduce(gone, state, &end_session(&2, &1)), :ok}
         end

       """}
    ],
    # A new leader does not start the timers anew.
    timers_of_the_first_leader_only: [
      {"machine.ex", "for({number, session} <- state.sessions, do: timer(number, session))",
       "for({number, session} <- state.sessions, number < 0, do: timer(number, session))"}
    ],
    # A member that has lost its data is started again under its name.
    wiped_member_keeps_its_name: [
      {"identity.ex", ~S|uid = apply(:ra, :new_uid, ["NATIVE"])|,
       ~S|uid = "NATIVE" <> Base.encode16(:erlang.md5(Atom.to_string(node())))|}
    ],
    # Neither `lease_valid?/1` nor lookups compare the deadline with the clock: only the fence does.
    lease_not_checked: [
      {"lease.ex", "Native.lease_begin(epoch, deadline)",
       "Native.lease_begin(epoch, deadline + 1_000_000_000_000)"},
      {"lease.ex", "Native.lease_extend(epoch, deadline)",
       "Native.lease_extend(epoch, deadline + 1_000_000_000_000)"},
      {"lease.ex", "do: Native.lease_left()", "do: Native.lease_left() - 1_000_000_000_000"}
    ]
  }

  def names, do: Map.keys(@mutants)

  @doc "The changed sources of a mutant, each with its file."
  @spec sources(atom) :: [{source :: String.t(), file :: Path.t()}]
  def sources(mutant) do
    for {file, changes} <- Enum.group_by(Map.fetch!(@mutants, mutant), &elem(&1, 0)) do
      path = Path.join(@folder, file)
      {Enum.reduce(changes, File.read!(path), &change/2), path}
    end
  end

  defp change({file, old, new}, source) do
    case String.split(source, old) do
      [before, rest] -> before <> new <> rest
      parts -> raise "#{file} has #{length(parts) - 1} times and not once: #{old}"
    end
  end
end
