#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# PSI triggers on a real kernel under true pressure: they fire while there is
# pressure, keep quiet at rest, and the kernel's OOM killer has nothing to do.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

probe_pid=

start_probe() { # FILE ARGS...: returns when it watches
  local file=$1
  shift
  psi-probe "$@" >"$file" 2>&1 &
  probe_pid=$!
  wait_for 10 grep -q '^ready' "$file"
}

events() { # FILE
  grep -c '^psi-event' "$1" || true
}

has_event() { # FILE [MORE-THAN]
  (($(events "$1") > ${2:-0}))
}

stop_probe() {
  if [[ -n $probe_pid ]]; then
    kill "$probe_pid" 2>/dev/null || true
    wait "$probe_pid" 2>/dev/null || true
  fi
  probe_pid=
}

trap 'stop_hog; stop_probe; swapoff -a; rm -rf "$work"' EXIT

kills=$(oom_kills)
before=$(psi-probe --read)
check 'the totals can be read' grep -qE '^totals some=[0-9]+ full=[0-9]+$' <<<"$before"

for kind in some full; do
  start_probe "$work/$kind" --kind "$kind" --stall 100000 --window 1000000 --seconds 60 ||
    not_ok "a trigger on '$kind' is taken" "$(<"$work/$kind")"
  if [[ $kind == some ]]; then
    sleep 3
    n=$(events "$work/$kind")
    if [[ $n == 0 ]]; then ok 'at rest the trigger is quiet'; else not_ok 'at rest the trigger is quiet' "$n events"; fi
  fi
  start_hog
  if wait_for 20 has_event "$work/$kind" 1; then
    ok "memory.high: '$kind' fires, again and again"
  else
    not_ok "memory.high: '$kind' fires, again and again" "$(events "$work/$kind") events"
    show "$work/$kind" /proc/pressure/memory
  fi
  stop_hog
  if [[ $kind == full ]]; then
    # what happened in the last window may still be told
    sleep 1.5
    n=$(events "$work/$kind")
    sleep 3
    if [[ $(events "$work/$kind") == "$n" ]]; then
      ok 'after the pressure it is quiet again'
    else
      not_ok 'after the pressure it is quiet again' "$n, then $(events "$work/$kind") events"
    fi
  fi
  stop_probe
done

# The whole system: more than there is, with compressed swap to go to.
modprobe zram
total=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
available=$(awk '/^MemAvailable/ { print int($2 / 1024) }' /proc/meminfo)
echo $((total * 3 / 2))M >/sys/block/zram0/disksize
mkswap /dev/zram0 >/dev/null
swapon /dev/zram0
start_probe "$work/system" --kind some --stall 100000 --window 1000000 --seconds 90
systemd-run -q --collect --unit=fullsys-hog.service "$(type -P memory-hog)" $((available + total / 4)) 90
if wait_for 40 has_event "$work/system" 1; then
  ok 'system-wide: the trigger fires while the system swaps'
else
  not_ok 'system-wide: the trigger fires while the system swaps'
  show "$work/system" /proc/pressure/memory /proc/swaps
fi
check 'the program is still there' systemctl is-active fullsys-hog.service
stop_hog
stop_probe
swapoff /dev/zram0
echo 1 >/sys/block/zram0/reset

after=$(psi-probe --read)
some_of() { # "totals some=US full=US"
  local rest=${1#*some=}
  echo "${rest%% *}"
}
if (($(some_of "$after") >= $(some_of "$before") + 300000)); then
  ok 'the totals grew by what was waited'
else
  not_ok 'the totals grew by what was waited' "$before, then $after"
fi

# A source that goes away ends the watch (here: its cgroup) and does not spin.
mkdir -p "$work/root/proc/pressure" /sys/fs/cgroup/fullsys-gone
: >"$work/root/proc/pressure/memory"
mount --bind /sys/fs/cgroup/fullsys-gone/memory.pressure "$work/root/proc/pressure/memory"
start_probe "$work/gone" --root "$work/root" --seconds 20
umount -l "$work/root/proc/pressure/memory"
rmdir /sys/fs/cgroup/fullsys-gone
check 'a source that goes is told by the descriptor' wait_for 5 grep -q '^psi-gone' "$work/gone"
wait "$probe_pid" 2>/dev/null || true
probe_pid=

rc=0
psi-probe --stall 2000000 --window 1000000 --seconds 1 >"$work/refused" || rc=$?
if [[ $rc == 4 ]] && grep -q '^refused: ' "$work/refused"; then
  ok 'a trigger that the kernel does not take is refused in words'
else
  not_ok 'a trigger that the kernel does not take is refused in words' "$rc, $(<"$work/refused")"
fi
# Without CAP_SYS_RESOURCE a kernel refuses either every trigger or those whose
# window is no multiple of 2 s.
unprivileged() { # WINDOW
  setpriv --reuid=65534 --regid=65534 --clear-groups "$(type -P psi-probe)" --window "$1" --seconds 1 >"$work/refused"
}
rc=0
unprivileged 1000000 || rc=$?
if [[ $rc == 4 ]]; then ok 'without privilege: a window of 1 s is refused'; else
  not_ok 'without privilege: a window of 1 s is refused' "$rc, $(<"$work/refused")"
fi
rc=0
unprivileged 2000000 || rc=$?
if [[ $rc == 0 ]] || { [[ $rc == 4 ]] && grep -q CAP_SYS_RESOURCE "$work/refused"; }; then
  ok 'without privilege: a window of 2 s is taken, or refused with the reason'
else
  not_ok 'without privilege: a window of 2 s is taken, or refused with the reason' "$rc, $(<"$work/refused")"
fi

if [[ $(oom_kills) == "$kills" ]]; then ok 'nothing was killed for want of memory'; else
  not_ok 'nothing was killed for want of memory' "$(($(oom_kills) - kills)) kills"
fi
finish
