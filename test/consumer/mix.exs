defmodule Consumer.MixProject do
  use Mix.Project

  def project do
    [
      app: :consumer,
      version: "0.1.0",
      elixir: "~> 1.14",
      # Not "*_test.exs": the project above would take these tests for its own.
      test_pattern: "*_check.exs",
      # Elixir 1.19 and later ask this one as well.
      test_load_filters: [&String.ends_with?(&1, "_check.exs")],
      # WorkflowMetal may come by ERL_LIBS, which is no dependency that Mix knows of.
      prune_code_paths: false,
      start_permanent: Mix.env() == :prod,
      deps: [{:workflow_metal_native_registry, path: "../.."}] ++ workflow_metal()
    ]
  end

  def application do
    [mod: {Consumer.Application, []}, extra_applications: [:logger | from_erl_libs()]]
  end

  # Without Hex, `mix` would stop and ask for it.
  defp workflow_metal do
    if Code.ensure_loaded?(Hex), do: [{:workflow_metal, "~> 0.2.1 or ~> 0.3.0"}], else: []
  end

  defp from_erl_libs do
    if Code.ensure_loaded?(WorkflowMetal), do: [:workflow_metal], else: []
  end
end
