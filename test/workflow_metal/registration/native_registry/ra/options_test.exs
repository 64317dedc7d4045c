defmodule WorkflowMetal.Registration.NativeRegistry.Ra.OptionsTest do
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Cluster.Ra.Options

  @right [nodes: [:"a@127.0.0.1"], data_dir: "/var/lib/my_app"]

  defp error(options) do
    assert_raise(ArgumentError, fn -> Options.validate!(:some_registry, options) end).message
  end

  test "lease and fsync have defaults" do
    assert Options.validate!(:some_registry, @right) ==
             %{nodes: [:"a@127.0.0.1"], data_dir: "/var/lib/my_app", lease: 8_000, fsync: true}
  end

  test "an unknown option raises, and the error names the known ones" do
    message = error([leese: 8_000] ++ @right)
    assert message =~ "unknown option :leese of cluster: :ra of the registry :some_registry"
    assert message =~ "[:nodes, :data_dir, :lease, :fsync]"
  end

  test "a missing option raises, and the error says what it should be" do
    for option <- [:nodes, :data_dir] do
      message = error(Keyword.delete(@right, option))
      assert message =~ "needs the option #{inspect(option)}"
      assert message =~ "[:nodes, :data_dir, :lease, :fsync]"
    end
  end

  test "a value of no use raises, and the error names it" do
    for {option, value} <- [
          nodes: [],
          nodes: :"a@127.0.0.1",
          nodes: [:"a@127.0.0.1", :"a@127.0.0.1"],
          nodes: ["a@127.0.0.1"],
          nodes: [nil],
          nodes: [:no_host],
          nodes: [:a@b | :c@d],
          data_dir: "",
          data_dir: nil,
          data_dir: ~c"/var",
          data_dir: <<255>>,
          lease: 999,
          lease: 8_000.0,
          lease: :infinity,
          fsync: nil,
          fsync: 1
        ] do
      message = error(Keyword.put(@right, option, value))

      assert message =~
               "expected #{inspect(option)} of cluster: :ra of the registry :some_registry"

      assert message =~ "got: #{inspect(value)}"
    end

    for options <- [:none, [:nodes], %{}, nil, [{"nodes", []}]] do
      assert error(options) =~ "to be a keyword list, got: #{inspect(options)}"
    end
  end

  test "a version of ra that the release of OTP cannot run raises, with the version to pin" do
    for version <- ["2.16.0", "2.17.3", "3.1.10"] do
      error = assert_raise ArgumentError, fn -> Options.check_version!(version, "25") end

      assert error.message =~ "ra #{version} needs OTP 26 or later, and this is OTP 25"
      assert error.message =~ ~s(pin {:ra, "~> 2.15.4"} in mix.exs)
      assert Options.check_version!(version, "26") == :ok
      assert Options.check_version!(version, "29") == :ok
    end

    # What the error of a registry without ra says to add runs here.
    assert Options.dependency("25") == ~s({:ra, "~> 2.15.4"})
    refute Options.dependency("27") == Options.dependency("25")

    error = assert_raise ArgumentError, fn -> Options.check_version!("2.14.1", "25") end
    assert error.message =~ "ra 2.14.1 is older than what cluster: :ra needs"

    for version <- ["2.15.0", "2.15.4"], otp <- ["25", "27"] do
      assert Options.check_version!(version, otp) == :ok
    end
  end
end
