defmodule WorkflowMetal.Registration.NativeRegistry.Build.Command do
  @moduledoc false
  # Runs a program that ends, with all that it has started, when this VM ends or the caller does.

  # The VM starts a program as the leader of a process group, into which no signal of the terminal goes. What
  # the program is sure to notice is the end of its input, which comes however the VM ends. `read` waits for that.
  # Only the leader of a group may end it: otherwise it would be the group of this VM. The signal is ignored
  # here, so that a second one, which nothing can ignore, follows.
  @shell """
  exec 3<&0 </dev/null
  "$@" 3<&- &
  program=$!
  {
    read -r _nothing <&3
    trap '' TERM
    if kill -0 -- "-$$" 2>/dev/null; then
      kill -s TERM -- "-$$"
      sleep 1
      kill -s KILL -- "-$$"
    else
      kill -s TERM "$program"
    fi
  } >/dev/null 2>&1 &
  watch=$!
  exec 3<&-
  wait "$program"
  status=$?
  kill "$watch"
  exit "$status"
  """

  @type env :: [{String.t(), String.t() | nil}]

  @doc """
  Runs `program` in the folder `:cd` with the variables `:env`, calls `line` with each line of its output and
  errors, and answers its status.
  """
  @spec run(Path.t(), [String.t()], [cd: Path.t(), env: env], (String.t() -> term)) ::
          non_neg_integer
  def run(program, arguments, options, line) do
    {program, arguments} = ended_with_input(program, arguments)

    # Lists, not binaries, are written as the VM writes names of files.
    options = [
      :binary,
      :exit_status,
      :stderr_to_stdout,
      :use_stdio,
      :hide,
      cd: String.to_charlist(options[:cd]),
      args: Enum.map(arguments, &String.to_charlist/1),
      env: for({name, value} <- options[:env], do: {String.to_charlist(name), variable(value)})
    ]

    port = Port.open({:spawn_executable, String.to_charlist(program)}, options)
    lines(port, "", line)
  end

  defp ended_with_input(program, arguments) do
    case System.find_executable("sh") do
      sh when sh != nil ->
        if match?({:unix, _name}, :os.type()),
          do: {sh, ["-c", @shell, "sh", program | arguments]},
          else: {program, arguments}

      nil ->
        {program, arguments}
    end
  end

  defp variable(nil), do: false
  defp variable(value), do: String.to_charlist(value)

  defp lines(port, begun, line) do
    receive do
      {^port, {:data, data}} ->
        {whole, [begun]} = (begun <> data) |> String.split("\n") |> Enum.split(-1)
        for text <- whole, do: text |> String.trim_trailing("\r") |> line.()
        lines(port, begun, line)

      {^port, {:exit_status, status}} ->
        if begun != "", do: line.(begun)
        status
    end
  end
end
