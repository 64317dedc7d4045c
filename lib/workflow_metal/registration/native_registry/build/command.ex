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
    if kill -0 "-$$"; then
      kill -TERM "-$$"
      sleep 1
      kill -KILL "-$$"
    else
      kill -TERM "$program"
    fi
  } >/dev/null 2>&1 &
  watch=$!
  exec 3<&-
  wait "$program" 2>/dev/null
  status=$?
  kill "$watch"
  exit "$status"
  """

  @type env :: [{String.t(), String.t() | nil}]

  @doc """
  Runs `program` in the folder `:cd` with the variables `:env`, folds the lines of its output and errors, as
  they come, with `line`, and answers its status as well.
  """
  @spec run(Path.t(), [String.t()], [cd: Path.t(), env: env], acc, (String.t(), acc -> acc)) ::
          {status :: non_neg_integer, acc}
        when acc: term
  def run(program, arguments, options, acc, line) do
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
    lines(port, "", acc, line)
  end

  # Windows has no process groups, and no shell for certain.
  defp ended_with_input(program, arguments) do
    shell = if match?({:unix, _name}, :os.type()), do: System.find_executable("sh")
    if shell, do: {shell, ["-c", @shell, "sh", program | arguments]}, else: {program, arguments}
  end

  defp variable(nil), do: false
  defp variable(value), do: String.to_charlist(value)

  defp lines(port, begun, acc, line) do
    receive do
      {^port, {:data, data}} ->
        {whole, [begun]} = (begun <> data) |> String.split("\n") |> Enum.split(-1)

        lines(
          port,
          begun,
          Enum.reduce(whole, acc, &line.(String.trim_trailing(&1, "\r"), &2)),
          line
        )

      {^port, {:exit_status, status}} ->
        {status, if(begun == "", do: acc, else: line.(begun, acc))}
    end
  end
end
