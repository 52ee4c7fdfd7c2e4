# shellcheck shell=bash disable=SC2034 # variables set here are used by the scripts that source this file
# Functions and variables for the other scripts: paths, printing of steps, long commands with a progress sign, and the
# environment for building the Worker. This file is sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Installed tools are outside of target/, so that `cargo clean` doesn't remove them: installing takes ten minutes.
CACHE=${BAILIWICK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/bailiwick}
WORKER_BUILD_VERSION=0.8.7
WASM_TARGET=wasm32-unknown-unknown

# The repository's own node (the npm package `node`) and tools come first. Debian has name servers in /usr/sbin, which
# isn't in every PATH. rustup's directory is missing in shells that were opened before rustup was installed.
PATH=$ROOT/node_modules/.bin:$CACHE/cargo/bin:$PATH:$CACHE/checks/bin:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/sbin:/sbin
export PATH

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' CYAN=$'\e[36m' PLAIN=$'\e[0m'
else
  BOLD='' DIM='' RED='' GREEN='' YELLOW='' CYAN='' PLAIN=''
fi

STEP=0 STEPS=0 STEP_NAME=''

# step NAME: begins the next of $STEPS steps. `there` or `done_in` prints the result.
step() {
  STEP=$((STEP + 1)) STEP_NAME=$1
}

# there DETAIL: prints that the step had nothing to do.
there() {
  printf '%s[%d/%d]%s %s ' "$CYAN" "$STEP" "$STEPS" "$PLAIN" "$STEP_NAME"
  printf '%s%s%s\n' "$DIM" "${1:-already there}" "$PLAIN"
}

# doing [DETAIL]: prints that the step does something. DETAIL says how long it may take.
doing() {
  printf '%s[%d/%d]%s %s%s%s …%s\n' "$CYAN" "$STEP" "$STEPS" "$PLAIN" "$BOLD" "$STEP_NAME" "$PLAIN" "${1:+ $1}"
}

note() { printf '      %s\n' "$*"; }
warn() { printf '%swarning:%s %s\n' "$YELLOW" "$PLAIN" "$*" >&2; }

# fail MESSAGE [HOW TO MEND]
fail() {
  printf '%serror:%s %s\n' "$RED" "$PLAIN" "$1" >&2
  if [[ -n ${2:-} ]]; then printf '  mend: %s\n' "$2" >&2; fi
  exit 1
}

# misused MESSAGE [HOW TO MEND]: prints the script's `usage` and an error about wrong arguments, and exits with 2.
misused() {
  usage >&2
  echo >&2
  (fail "$@") || exit 2
}

# took SECONDS: 75 → 1m15s
took() {
  if (($1 < 60)); then printf '%ds' "$1"; else printf '%dm%02ds' $(($1 / 60)) $(($1 % 60)); fi
}

GROUP=''
# end_group: ends all processes that `in_group` started, and then this script.
end_group() {
  if [[ -n $GROUP ]]; then
    kill -- "-$GROUP" 2>/dev/null || true
    wait "$GROUP" 2>/dev/null || true
  fi
  exit "$1"
}

# in_group COMMAND…: starts the command in the background in a process group of its own, GROUP. If this script is ended,
# at a terminal or by its process id, the compilers that the command started are ended too.
in_group() {
  trap 'end_group 130' INT
  trap 'end_group 143' TERM
  trap 'end_group 129' HUP
  set -m
  "$@" </dev/null &
  GROUP=$!
  set +m
}

# group_ended: waits for it; its exit code is the command's.
group_ended() {
  local status=0
  wait "$GROUP" || status=$?
  GROUP=''
  trap - INT TERM HUP
  return "$status"
}

# attended COMMAND…: runs it in a child shell with its output here, and ends it when this script ends. At a terminal
# Ctrl-C reaches the child anyway, and sudo has to be able to ask there.
attended() {
  if [[ -t 0 ]]; then
    ("$@")
  else
    in_group "$@"
    group_ended
  fi
}

# long COMMAND…: runs it with its output in a log and shows elapsed time and the newest line: in place on a
# terminal, else every ten seconds. When it fails the log's end is printed, unless QUIET_FAILURE is set.
long() {
  mkdir -p "$CACHE/log"
  local log began=$SECONDS every=10 next=5 line status=0
  log=$CACHE/log/$(printf '%s' "$STEP_NAME" | tr -cs 'A-Za-z0-9.-' '-').log
  if [[ -t 1 ]]; then every=1 next=1; fi
  in_group "$@" >"$log" 2>&1
  while kill -0 "$GROUP" 2>/dev/null; do
    if ((SECONDS - began >= next)); then
      next=$((SECONDS - began + every))
      line=$(tail -c 400 "$log" | tr '\r' '\n' | grep -vE '^(npm warn .*|[[:space:]]*)$' | tail -n 1) || true
      line=$(tr -d '\000-\037' <<<"$line" | cut -c 1-60) || true
      if [[ -t 1 ]]; then
        printf '\r\e[K      %s %s%s%s' "$(took $((SECONDS - began)))" "$DIM" "$line" "$PLAIN"
      else
        note "$(took $((SECONDS - began))) $line"
      fi
    fi
    sleep 0.2
  done
  group_ended || status=$?
  if [[ -t 1 ]]; then printf '\r\e[K'; fi
  if ((status == 0)); then
    note "${GREEN}done${PLAIN} in $(took $((SECONDS - began)))"
  elif [[ -z ${QUIET_FAILURE:-} ]]; then
    note "${RED}failed${PLAIN} after $(took $((SECONDS - began))): $*"
    tail -n 30 "$log" | sed 's/^/      | /' >&2
    note "all of it: $log"
  fi
  return "$status"
}

# as_root COMMAND…
as_root() {
  if ((EUID == 0)); then "$@"; else sudo "$@"; fi
}

# Before anything that needs root: ask for the password now, not behind a progress line.
want_root() {
  ((EUID == 0)) && return
  command -v sudo >/dev/null || fail "root is needed for: $*" "run that as root, then scripts/setup again"
  note "as root (sudo): $*"
  sudo -v || fail "sudo did not work" "run as root: $*"
}

# apt_install PACKAGE…: without starting any daemon a package brings.
apt_install() {
  want_root "apt-get install $*"
  long apt_script "$@"
}

apt_script() {
  # A policy-rc.d that answers 101 forbids starting services; one that is already there is the machine owner's.
  # shellcheck disable=SC2016 # the inner shell expands it
  as_root env DEBIAN_FRONTEND=noninteractive sh -c '
    set -e
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
      trap "rm -f $policy" EXIT
      printf "#!/bin/sh\nexit 101\n" >$policy
      chmod 755 $policy
    fi
    apt-get update -q || echo "apt-get update failed; going on with the package lists there are"
    install="apt-get install -qy --no-install-recommends -o DPkg::Lock::Timeout=300"
    # The package of Postgres makes and starts a cluster of its own, unless the machine had been told otherwise.
    if [ ! -e /etc/postgresql-common ]; then
      case " $* " in *" postgresql "*)
        $install postgresql-common
        sed -ri "s/^#?create_main_cluster .*/create_main_cluster = false/" /etc/postgresql-common/createcluster.conf ;;
      esac
    fi
    $install "$@"
    # Nor at the next boot: a name server on port 53 is not what anyone asked for.
    if [ -d /run/systemd/system ]; then
      for unit in unbound nsd knot gdnsd; do
        case " $* " in *" $unit "*) systemctl disable --quiet --now $unit || true ;; esac
      done
    fi' sh "$@"
}

