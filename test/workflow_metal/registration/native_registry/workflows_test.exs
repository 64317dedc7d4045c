defmodule WorkflowMetal.Registration.NativeRegistry.WorkflowsTest do
  # The workflows of the service that the repository lives on; actionlint checks the rest of them.
  use ExUnit.Case, async: true

  @root Path.expand("../../../..", __DIR__)
  @workflows Path.wildcard(Path.join(@root, ".github/workflows/*.yml"), match_dot: true)

  test "the actions that the workflows use are named by commit, with the release beside it" do
    uses =
      for workflow <- @workflows,
          [_all, action] <- Regex.scan(~r/^\s*-? uses: (.*)$/m, File.read!(workflow)),
          do: action

    assert length(uses) > 4
    for action <- uses, do: assert(action =~ ~r"^[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
  end

  test "every job of the workflows has a time limit, and may only read unless it says so" do
    for workflow <- @workflows, text = File.read!(workflow) do
      assert text =~ ~r/^permissions:\n  contents: read$/m
      jobs = Regex.scan(~r/^    runs-on: /m, text)
      assert jobs != []
      assert length(Regex.scan(~r/^    timeout-minutes: \d+$/m, text)) == length(jobs)
    end
  end

  test "the tests run with the oldest Elixir and the oldest Rust that the project accepts" do
    tests = File.read!(Path.join(@root, ".github/workflows/tests.yml"))

    [_all, rust] =
      Regex.run(~r/^rust-version = "(.*)"$/m, File.read!(Path.join(@root, "Cargo.toml")))

    "~> " <> elixir = Mix.Project.config()[:elixir]
    assert tests =~ ~s(elixir: "#{elixir}.0", otp: "25.0", rust: "#{rust}")
  end
end
