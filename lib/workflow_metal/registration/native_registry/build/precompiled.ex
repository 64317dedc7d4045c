defmodule WorkflowMetal.Registration.NativeRegistry.Build.Precompiled do
  @moduledoc false
  # A library that was compiled before, by `mix native_registry.precompile`, to be used instead of cargo.

  alias WorkflowMetal.Registration.NativeRegistry.Build.{Archive, Digest, Machine, Manifest}

  @application :workflow_metal_native_registry
  @variable "WORKFLOW_METAL_NATIVE_REGISTRY_PRECOMPILED"

  @doc """
  The library for `target` that the environment or the configuration names, as a file, and its digest. Raises
  `Mix.Error` if what is named does not fit: nobody who names an archive wants another library in silence.
  """
  @spec find(Path.t(), %{:triple => String.t(), optional(atom) => term}) ::
          {:ok, Path.t(), fingerprint :: String.t()} | :none
  def find(root, %{triple: target}) do
    with {by, named} <- named() do
      case fitting(named, root, target) do
        {:ok, library} ->
          fingerprint = Digest.bytes(library)
          {:ok, put(library, fingerprint), fingerprint}

        {:error, path, reason} ->
          Mix.raise(
            "#{path}, which #{by} names as precompiled library, cannot be used: #{reason}"
          )
      end
    end
  end

  defp named do
    case System.get_env(@variable, "") do
      "" ->
        case Application.get_env(@application, :precompiled) do
          nil -> :none
          named -> {"`config :#{@application}, :precompiled`", named}
        end

      named ->
        {@variable, named}
    end
  end

  defp fitting(named, root, target) do
    with {:ok, archive, facts} <- archive(named, root, target),
         {:ok, content} <- archive |> Archive.read(facts) |> of(archive),
         :ok <- content |> check(root, target) |> of(archive) do
      {:ok, content.library}
    end
  end

  defp of({:error, reason}, archive), do: {:error, archive, reason}
  defp of(fine, _archive), do: fine

  defp archive(named, root, target) do
    cond do
      not is_binary(named) ->
        {:error, inspect(named), "it is not a path"}

      Path.type(named) != :absolute ->
        {:error, named,
         "the path is not absolute, and a dependency is compiled in its own folder"}

      File.dir?(named) ->
        in_folder(named, root, target)

      File.exists?(named) ->
        with {:ok, facts} <- named |> Path.basename() |> facts(root, target) |> of(named),
             do: {:ok, named, facts}

      true ->
        {:error, named, "there is no such file or folder"}
    end
  end

  defp in_folder(folder, root, target) do
    names = for name <- list(folder), String.ends_with?(name, ".tar.gz"), do: name
    fitting = for name <- names, {:ok, facts} <- [facts(name, root, target)], do: {name, facts}

    case Enum.max_by(fitting, fn {_name, facts} -> numbers(facts.nif) end, fn -> nil end) do
      {name, facts} ->
        {:ok, Path.join(folder, name), facts}

      nil ->
        has = if names == [], do: "none at all", else: names |> Enum.sort() |> Enum.join(", ")

        {:error, folder,
         "it has no archive for the version #{Manifest.version(root)}, the NIF version #{nif()} or " <>
           "older, and the target #{target}. It has: #{has}"}
    end
  end

  # A folder that may not be read has no archive for us.
  defp list(folder) do
    case File.ls(folder) do
      {:ok, names} -> names
      {:error, _reason} -> []
    end
  end

  defp facts(name, root, target) do
    with {:ok, facts} <- Archive.facts(name),
         {:version, true} <- {:version, facts.version == Manifest.version(root)},
         {:target, true} <- {:target, facts.target == target},
         {:nif, true} <- {:nif, loadable?(facts.nif)} do
      {:ok, facts}
    else
      :error ->
        wanted = %{version: Manifest.version(root), nif: Manifest.nif(root), target: target}
        {:error, "an archive for this machine has the name #{Archive.name(wanted)}"}

      {wrong, false} ->
        {:ok, facts} = Archive.facts(name)
        {:error, wrong(wrong, facts, root, target)}
    end
  end

  defp wrong(:version, facts, root, _target),
    do: "it is of the version #{facts.version}, and this is #{Manifest.version(root)}"

  defp wrong(:target, facts, _root, target),
    do: "it is for the target #{facts.target}, and the library is wanted for #{target}"

  defp wrong(:nif, facts, _root, _target),
    do: "it needs the NIF version #{facts.nif}, and this VM has #{nif()}"

  # A VM loads what was made for the same major version and an older minor one.
  defp loadable?(nif) do
    [major, minor] = numbers(nif)
    [ours_major, ours_minor] = numbers(nif())
    major == ours_major and minor <= ours_minor
  end

  defp nif, do: List.to_string(:erlang.system_info(:nif_version))

  defp numbers(version), do: for(part <- String.split(version, "."), do: String.to_integer(part))

  # Two commits may have one version, and a library of other functions than the modules expect.
  defp check(content, root, target) do
    sources = Digest.sources(root)
    wanted = Machine.of_target(target)

    case Machine.of_library(content.library) do
      _machine when content.sources != sources ->
        {:error, "it was built from other sources than those in #{root}"}

      ^wanted ->
        :ok

      :unknown ->
        {:error, "what is in it is no native library"}

      {format, processor} ->
        {wanted_format, wanted_processor} = wanted

        {:error,
         "the library in it is #{format} for the processor #{processor}, and " <>
           "#{target} takes #{wanted_format} for #{wanted_processor}"}
    end
  end

  # As a file of the build, which `mix clean` removes.
  defp put(library, fingerprint) do
    folder = Path.join(Mix.Project.app_path(), "precompiled")
    path = Path.join(folder, fingerprint)

    if File.read(path) != {:ok, library} do
      File.rm_rf!(folder)
      File.mkdir_p!(folder)
      File.write!(path, library)
    end

    path
  end
end
