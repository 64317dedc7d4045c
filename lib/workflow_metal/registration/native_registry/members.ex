defmodule WorkflowMetal.Registration.NativeRegistry.Members do
  @moduledoc """
  The members of the cluster of registries with `cluster: {:ra, options}`.

  All registries of a node with this engine share one server, which is the node's membership. Members
  with a vote decide by majority who holds a name. Members without one hold names and look them up just
  the same, but nothing waits for them.

  Nodes join by themselves. Those of the option `nodes` form the cluster, or get a vote when they join it
  later; any other node joins without a vote, and leaves when it is stopped in order. A voter stays a
  member when it is stopped, and counts as one that does not answer.

  So these functions are needed only when the voters change, and when a node does not come back. They
  work on every node that is a member, from the remote console of a release, say, and by the Mix task
  `native_registry.members`. After a change of the voters the option `nodes` has to say the same at the
  next start of each node.

  ## Errors

  A change is refused as `{:error, {reason, explanation}}` when it would lose names or the majority. The
  explanation says why, and what to do instead. The reasons are

    * `:not_running`: this node is no member;
    * `:no_quorum`: no majority of the voters answers;
    * `:not_reachable`, `:not_joined`, `:not_caught_up`: the node that is to get a vote does not answer, is
      no member yet, or has not got all that the others have;
    * `:not_a_member`, `:still_running`, `:holds_names`: the node that is to be removed is no member, runs,
      or has a session with names;
    * `:has_quorum`, `:not_a_voter`, `:behind`: see `force_alone/0`;
    * `:failed`: something else, which the explanation names.
  """

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Members

  @typedoc """
  A member. `reachable?` says whether it answers this node, and `names` how many names its processes hold,
  as far as this node knows.
  """
  @type member :: %{
          node: node,
          voter?: boolean,
          leader?: boolean,
          reachable?: boolean,
          names: non_neg_integer
        }

  @type reason ::
          :not_running
          | :no_quorum
          | :not_reachable
          | :not_joined
          | :not_caught_up
          | :not_a_member
          | :not_a_voter
          | :still_running
          | :holds_names
          | :has_quorum
          | :behind
          | :failed

  @type refusal :: {:error, {reason, explanation :: String.t()}}

  @doc """
  The members, sorted by their nodes. None of them is the leader when no majority of the voters answers.
  """
  @spec list() :: {:ok, [member]} | refusal
  def list, do: Members.list()

  @doc """
  Gives a member a vote, and waits until it has it.

  The node has to run already, and has joined without a vote. It gets its vote when it has all that the
  others have. Does nothing when it has a vote.
  """
  @spec add(node) :: :ok | refusal
  def add(node), do: Members.add(node!(node))

  @doc """
  Removes a member that is gone, so that it does not count any more when a majority is needed.

  Refused while the node runs: it would join again. Stop it, after `NativeRegistry.Registry.drain/2` if its
  names are to move to other nodes at once. Refused also while it holds names: those of a node that has
  crashed are free when its session ends, 1.3 times the option `lease` later.
  """
  @spec remove(node) :: :ok | refusal
  def remove(node), do: Members.remove(node!(node))

  @doc """
  Gives `new` a vote and removes `old`, which is gone: `add/1` and `remove/1`, which are both checked before
  anything is changed.
  """
  @spec replace(old :: node, new :: node) :: :ok | refusal
  def replace(old, new), do: Members.replace(node!(old), node!(new))

  @doc """
  Makes this node the only member when the majority of the voters is lost for good.

  Without a majority no name can be registered, and no node decides by itself that the others are lost: a
  node that is cut off sees the same. **If one of the others runs, or starts again with its data while it
  cannot reach this node, two processes can hold one name.** So stop the lost nodes, or make sure that they
  are gone, before. Nodes that are left and are connected join again by themselves, under a new name, with the
  votes that their option `nodes` gives them.

  What a majority had agreed on and this node had not heard of is lost: names that were registered or given
  back in the last moments. Holders of such names cannot be alive, as this function waits for 1.3 times the
  option `lease` first.

  Refused when a majority answers, when this node has no vote, and when another voter that is left has
  more of what was agreed on: call it there.
  """
  @spec force_alone() :: :ok | refusal
  def force_alone, do: Members.force_alone()

  defp node!(node) when is_atom(node) and node not in [nil, true, false], do: node

  defp node!(other) do
    raise ArgumentError, "expected the name of a node, got: #{inspect(other)}"
  end
end
