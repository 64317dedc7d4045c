# What the scripts share; each sources it first. It goes to the project's folder, answers `--help` with the
# comment at the top of the script, and cleans up when the script ends, by itself or by a signal.

script=$(cd "$(dirname "$0")" && pwd)/$(basename "$0")
cd "$(dirname "$script")/.."

usage() {
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$script"
}

# misuse REASON: how the script is used, and status 2
misuse() {
  echo "$1" >&2
  usage | sed -n '1p' >&2
  exit 2
}

# wanted_number WHAT VALUE: "0.5" is one, too
wanted_number() {
  case $2 in
    '' | *[!0-9.]* | .* | *. | *.*.*) misuse "$1 has to be a number, not '$2'" ;;
  esac
}

wanted_whole_number() {
  case $2 in
    '' | *[!0-9]*) misuse "$1 has to be a whole number, not '$2'" ;;
  esac
}

case "${1-}" in
  -h | --help)
    usage
    exit 0
    ;;
esac

# The scripts end the VM that they have started. The VM shall not ask what to do when Ctrl-C is pressed.
ELIXIR_ERL_OPTIONS="${ELIXIR_ERL_OPTIONS:-} +Bd"
export ELIXIR_ERL_OPTIONS

# A folder that is removed at the end
scratch=
make_scratch() {
  [ -n "$scratch" ] || scratch=$(mktemp -d "${TMPDIR:-/tmp}/native_registry.XXXXXXXX")
}

# Processes in the background that are ended at the end; "-ID" is a group of them
beside=

# run COMMAND...: runs a command so that a signal to this script ends the command too, with all that it has
# started in its process group. A shell handles a signal only after the command in its foreground has
# ended, so the command runs in the background.
running=
run() {
  running=yes
  $apart "$@" </dev/null &
  run_status=0
  wait $! || run_status=$?
  running=
  return $run_status
}

apart=
if command -v setsid >/dev/null 2>&1; then apart=setsid; fi

# The process group if there is one, which the process leads
signal_command() {
  kill -s "$1" -- "-$2" 2>/dev/null || kill -s "$1" "$2" 2>/dev/null || true
}

# The VM stops in order when it is asked to. What has not ended after ten seconds is killed, and so is what the
# command has left in its process group.
end_command() {
  signal_command TERM "$1"
  tenths=0
  while [ $tenths -lt 100 ] && kill -0 "$1" 2>/dev/null; do
    sleep 0.1
    tenths=$((tenths + 1))
  done
  signal_command KILL "$1"
}

# Fetches the dependencies of the project in the current folder, where Hex is installed. Where they cannot be
# fetched, as without a network, what follows runs as without Hex: without any dependency. It needs `fail` of
# script/setup.
fetch_dependencies() {
  make_scratch
  if run mix deps.get >"$scratch/fetched" 2>&1; then
    cat "$scratch/fetched"
    return
  fi

  # A folder that does not exist has no Hex.
  MIX_ARCHIVES=$PWD/_build/no_archives
  export MIX_ARCHIVES
  run mix deps.get >/dev/null 2>&1 || {
    cat "$scratch/fetched" >&2
    fail "The dependencies cannot be fetched: \`mix deps.get\` needs a network."
  }
  echo "Hex cannot fetch the dependencies ($(tail -n 1 "$scratch/fetched")). Going on without Hex."
}

clean_up() {
  # shellcheck disable=SC2086 # Each word is the id of a process.
  [ -z "$beside" ] || kill -s TERM -- $beside 2>/dev/null || true
  [ -z "$scratch" ] || rm -rf "$scratch"
}

signalled() {
  trap '' HUP INT TERM
  [ -z "$running" ] || end_command "$!"
  exit $((128 + $1))
}

trap clean_up EXIT
trap 'signalled 1' HUP
trap 'signalled 2' INT
trap 'signalled 15' TERM
