#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# selftest.sh: proves the harness on real guests.
#
#   selftest.sh            everything (about a minute under TCG)
#   selftest.sh trace      only how the trace is read (no guests)
#   selftest.sh guests     only the guests' part
#   selftest.sh cleanup    only that interrupted tests leave nothing
#   selftest.sh victim DIR (internal) starts guests in DIR and waits to be killed
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh source-path=SCRIPTDIR
. "$here/lib.sh"
# shellcheck source=lib-ballast.sh source-path=SCRIPTDIR
. "$here/lib-ballast.sh"

ok() {
  echo "ok - $*"
}

fail() {
  echo "not ok - $*" >&2
  exit 1
}

check() { # TEXT COMMAND...
  local text=$1 out
  shift
  # A guest's reply begins with "ok" as well: it must not be counted as a test
  if out=$("$@"); then ok "$text"; else fail "$text: $*: $out"; fi
}

mib() {
  echo $(($1 / 1048576))
}

# Free page reporting takes seconds to give back what booting has touched
settle() { # NAME
  local last=-1 now
  now=$(vm_rss "$1")
  while ((last < 0 || last - now > 1 << 20)); do
    last=$now
    sleep 2.5
    now=$(vm_rss "$1")
  done
}

rss_below() {
  (($(vm_rss "$1") < $2))
}

# What the allocator of ID said, a word each
console_has() { # NAME ID WORDS
  [[ $(tr -d '\r' <"$VM_DIR/con/$1.log" | sed -n "s/^guestcmd: alloc $2 .* *\(start\|done\|killed\)$/\1/p" | xargs) == "$3" ]]
}

actual_is() {
  (($(vm_balloon_actual "$1") == $2))
}

