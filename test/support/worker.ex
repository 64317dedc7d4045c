defmodule WorkflowMetal.Registration.NativeRegistry.Worker do
  @moduledoc false
  # The child of most tests. Its state is the options it was started with; the option `:init` is a
  # function that takes the place of `init/1`.

  use GenServer, restart: :temporary

  def start_link(options), do: start(&GenServer.start_link/3, options)

  def start(options), do: start(&GenServer.start/3, options)

  defp start(start, options) do
    start.(__MODULE__, options, Keyword.take(options, [:name]))
  end

  @impl GenServer
  def init(options) do
    init = Keyword.get(options, :init, fn -> {:ok, options} end)
    init.()
  end

  @impl GenServer
  def handle_call(:pid, _from, options), do: {:reply, self(), options}
  def handle_call(:options, _from, options), do: {:reply, options, options}

  @impl GenServer
  def handle_cast({:tell, pid, message}, options) do
    send(pid, {self(), message})
    {:noreply, options}
  end

  def handle_cast(:stop, options), do: {:stop, :normal, options}
  def handle_cast(_message, options), do: {:noreply, options}

  @impl GenServer
  def handle_info({:tell, pid, message}, options) do
    send(pid, {self(), message})
    {:noreply, options}
  end

  def handle_info(_message, options), do: {:noreply, options}
end
