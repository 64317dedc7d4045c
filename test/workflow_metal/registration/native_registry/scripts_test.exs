defmodule WorkflowMetal.Registration.NativeRegistry.ScriptsTest do
  # The scripts, with stubs in place of mix and of the other commands that take long.
  use ExUnit.Case, async: true

  @moduletag :tmp_dir
  @root Path.expand("../../../..", __DIR__)

  # `script/setup` and the script that runs script/install_cases have tests of their own.
  @scripts for path <- Path.wildcard(Path.join(@root, "script/*")),
               File.regular?(path) and Path.extname(path) == "",
               Path.basename(path) not in ["setup", "install_check"],
               do: Path.basename(path)

  # Arguments, and a command late in the script, which the signal finds running. FOLDER is an empty folder.
  @runs %{
    "cluster_check" => {["1"], "mix run"},
    "demo" => {[], "mix run"},
    "deny" => {[], "cargo tree"},
    "fuzz" => {["1"], "mix run"},
    "loom" => {[], "cargo test"},
    "matrix" => {["FOLDER", "bookworm"], "debootstrap"},
    "memory" => {[], "mix compile"},
    "repeat" => {["1"], "mix test"},
    "soak" => {["1"], "mix run"},
    "test" => {[], "mix release"}
  }

  # The last of these is not known to the script, or is missing.
  @misused [
    {"cluster_check", []},
    {"cluster_check", ["ten"]},
    {"cluster_check", ["1", "seed"]},
    {"cluster_check", ["1", "2", "3"]},
    {"demo", ["--cluster", "more"]},
    {"deny", ["write"]},
    {"fuzz", []},
    {"fuzz", ["0.5"]},
    {"fuzz", ["1", "-1"]},
    {"loom", ["miri", "more"]},
    {"matrix", []},
    {"memory", ["some_test.exs", "--only"]},
    {"repeat", []},
    {"repeat", ["many"]},
    {"soak", ["1", "2"]},
    {"soak", ["1.2.3"]},
    {"test", ["some_test.exs"]}
  ]

  setup %{tmp_dir: folder} do
    for name <- ["stubs", "temporary", "folder"], do: File.mkdir_p!(Path.join(folder, name))

    # A stub notes that it was called. The call that HANGS_AT names starts a process, writes the ids of both,
    # and ends when a signal ends it.
    for name <- ~w(mix cargo elixir debootstrap rustc cc id) do
      stub = Path.join([folder, "stubs", name])

      File.write!(stub, """
      #!/bin/sh
      case "#{name} $*" in
        "id -u") echo 0; exit ;;
        "cargo --version") echo "cargo 99.0.0"; exit ;;
        "rustc --version") echo "rustc 99.0.0"; exit ;;
        "cc "*) exit ;;
        "elixir -e"*) echo "99.0.0 99"; exit ;;
        "rustc -vV") echo "host: any"; exit ;;
      esac
      echo "#{name} $*" >>"#{folder}/called"
      case "#{name} $*" in
        "${HANGS_AT:-none}"*)
          sleep 1000 &
          echo "$$ $!" >"#{folder}/ids"
          mv "#{folder}/ids" "#{folder}/hangs"
          wait
          ;;
      esac
      """)

      File.chmod!(stub, 0o755)
    end

    :ok
  end

  test "these tests have all scripts" do
    assert Enum.sort(Map.keys(@runs)) == Enum.sort(@scripts)
  end

  for script <- @scripts do
    test "script/#{script} --help says how it is used and does nothing else", %{tmp_dir: folder} do
      for option <- ["--help", "-h"] do
        assert {"Usage: script/" <> text, 0} = run(folder, unquote(script), [option])
        assert String.starts_with?(text, unquote(script))
        # The explanation, without the code below it.
        assert text =~ ~r/\A.*\n\n\w/
        refute text =~ "set -e"
      end

      refute File.exists?(Path.join(folder, "called"))
    end

    test "script/#{script} refuses an option that it does not know", %{tmp_dir: folder} do
      assert {text, 2} = run(folder, unquote(script), ["--no-such-option"])
      assert text =~ "--no-such-option"
      assert text =~ "Usage: script/#{unquote(script)}"
      refute File.exists?(Path.join(folder, "called"))
    end

    for {signal, number} <- [HUP: 1, INT: 2, TERM: 15] do
      test "#{signal} ends script/#{script}, what it has started, and its folders", context do
        %{tmp_dir: folder} = context
        {arguments, hangs_at} = Map.fetch!(@runs, unquote(script))

        arguments =
          Enum.map(arguments, &String.replace(&1, "FOLDER", Path.join(folder, "folder")))

        {program, arguments} = with_signals(path(unquote(script)), arguments)

        port =
          Port.open({:spawn_executable, program}, [
            :exit_status,
            :stderr_to_stdout,
            :binary,
            args: arguments,
            env:
              for({key, value} <- [{"HANGS_AT", hangs_at} | environment(folder)]) do
                {String.to_charlist(key), String.to_charlist(value)}
              end
          ])

        {:os_pid, pid} = Port.info(port, :os_pid)
        ids = folder |> Path.join("hangs") |> await_file(port, 3_000) |> String.split()
        {_output, 0} = System.cmd("kill", ["-#{unquote(signal)}", "#{pid}"])

        assert_receive {^port, {:exit_status, status}}
        assert status == 128 + unquote(number)
        for id <- ids, do: assert(await_end(id, 3_000), "#{id} is still running")
        assert File.ls!(Path.join(folder, "temporary")) == []
      end
    end
  end

  test "a script says what it wants instead of arguments that it cannot use", %{tmp_dir: folder} do
    for {script, arguments} <- @misused do
      assert {text, 2} = run(folder, script, arguments), "#{script} #{inspect(arguments)}"
      assert text =~ "Usage: script/#{script}"
    end

    refute File.exists?(Path.join(folder, "called"))
  end

  test "a script can be called from any folder, by a relative path", %{tmp_dir: folder} do
    for {from, script} <- [{"script", "./soak"}, {"test", "../script/soak"}, {".", "script/soak"}] do
      options = [env: environment(folder), cd: Path.join(@root, from), stderr_to_stdout: true]
      assert {text, 0} = System.cmd("sh", ["-c", script <> " 1"], options)
      assert text =~ "Elixir 99.0.0 on Erlang/OTP 99, Rust 99.0.0"
    end
  end

  defp path(script), do: Path.join([@root, "script", script])

  defp environment(folder) do
    [
      {"PATH", Path.join(folder, "stubs") <> ":" <> System.get_env("PATH")},
      {"TMPDIR", Path.join(folder, "temporary")}
    ]
  end

  # A shell cannot catch a signal that was ignored when the shell was started, as `nohup` has it, and a shell
  # that starts a program in the background. Not every system's `env` can undo that.
  defp with_signals(script, arguments) do
    env = System.find_executable("env")
    options = ["--default-signal=HUP,INT,TERM"]

    case System.cmd(env, options ++ ["true"], stderr_to_stdout: true) do
      {_said, 0} -> {env, options ++ [script | arguments]}
      _unknown_option -> {script, arguments}
    end
  end

  defp run(folder, script, arguments),
    do: System.cmd(path(script), arguments, env: environment(folder), stderr_to_stdout: true)

  defp await_file(path, port, looks) do
    cond do
      File.exists?(path) -> File.read!(path)
      looks == 0 -> flunk("the script did not get that far: #{inspect(said(port))}")
      true -> Process.sleep(10) && await_file(path, port, looks - 1)
    end
  end

  defp said(port) do
    receive do
      {^port, said} -> [said | said(port)]
    after
      0 -> []
    end
  end

  defp await_end(id, looks),
    do: ended?(id) or (looks > 0 and (Process.sleep(10) && await_end(id, looks - 1)))

  # A process that has ended stays in the list until its parent has asked for its status.
  defp ended?(id) do
    case File.read("/proc/#{id}/stat") do
      {:ok, status} -> status =~ ") Z "
      {:error, _} -> not match?({_, 0}, System.cmd("kill", ["-0", id], stderr_to_stdout: true))
    end
  end
end
