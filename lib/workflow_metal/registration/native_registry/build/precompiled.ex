defmodule WorkflowMetal.Registration.NativeRegistry.Build.Precompiled do
  @moduledoc false

  @spec find(Path.t(), map) :: {:ok, Path.t(), String.t()} | :none
  def find(_root, _target), do: :none
end
