defmodule ConsumerCheck do
  use ExUnit.Case

  alias Consumer.{Order, Shop}

  defp kill(pid) do
    reference = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^reference, :process, ^pid, :killed}
  end

  defp successor(pid, find) do
    case find.() do
      successor when is_pid(successor) and successor != pid -> successor
      _ -> successor(pid, find)
    end
  end

  test "an order is opened once and found by its name" do
    assert Shop.whereis("a") == :undefined
    assert {:ok, pid} = Shop.open("a")
    assert Shop.open("a") == {:ok, pid}
    assert Shop.whereis("a") == pid
    assert Order.add(Shop.via("a"), :book) == {"a", [:book]}
  end

  test "a killed order comes back under its name" do
    {:ok, pid} = Shop.open("b")
    Order.add(Shop.via("b"), :book)
    kill(pid)

    assert pid |> successor(fn -> Shop.whereis("b") end) |> Process.alive?()
    assert Order.add(Shop.via("b"), :pen) == {"b", [:pen]}
  end

  test "an order that ends normally is gone, and can be opened again" do
    {:ok, pid} = Shop.open("c")
    GenServer.stop(Shop.via("c"))

    assert Shop.whereis("c") == :undefined
    assert {:ok, other} = Shop.open("c")
    assert other != pid
  end

  test "orders outlive the registry's own process" do
    {:ok, pid} = Shop.open("d")
    registry = Shop.registry()
    kill(registry)

    assert Shop.whereis("d") == pid
    assert {:ok, _pid} = Shop.open("e")
    assert registry |> successor(&Shop.registry/0) |> Process.alive?()
    assert Order.add(Shop.via("d"), :book) == {"d", [:book]}
  end

  test "the application's supervision tree stops and starts again" do
    {:ok, pid} = Shop.open("f")
    :ok = Supervisor.terminate_child(Consumer.Supervisor, Shop)
    refute Process.alive?(pid)
    assert_raise ArgumentError, fn -> Shop.whereis("f") end

    {:ok, _shop} = Supervisor.restart_child(Consumer.Supervisor, Shop)
    assert Shop.whereis("f") == :undefined
    assert {:ok, _pid} = Shop.open("f")
  end

  if Code.ensure_loaded?(Consumer.Workflows) do
    test "WorkflowMetal runs a workflow" do
      alias Consumer.Workflows

      {:ok, _workflow} = Workflows.insert("parcels", self())
      parcel = %WorkflowMetal.Storage.Schema.Case{state: :created, workflow_id: "parcels"}
      {:ok, %{id: id}} = WorkflowMetal.Storage.insert_case(Workflows, parcel)
      {:ok, pid} = Workflows.open_case(id)
      reference = Process.monitor(pid)

      name = {WorkflowMetal.Case.Case, {"parcels", id}}
      assert WorkflowMetal.Registration.whereis_name(Workflows, name) == pid
      assert Workflows.open_case(id) == {:ok, pid}

      for _step <- [:pack, :ship] do
        assert_receive {:asked, workitem}, 5_000
        Workflows.Ask.done(workitem)
      end

      assert_receive {:DOWN, ^reference, :process, ^pid, :normal}, 5_000
      assert {:ok, %{state: :finished}} = WorkflowMetal.Storage.fetch_case(Workflows, id)
      assert WorkflowMetal.Registration.whereis_name(Workflows, name) == :undefined
    end
  else
    @tag skip: "WorkflowMetal is not on the code path"
    test "WorkflowMetal runs a workflow"
  end
end
