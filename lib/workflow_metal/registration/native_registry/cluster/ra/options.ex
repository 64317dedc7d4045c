defmodule WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Options do
  @moduledoc false
  # The options of the engine. There is one ra server and one session for all registries of a node, so all
  # of them give the same options.

  alias WorkflowMetal.Registration.NativeRegistry.Registry
  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Config

  # In milliseconds. Below the least one, a busy machine alone would let leases run out.
  @lease 8_000
  @least_lease 1_000

  # This module's name is only data here: none of its functions is called.
  @engine :"Elixir.WorkflowMetal.Registration.NativeRegistry.Cluster.Ra"

  @known [:nodes, :data_dir, :lease, :fsync]

  @type t :: %{
          nodes: [node, ...],
          data_dir: Path.t(),
          lease: pos_integer,
          fsync: boolean
        }

  @doc "The options in one map. Raises `ArgumentError` for one that is unknown, missing or of no use."
  @spec validate!(Registry.registry(), keyword) :: t
  def validate!(registry, options) do
    unless Keyword.keyword?(options), do: invalid!(registry, "a keyword list", options)

    for {option, _value} <- options, option not in @known do
      raise ArgumentError,
            "unknown option #{inspect(option)} of cluster: :ra of the registry #{inspect(registry)}, " <>
              "the known options are: #{inspect(@known)}"
    end

    %{
      nodes: option!(registry, options, :nodes, &nodes?/1, "a list of nodes, each once"),
      data_dir: option!(registry, options, :data_dir, &path?/1, "the path of a folder"),
      lease:
        option!(
          registry,
          Keyword.put_new(options, :lease, @lease),
          :lease,
          &(is_integer(&1) and &1 >= @least_lease),
          "milliseconds, at least #{@least_lease}"
        ),
      fsync:
        option!(
          registry,
          Keyword.put_new(options, :fsync, true),
          :fsync,
          &is_boolean/1,
          "true or false"
        )
    }
  end

  defp option!(registry, options, option, right?, wanted) do
    case Keyword.fetch(options, option) do
      {:ok, value} ->
        if right?.(value), do: value, else: invalid!(registry, {option, wanted}, value)

      :error ->
        raise ArgumentError,
              "cluster: :ra of the registry #{inspect(registry)} needs the option " <>
                "#{inspect(option)}, #{wanted}; the known options are: #{inspect(@known)}"
    end
  end

  # A list may be improper.
  defp nodes?([_ | _] = nodes) when length(nodes) > 0,
    do: Enum.all?(nodes, &node?/1) and Enum.uniq(nodes) == nodes

  defp nodes?(_other), do: false

  defp node?(node) when is_atom(node) and node not in [nil, true, false],
    do: Regex.match?(~r/\A[^@]+@[^@]+\z/, Atom.to_string(node))

  defp node?(_other), do: false

  defp path?(path), do: is_binary(path) and path != "" and String.valid?(path)

  @spec invalid!(Registry.registry(), {atom, String.t()} | String.t(), term) :: no_return
  defp invalid!(registry, {option, wanted}, value) do
    raise ArgumentError,
          "expected #{inspect(option)} of cluster: :ra of the registry #{inspect(registry)} to be " <>
            "#{wanted}, got: #{inspect(value)}"
  end

  defp invalid!(registry, wanted, value) do
    raise ArgumentError,
          "expected the options of cluster: :ra of the registry #{inspect(registry)} to be " <>
            "#{wanted}, got: #{inspect(value)}"
  end

  @doc "The dependency as in mix.exs. Hex does not know which versions of ra a release of OTP can run."
  @spec dependency(otp :: String.t()) :: String.t()
  def dependency("25"), do: ~s({:ra, "~> 2.15.4"})
  def dependency(_newer), do: ~s({:ra, "~> 2.17 or ~> 3.1"})

  @doc "Raises when ra is of a version that this release of OTP cannot run."
  @spec check_version!(version :: String.t(), otp :: String.t()) :: :ok
  def check_version!(version, otp) do
    [major, minor | _rest] = version |> String.split(".") |> Enum.map(&elem(Integer.parse(&1), 0))

    if {major, minor} < {2, 15} do
      raise ArgumentError,
            "ra #{version} is older than what cluster: :ra needs: take #{dependency(otp)} in mix.exs"
    end

    # ra 2.16 calls `ets:lookup_element/4`, which is new in OTP 26.
    if String.to_integer(otp) < 26 and {major, minor} >= {2, 16} do
      raise ArgumentError,
            "ra #{version} needs OTP 26 or later, and this is OTP #{otp}: " <>
              "pin #{dependency(otp)} in mix.exs"
    end

    :ok
  end

  @doc "Raises when another registry of this node uses the engine with other options."
  @spec check_same!(Registry.registry(), t) :: :ok
  def check_same!(registry, options) do
    for user <- registries(), user != registry, %{options: other} <- [Config.get(user)] do
      if other != options do
        raise ArgumentError,
              "expected the options of cluster: :ra of the registry #{inspect(registry)} to be " <>
                "those of #{inspect(user)}, #{inspect(other)}, got: #{inspect(options)}"
      end
    end

    :ok
  end

  @doc "The registries of this node that use the engine, also those that are suspended."
  @spec registries() :: [Registry.registry()]
  def registries do
    for registry <- Config.registries(),
        %{engine: @engine} <- [Config.get(registry)],
        do: registry
  end
end
