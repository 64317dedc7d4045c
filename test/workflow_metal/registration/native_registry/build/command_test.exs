defmodule WorkflowMetal.Registration.NativeRegistry.Build.CommandTest do
  use WorkflowMetal.Registration.NativeRegistry.BuildCase

  alias Build.Command

  import WorkflowMetal.Registration.NativeRegistry.RegistryCase, only: [eventually: 1]

  defp run(program, arguments, options \\ []) do
    options = Keyword.merge([cd: File.cwd!(), env: []], options)
    {status, lines} = Command.run(program, arguments, options, [], &[&1 | &2])
    {status, Enum.reverse(lines)}
  end

  test "answers the status and the lines of output and errors", %{folder: folder} do
    program = Path.join(folder, "a program")

    program!(program, """
    #!/bin/sh
    echo "$1 $VARIABLE $(pwd)"
    echo "登録" >&2
    printf 'no end'
    exit 7
    """)

    options = [cd: folder, env: [{"VARIABLE", "値 of it"}, {"HOME", nil}]]
    assert {7, [first, "登録", "no end"]} = run(program, ["a $b 'c'"], options)
    assert first == "a $b 'c' 値 of it #{folder}"
  end

  test "is told of a program that a signal ends", %{folder: folder} do
    program = Path.join(folder, "killed")
    program!(program, "#!/bin/sh\nkill -9 $$\n")
    assert {status, []} = run(program, [])
    assert status != 0
  end

  test "leaves nothing behind that it has started itself", %{folder: folder} do
    program = Path.join(folder, "group")
    program!(program, "#!/bin/sh\nps -o pid= -o pgid= -o args= | cat >/dev/null; echo $PPID\n")
    assert {0, [shell]} = run(program, [])
    eventually(fn -> in_group(shell) == [] end)
  end

  for {how, trap} <- [{"obey", ""}, {"ignore", "trap '' TERM\n"}] do
    test "ends with its caller, and with it all that it has started, if these #{how} the signal",
         %{folder: folder} do
      program = Path.join(folder, "cargo")

      program!(program, """
      #!/bin/sh
      #{unquote(trap)}sleep 600 &
      sh -c 'sleep 600 & wait' &
      echo $PPID
      wait
      """)

      test = self()

      caller =
        spawn(fn ->
          Command.run(program, [], [cd: folder, env: []], nil, fn line, _nil ->
            send(test, {:shell, line})
          end)
        end)

      assert_receive {:shell, shell}
      eventually(fn -> length(in_group(shell)) >= 5 end)
      Process.exit(caller, :kill)
      eventually(fn -> in_group(shell) == [] end)
    end
  end

  # Those that have ended and that nobody has waited for do not count.
  defp in_group(group) do
    {text, 0} = System.cmd("ps", ["-A", "-o", "pgid=", "-o", "pid=", "-o", "stat="])

    for line <- String.split(text, "\n"),
        [^group, pid, stat] when stat not in ["Z", "Z+"] <- [String.split(line)],
        do: pid
  end
end
