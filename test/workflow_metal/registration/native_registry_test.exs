defmodule WorkflowMetal.Registration.NativeRegistryTest do
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry
  alias WorkflowMetal.Registration.NativeRegistry.Registry

  doctest NativeRegistry
  doctest Registry
end
