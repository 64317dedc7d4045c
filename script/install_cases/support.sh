# What the cases share. They source this file, in the empty folder that they are given.
set -eu

case_failed() {
  echo "$*"
  exit 1
}

skip() {
  echo "$*"
  exit 77
}

# How fast the library is does not matter here, and how long its build takes does.
quick() {
  export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=0
}

# For cases that ask nothing of cargo's folder.
share() {
  quick
  export CARGO_TARGET_DIR="$SHARED"
}

# package FOLDER: this project as a dependency is fetched, without what is ignored.
package() {
  mkdir -p "$1"
  (cd "$PROJECT" && tar -cf - Cargo.toml Cargo.lock mix.exs .formatter.exs lib native) |
    (cd "$1" && tar -xf -)
  rm -rf "$1/native/registry_core/fuzz"
}

# consumer FOLDER PACKAGE: a project of a user that depends on it.
consumer() {
  mkdir -p "$1/lib"
  cat >"$1/mix.exs" <<EOT
defmodule User.MixProject do
  use Mix.Project

  def project do
    [
      app: :user,
      version: "0.1.0",
      deps: [{:workflow_metal_native_registry, path: "$2"}]
    ]
  end

  def application, do: [extra_applications: [:logger]]
end
EOT
  cat >"$1/lib/user.ex" <<'EOT'
defmodule User do
  alias WorkflowMetal.Registration.NativeRegistry

  def check do
    {:ok, _pid} = NativeRegistry.start_link(name: User.Names)
    :yes = NativeRegistry.register_name({User.Names, "登録"}, self())
    true = NativeRegistry.whereis_name({User.Names, "登録"}) == self()
    IO.puts("the library works")
  end
end
EOT
}

# In the folder of a consumer: it compiles, and the library loads and answers.
works() {
  mix deps.get </dev/null
  mix compile </dev/null
  mix run -e 'User.check()' </dev/null >run.log 2>&1 || {
    cat run.log
    case_failed "the library does not work"
  }
  grep -q "the library works" run.log || case_failed "the library does not answer: $(cat run.log)"
}

# The library in the build folder of an environment.
library() {
  echo "_build/${1:-dev}/lib/workflow_metal_native_registry/priv/native/native_registry.so"
}

# The number that ELF has for the processor that a library is for.
processor() {
  od -An -tu1 -j18 -N1 "$1" | tr -d ' '
}

# has_target TRIPLE: whether Rust has its standard library for the target.
has_target() {
  [ -d "$(rustc --print target-libdir --target "$1" 2>/dev/null)" ]
}

# The processes that work in this folder.
processes() {
  ps -A -o pid= -o args= | grep -F "$PWD" | grep -v grep || true
}

# until_true SECONDS COMMAND...
until_true() {
  _left=$1
  shift
  until "$@"; do
    _left=$((_left - 1))
    [ $_left -gt 0 ] || return 1
    sleep 1
  done
}
