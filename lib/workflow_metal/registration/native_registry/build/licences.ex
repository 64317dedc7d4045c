defmodule WorkflowMetal.Registration.NativeRegistry.Build.Licences do
  @moduledoc false
  # The licences of what is linked into the library: whoever hands on the library has to hand on these texts.

  alias WorkflowMetal.Registration.NativeRegistry.Build.{Json, Toolchain}

  @package "native_registry"

  @doc "The crates in the library for a target, and the texts of their licences, as the crates carry them."
  @spec third_party!(Path.t(), Toolchain.t(), String.t()) :: String.t()
  def third_party!(root, toolchain, target) do
    folders = folders!(root, toolchain, target)

    crates =
      for {name, version, licence, repository} <- crates!(root, toolchain, target),
          folder = Map.get(folders, {name, version}) do
        %{
          title: "#{name} #{version}",
          licence: licence,
          repository: repository,
          texts: texts(folder)
        }
      end

    without = for crate <- crates, crate.texts == [], do: "  #{crate.title}\n"

    IO.iodata_to_binary([
      "The library is linked from these crates:\n\n",
      for(
        crate <- crates,
        do: "  #{crate.title}, #{crate.licence}\n    #{crate.repository}\n"
      ),
      "\nand from the standard library of Rust (#{toolchain.version}), MIT OR Apache-2.0,\n",
      "Copyright (c) The Rust Project Contributors, https://github.com/rust-lang/rust\n",
      if(without == [],
        do: "",
        else: ["\nThese carry no text of their licence, only its name above:\n\n", without]
      ),
      Enum.map(grouped(crates), &section/1)
    ])
  end

  # Most texts are the same in many crates.
  defp grouped(crates) do
    pairs = for crate <- crates, text <- crate.texts, do: {text, crate.title}
    by_text = Enum.group_by(pairs, &elem(&1, 0), &elem(&1, 1))

    for text <- pairs |> Enum.map(&elem(&1, 0)) |> Enum.uniq(),
        do: {by_text |> Map.fetch!(text) |> Enum.uniq(), text}
  end

  defp section({titles, text}),
    do: ["\n", String.duplicate("-", 80), "\n", Enum.join(titles, ", "), "\n\n", text, "\n"]

  # What is linked: no build scripts, no macros that run during compilation.
  defp crates!(root, toolchain, target) do
    arguments = ~w(tree --locked --package #{@package} --edges normal,no-proc-macro --prefix none
      --no-dedupe --format {p}|{l}|{r} --target #{target})

    lines = root |> cargo!(toolchain, arguments) |> String.split(["\r\n", "\n"], trim: true)

    for line <- lines |> Enum.uniq() |> Enum.sort(),
        [package, licence, repository] = String.split(line, "|"),
        # More words may follow, such as the path of a crate of this package.
        [name, "v" <> version | _source] = String.split(package, " "),
        do: {name, version, licence, repository}
  end

  # `cargo tree` does not say where a crate is. Those without a source are this package's own.
  defp folders!(root, toolchain, target) do
    arguments = ~w(metadata --locked --format-version 1 --filter-platform #{target})
    {:ok, %{"packages" => packages}} = root |> cargo!(toolchain, arguments) |> Json.decode()

    for %{"name" => name, "version" => version, "manifest_path" => path, "source" => source} <-
          packages,
        source != nil,
        into: %{},
        do: {{name, version}, Path.dirname(path)}
  end

  defp cargo!(root, toolchain, arguments) do
    case System.cmd(toolchain.cargo, arguments, cd: root, env: toolchain.env) do
      {text, 0} -> text
      {_text, status} -> Mix.raise("`cargo #{hd(arguments)}` ended with status #{status}")
    end
  end

  defp texts(folder) do
    for name <- folder |> File.ls!() |> Enum.sort(),
        name =~ ~r/^(licen[cs]e|copying|copyright|notice|unlicense)/i,
        path = Path.join(folder, name),
        File.regular?(path),
        do: path |> File.read!() |> String.replace("\r\n", "\n") |> String.trim()
  end
end
