defmodule WorkflowMetal.Registration.NativeRegistry.Build.PrecompiledTest do
  # Not async: the environment is the VM's.
  use ExUnit.Case

  alias WorkflowMetal.Registration.NativeRegistry.Build.{
    Archive,
    Digest,
    Machine,
    Manifest,
    Precompiled,
    Target
  }

  @moduletag :tmp_dir
  @root Path.expand("../../../../..", __DIR__)
  @application :workflow_metal_native_registry
  @variable "WORKFLOW_METAL_NATIVE_REGISTRY_PRECOMPILED"
  @version Manifest.version(@root)
  @target "x86_64-unknown-linux-gnu"
  @facts %{version: @version, nif: "2.15", target: @target}
  @checksums "checksum-Elixir.WorkflowMetal.Registration.NativeRegistry.Native.exs"

  # The first bytes of a library for Linux on x86_64.
  @elf <<0x7F, "ELF", 2, 1, 1, 0::72, 3::16-little, 62::16-little, 0::256>>

  setup do
    saved = {System.get_env(@variable), Application.get_env(@application, :precompiled)}
    System.delete_env(@variable)
    Application.delete_env(@application, :precompiled)

    on_exit(fn ->
      {variable, configured} = saved
      System.put_env([{@variable, variable}])

      if configured,
        do: Application.put_env(@application, :precompiled, configured),
        else: Application.delete_env(@application, :precompiled)
    end)
  end

  defp content(library \\ @elf) do
    %{
      library: library,
      sources: Digest.sources(@root),
      licence: "licence",
      third_party: "licences"
    }
  end

  defp made(folder, facts \\ @facts, content \\ content()),
    do: Archive.write!(folder, facts, content)

  defp find(target \\ @target), do: Precompiled.find(@root, %{triple: target, explicit?: true})

  defp name(path) do
    System.put_env(@variable, path)
    path
  end

  # The reason, of the message that names the path and what names it.
  defp refused(path, target \\ @target) do
    name(path)
    message = Exception.message(assert_raise(Mix.Error, fn -> find(target) end))
    start = "#{path}, which #{@variable} names as precompiled library, cannot be used: "
    assert String.starts_with?(message, start)
    String.replace_prefix(message, start, "")
  end

  defp sha256(bytes), do: :sha256 |> :crypto.hash(bytes) |> Base.encode16(case: :lower)

  describe "a precompiled library" do
    test "is not looked for unless one is named" do
      assert find() == :none
      name("")
      assert find() == :none
    end

    test "is taken from the archive that is named", %{tmp_dir: tmp_dir} do
      name(made(tmp_dir))
      assert {:ok, path, fingerprint} = find()
      assert File.read!(path) == @elf
      assert fingerprint == sha256(@elf)
      assert find() == {:ok, path, fingerprint}
    end

    test "is taken from the folder that is named, whatever else lies there", %{tmp_dir: tmp_dir} do
      folder = Path.join(tmp_dir, "アーカイブ と more")
      made(folder)
      made(folder, %{@facts | version: "0.0.9"})
      made(folder, %{@facts | target: "aarch64-apple-darwin"})
      made(folder, %{@facts | nif: "2.99"})
      File.write!(Path.join(folder, "another.tar.gz"), "")
      name(folder)
      assert {:ok, path, _fingerprint} = find()
      assert File.read!(path) == @elf
    end

    test "is the one for the newest native interface that the VM has", %{tmp_dir: tmp_dir} do
      newer = @elf <> "newer"
      made(tmp_dir, %{@facts | nif: "2.9"}, content(@elf <> "older"))
      made(tmp_dir, @facts, content(newer))
      made(tmp_dir, %{@facts | nif: "3.0"})
      name(tmp_dir)
      assert {:ok, _path, fingerprint} = find()
      assert fingerprint == sha256(newer)
    end

    test "may be named by the configuration, and the environment comes first", %{tmp_dir: tmp_dir} do
      configured = made(Path.join(tmp_dir, "configured"))
      other = made(Path.join(tmp_dir, "other"), @facts, content(@elf <> "other"))
      Application.put_env(@application, :precompiled, configured)
      assert {:ok, _path, fingerprint} = find()
      assert fingerprint == sha256(@elf)
      name(other)
      assert {:ok, _path, fingerprint} = find()
      assert fingerprint == sha256(@elf <> "other")
    end

    test "needs neither Rust nor a C compiler", %{tmp_dir: tmp_dir} do
      name(made(tmp_dir))
      path = System.get_env("PATH")
      on_exit(fn -> System.put_env("PATH", path) end)
      System.put_env("PATH", "/nowhere")
      assert {:ok, _path, _fingerprint} = find()
    end
  end

  describe "a precompiled library is refused" do
    test "if the configuration names none by a path" do
      Application.put_env(@application, :precompiled, [:folder])
      error = assert_raise Mix.Error, fn -> find() end

      assert error.message ==
               "[:folder], which `config :#{@application}, :precompiled` names as precompiled library, " <>
                 "cannot be used: it is not a path"
    end

    test "if its path is not absolute" do
      assert refused("precompiled") =~ "the path is not absolute"
    end

    test "if there is no such file", %{tmp_dir: tmp_dir} do
      assert refused(Path.join(tmp_dir, "nothing")) == "there is no such file or folder"
      assert refused("/dev/null/nothing") == "there is no such file or folder"
    end

    test "if the folder has none that fits, and the reason has those that it has", context do
      %{tmp_dir: tmp_dir} = context
      reason = refused(tmp_dir)

      assert reason =~
               "it has no archive for the version #{@version}, the NIF version #{nif()} or"

      assert reason =~ "and the target #{@target}. It has: none at all"

      other = Path.basename(made(tmp_dir, %{@facts | target: "aarch64-unknown-linux-musl"}))
      assert refused(tmp_dir) =~ "It has: #{other}"
    end

    test "if it is of another version", %{tmp_dir: tmp_dir} do
      assert refused(made(tmp_dir, %{@facts | version: "99.1.0-rc.1"})) ==
               "it is of the version 99.1.0-rc.1, and this is #{@version}"
    end

    test "if it is for another target", %{tmp_dir: tmp_dir} do
      assert refused(made(tmp_dir, %{@facts | target: "x86_64-unknown-linux-musl"})) ==
               "it is for the target x86_64-unknown-linux-musl, and the library is wanted for #{@target}"
    end

    test "if it needs another native interface than the VM has", %{tmp_dir: tmp_dir} do
      for version <- ["2.999", "3.0", "1.15"] do
        assert refused(made(tmp_dir, %{@facts | nif: version})) ==
                 "it needs the NIF version #{version}, and this VM has #{nif()}"
      end
    end

    test "if its name is not that of an archive", %{tmp_dir: tmp_dir} do
      for name <- ["native_registry.so", "libnative_registry-v0.1.0.tar.gz", "x.tar.gz"] do
        path = Path.join(tmp_dir, name)
        File.write!(path, @elf)

        assert refused(path) ==
                 "an archive for this machine has the name #{Archive.name(@facts)}"
      end
    end

    test "if its digest is not the one beside it", %{tmp_dir: tmp_dir} do
      archive = made(tmp_dir)
      right = sha256(File.read!(archive))
      list(tmp_dir, Path.basename(archive), "sha256:" <> String.duplicate("0", 64))

      assert refused(archive) =~
               ~r/its digest is sha256:#{right}, but #{@checksums} beside it has sha256:0+$/

      assert refused(tmp_dir |> Path.join(Path.basename(archive))) =~ "its digest is"

      list(tmp_dir, Path.basename(archive), "md5:" <> right)
      assert refused(archive) =~ "beside it has md5:"

      list(tmp_dir, "another", "sha256:" <> right)
      assert refused(archive) == "#{@checksums} beside it does not list it"
    end

    test "if the digests beside it cannot be read, and they are never run", %{tmp_dir: tmp_dir} do
      archive = made(tmp_dir)
      trace = Path.join(tmp_dir, "trace")
      atom = "an_atom_that_nobody_has_#{System.unique_integer([:positive])}"

      for text <- [
            "",
            "%{",
            "[]",
            "%{a: 1}",
            "%{\"a\" => File.write!(#{inspect(trace)}, \"\")}",
            "File.write!(#{inspect(trace)}, \"\")",
            "%{#{atom}: 1}",
            <<255, 254>>
          ] do
        File.write!(Path.join(tmp_dir, @checksums), text)
        assert refused(archive) =~ "#{@checksums} beside it cannot be used"
      end

      refute File.exists?(trace)
      assert_raise ArgumentError, fn -> String.to_existing_atom(atom) end
    end

    test "if it was built from other sources of the same version", %{tmp_dir: tmp_dir} do
      archive = made(tmp_dir, @facts, %{content() | sources: sha256("other")})
      assert refused(archive) == "it was built from other sources than those in #{@root}"
    end

    test "if the library in it is for another machine than the name says", %{tmp_dir: tmp_dir} do
      arm = <<0x7F, "ELF", 2, 1, 1, 0::72, 3::16-little, 183::16-little, 0::256>>

      assert refused(made(tmp_dir, @facts, content(arm))) ==
               "the library in it is ELF for the processor aarch64, and #{@target} takes ELF for x86_64"

      macos = <<0xFEEDFACF::32-little, 0x0100000C::32-little, 0::256>>

      assert refused(made(tmp_dir, @facts, content(macos))) =~
               "is Mach-O for the processor aarch64"

      assert refused(made(tmp_dir, @facts, content(""))) == "what is in it is no native library"

      assert refused(made(tmp_dir, @facts, content("text"))) ==
               "what is in it is no native library"
    end

    test "if the library in it is not the one that was packed", %{tmp_dir: tmp_dir} do
      entries = entries() |> List.keyreplace(library(), 0, {library(), @elf <> "more"})

      assert refused(packed(tmp_dir, entries)) ==
               "the library in it does not have the digest that the archive has for it"
    end

    test "if an entry is missing", %{tmp_dir: tmp_dir} do
      for {name, _bytes} <- entries() do
        archive = packed(tmp_dir, List.keydelete(entries(), name, 0))
        assert refused(archive) == "it has no entry #{name}"
      end
    end

    test "if it is no archive, or half of one", %{tmp_dir: tmp_dir} do
      archive = made(tmp_dir)
      File.rm!(Path.join(tmp_dir, @checksums))
      whole = File.read!(archive)
      tar = :zlib.gunzip(whole)

      for bytes <- [
            "",
            "text",
            binary_part(whole, 0, div(byte_size(whole), 2)),
            binary_part(whole, 0, 5),
            tar,
            :zlib.gzip("text"),
            :zlib.gzip(binary_part(tar, 0, 700)),
            :zlib.gzip(String.duplicate("x", 10_000)),
            :zlib.gzip(:binary.replace(tar, "LICENSE", "LICENCE"))
          ] do
        File.write!(archive, bytes)

        assert refused(archive) =~
                 ~r/it is not a tar archive compressed with gzip|it has no entry/
      end
    end

    test "if it is a folder or a device under the name of an archive", %{tmp_dir: tmp_dir} do
      path = Path.join(tmp_dir, Archive.name(@facts))
      File.mkdir!(path)
      assert refused(path) =~ "it has no archive"
      File.rmdir!(path)
      File.ln_s!("/dev/zero", path)
      assert refused(path) == "it is a device, not a file"
    end

    test "if it has an entry that does not belong there, and nothing is written", context do
      %{tmp_dir: tmp_dir} = context
      outside = Path.join(tmp_dir, "outside")

      for name <- ["../outside", outside, "more", "./LICENSE", "LICENSE/../more"] do
        archive = packed(tmp_dir, entries() ++ [{name, "bytes"}])

        assert refused(archive) =~
                 ~r/^it has the entry "#{Regex.escape(name)}" \(regular, 5 bytes\)/
      end

      refute File.exists?(outside)
      refute File.exists?(Path.join(Path.dirname(tmp_dir), "outside"))
    end

    test "if an entry is a link or a folder", %{tmp_dir: tmp_dir} do
      link = Path.join(tmp_dir, "LICENSE")
      File.ln_s!("/etc/passwd", link)
      folder = Path.join(tmp_dir, "THIRD_PARTY.txt")
      File.mkdir!(folder)

      for {name, path, type} <- [
            {"LICENSE", link, "symlink"},
            {"THIRD_PARTY.txt", folder, "directory"}
          ] do
        entries = List.keyreplace(entries(), name, 0, {name, String.to_charlist(path)})

        assert refused(packed(tmp_dir, entries)) =~
                 ~r/it has the entry "#{name}\/?" \(#{type}, 0 bytes\), which does not belong there/
      end
    end

    test "if an entry comes twice", %{tmp_dir: tmp_dir} do
      archive = packed(tmp_dir, entries() ++ [{library(), "other bytes"}])
      assert refused(archive) == "it has the entry #{inspect(library())} twice"
    end

    test "if it is huge, or unpacks to something huge, of which little is unpacked", context do
      %{tmp_dir: tmp_dir} = context
      path = Path.join(tmp_dir, Archive.name(@facts))
      {:ok, file} = :file.open(path, [:write, :raw])
      {:ok, _position} = :file.position(file, 1_000_000_000)
      :ok = :file.truncate(file)
      :ok = :file.close(file)
      assert refused(path) =~ "it has more than 64 MiB, or unpacks to more"

      # A gigabyte of nothing, made of the same megabyte over and over.
      stream = :zlib.open()
      :ok = :zlib.deflateInit(stream, 9, :deflated, 31, 8, :default)
      megabyte = :binary.copy(<<0>>, 1024 * 1024)
      pieces = for _ <- 1..200, do: :zlib.deflate(stream, megabyte)
      File.write!(path, [pieces, :zlib.deflate(stream, "", :finish)])
      :zlib.close(stream)
      assert refused(path) =~ "it has more than 64 MiB, or unpacks to more"
    end
  end

  describe "an archive" do
    test "has the names that rustler_precompiled gives", %{tmp_dir: tmp_dir} do
      assert Path.basename(made(tmp_dir)) ==
               "libnative_registry-v#{@version}-nif-2.15-x86_64-unknown-linux-gnu.so.tar.gz"

      windows = %{@facts | target: "x86_64-pc-windows-msvc"}
      macos = %{@facts | target: "aarch64-apple-darwin"}

      assert Archive.name(windows) ==
               "native_registry-v#{@version}-nif-2.15-x86_64-pc-windows-msvc.dll.tar.gz"

      assert Archive.name(macos) ==
               "libnative_registry-v#{@version}-nif-2.15-aarch64-apple-darwin.so.tar.gz"

      for facts <- [@facts, windows, macos, %{@facts | version: "1.0.0-rc.1-nif-2"}],
          do: assert({:ok, facts} == facts |> Archive.name() |> Archive.facts())
    end

    test "has the library, its digest, that of the sources, and the licences", %{tmp_dir: tmp_dir} do
      assert {:ok, entries} =
               tmp_dir
               |> made()
               |> String.to_charlist()
               |> :erl_tar.extract([:memory, :compressed])

      assert Map.new(entries, fn {name, bytes} -> {to_string(name), bytes} end) == %{
               library() => @elf,
               (library() <> ".sha256") => "#{sha256(@elf)}  #{library()}\n",
               "SOURCES" => Digest.sources(@root) <> "\n",
               "LICENSE" => "licence",
               "THIRD_PARTY.txt" => "licences"
             }
    end

    test "is the same whenever it is made", %{tmp_dir: tmp_dir} do
      first = File.read!(made(Path.join(tmp_dir, "first")))
      assert File.read!(made(Path.join(tmp_dir, "second"))) == first
    end

    test "has its digest beside it, with those of the other targets", %{tmp_dir: tmp_dir} do
      one = made(tmp_dir)
      other = made(tmp_dir, %{@facts | target: "aarch64-apple-darwin"})
      # Made again, it is listed once.
      made(tmp_dir)
      {listed, []} = Code.eval_file(Path.join(tmp_dir, @checksums))

      assert listed ==
               for(
                 path <- [one, other],
                 into: %{},
                 do: {Path.basename(path), "sha256:" <> sha256(File.read!(path))}
               )

      assert Enum.sort(File.ls!(tmp_dir)) ==
               Enum.sort([@checksums, Path.basename(one), Path.basename(other)])
    end
  end

  describe "what the package says of itself" do
    test "is the same in mix.exs and in Cargo.toml" do
      assert Mix.Project.config()[:version] == @version
      assert Version.match?(Manifest.rust(@root) <> ".0", ">= 1.0.0")
    end

    test "names a native interface that this VM has" do
      assert Manifest.nif(@root) == "2.15"
      assert nif() in ["2.15", "2.16", "2.17", "2.18"] or Version.match?(nif() <> ".0", "~> 2.15")
    end
  end

  describe "the machine of a library" do
    test "that is loaded here is that of this VM's target" do
      [library] =
        Path.wildcard(Path.join(:code.priv_dir(@application), "native/native_registry.*"))

      assert Machine.of_library(File.read!(library)) == Machine.of_target(Target.of_vm())
    end

    test "is read from its first bytes, whatever they are" do
      pe = <<"MZ", 0::464, 64::32-little, "PE", 0, 0, 0x8664::16-little>>
      big = <<0x7F, "ELF", 2, 2, 1, 0::72, 3::16, 22::16, 0::256>>
      assert Machine.of_library(pe) == {"PE", "x86_64"}
      assert Machine.of_library(big) == {"ELF", "s390x"}

      for bytes <- [@elf, pe, big], size <- 0..(byte_size(bytes) - 1) do
        part = binary_part(bytes, 0, size)
        assert Machine.of_library(part) in [:unknown, Machine.of_library(bytes)]
      end

      assert Machine.of_library(<<"MZ", 0::464, 0xFFFFFFFF::32-little>>) == :unknown
    end

    test "is known of Rust's targets" do
      for {target, machine} <- [
            {"x86_64-unknown-linux-musl", {"ELF", "x86_64"}},
            {"i586-unknown-linux-gnu", {"ELF", "i686"}},
            {"armv7-unknown-linux-gnueabihf", {"ELF", "arm"}},
            {"arm-unknown-linux-gnueabihf", {"ELF", "arm"}},
            {"riscv64gc-unknown-linux-gnu", {"ELF", "riscv"}},
            {"powerpc64le-unknown-linux-gnu", {"ELF", "powerpc64"}},
            {"aarch64-apple-darwin", {"Mach-O", "aarch64"}},
            {"x86_64-pc-windows-msvc", {"PE", "x86_64"}},
            {"aarch64-pc-windows-gnullvm", {"PE", "aarch64"}}
          ],
          do: assert(Machine.of_target(target) == machine)
    end
  end

  defp nif, do: List.to_string(:erlang.system_info(:nif_version))
  defp library, do: Archive.library_name(@facts)

  defp list(folder, name, digest),
    do: File.write!(Path.join(folder, @checksums), inspect(%{name => digest}))

  defp entries do
    [
      {library(), @elf},
      {library() <> ".sha256", "#{sha256(@elf)}  #{library()}\n"},
      {"SOURCES", Digest.sources(@root) <> "\n"},
      {"LICENSE", "licence"},
      {"THIRD_PARTY.txt", "licences"}
    ]
  end

  # An archive with any entries: bytes, or files by their paths.
  defp packed(folder, entries) do
    path = Path.join(folder, Archive.name(@facts))
    {:ok, tar} = :erl_tar.open(String.to_charlist(path), [:write, :compressed])

    for {name, bytes_or_path} <- entries,
        do: :ok = :erl_tar.add(tar, bytes_or_path, String.to_charlist(name), [])

    :ok = :erl_tar.close(tar)
    path
  end
end
