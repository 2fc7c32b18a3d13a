# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# For tests/cli/test-*.sh: a directory, a fake daemon, and checks that say TAP.

build=$(realpath "${BUILD:-build}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034 # for those who include this
top=$(realpath "$here/../..")
ctl=$build/ballastctl
dir=$(mktemp -d /tmp/ballast-cli-XXXXXX)
chmod 755 "$dir"
sock=$dir/ballast.sock
daemon_pid=
tests=0
failures=0
unset BALLAST_SOCKET COLUMNS NO_COLOR DBUS_SYSTEM_BUS_ADDRESS
export TERM=xterm LC_ALL=C.UTF-8 TZ=UTC

finish() {
  [ -z "$daemon_pid" ] || { kill "$daemon_pid" 2>/dev/null; wait "$daemon_pid" 2>/dev/null; }
  rm -rf "$dir"
  echo "1..$tests"
  [ "$failures" -eq 0 ] || exit 1
}
trap finish EXIT

# check NAME COMMAND...: passes when the command does
check() {
  local name=$1
  shift
  tests=$((tests + 1))
  if "$@"; then
    echo "ok $tests - $name"
  else
    echo "not ok $tests - $name"
    failures=$((failures + 1))
  fi
}

# run ARGUMENT...: ballastctl against the fake daemon; leaves $out, $err, $rc
run() {
  rc=0
  "$ctl" --socket "$sock" "$@" > "$dir/out" 2> "$dir/err" < /dev/null || rc=$?
  out=$(cat "$dir/out")
  err=$(cat "$dir/err")
}

# exits CODE ARGUMENT...: ballastctl ends with that code
exits() {
  local want=$1
  shift
  run "$@"
  [ "$rc" -eq "$want" ] && return
  echo "# ballastctl $* ends with $rc, not $want: $err"
  return 1
}

# says WORDS: the last error output has them
says() {
  [[ $err == *"$1"* ]] && return
  echo "# '$1' is not in: $err"
  return 1
}

prints() {
  [[ $out == *"$1"* ]] && return
  echo "# '$1' is not in: $out"
  return 1
}

# document EXPRESSION: holds for the last output
document() {
  jq -e "$1" <<< "$out" > /dev/null
}

# quietly COMMAND...: without its output
quietly() {
  "$@" > /dev/null
}

# start_fake [GROUP-ID]
# shellcheck disable=SC2120
start_fake() {
  local fake=$build/tests/cli/fake-ballastd i
  [ -x "$fake" ] || { echo "not ok - $fake is missing; the Makefile builds it with 'make tests'"; exit 1; }
  : > "$dir/fake.out"
  "$fake" "$sock" "$@" >> "$dir/fake.out" 2>&1 &
  daemon_pid=$!
  for i in {1..100}; do
    grep -q ready "$dir/fake.out" && return
    kill -0 "$daemon_pid" 2>/dev/null || break
    sleep 0.05
  done
  echo "not ok - the fake daemon does not start ($i)"
  cat "$dir/fake.out"
  exit 1
}
