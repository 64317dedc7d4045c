defmodule WorkflowMetal.Registration.NativeRegistryTest do
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry

  doctest NativeRegistry

  # What the examples begin with.
  defp start_registry do
    registry = Module.concat(__MODULE__, "N#{System.unique_integer([:positive])}")
    start_supervised!({NativeRegistry, name: registry})
    registry
  end
end
