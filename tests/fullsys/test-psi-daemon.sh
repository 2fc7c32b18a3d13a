#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fullsys-limit: 180
# ballastd under true memory pressure: it is told, at once, also when triggers
# are refused to it, and it lives when others are killed for want of memory.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

unit=ballastd.service
oom=fullsys-oom.service
dropin=/run/systemd/system/$unit.d

if ! install_ballast; then
  skip 'ballastd under pressure' 'it is not built'
  finish
fi

at_end() {
  stop_hog
  systemctl stop "$oom" 2>/dev/null || true
  systemctl reset-failed "$oom" 2>/dev/null || true
  rm -rf "$dropin" "$work"
  systemctl daemon-reload
  systemctl stop "$unit" || true
}
trap at_end EXIT

psi_some() {
  ballastctl status --json | jq '.psi.some_us'
}

grew() { # FROM BY
  (($(psi_some) >= $1 + $2))
}

told() { # how often it was, since boot
  journalctl -b -u "$unit" -o json --no-pager | jq -r 'select(.REASON == "host.psi") | .PRIORITY' | wc -l
}

told_more() { # THAN
  (($(told) > $1))
}

kills=$(oom_kills)
systemctl start "$unit"
check 'it watches memory pressure' wait_for 10 ctl_is status .psi.known
pid=$(property "$unit" MainPID)
n=$(told)
sleep 3
if told_more "$n"; then not_ok 'at rest it is told of none'; else ok 'at rest it is told of none'; fi

start_hog
check 'under pressure it is told' wait_for 15 told_more "$n"
before=$(psi_some)
check 'and its totals follow' wait_for 15 grew "$before" 100000
stop_hog
check 'it is in its history' ctl_is explain 'any(.events[]; .reason == "host.psi")'

# Without the privilege for any window, a kernel takes one of 2 s, or none: then
# the daemon looks by itself.
mkdir -p "$dropin"
printf '[Service]\nCapabilityBoundingSet=~CAP_SYS_RESOURCE\n' >"$dropin/fullsys.conf"
systemctl daemon-reload
systemctl restart "$unit"
check 'without CAP_SYS_RESOURCE it runs' wait_for 10 ctl_is status .psi.known
before=$(psi_some)
n=$(told)
start_hog
if journal "$unit" 'any(.[]; .REASON == "psi.none")' >/dev/null; then
  skip 'and is still told' 'this kernel has no triggers for the unprivileged'
else
  check 'and is still told' wait_for 15 told_more "$n"
fi
check 'and sees the pressure' wait_for 15 grew "$before" 300000
stop_hog
rm -rf "$dropin"
systemctl daemon-reload
systemctl restart "$unit"
pid=$(property "$unit" MainPID)
if [[ $(oom_kills) == "$kills" ]]; then ok 'nothing was killed for want of memory'; else
  not_ok 'nothing was killed for want of memory'
fi

# The end of all memory: the hog goes, not we.
systemd-run -q --unit="$oom" "$(type -P memory-hog)" 4096 60
gone() { [[ $(property "$oom" ActiveState) != active ]]; }
check 'out of memory: the hog is killed' wait_for 60 gone
check 'by the kernel, for that' test "$(property "$oom" Result)" = oom-kill
check 'ballastd lives' still "$unit" "$pid"
check 'and answers' wait_for 10 ctl_is status .schema
check 'and saw memory fall' journal "$unit" 'any(.[]; (.REASON // "") | startswith("host."))'
show_journal_if_failed "$unit"
finish
