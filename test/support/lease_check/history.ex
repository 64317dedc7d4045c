defmodule WorkflowMetal.Registration.NativeRegistry.LeaseCheck.History do
  @moduledoc false
  # What the processes of one node note while they register and hold names, in a table that outlives them.
  #
  # All times are nanoseconds of one clock that all VMs of the machine share, and that a VM which is paused
  # does not stop: the one that leases are measured with.

  alias WorkflowMetal.Registration.NativeRegistry.Native

  @table __MODULE__

  # Where `sample/2` writes in the row of a hold.
  @token 7
  @valid_first 8
  @valid_last 9
  @found_first 10
  @found_last 11
  @ended 12

  @type id :: {:hold, integer}

  @spec start() :: :ok
  def start do
    caller = self()

    # It lives as long as the node.
    spawn(fn ->
      :ets.new(@table, [:named_table, :public, :set, write_concurrency: true])
      send(caller, :noted)
      Process.sleep(:infinity)
    end)

    receive do
      :noted -> :ok
    end
  end

  @spec now() :: integer
  def now, do: Native.lease_clock()

  @doc "A registration that was asked for, and later its answer."
  def asked(name) do
    key = {:attempt, unique()}
    :ets.insert(@table, {key, name, now(), nil, nil})
    key
  end

  def answered(key, answer), do: :ets.update_element(@table, key, [{4, now()}, {5, answer}])

  @spec granted(term, atom, integer) :: id
  def granted(name, kind, asked) do
    key = {:hold, unique()}
    :ets.insert(@table, {key, name, kind, self(), asked, now(), nil, nil, nil, nil, nil, nil})
    key
  end

  def token(key), do: :ets.lookup_element(@table, key, @token)
  def put_token(key, token), do: :ets.update_element(@table, key, {@token, token})

  @doc "The process lets go of the name from now on. It is not sampled any more."
  def ended(key, how), do: :ets.update_element(@table, key, {@ended, {now(), how}})

  def ended?(key), do: :ets.lookup_element(@table, key, @ended) != nil

  @doc """
  Something held at an instant between `since` and `until`. So the track begins at the `until` of the first
  sample, and ends at the `since` of the last one: what is noted is never longer than what was.
  """
  def sample(key, track, since, until) do
    {first, last} = positions(track)

    if :ets.lookup_element(@table, key, first) == nil,
      do: :ets.update_element(@table, key, [{first, until}, {last, until}]),
      else:
        :ets.update_element(
          @table,
          key,
          {last, max(since, :ets.lookup_element(@table, key, first))}
        )
  end

  defp positions(:valid), do: {@valid_first, @valid_last}
  defp positions(:found), do: {@found_first, @found_last}

  @doc "Something that must not be."
  def wrong(name, what), do: :ets.insert(@table, {{:wrong, unique()}, name, self(), now(), what})

  defp unique, do: :erlang.unique_integer([:monotonic])

  @type row :: tuple

  @spec rows() :: [row]
  def rows, do: :ets.tab2list(@table)

  def forget, do: :ets.delete_all_objects(@table)
end
