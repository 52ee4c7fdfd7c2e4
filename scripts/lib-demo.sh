# What the scripts that show something share: how they print, and how they start and end programs. Source it after
# scripts/lib.sh.
# shellcheck shell=bash

declare -A URL PID

say() { printf '\n%s%s%s\n' "$BOLD$CYAN" "$*" "$PLAIN"; }
# watched URL: prints where the story can be watched while it is told, if everything is left running afterwards.
watched() { if [[ -n ${keep:-} ]]; then say "Watch it on the picture while it is told: $1/ui/"; fi; }
shown() { printf '%s$ %s%s\n' "$DIM" "$*" "$PLAIN"; }
indented() { sed 's/^/  /'; }

# until_true WHAT COMMAND…: waits until the command succeeds. A change is noticed after one or two probes.
until_true() {
  local what=$1 end=$((SECONDS + 30))
  shift
  until "$@"; do
    ((SECONDS < end)) || fail "waited 30 seconds in vain until $what" "see the logs in $WORK, and report it"
    sleep 0.1
  done
}

PIDS=() WORK=''
stop_all() {
  local pid
  exec 9>&- # the front ends when its standard input is closed
  for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${PIDS[@]}"; do wait "$pid" 2>/dev/null || true; done
  if [[ -n $WORK ]]; then rm -rf "$WORK"; fi
}

# begin_work: makes $WORK. It is removed, and all that was started is ended, when the script ends.
begin_work() {
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/bailiwick-demo.XXXXXX")
  trap stop_all EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# start NAME COMMAND…: starts the command in the background, with its output in $WORK/NAME.log.
start() {
  local name=$1
  shift
  "$@" >"$WORK/$name.log" 2>"$WORK/$name.err" <"${INPUT:-/dev/null}" &
  PIDS+=($!)
  PID[$name]=$!
}

# free_port: a port that nobody listens at now.
free_port() {
  node -e 'const s = require("net").createServer().listen(0, "127.0.0.1", () => {
    console.log(s.address().port);
    s.close();
  })'
}

# ready_field NAME KEY: a field of the line of JSON that NAME prints when it is ready.
ready_field() {
  until_true "$1 is ready" test -s "$WORK/$1.log"
  head -n 1 "$WORK/$1.log" | node -p "JSON.parse(require('fs').readFileSync(0))['$2']"
}
