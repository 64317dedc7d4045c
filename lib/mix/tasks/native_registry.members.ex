defmodule Mix.Tasks.NativeRegistry.Members do
  @shortdoc "Shows and changes the members of a cluster of registries with cluster: {:ra, options}"
  @moduledoc """
  Shows and changes the members of a cluster of registries with `cluster: {:ra, options}`.

      mix native_registry.members --node NODE --cookie COOKIE list
      mix native_registry.members --node NODE --cookie COOKIE add NODE
      mix native_registry.members --node NODE --cookie COOKIE remove NODE
      mix native_registry.members --node NODE --cookie COOKIE replace OLD NEW
      mix native_registry.members --node NODE --cookie COOKIE force-alone

  It calls `WorkflowMetal.Registration.NativeRegistry.Members` on a running node, which has the
  documentation. A change that would lose names or the majority is refused, and the reason is printed.

    * `--node`: the node to call, any member. For `force-alone`, it is the member that stays.
    * `--cookie`: its cookie; without it, the one of this machine's user.

  `force-alone` asks before it does anything. In a release without Mix, call the module on the remote
  console.
  """
  use Mix.Task

  @members WorkflowMetal.Registration.NativeRegistry.Members

  @usage "expected list, add NODE, remove NODE, replace OLD NEW or force-alone"

  # Longer than any of the functions.
  @timeout 600_000

  @impl Mix.Task
  def run(arguments) do
    {options, rest} = OptionParser.parse!(arguments, strict: [node: :string, cookie: :string])
    {function, nodes} = function!(rest)
    node = node!(options[:node] || Mix.raise("expected --node, a running member"))
    connect!(node, options[:cookie])

    if function != :force_alone or forced?(node) do
      node
      |> call(function, nodes)
      |> tell()
    end
  end

  defp function!(["list"]), do: {:list, []}
  defp function!(["add", node]), do: {:add, [node!(node)]}
  defp function!(["remove", node]), do: {:remove, [node!(node)]}
  defp function!(["replace", old, new]), do: {:replace, [node!(old), node!(new)]}
  defp function!(["force-alone"]), do: {:force_alone, []}
  defp function!(other), do: Mix.raise("#{@usage}, got: #{Enum.join(other, " ")}")

  defp node!(node) do
    if match?([_name, _host], String.split(node, "@")),
      do: String.to_atom(node),
      else: Mix.raise("expected a node such as app@host, got: #{node}")
  end

  # As a hidden node, which no other one than this hears of.
  defp connect!(node, cookie) do
    unless Node.alive?() do
      [_name, host] = String.split(Atom.to_string(node), "@")
      domain = if host =~ ".", do: :longnames, else: :shortnames
      name = :"native_registry_members_#{System.pid()}@#{own_host(domain, host)}"
      options = %{name_domain: domain, hidden: true, dist_listen: false}

      case :net_kernel.start(name, options) do
        {:ok, _pid} -> :ok
        {:error, reason} -> Mix.raise("this node cannot be named: #{inspect(reason)}")
      end
    end

    if cookie, do: Node.set_cookie(node, String.to_atom(cookie))

    unless Node.connect(node),
      do: Mix.raise("#{node} cannot be connected: does it run, and with this cookie?")
  end

  defp own_host(:shortnames, _host) do
    {:ok, host} = :inet.gethostname()
    host
  end

  defp own_host(:longnames, host) do
    # A host of its own is only needed when the node is elsewhere; nobody connects to this node.
    host
  end

  defp forced?(node) do
    Mix.shell().info("""
    This makes #{node} the only member. If another voter runs, or starts again with its data while it cannot
    reach #{node}, two processes can hold one name. Names that #{node} has not heard of are lost.
    """)

    Mix.shell().yes?("Are the other voters lost for good?", default: :no)
  end

  defp call(node, function, arguments) do
    :erpc.call(node, @members, function, arguments, @timeout)
  rescue
    error in ErlangError -> Mix.raise("#{node} does not answer: #{inspect(error.original)}")
  end

  defp tell(:ok), do: Mix.shell().info("Done")
  defp tell({:ok, members}), do: Enum.each(table(members), &Mix.shell().info(&1))
  defp tell({:error, {reason, explanation}}), do: Mix.raise("#{reason}: #{explanation}")

  defp table(members) do
    rows =
      for member <- members do
        [
          to_string(member.node),
          if(member.voter?, do: "voter", else: "no vote"),
          if(member.leader?, do: "leader", else: ""),
          if(member.reachable?, do: "reachable", else: "not reachable"),
          "#{member.names} names"
        ]
      end

    widths = for column <- Enum.zip(rows), do: column |> Tuple.to_list() |> longest()

    for row <- rows do
      row |> Enum.zip_with(widths, &String.pad_trailing/2) |> Enum.join("  ") |> String.trim()
    end
  end

  defp longest(strings), do: strings |> Enum.map(&String.length/1) |> Enum.max()
end
