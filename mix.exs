defmodule WorkflowMetal.Registration.NativeRegistry.MixProject do
  use Mix.Project

  @version "0.1.0"

  # Where the repository is to live. No other file has this address, and no build needs it: whoever
  # publishes the project elsewhere changes this line.
  @source_url "https://github.com/Byzanteam/workflow_metal_native_registry"

  # In the order in which they are read.
  @guides [
    "guides/installing.md",
    "guides/moving_from_local_registry.md",
    "guides/names_values_patterns.md",
    "guides/events_and_waiting.md",
    "guides/several_nodes.md",
    "guides/names_that_never_run_twice.md",
    "guides/production.md",
    "guides/troubleshooting.md"
  ]

  # ExDoc tells documents apart by the names of their files, so no other README.md is one.
  @documents ["README.md" | @guides] ++
               ~w(native/UNSAFE.md native/LICENSES.md CHANGELOG.md
                  CONTRIBUTING.md LICENSE)

  # What compiles. Hex takes all that lies in a folder, also what a build has left there: so these are
  # patterns of files.
  @sources ~w(mix.exs lib/**/*.ex Cargo.toml Cargo.lock
              native/native_registry/Cargo.toml native/native_registry/src/**/*.rs
              native/prefetch/Cargo.toml native/prefetch/src/**/*.rs
              native/registry_core/Cargo.toml native/registry_core/src/**/*.rs)

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
      {:workflow_metal, "~> 0.2.1 or ~> 0.3.0", optional: true},
      {:telemetry, "~> 1.0", optional: true},
      {:syn, "~> 3.3", optional: true},
      {:ra, ra(System.otp_release()), optional: true},
      {:ex_doc, ">= 0.0.0", only: :dev, runtime: false}
    ]
  end

  # ra 2.16 and newer do not run on OTP 25, and Hex does not know that. The package has the requirement of the
  # machine on which it is made: that is one with a newer OTP.
  defp ra("25"), do: "~> 2.15.4"
  defp ra(_newer), do: "~> 2.15 or ~> 3.0"

  defp package do
    [
      licenses: ["MIT"],
      links: %{"GitHub" => @source_url},
      files: @sources ++ @documents
    ]
  end

  defp docs do
    [
      main: "readme",
      source_ref: "v#{@version}",
      extras: @documents,
      groups_for_extras: [Guides: @guides]
    ]
  end
end
