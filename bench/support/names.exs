defmodule Bench.Names do
  # Names of tasks as WorkflowMetal makes them, and lists of them that many processes read without a copy, as
  # persistent terms are not copied.

  # Names that are never held, and names that are registered and freed beside the held ones.
  @missing_from 2_000_000
  @passing_from 3_000_000

  def kinds, do: [:integers, :uuids]

  def label(:integers), do: "five integers"
  def label(:uuids), do: "four UUIDs"

  # Ten tasks a case, a hundred cases a workflow, ten transitions.
  def name(:integers, at) do
    the_case = div(at, 10)
    {WorkflowMetal.Task.Task, {div(the_case, 100), rem(at, 10), the_case, at, at + 1}}
  end

  def name(:uuids, at) do
    the_case = div(at, 10)
    workflow = div(the_case, 100)

    {WorkflowMetal.Task.Task,
     {uuid(1, workflow), uuid(2, workflow * 10 + rem(at, 10)), uuid(3, the_case), uuid(4, at)}}
  end

  # Looks like version 4, but is the same for the same number.
  defp uuid(kind, number) do
    <<a, b, c, d, e, f, _::4, g::12, _::2, h::14, i, j, k, l, m, n>> =
      :erlang.md5(<<kind, number::64>>)

    <<g, h, o, p>> = <<4::4, g::12, 2::2, h::14>>

    <<hex(a)::16, hex(b)::16, hex(c)::16, hex(d)::16, ?-, hex(e)::16, hex(f)::16, ?-, hex(g)::16,
      hex(h)::16, ?-, hex(o)::16, hex(p)::16, ?-, hex(i)::16, hex(j)::16, hex(k)::16, hex(l)::16,
      hex(m)::16, hex(n)::16>>
  end

  for byte <- 0..255 do
    <<digits::16>> = Base.encode16(<<byte>>, case: :lower)
    defp hex(unquote(byte)), do: unquote(digits)
  end

  def held(kind, size), do: several(kind, 0, size)
  def missing(kind, size), do: several(kind, @missing_from, size)
  def passing(kind, size), do: several(kind, @passing_from, size)

  defp several(kind, from, size), do: Enum.map(1..size, &name(kind, from + &1))

  # Names that are equal to held ones and share nothing with them, in random order.
  def looked_up(kind, size, most) do
    1..size |> Enum.take_random(min(size, most)) |> Enum.map(&name(kind, &1)) |> fresh()
  end

  def fresh(term), do: term |> :erlang.term_to_binary() |> :erlang.binary_to_term()

  # A tuple of names, and a tuple of lists of so many each.
  def put(key, names), do: :persistent_term.put({__MODULE__, key}, List.to_tuple(names))
  def put_slices(key, names, size), do: put(key, Enum.chunk_every(names, size))

  def get(key), do: :persistent_term.get({__MODULE__, key})

  # The names of a source are stored under a key, or, if they must take no memory, made one by one.
  def count({:put, key}), do: tuple_size(get(key))
  def count({:made, _kind, _from, size}), do: size

  def at({:put, key}, at), do: elem(get(key), at)
  def at({:made, kind, from, _size}, at), do: name(kind, from + at + 1)

  def slice(key, at) do
    slices = get(key)
    elem(slices, rem(at, tuple_size(slices)))
  end
end
