defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Lease do
  @moduledoc false
  # The lease of this node: until which instant its processes may hold names of leased registries. It lies
  # in the native library, where each lookup compares the deadline with the clock.
  #
  # A session has one lease, from `begin/2` until `finish/1`, and its number is the epoch. Instants are
  # nanoseconds of `clock/0`, a clock that goes on while the machine sleeps, where there is one.

  alias WorkflowMetal.Registration.NativeRegistry.Native

  @typedoc """
  The number of a life of this node's session. Each is greater than all before it in this VM, as
  `System.unique_integer([:positive, :monotonic])` is.
  """
  @type epoch :: pos_integer

  @typedoc "Nanoseconds of `clock/0`."
  @type instant :: integer

  @doc "The instant now."
  @spec clock() :: instant
  def clock, do: Native.lease_clock()

  @doc """
  Begins a life. The one before must have ended, and its epoch must be less: a registration that was on
  its way then cannot be taken for one of this life.
  """
  @spec begin(epoch, deadline :: instant) :: :ok
  def begin(epoch, deadline) do
    unless Native.lease_begin(epoch, deadline) do
      raise ArgumentError,
            "expected an epoch greater than all before it, after the end of the one before, " <>
              "got: #{inspect(epoch)}"
    end

    :ok
  end

  @doc """
  Moves the deadline of this epoch, unless it is later already. `false` when the epoch has ended.
  """
  @spec extend(epoch, deadline :: instant) :: boolean
  def extend(epoch, deadline), do: Native.lease_extend(epoch, deadline)

  @doc """
  Ends the epoch; `false` when it has ended already. Afterwards nothing is found that this node's processes
  hold, and no `extend/2` of the epoch succeeds. A `Table.hold/6` that has begun before is among `holds/0`
  until it has inserted the holder.
  """
  @spec finish(epoch) :: boolean
  def finish(epoch), do: Native.lease_end(epoch)

  @doc "The nanoseconds that are left of the lease. Not above 0: there is none."
  @spec left() :: integer
  def left, do: Native.lease_left()

  @doc """
  How many calls of `Table.hold/6` have looked, or are about to look, at the epoch and have not inserted
  the holder. When this has been 0 once after `finish/1`, no further holder comes under that epoch.
  """
  @spec holds() :: non_neg_integer
  def holds, do: Native.lease_holds()

  @doc "Every process that holds a name of a leased registry which runs or is suspended, each once."
  @spec holders() :: [pid]
  def holders, do: Native.lease_holders()
end
