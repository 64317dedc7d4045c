# The guides as modules, so that their `iex>` examples are doctests: `doctest_file/1` is not in Elixir 1.14.
for path <- Path.wildcard(Path.expand("../../guides/*.md", __DIR__)) do
  name = path |> Path.basename(".md") |> Macro.camelize()

  defmodule Module.concat(WorkflowMetal.Registration.NativeRegistry.Guides, name) do
    @external_resource path

    # A fence would be taken for a part of the example's result.
    @moduledoc path |> File.read!() |> String.replace(~r/^```.*$/m, "")
  end
end
