defmodule WorkflowMetal.Registration.NativeRegistry.OtherVM do
  @moduledoc false
  # Another VM, for tests that need other flags or another node name.

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Terms

  @registry __MODULE__.Registry

  @patience 60_000

  # A VM that is not distributed, with a registry in it, for as long as the calling process lives.
  def start(flags \\ []) do
    paths = for path <- :code.get_path(), do: [~c"-pa", path]

    {:ok, vm, _node} =
      :peer.start_link(%{
        connection: :standard_io,
        args: Enum.concat([flags | paths]),
        env: environment()
      })

    {:ok, _applications} = call(vm, :application, :ensure_all_started, [:elixir])
    call(vm, __MODULE__, :start_registry, [])
    vm
  end

  defp environment do
    for variable <- ["WORKFLOW_METAL_NATIVE_REGISTRY_PORTABLE"],
        value = System.get_env(variable),
        do: {String.to_charlist(variable), String.to_charlist(value)}
  end

  def call(vm, module, function, arguments, timeout \\ @patience) do
    :peer.call(vm, module, function, arguments, timeout)
  end

  def registry, do: @registry

  # Pauses a VM by a signal to its process of the operating system.
  def pause(os) do
    {_output, 0} = System.cmd("kill", ["-STOP", os])
    await_stopped(os, 12_000)
  end

  def resume(os), do: System.cmd("kill", ["-CONT", os], stderr_to_stdout: true)

  # Kills a VM by a signal, as one that is paused does not answer, and waits until its peer has seen it.
  def kill(peer, os) do
    Process.unlink(peer)
    System.cmd("kill", ["-KILL", os], stderr_to_stdout: true)
    monitor = Process.monitor(peer)

    receive do
      {:DOWN, ^monitor, :process, ^peer, _reason} -> :ok
    after
      @patience -> Process.exit(peer, :kill)
    end
  end

  # The signal has been sent, but may not have arrived.
  defp await_stopped(os, looks) do
    cond do
      stopped?(os) -> :ok
      looks == 0 -> raise "the process #{os} of the operating system does not stop"
      true -> Process.sleep(5) && await_stopped(os, looks - 1)
    end
  end

  # If the operating system does not report it, assume that the signal arrives at once.
  defp stopped?(os) do
    case File.read("/proc/#{os}/stat") do
      {:ok, status} -> status =~ ") T "
      {:error, _reason} -> true
    end
  end

  @doc false
  def start_registry do
    {:ok, supervisor} =
      Supervisor.start_link([{NativeRegistry, name: @registry}], strategy: :one_for_one)

    Process.unlink(supervisor)
    :ok
  end

  # Names about as deep as they may be, of every kind of term that can be nested, given to every function.
  def hold_deep_names do
    one_level = [&{&1}, &{1, &1, "b"}, &[&1], &%{1 => &1}, &%{&1 => 1}, &{make_ref(), &1}]
    two_levels = [&[1 | {&1}], &Terms.closure/1]

    for {levels, wraps} <- [{254, one_level}, {120, two_levels}], wrap <- wraps do
      deep = Terms.nest(:name, levels, wrap)

      for name <- [deep, {make_ref(), deep}] do
        this = self()
        {:ok, ^this} = NativeRegistry.Registry.register(@registry, name, name)
        ^this = NativeRegistry.whereis_name({@registry, Terms.copy(name)})
        [^name] = NativeRegistry.Registry.keys(@registry, this)
        [{^name, ^this, ^name}] = NativeRegistry.Registry.match_names(@registry, :_)
        1 = NativeRegistry.Registry.count_names(@registry, name)
        :ok = NativeRegistry.Registry.unregister(@registry, name)
      end
    end

    :ok
  end
end
