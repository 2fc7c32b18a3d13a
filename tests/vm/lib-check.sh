# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# lib-check.sh: a guest test: sources everything, starts an environment, and says
# what it found in TAP. A test goes on after a failed check; it ends with status 1
# and the daemon's log when there was one.
#
#     . tests/vm/lib-check.sh
#     begin
#     check 'what must be true' command args
#     finish

set -euo pipefail
CHECK_HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tests/vm/lib.sh
. "$CHECK_HERE/lib.sh"
# shellcheck source=tests/vm/lib-ballast.sh
. "$CHECK_HERE/lib-ballast.sh"
BUILD=$(cd "$BUILD" && pwd)
FAILED=0
[ ! -x "$BUILD/ballast-agent" ] || export AGENT=$BUILD/ballast-agent

begin() {
  export VM_ON_EXIT='ballast_stop || true; vsock_stop'
  vm_env_trap
  vm_env_start "$(mktemp -d /tmp/btest.XXXXXX)"
}

check() {
  local what=$1
  shift
  if "$@"; then
    echo "ok - $what"
  else
    echo "not ok - $what"
    FAILED=$((FAILED + 1))
  fi
}

# the opposite: COMMAND must fail; what it says is shown
check_not() {
  local what=$1
  shift
  if "$@"; then
    echo "not ok - $what"
    FAILED=$((FAILED + 1))
  else
    echo "ok - $what"
  fi
}

# Each guest's OOM killer must have stayed quiet
check_guests_well() {
  local g
  for g in "$@"; do
    check "$g: no OOM kill" [ "$(vm_oom_kills "$g")" = 0 ]
  done
}

finish() {
  if ((FAILED)); then
    echo "# the daemon's log:"
    tail -n 80 "$VM_DIR/ballast/log" | sed 's/^/# /' || true
    exit 1
  fi
}

mib() { echo $(($1 << 20)); }

# no_commands GUEST...: nobody has set a balloon since ballast_mark
ballast_mark() { MARK_US=$(date +%s%6N); }
commands_since_mark() {
  local g
  for g in "$@"; do
    vm_balloon_commands "$g" | awk -v m="$MARK_US" -v g="$g" '$1 >= m { print g, $2 }'
  done
}
no_commands() { [ -z "$(commands_since_mark "$@")" ]; }
some_command() { [ -n "$(commands_since_mark "$@")" ]; }
# until_rest SECONDS GUEST...: nobody has set a balloon for three seconds
until_rest() {
  local end=$((SECONDS + $1))
  shift
  while ((SECONDS < end)); do
    ballast_mark
    sleep 3
    ! no_commands "$@" || return 0
  done
  return 1
}
actual_at_least() { [ "$(vm_balloon_actual "$1")" -ge "$2" ]; }
actual_at_most() { [ "$(vm_balloon_actual "$1")" -le "$2" ]; }
actuals() { local g; for g in "$@"; do vm_balloon_actual "$g"; done; }
# settled GUEST...: their balloons do not move
settled() {
  local before
  before=$(actuals "$@")
  sleep 1
  [ "$(actuals "$@")" = "$before" ]
}
# is GUEST JQ VALUE: a field of it, as ballastd sees it
is() { [ "$(ballast_vm "$1" "$2")" = "$3" ]; }
held_as() { is "$1" .hold "$2"; }
source_is() { is "$1" .stats.source "$2"; }
none_held() { [ "$(ctl --json list | jq '[.vms[] | select(.hold != "none")] | length')" = 0 ]; }
rollback_over() { [ "$(ballast_status .rollback.running)" = false ]; }
log_says() { grep -qE "$1" "$VM_DIR/ballast/log"; }
