defmodule Consumer.Check do
  @moduledoc """
  What is asked of a release of this project: `bin/consumer eval 'Consumer.Check.run()'`.
  """
  alias Consumer.{Order, Shop}

  def run do
    {:ok, _started} = Application.ensure_all_started(:consumer)
    {:ok, pid} = Shop.open("1")
    ^pid = Shop.whereis("1")
    {"1", [:book]} = Order.add(Shop.via("1"), :book)
    :undefined = Shop.whereis("2")
    IO.puts("The release registers and finds.")
  end
end