# locked_version CRATE: its version in Cargo.lock, empty when it is not there.
locked_version() {
  [[ -f $ROOT/Cargo.lock ]] || fail "Cargo.lock is missing" "git restore Cargo.lock, or: cargo generate-lockfile"
  awk -v name="\"$1\"" '
    $1 == "name" { hit = ($3 == name) }
    hit && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' "$ROOT/Cargo.lock"
}

# tool_version COMMAND: the version it prints itself, empty when it does not run. Presence alone proves nothing.
tool_version() {
  { "$CACHE/cargo/bin/$1" --version 2>/dev/null || true; } | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1 || true
}

# check_tool COMMAND: is this checker (scripts/python/checks.txt) there? In CI it has to be.
check_tool() {
  if command -v "$1" >/dev/null; then return; fi
  [[ ${CI:-} != true ]] || fail "$1 is not installed" "scripts/setup checks"
  echo "skipped: no $1; install python3 with venv, then scripts/setup checks"
  return 1
}

# Is VERSION ($1) at least WANTED ($2)?
at_least() {
  [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]
}

# --- The compiler of the Worker ---------------------------------------------------------------------------------
# Two ways to get Rust's standard library for Wasm: rustup's own target; or, where rustup's download server cannot
# be reached, Debian's rustc with the library built from Debian's sources (scripts/setup does that). Which one is at
# hand is seen by compiling three lines, so nothing has to be remembered, and an updated compiler is noticed.
# BAILIWICK_WASM=rustup or =debian insists on one.

wasm_linker() {
  local linker
  for linker in wasm-ld-22 wasm-ld-23 wasm-ld-21 wasm-ld; do
    if command -v "$linker"; then return; fi
  done
  return 1
}

# wasm_compiles RUSTC [FLAGS…]
wasm_compiles() {
  local dir status=0
  dir=$(mktemp -d)
  cat >"$dir/probe.rs" <<'END'
#[unsafe(no_mangle)]
pub extern "C" fn probe(n: usize) -> usize { vec![n; n].len() }
END
  "$@" --edition 2024 --target "$WASM_TARGET" --crate-type cdylib -Copt-level=1 -Clto=thin \
    -o "$dir/probe.wasm" "$dir/probe.rs" >/dev/null 2>&1 || status=1
  rm -rf "$dir"
  return "$status"
}

# Sets WASM_BY to `rustup`, `debian` or nothing.
find_wasm_compiler() {
  local linker
  WASM_BY=''
  if [[ ${BAILIWICK_WASM:-rustup} == rustup ]] && wasm_compiles rustc; then
    WASM_BY=rustup
  elif [[ ${BAILIWICK_WASM:-debian} == debian && -x /usr/bin/rustc ]] && linker=$(wasm_linker) \
    && wasm_compiles /usr/bin/rustc -Clinker="$linker"; then
    WASM_BY=debian
  fi
}

# Puts the chosen compiler in the environment: for the Wasm build only, native crates keep rustup's.
use_wasm_compiler() {
  local linker
  case $WASM_BY in
    rustup) ;;
    debian)
      linker=$(wasm_linker)
      # worker-build asks the `rustc` on PATH for its sysroot. All of /usr/bin up front would bring Debian's cargo
      # and node along, so a directory that holds this one link goes there.
      mkdir -p "$CACHE/debian-rustc"
      ln -sf /usr/bin/rustc "$CACHE/debian-rustc/rustc"
      export RUSTC=/usr/bin/rustc CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$linker PATH=$CACHE/debian-rustc:$PATH
      ;;
    *) fail "no compiler for $WASM_TARGET" "scripts/setup wasm" ;;
  esac
}
