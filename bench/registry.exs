# Compares registries behind WorkflowMetal's adapter callbacks; bench/benchmarks.md says how.

files = ~w(engines names measure holders parts runs plan wanted report environment json main)
code = Enum.flat_map(files, &Code.require_file("support/#{&1}.exs", __DIR__))

# The VMs that the benchmark starts are given its code.
Bench.Main.run(System.argv(), code)