# Feeds TIME:actual:oldactual (pages) and TIME:target (MiB of 256) to a log
fake_log() { # NAME EVENT...
  local name=$1 e f
  shift
  echo '2026-01-01 00:00:00.000+0000: starting up libvirt version: 9.0.0' >"$VM_LOG/$name.log"
  for e; do
    IFS=: read -ra f <<<"$e"
    if ((${#f[@]} == 3)); then
      printf '7@%.6f:virtio_balloon_set_config actual: %d oldactual: %d\n' "${f[@]}"
    else
      printf '7@%.6f:virtio_balloon_to_target balloon target: 0x%x num_pages: %d\n' \
        "${f[0]}" $((f[1] << 20)) $(((256 - f[1]) * 256))
    fi
  done >>"$VM_LOG/$name.log"
}

test_trace() {
  VM_LOG=$(mktemp -d /tmp/bvm.XXXXXX)
  # shellcheck disable=SC2064 # now
  trap "rm -rf '$VM_LOG'" EXIT
  fake_log t 10.000001:256 11.000002:254 11.1:256:0 11.2:512:256
  check "commands are read" test "$(vm_balloon_commands t | xargs)" = "10000001 268435456 11000002 266338304"
  check "moves are read" test "$(vm_balloon_moves t | tail -n 1)" = "11200000 2097152"
  check "inflating is no autodeflate" test "$(vm_autodeflate_count t)" -eq 0
  fake_log t 10.5:254 10.6:256:0 10.7:512:256 12.000005:256:512 12.5:0:256
  check "steps below the target are one firing" test "$(vm_autodeflates t)" = "12000005 2097152"
  fake_log t 10.5:254 10.7:512:0 12.000005:256:512 14.1:0:256
  check "a pause makes two" test "$(vm_autodeflate_count t)" -eq 2
  fake_log t 10.5:254 10.7:512:0 12.000005:256:512 12.1:512:256 12.2:256:512
  check "growth between makes two" test "$(vm_autodeflate_count t)" -eq 2
  fake_log t 10.5:254 10.7:512:0 12.0:256 12.1:256:512 12.2:0:256
  check "deflating as told is none" test "$(vm_autodeflate_count t)" -eq 0
  fake_log t 10.5:254 10.7:512:0 12.0:255 12.05:252 12.1:256:512 12.2:512:256
  check "nor is the step under way when a command comes" test "$(vm_autodeflate_count t)" -eq 0
  fake_log t 10.5:252 10.7:1024:0 12.1:256:1024
  check "nor a reset of the guest" test "$(vm_autodeflate_count t)" -eq 0
  fake_log t 10.5:254 10.6:300:0 10.7:300:300 10.8:300:300
  check "nor a guest that cannot reach its target" test "$(vm_autodeflate_count t)" -eq 0
  rm -rf "$VM_LOG"
  trap - EXIT
}

test_balloon() { # NAME
  local name=$1 before after t0 t1 us target
  settle "$name"
  before=$(vm_rss "$name")
  vm_cmd "$name" 'alloc a 64' >/dev/null
  after=$(vm_rss "$name")
  check "$name: alloc of 64 MiB raises RSS ($(mib "$before") -> $(mib "$after") MiB)" \
    test $((after - before)) -ge $((32 << 20))
  check "$name: its console says when it began, and when it ended" until_true 5 console_has "$name" a 'start done'
  check "$name: content is as written" vm_cmd "$name" 'sum a'
  vm_cmd "$name" 'free a' >/dev/null
  check "$name: free page reporting returns it" until_true 20 rss_below "$name" $((after - (40 << 20)))

  vm_cmd "$name" 'alloc b 64' >/dev/null
  before=$(vm_rss "$name")
  t0=$(date +%s%6N)
  vm_virsh setmem "$name" $((136 << 10)) --live
  t1=$(date +%s%6N)
  check "$name: inflates to 136 MiB" until_true 20 actual_is "$name" $((136 << 20))
  read -r us target < <(vm_balloon_commands "$name" | tail -n 1)
  check "$name: the command is in the trace, at its time" test "$us" -ge "$t0" -a "$us" -le "$t1"
  check "$name: with its target" test "$target" -eq $((136 << 20))
  check "$name: the balloon's way is in the trace" \
    test "$(vm_balloon_moves "$name" | tail -n 1 | cut -d' ' -f2)" -eq $((120 << 20))
  check "$name: content still as written" vm_cmd "$name" 'sum b'
  check "$name: no autodeflate so far" test "$(vm_autodeflate_count "$name")" -eq 0
}

# Wants 100 MiB in a guest of 136: autodeflate must let it have them, and without
# autodeflate the OOM killer must hit the workload, and only that.
test_pressure() {
  local reply
  check "g1: autodeflate gives way to pressure" vm_cmd g1 'alloc c 100'
  check "g1: and is seen from outside ($(vm_autodeflates g1 | tail -n 1 | cut -d' ' -f2) bytes)" \
    test "$(vm_autodeflate_count g1)" -ge 1
  check "g1: no OOM kill" test "$(vm_oom_kills g1)" -eq 0
  if reply=$(vm_cmd g2 'alloc c 100'); then fail "g2: alloc without autodeflate succeeded"; fi
  check "g2: OOM kill of the workload is reported ($reply)" test "$(vm_oom_kills g2)" -ge 1
  check "g2: its console says so" until_true 5 console_has g2 c 'start killed'
  check "g2: still answers" vm_cmd g2 ping
  check "g2: no autodeflate" test "$(vm_autodeflate_count g2)" -eq 0
}

test_libvirtd_restart() {
  local pid
  pid=$(vm_pid g1)
  vm_env_kill_libvirtd
  check "guests outlive a killed libvirtd" vm_cmd g1 ping
  vm_env_restart_libvirtd
  check "libvirtd finds them again" test "$(vm_virsh domstate g1)" = running
  check "the same process" test "$(vm_pid g1)" = "$pid"
}

test_reboot() {
  vm_cmd g2 reboot >/dev/null
  sleep 0.5
  check "g2: answers after a reboot" vm_wait g2
  check "g2: oom counter is new" test "$(vm_oom_kills g2)" -eq 0
  check "g2: no false autodeflate by the reboot" test "$(vm_autodeflate_count g2)" -eq 0
}

# A second libvirtd side by side, and a guest moved there and back
test_migration() { # HOME
  local home=$1 other
  other=$(mktemp -d /tmp/bvm.XXXXXX)
  vm_env_start "$other"
  check "another environment has no guests" test -z "$(vm_virsh list --all --name)"
  vm_env_use "$home"
  vm_cmd g1 'alloc m 16' >/dev/null
  vm_migrate g1 "$other" --undefinesource --persistent
  check "g1 migrates to it" vm_cmd g1 'sum m'
  check "g1 is confined there" vm_assert_confined g1
  check "g1 is no longer at home" test "$(virsh -q -c "qemu+unix:///system?socket=$home/run/libvirt-sock" \
    list --all --name | xargs)" = g2
  vm_migrate g1 "$home" --undefinesource --persistent
  check "and back" vm_cmd g1 'sum m'
  vm_env_stop_one "$other"
  check_clean "$other" "of the other environment"
  check "g1 is not touched by its end" vm_cmd g1 ping
}

test_guests() {
  local dir
  dir=$(mktemp -d /tmp/bvm.XXXXXX)
  vm_env_trap
  vm_env_start "$dir"
  vm_define g1
  vm_define g2 --autodeflate off
  vm_start g1 g2
  check "g1 is confined" vm_assert_confined g1
  check "g2 is confined" vm_assert_confined g2
  test_balloon g1
  test_balloon g2
  test_pressure
  test_libvirtd_restart
  test_reboot
  test_migration "$dir"
  vm_env_stop
  check_clean "$dir" "after a finished test"
  vm_env_stop
  ok "vm_env_stop may be called again"
  trap - EXIT
}

check_clean() { # DIR WHEN
  check "no process is left $2" test -z "$(pgrep -f "$1" || true)"
  check "no mount is left $2" test -z "$(grep -ls "$1" /proc/[0-9]*/mountinfo)"
  check "no directory is left $2" test ! -e "$1"
}

victim() {
  vm_env_trap
  vm_env_start "$1"
  vm_define g1
  vm_start g1
  [[ ! -x $BALLASTD ]] || ballast_start act=no
  echo up >"$1/up"
  vm_cmd g1 'alloc a 64 1' 100
}

kill_victim() { # SIGNAL WHEN TARGET: seconds, or "up"; pid or group
  local dir pid
  dir=$(mktemp -d /tmp/bvm.XXXXXX)
  # A shell's background jobs ignore SIGINT: undo that
  env --default-signal=INT setsid "$here/selftest.sh" victim "$dir" >/dev/null 2>&1 &
  pid=$!
  if [[ $2 == up ]]; then
    until_true 30 test -e "$dir/up" || fail "victim does not start"
  else
    sleep "$2"
  fi
  case $3 in
    pid) kill "-$1" "$pid" ;;
    group) kill "-$1" -- "-$pid" ;;
  esac
  if wait "$pid"; then fail "victim was not interrupted"; fi
  # SIGKILL leaves the rest to the reaper
  [[ $1 != KILL ]] || until_true 10 test ! -e "$dir" || true
  rmdir "$dir" 2>/dev/null || true # where it had not even begun
  check_clean "$dir" "after SIG$1 to the $3 at $2"
}

# Kills a test at several moments, from "has hardly begun" to "in a command".
test_cleanup() {
  local sig when
  for sig in TERM INT HUP; do
    for when in 0.05 0.15 0.3 1 up; do
      kill_victim "$sig" "$when" group
    done
  done
  kill_victim TERM up pid
  kill_victim KILL 1 pid
  kill_victim KILL up pid
}

case ${1:-all} in
  all)
    test_trace
    test_guests
    test_cleanup
    ;;
  trace) test_trace ;;
  guests) test_guests ;;
  cleanup) test_cleanup ;;
  victim) victim "$2" ;;
  *) fail "usage: selftest.sh [trace|guests|cleanup]" ;;
esac
