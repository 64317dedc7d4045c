defmodule WorkflowMetal.Registration.NativeRegistry.CrashLog do
  @moduledoc false
  # Logged errors are not printed in the tests, which kill processes by the ten thousand. They are kept here. An error
  # that no test expects fails the test that ends next, because with concurrent tests it is not known which test
  # caused it; its text says what it is about.
  #
  #     @tag crashes: ~r/the child's own error/
  #     @tag crashes: [~r/one/, ~r/another/]
  #
  # The end of a process that a test kills, or that its supervisor ends, is no error. Nor is that of a process that
  # runs longer than the registry of its test.

  @table __MODULE__

  # How long errors that a test expects are accepted after its end, because reports of ending processes take time;
  # in milliseconds.
  @late 5_000

  # What a process that a test has started says when the test has ended, and its registry with it, before
  # the process has. A test that meets this while it runs fails by itself.
  @outlived ~r/unknown registry: RegistryOfATest\..*it was stopped/s

  # What the VM says of nodes that a test keeps apart by their cookies, and of a message for a process of the
  # life of a node before its last crash.
  @apart ~r/Connection attempt (from|to) node .* rejected|Discarding message .* old incarnation/s

  # The most errors that are kept. A few are enough to see a loop of crashes.
  @most 200

  @doc "Keeps errors from now on, and nothing is printed any more. Called once on each node."
  def start do
    caller = self()

    # It owns the table as long as the node runs.
    spawn(fn ->
      :ets.new(@table, [:named_table, :public, :ordered_set])
      send(caller, :kept)
      Process.sleep(:infinity)
    end)

    receive do
      :kept -> :ok
    end

    # One of them is there, depending on the version of Elixir, and one that makes texts of reports.
    for handler <- [:default, Logger], do: :logger.remove_handler(handler)
    for filter <- [:logger_translator], do: :logger.remove_primary_filter(filter)
    :ok = :logger.add_handler(@table, __MODULE__, %{level: :error})
  end

  @doc false
  def log(event, _config) do
    if error?(event) do
      text = text(event)
      # Here, so that thousands of expected errors leave room for others.
      unless expected?(text) or text =~ @outlived or text =~ @apart, do: keep(text)
    end
  rescue
    # The node is about to stop.
    ArgumentError -> :ok
  end

  @doc "Whether what is logged is an error, and not the result of what a test did on purpose."
  def error?(event), do: not on_purpose?(event)

  @doc "Keeps the text of an error, which may be another node's."
  def keep(text) do
    unless :ets.info(@table, :size) > @most do
      :ets.insert(@table, {{:crash, :erlang.unique_integer([:monotonic])}, text})
    end
  end

  # A supervisor reports each child that did not end as it ordered; processes that trap exits report that
  # a process to which they are linked was killed.
  defp on_purpose?(%{msg: {:report, %{label: {_supervisor, kind}, report: [_ | _] = report}}})
       when kind in [:child_terminated, :shutdown_error, :start_error],
       do: ordered?(report[:reason])

  defp on_purpose?(%{msg: {:report, %{label: {:proc_lib, :crash}, report: [crashed | _linked]}}}) do
    match?({:exit, :killed, _stacktrace}, crashed[:error_info])
  end

  defp on_purpose?(%{msg: {:report, %{label: {_behaviour, :terminate}, reason: :killed}}}),
    do: true

  defp on_purpose?(_event), do: false

  # A process that crashed has reported it itself.
  defp ordered?(reason) when reason in [:killed, :normal, :shutdown], do: true
  defp ordered?({:shutdown, _reason}), do: true
  defp ordered?(_reason), do: false

  defp text(%{msg: message}) do
    case message do
      {:string, string} -> IO.chardata_to_string(string)
      {:report, report} -> inspect(report, limit: 200, printable_limit: 4_000)
      {format, arguments} -> format |> :io_lib.format(arguments) |> IO.chardata_to_string()
    end
  end

  @doc "What has been kept, which is forgotten."
  def take do
    crashes = :ets.select(@table, [{{{:crash, :_}, :"$1"}, [], [:"$1"]}])
    :ets.match_delete(@table, {{:crash, :_}, :_})
    crashes
  end

  @doc "For a test's `setup`: expects what its tags say, and fails the test for all else."
  def watch(context) do
    reference = make_ref()
    expected = List.wrap(context[:crashes])
    :ets.insert(@table, {{:expected, reference}, expected, :infinity})

    ExUnit.Callbacks.on_exit(__MODULE__, fn ->
      until = System.monotonic_time(:millisecond) + @late
      :ets.insert(@table, {{:expected, reference}, expected, until})
      fail_for(take())
    end)

    :ok
  end

  @doc "Fails for those crashes, of any node, that no test expects."
  def fail_for(crashes) do
    case Enum.reject(crashes, &expected?/1) do
      [] ->
        :ok

      unexpected ->
        texts = unexpected |> Enum.take(5) |> Enum.map_join("\n\n", &String.slice(&1, 0, 3_000))

        ExUnit.Assertions.flunk(
          "#{length(unexpected)} errors were logged that no test expects, in this test or in one " <>
            "that ran at the same time or before:\n\n#{texts}"
        )
    end
  end

  defp expected?(crash) do
    now = System.monotonic_time(:millisecond)

    for(
      {_key, patterns, until} <- :ets.match_object(@table, {{:expected, :_}, :_, :_}),
      until > now,
      pattern <- patterns,
      do: pattern
    )
    |> Enum.any?(&(crash =~ &1))
  end

  @doc "What came after the last test: `true` if that fails the suite."
  def left_over? do
    fail_for(take())
    false
  rescue
    error in ExUnit.AssertionError ->
      IO.puts(error.message)
      true
  end
end
