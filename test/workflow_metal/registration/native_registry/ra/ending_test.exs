defmodule WorkflowMetal.Registration.NativeRegistry.Ra.EndingTest do
  # How the holders of a node end whose lease has run out.
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Ending

  test "that a node ends its holders is logged, once for all of them" do
    # The other tests log errors only.
    :ok = :logger.set_module_level(Ending, :warning)
    :ok = :logger.add_handler(__MODULE__, __MODULE__, %{config: %{test: self()}})
    holders = for _ <- 1..3, do: spawn(fn -> Process.sleep(:infinity) end)
    monitors = for pid <- holders, do: Process.monitor(pid)

    {:ok, _pid} = Ending.start(holders)

    for monitor <- monitors do
      assert_receive {:DOWN, ^monitor, :process, _pid, {:shutdown, :no_quorum}}
    end

    assert_receive {:logged, :warning, text}
    assert text =~ "the 3 processes here that hold names are ended"
    refute_receive {:logged, _level, _text}
  after
    :logger.remove_handler(__MODULE__)
    :logger.unset_module_level(Ending)
  end

  def log(%{level: level, msg: {:string, text}, meta: %{mfa: {Ending, _, _}}}, handler),
    do: send(handler.config.test, {:logged, level, IO.chardata_to_string(text)})

  def log(_of_another_module, _handler), do: :ok
end
