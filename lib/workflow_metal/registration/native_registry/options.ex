defmodule WorkflowMetal.Registration.NativeRegistry.Options do
  @moduledoc false
  # Checks all options except those of a cluster, which `Cluster` checks.

  alias WorkflowMetal.Registration.NativeRegistry.{Cluster, Library, Native, Owner}
  alias WorkflowMetal.Registration.NativeRegistry.{Registry, Value}

  @cluster [:cluster, :cluster_timeout, :on_conflict]
  @adapter [:name, :listeners | @cluster]
  @registry [:name, :keys, :partitions, :compressed, :meta, :listeners | @cluster]

  # How long a question to all nodes waits by default, and the longest that `receive` can wait, in
  # milliseconds.
  @timeout 5_000
  @longest 4_294_967_295

  @doc "The options of a WorkflowMetal application: its configuration, and those of WorkflowMetal."
  @spec configured(Registry.registry(), keyword) :: keyword
  def configured(application, config) do
    :workflow_metal_native_registry
    |> Application.get_env(application, [])
    |> Keyword.merge(config)
    |> Keyword.put(:name, application)
  end

  @doc """
  The options of a registry whose name may also be the name of another process: a WorkflowMetal
  application has the same name as its supervisor.
  """
  @spec adapter!(keyword) :: Owner.options()
  def adapter!(options) do
    options = check!(options, @adapter)
    %{options | process: Owner.name(options.registry)}
  end

  @doc "The options that Elixir's `Registry.start_link/1` takes, and those of a cluster."
  @spec registry!(keyword) :: Owner.options()
  def registry!(options) do
    unless Keyword.has_key?(options, :name) do
      raise ArgumentError, "expected :name option to be present"
    end

    wanted!(options, :keys, :unique, &(&1 == :unique), ":unique")
    # These two have no effect: the table divides itself, and its names are always compact.
    wanted!(options, :partitions, 1, &(is_integer(&1) and &1 >= 1), "a positive integer")
    wanted!(options, :compressed, false, &is_boolean/1, "a boolean")
    check!(options, @registry)
  end

  defp check!(options, known) do
    name = Keyword.get(options, :name)

    for {option, _value} <- options, option not in known do
      raise ArgumentError,
            "unknown option #{inspect(option)} for the registry #{inspect(name)}, " <>
              "the known options are: #{inspect(known)}"
    end

    wanted!(options, :name, nil, &name?/1, "an atom")
    listeners = wanted!(options, :listeners, [], &atoms?/1, "a list of atoms")
    meta = wanted!(options, :meta, [], &Keyword.keyword?/1, "a keyword list")
    Library.ensure_loaded!(Native)
    # The values are stored when the registry's process starts, where an error would be too late.
    Enum.each(meta, fn {_key, value} -> Value.encode!(value) end)
    clustered? = Enum.any?(@cluster, &Keyword.has_key?(options, &1))
    cluster = if clustered?, do: Cluster.new!(name, options)
    %{registry: name, process: name, listeners: listeners, meta: meta, cluster: cluster}
  end

  defp name?(name), do: is_atom(name) and name not in [nil, true, false, :undefined]

  defp atoms?([atom | rest]) when is_atom(atom), do: atoms?(rest)
  defp atoms?(rest), do: rest == []

  @doc """
  How long a call that asks the whole cluster waits, in milliseconds; `nil` for a call that does not,
  because its options have no `cluster: true`.
  """
  @spec wide!(Registry.wide()) :: non_neg_integer | nil
  def wide!(options) do
    unless Keyword.keyword?(options) and Keyword.keys(options) -- [:cluster, :timeout] == [] do
      raise ArgumentError,
            "expected a keyword list of :cluster and :timeout, got: #{inspect(options)}"
    end

    milliseconds? = &(is_integer(&1) and &1 in 0..@longest)
    timeout = wanted!(options, :timeout, @timeout, milliseconds?, "milliseconds")
    if wanted!(options, :cluster, false, &is_boolean/1, "true or false"), do: timeout
  end

  @doc "Whether a lookup is to answer the token of the name's grant."
  @spec token?(keyword) :: boolean
  def token?(options) do
    unless Keyword.keyword?(options) and Keyword.keys(options) -- [:token] == [] do
      raise ArgumentError, "expected a keyword list of :token, got: #{inspect(options)}"
    end

    wanted!(options, :token, false, &is_boolean/1, "true or false")
  end

  defp wanted!(options, option, default, right?, wanted) do
    value = Keyword.get(options, option, default)

    unless right?.(value) do
      raise ArgumentError, "expected #{inspect(option)} to be #{wanted}, got: #{inspect(value)}"
    end

    value
  end
end
