defmodule Bench.VM do
  # VMs that are started to measure something in them.

  @doc "Calls the function with a VM of this code path, which ends afterwards."
  def run(path, fun) do
    # A million names want a million processes.
    arguments = [~c"+P", ~c"2000000" | Enum.flat_map(path, &[~c"-pa", &1])]
    # Without ERL_LIBS, which would put more on the code path.
    environment = [{~c"ERL_LIBS", ~c""}]
    options = %{connection: :standard_io, args: arguments, env: environment, wait_boot: 60_000}
    {:ok, vm, _node} = :peer.start(options)

    try do
      {:ok, _started} = call(vm, Application, :ensure_all_started, [:logger])

      # Where telemetry is on the code path, applications have started it.
      if call(vm, Code, :ensure_loaded?, [:telemetry]) do
        {:ok, _started} = call(vm, Application, :ensure_all_started, [:telemetry])
      end

      fun.(vm)
    after
      :peer.stop(vm)
    end
  end

  @doc "Has the VM load the modules of the benchmark."
  def load(vm, code) do
    for {module, binary} <- code do
      {:module, ^module} = call(vm, :code, :load_binary, [module, ~c"bench", binary])
    end
  end

  def call(vm, module, function, arguments),
    do: :peer.call(vm, module, function, arguments, :infinity)
end
