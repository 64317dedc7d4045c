defmodule WorkflowMetal.Registration.NativeRegistry.Build.JsonTest do
  use ExUnit.Case, async: true

  alias WorkflowMetal.Registration.NativeRegistry.Build.Json

  test "reads what cargo writes" do
    line =
      ~S({"reason":"compiler-artifact","package_id":"path+file:///a%20b#0.1.0","target":{"kind":["cdylib"],) <>
        ~S("name":"native_registry","doc":true},"profile":{"opt_level":"3","debuginfo":0,"test":false},) <>
        ~S("features":[],"filenames":["/tmp/a b/登録/lib\"x\".so","C:\\build\\x.dll"],"executable":null})

    assert {:ok, artifact} = Json.decode(line)
    assert artifact["reason"] == "compiler-artifact"

    assert artifact["target"] == %{
             "kind" => ["cdylib"],
             "name" => "native_registry",
             "doc" => true
           }

    assert artifact["profile"]["debuginfo"] == 0
    assert artifact["filenames"] == [~S(/tmp/a b/登録/lib"x".so), ~S(C:\build\x.dll)]
    assert artifact["features"] == []
    assert artifact["executable"] == nil
  end

  test "reads escapes, in halves too" do
    assert Json.decode(~S("\u767b\u9332 \ud83d\ude00\n\t\r\b\f\/\\\"")) ==
             {:ok, "登録 😀\n\t\r\b\f/\\\""}
  end

  test "reads spaces, numbers and nothing at all" do
    assert Json.decode(" [ 1 , -2.5e3 ,{ } , [ ], { \"a\" : null , \"b\":false} ] ") ==
             {:ok, [1.0, -2500.0, %{}, [], %{"a" => nil, "b" => false}]}
  end

  test "answers an error for what is no JSON" do
    texts = [
      "",
      " ",
      "{",
      "[",
      "[1",
      "[1,",
      ~S({"a"),
      ~S({"a":),
      ~S({"a":1),
      ~S({"a":1,),
      "{a:1}",
      "\"",
      "\"\\",
      ~S("\u12),
      ~S("\u12g4"),
      ~S("\u-123"),
      ~S("\ud83d"),
      ~S("\ud83d\u0041"),
      ~S("\udc00"),
      ~S("\x"),
      "nul",
      "truefalse",
      "+1",
      "-",
      "1,2",
      ~S("a"b)
    ]

    for text <- texts,
        do: assert({text, Json.decode(text)} == {text, :error})

    whole = ~S({"a":["\u767b\\",1.5,{"b":null}],"c":true})

    for length <- 0..(byte_size(whole) - 1),
        do: assert(Json.decode(binary_part(whole, 0, length)) == :error)

    assert {:ok, %{}} = Json.decode(whole)
  end
end
