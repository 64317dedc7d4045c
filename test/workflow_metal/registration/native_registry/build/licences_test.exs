defmodule WorkflowMetal.Registration.NativeRegistry.Build.LicencesTest do
  use ExUnit.Case, async: true

  import WorkflowMetal.Registration.NativeRegistry.BuildCase, only: [program!: 2]

  alias WorkflowMetal.Registration.NativeRegistry.Build.Licences

  @moduletag :tmp_dir

  # A cargo that knows three crates, one of them this package's own.
  setup %{tmp_dir: tmp_dir} do
    File.write!(Path.join(tmp_dir, "tree"), """
    native_registry v0.1.0 (#{tmp_dir})|MIT|
    second v2.0.0|Apache-2.0|https://example.org/second
    first v1.0.0|MIT OR Apache-2.0|https://example.org/first
    first v1.0.0|MIT OR Apache-2.0|https://example.org/first
    bare v0.3.0 (proc-macro)|MIT|
    """)

    packages =
      for {name, version, source} <- [
            {"native_registry", "0.1.0", "null"},
            {"first", "1.0.0", "\"a registry\""},
            {"first", "9.0.0", "\"a registry\""},
            {"second", "2.0.0", "\"a registry\""},
            {"bare", "0.3.0", "\"a registry\""}
          ] do
        folder = Path.join(tmp_dir, "#{name}-#{version}")
        File.mkdir_p!(folder)
        File.write!(Path.join(folder, "Cargo.toml"), "")

        ~s({"name":"#{name}","version":"#{version}","source":#{source},) <>
          ~s("manifest_path":"#{folder}/Cargo.toml","dependencies":[{"name":"x","source":null}]})
      end

    metadata = ~s({"packages":[#{Enum.join(packages, ",")}],"version":1})
    File.write!(Path.join(tmp_dir, "metadata"), metadata)

    for {file, text} <- [
          {"first-1.0.0/LICENSE-APACHE", "the Apache licence\n"},
          {"first-1.0.0/LICENSE-MIT", "MIT, first's authors"},
          {"first-1.0.0/NOTICE", "first's notice"},
          {"first-1.0.0/README.md", "no licence"},
          {"first-9.0.0/LICENSE", "of another version"},
          {"second-2.0.0/license.txt", "the Apache licence\r\n"}
        ],
        do: File.write!(Path.join(tmp_dir, file), text)

    cargo =
      program!(
        Path.join(tmp_dir, "cargo"),
        "#!/bin/sh\necho \"$@\" >>asked\ncat \"$1\" 2>/dev/null\n"
      )

    {:ok, toolchain: %{cargo: cargo, rustc: "rustc", version: "rustc 1.95.0", env: []}}
  end

  test "of the crates that are linked for the target are there once each", context do
    %{tmp_dir: root, toolchain: toolchain} = context
    text = Licences.third_party!(root, toolchain, "some-target")

    assert text =~
             "  first 1.0.0, MIT OR Apache-2.0\n    https://example.org/first\n  second 2.0.0, "

    assert text =~ "\nfirst 1.0.0, second 2.0.0\n\nthe Apache licence\n"
    assert text =~ "\nfirst 1.0.0\n\nMIT, first's authors\n"
    assert text =~ "\nfirst 1.0.0\n\nfirst's notice\n"
    assert length(String.split(text, "the Apache licence")) == 2
    refute text =~ "no licence"
    refute text =~ "of another version"
    refute text =~ "native_registry 0.1.0"
    asked = File.read!(Path.join(root, "asked"))
    assert asked =~ "--target some-target"
    assert asked =~ "--filter-platform some-target"
  end

  test "name Rust's standard library, and the crates that carry no text", context do
    text = Licences.third_party!(context.tmp_dir, context.toolchain, "some-target")
    assert text =~ "the standard library of Rust (rustc 1.95.0)"
    assert text =~ "These carry no text of their licence, only its name above:\n\n  bare 0.3.0\n"
  end

  test "are not made up if cargo cannot say them", %{tmp_dir: root, toolchain: toolchain} do
    File.rm!(Path.join(root, "metadata"))

    assert_raise Mix.Error, "`cargo metadata` ended with status 1", fn ->
      ExUnit.CaptureIO.capture_io(:stderr, fn ->
        Licences.third_party!(root, toolchain, "some-target")
      end)
    end
  end
end
