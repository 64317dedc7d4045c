defmodule WorkflowMetal.Registration.NativeRegistry.Build.Archive do
  @moduledoc false
  # An archive with a compiled library: its name, its entries, writing and reading one. The names of the
  # archive, of the library in it and of the file with digests beside it, and the format of that file, are
  # those of the package rustler_precompiled.

  alias WorkflowMetal.Registration.NativeRegistry.Build.Digest

  @crate "native_registry"
  @checksums "checksum-Elixir.WorkflowMetal.Registration.NativeRegistry.Native.exs"

  # Far more than a library has. An archive is read into memory as a whole.
  @most_bytes 64 * 1024 * 1024

  @type facts :: %{version: String.t(), nif: String.t(), target: String.t()}
  @type content :: %{
          library: binary,
          sources: String.t(),
          licence: binary,
          third_party: binary
        }

  @doc "The name of the archive of a version, a version of the native interface, and a target."
  @spec name(facts) :: String.t()
  def name(facts), do: library_name(facts) <> ".tar.gz"

  @doc "The name of the library in that archive."
  @spec library_name(facts) :: String.t()
  def library_name(%{version: version, nif: nif, target: target}) do
    {prefix, ending} = if target =~ "windows", do: {"", "dll"}, else: {"lib", "so"}
    "#{prefix}#{@crate}-v#{version}-nif-#{nif}-#{target}.#{ending}"
  end

  @doc "What the name of an archive says."
  @spec facts(String.t()) :: {:ok, facts} | :error
  def facts(name) do
    with [_all, version, nif, target] <-
           Regex.run(~r/^(?:lib)?#{@crate}-v(.+)-nif-(\d+\.\d+)-(.+)\.(?:so|dll)\.tar\.gz$/, name),
         facts = %{version: version, nif: nif, target: target},
         ^name <- name(facts) do
      {:ok, facts}
    else
      _other -> :error
    end
  end

  @doc "The name of the file that has the digests of the archives in its folder."
  @spec checksums_name() :: String.t()
  def checksums_name, do: @checksums

  @doc "Writes an archive into a folder, and its digest into the file beside it. Answers its path."
  @spec write!(Path.t(), facts, content) :: Path.t()
  def write!(folder, facts, content) do
    File.mkdir_p!(folder)
    archive = Path.join(folder, name(facts))
    tar = archive <> ".tmp"
    {:ok, writing} = :erl_tar.open(String.to_charlist(tar), [:write])

    # The same content makes the same archive, whoever packs it and when.
    for {entry, bytes} <- entries(facts, content) do
      options = [atime: 0, mtime: 0, ctime: 0, uid: 0, gid: 0]
      :ok = :erl_tar.add(writing, bytes, String.to_charlist(entry), options)
    end

    :ok = :erl_tar.close(writing)
    packed = tar |> File.read!() |> :zlib.gzip()
    File.write!(tar, packed)
    File.rename!(tar, archive)
    list!(folder, Path.basename(archive), Digest.bytes(packed))
    archive
  end

  defp entries(facts, content) do
    library = library_name(facts)

    [
      {library, content.library},
      # As sha256sum has it, for `sha256sum --check`.
      {library <> ".sha256", "#{Digest.bytes(content.library)}  #{library}\n"},
      {"SOURCES", content.sources <> "\n"},
      {"LICENSE", content.licence},
      {"THIRD_PARTY.txt", content.third_party}
    ]
  end

  defp list!(folder, archive, digest) do
    path = Path.join(folder, @checksums)

    listed =
      case checksums(folder) do
        {:ok, listed} -> listed
        :none -> %{}
        {:error, reason} -> Mix.raise("cannot add a digest to #{path}: #{reason}")
      end

    lines =
      for {name, digest} <- listed |> Map.put(archive, "sha256:" <> digest) |> Enum.sort(),
          do: "  #{inspect(name)} => #{inspect(digest)},\n"

    File.write!(path, ["%{\n", lines, "}\n"])
  end

  @doc """
  Reads an archive that was written for `facts`, whose digest has to be the listed one if there is a list
  beside it. Nothing is written, and nothing is read but the entries that such an archive has.
  """
  @spec read(Path.t(), facts) ::
          {:ok, %{library: binary, sources: String.t()}} | {:error, reason :: String.t()}
  def read(archive, facts) do
    library = library_name(facts)

    with {:ok, packed} <- read_file(archive),
         :ok <- listed(archive, Digest.bytes(packed)),
         {:ok, tar} <- unpack(packed),
         {:ok, entries} <- extract(tar, entry_names(library)),
         :ok <- complete(entries, entry_names(library)),
         :ok <- own_digest(entries, library) do
      {:ok, %{library: entries[library], sources: String.trim_trailing(entries["SOURCES"])}}
    end
  end

  defp entry_names(library),
    do: [library, library <> ".sha256", "SOURCES", "LICENSE", "THIRD_PARTY.txt"]

  defp read_file(archive) do
    case File.stat(archive) do
      {:ok, %{type: :regular, size: size}} when size <= @most_bytes -> read_regular(archive)
      {:ok, %{type: :regular}} -> too_large()
      {:ok, %{type: type}} -> {:error, "it is a #{type}, not a file"}
      {:error, reason} -> {:error, "it cannot be read (#{:file.format_error(reason)})"}
    end
  end

  defp read_regular(archive) do
    with {:error, reason} <- File.read(archive),
         do: {:error, "it cannot be read (#{:file.format_error(reason)})"}
  end

  defp listed(archive, digest) do
    name = Path.basename(archive)

    case checksums(Path.dirname(archive)) do
      :none ->
        :ok

      {:ok, %{^name => "sha256:" <> ^digest}} ->
        :ok

      {:ok, %{^name => other}} ->
        {:error, "its digest is sha256:#{digest}, but #{@checksums} beside it has #{other}"}

      {:ok, _listed} ->
        {:error, "#{@checksums} beside it does not list it"}

      {:error, reason} ->
        {:error, "#{@checksums} beside it cannot be used: #{reason}"}
    end
  end

  # The file is read as the map of texts that it is, never run.
  defp checksums(folder) do
    path = Path.join(folder, @checksums)
    if File.exists?(path), do: read_checksums(path), else: :none
  end

  defp read_checksums(path) do
    with {:ok, text} <- File.read(path),
         true <- String.valid?(text),
         {:ok, {:%{}, _meta, pairs}} <- Code.string_to_quoted(text, existing_atoms_only: true),
         true <-
           Enum.all?(pairs, &match?({name, sum} when is_binary(name) and is_binary(sum), &1)) do
      {:ok, Map.new(pairs)}
    else
      {:error, reason} when is_atom(reason) -> {:error, to_string(:file.format_error(reason))}
      _other -> {:error, "it is not a map of texts"}
    end
  end

  # Piece by piece, so that no more than the limit is ever unpacked.
  defp unpack(packed) do
    stream = :zlib.open()

    try do
      # 16 more than the largest window: with the header of gzip.
      :ok = :zlib.inflateInit(stream, 16 + 15)
      inflate(stream, :zlib.safeInflate(stream, packed), [], 0)
    rescue
      ErlangError -> not_an_archive()
    after
      :zlib.close(stream)
    end
  end

  defp inflate(stream, {state, pieces}, unpacked, size) do
    size = size + IO.iodata_length(pieces)
    unpacked = [unpacked | pieces]

    cond do
      size > @most_bytes -> too_large()
      state == :finished -> {:ok, IO.iodata_to_binary(unpacked)}
      true -> inflate(stream, :zlib.safeInflate(stream, []), unpacked, size)
    end
  end

  defp extract(tar, known) do
    # The list of contents comes first: it says what an entry is, and how large it would be.
    with {:ok, contents} <- tar(:table, [{:binary, tar}, [:verbose]]),
         :ok <- only_known(contents, known),
         {:ok, entries} <- tar(:extract, [{:binary, tar}, [:memory]]) do
      {:ok, Map.new(entries, fn {name, bytes} -> {to_string(name), bytes} end)}
    end
  end

  # On some bytes erl_tar raises.
  defp tar(function, arguments) do
    with {:error, _reason} <- apply(:erl_tar, function, arguments), do: not_an_archive()
  rescue
    _error -> not_an_archive()
  catch
    _kind, _value -> not_an_archive()
  end

  defp only_known(contents, known) do
    names = for {name, _type, _size, _mtime, _mode, _uid, _gid} <- contents, do: to_string(name)

    odd =
      Enum.find(contents, fn {name, type, size, _mtime, _mode, _uid, _gid} ->
        to_string(name) not in known or type != :regular or size > @most_bytes
      end)

    cond do
      odd ->
        {:error,
         "it has the entry #{inspect(to_string(elem(odd, 0)))} (#{elem(odd, 1)}, " <>
           "#{elem(odd, 2)} bytes), which does not belong there"}

      names != Enum.uniq(names) ->
        {:error, "it has the entry #{inspect(hd(names -- Enum.uniq(names)))} twice"}

      true ->
        :ok
    end
  end

  defp complete(entries, known) do
    case Enum.find(known, &(not is_map_key(entries, &1))) do
      nil -> :ok
      missing -> {:error, "it has no entry #{missing}"}
    end
  end

  defp own_digest(entries, library) do
    if entries[library <> ".sha256"] == "#{Digest.bytes(entries[library])}  #{library}\n",
      do: :ok,
      else: {:error, "the library in it does not have the digest that the archive has for it"}
  end

  defp not_an_archive, do: {:error, "it is not a tar archive compressed with gzip"}

  defp too_large,
    do: {:error, "it has more than #{div(@most_bytes, 1024 * 1024)} MiB, or unpacks to more"}
end
