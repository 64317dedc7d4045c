defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Identity do
  @moduledoc false
  # Who the ra server of this node is, in a file beside the server's data.
  #
  # A ra server votes by what it has on disk. One that has lost its data and keeps its name could vote a
  # second time in a term, or for a server that lacks what it had acknowledged itself; two processes would
  # then hold one name. So a name is used for one life of the data only. The file says how far the server is:
  #
  #   :offered    it has never been started
  #   :starting   it is being started for the first time: without data, it has done nothing yet
  #   :started    it has data. If that is gone, the name is given up.
  #
  # The file is on disk before anything follows from it: before another node is told of the name, and
  # before the server is started.

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Boot

  @type server_id :: {name :: atom, node}

  @type t :: %{
          id: server_id,
          uid: binary,
          phase: :offered | :starting | :started,
          # The members that the server was started with.
          members: [server_id],
          membership: :voter | :promotable | :non_voter,
          # The run of the machine in which the data was written without `fsync`; `nil` if it never was.
          boot: binary | nil | :unknown
        }

  @file_name "identity"
  @version 1

  @doc "The folder of this node's data."
  @spec directory(Path.t()) :: Path.t()
  def directory(data_dir), do: Path.join([data_dir, "native_registry", safe(node())])

  # One node's name is one folder, on any file system.
  defp safe(node) do
    for <<byte <- Atom.to_string(node)>>, into: "" do
      if byte in ?a..?z or byte in ?A..?Z or byte in ?0..?9 or byte in ~c"@._-",
        do: <<byte>>,
        else: "%" <> Base.encode16(<<byte>>)
    end
  end

  @doc "A name that no ra server has had."
  @spec new(fsync? :: boolean) :: t
  def new(fsync?) do
    uid = apply(:ra, :new_uid, ["NATIVE"])

    %{
      id: {:"native_registry_#{uid}", node()},
      uid: uid,
      phase: :offered,
      members: [],
      membership: :voter,
      boot: if(fsync?, do: nil, else: boot())
    }
  end

  @doc "The identity in the folder, unless its data can no longer be trusted."
  @spec read(Path.t(), fsync? :: boolean) :: {:ok, t} | {:empty, reason :: String.t() | nil}
  def read(directory, fsync?) do
    with {:ok, binary} <- File.read(Path.join(directory, @file_name)),
         {:ok, identity} <- decode(binary) do
      cond do
        identity.boot not in [nil, boot()] or identity.boot == :unknown ->
          {:empty,
           "its data was written without fsync, and the machine has been started again since"}

        fsync? or identity.boot != nil ->
          {:ok, identity}

        true ->
          {:ok, write!(directory, %{identity | boot: boot()})}
      end
    else
      {:error, :enoent} -> {:empty, if_not_empty(directory)}
      {:error, reason} -> {:empty, "its identity cannot be read: #{inspect(reason)}"}
    end
  end

  defp if_not_empty(directory) do
    unless File.ls(directory) in [{:error, :enoent}, {:ok, []}],
      do: "it has data, but no identity"
  end

  @doc "Writes the identity; it is on disk when this returns."
  @spec write!(Path.t(), t) :: t
  def write!(directory, identity) do
    File.mkdir_p!(directory)
    path = Path.join(directory, @file_name)
    new = path <> ".new"
    File.write!(new, encode(identity), [:sync])
    File.rename!(new, path)
    sync(directory)
    identity
  end

  @doc "Removes all that is in the folder."
  @spec wipe!(Path.t()) :: :ok
  def wipe!(directory) do
    # The identity first: data without it is nobody's, an identity without its data must not be.
    _ = File.rm(Path.join(directory, @file_name))
    sync(directory)
    _removed = File.rm_rf!(directory)
    :ok
  end

  # A file that was renamed stays so after a power failure only when its folder has been written. Not
  # every system opens a folder as a file, or writes one.
  defp sync(directory) do
    with {:ok, file} <- :file.open(directory, [:read, :raw, :directory]) do
      written = :file.sync(file)
      _ = :file.close(file)

      case written do
        {:error, reason} when reason not in [:einval, :ebadf, :enotsup] ->
          raise File.Error, reason: reason, action: "sync folder", path: directory

        _written_or_cannot_be ->
          :ok
      end
    end

    :ok
  end

  defp encode(identity) do
    binary = :erlang.term_to_binary({@version, identity})
    <<:erlang.crc32(binary)::32, binary::binary>>
  end

  defp decode(<<crc::32, binary::binary>>) do
    with ^crc <- :erlang.crc32(binary),
         {@version, %{id: {name, node}} = identity} when is_atom(name) and node == node() <-
           :erlang.binary_to_term(binary) do
      {:ok, identity}
    else
      _other -> {:error, :invalid}
    end
  rescue
    ArgumentError -> {:error, :invalid}
  end

  defp decode(_binary), do: {:error, :invalid}

  # Never the same as another one when it cannot be known.
  defp boot, do: Boot.id() || :unknown
end
