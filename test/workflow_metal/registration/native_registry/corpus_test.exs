defmodule WorkflowMetal.Registration.NativeRegistry.CorpusTest do
  # `script/fuzz` looks for more.
  use WorkflowMetal.Registration.NativeRegistry.RegistryCase, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Fuzz

  test "every term of the corpus is refused, or comes back unchanged", %{registry: registry} do
    outcomes =
      for file <- Fuzz.corpus(), {:ok, name} <- [Fuzz.decode(File.read!(file))] do
        Fuzz.check!(registry, name, [])
      end

    assert Enum.count(outcomes, &(&1 == :name)) > 50
  end
end
