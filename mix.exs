defmodule WorkflowMetal.Registration.NativeRegistry.MixProject do
  use Mix.Project

  @version "0.1.0"
  @source_url "https://github.com/Byzanteam/workflow_metal_native_registry"

  # In the order in which they are read.
  @guides [
    "guides/installing.md",
    "guides/moving_from_local_registry.md",
    "guides/names_values_patterns.md",
    "guides/events_and_waiting.md",
    "guides/several_nodes.md",
    "guides/production.md",
    "guides/troubleshooting.md"
  ]

  def project do
    [
      app: :workflow_metal_native_registry,
      version: @version,
      elixir: "~> 1.14",
      # After :elixir, which compiles the task that calls cargo.
      compilers: Mix.compilers() ++ [:native_registry],
      elixirc_paths: elixirc_paths(Mix.env()),
      # A project of its own, which `mix test` would warn of since Elixir 1.19.
      test_ignore_filters: [&String.starts_with?(&1, "test/consumer/")],
      # Without Hex, WorkflowMetal and engines reach the code path by ERL_LIBS, which is no
      # dependency that Mix knows of.
      prune_code_paths: false,
      start_permanent: Mix.env() == :prod,
      deps: deps(Code.ensure_loaded?(Hex)),
      name: "WorkflowMetal NativeRegistry",
      description:
        "A process registry for WorkflowMetal whose lookups and registrations are native",
      package: package(),
      docs: docs(),
      source_url: @source_url
    ]
  end

  def application do
    [
      mod: {WorkflowMetal.Registration.NativeRegistry.Application, []},
      extra_applications: [:logger]
    ]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # Mix offers to install Hex as soon as a dependency needs it, and waits for an answer. The
  # package builds and runs without any.
  defp deps(false), do: []

  defp deps(true) do
    [
      {:workflow_metal, ">= 0.2.1", optional: true},
      {:telemetry, "~> 1.0", optional: true},
      {:syn, "~> 3.3", optional: true},
      {:ex_doc, ">= 0.0.0", only: :dev, runtime: false}
    ]
  end

  defp package do
    [
      licenses: ["MIT"],
      links: %{"GitHub" => @source_url},
      files: ~w(lib native guides Cargo.toml Cargo.lock mix.exs README.md CHANGELOG.md LICENSE
        .formatter.exs)
    ]
  end

  defp docs do
    [
      main: "readme",
      source_ref: "v#{@version}",
      extras: ["README.md" | @guides] ++ ["CHANGELOG.md", "CONTRIBUTING.md"],
      groups_for_extras: [Guides: @guides]
    ]
  end
end
