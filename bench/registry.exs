# Compares registries behind WorkflowMetal's adapter callbacks; bench/README.md says how.

files =
  ~w(measure names engines vm builds holders parts latency subscribers runs plan wanted report environment) ++
    ~w(json plot plots main)

code = Enum.flat_map(files, &Code.require_file("support/#{&1}.exs", __DIR__))

# The VMs that the benchmark starts are given its code.
Bench.Main.run(System.argv(), code)
