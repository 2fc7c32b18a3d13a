#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fullsys-limit: 150
# KSM's settings and the unit: its sandbox lets ballastd write them, and none else of the
# kernel's; what a killed one had changed is put back, whether another follows or not.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

unit=ballastd.service
state=/var/lib/ballast
ksm=/sys/kernel/mm/ksm
thp=/sys/kernel/mm/transparent_hugepage/khugepaged
dropin=/run/systemd/system/$unit.d

if ! install_ballast; then
  skip 'KSM and the unit' 'it is not built'
  finish
fi

at_end() {
  systemctl stop "$unit" 2>/dev/null || true
  rm -rf "$work" "$dropin" "$state/ledger.json"
  systemctl daemon-reload
  echo 100 >"$ksm/pages_to_scan"
  echo 256 >"$thp/max_ptes_shared"
}
trap at_end EXIT

# As a ballastd that is killed leaves it.
leave_behind() {
  mkdir -p "$state"
  cat >"$state/ledger.json" <<EOF
{"version": 1, "boot_id": "$(cat /proc/sys/kernel/random/boot_id)", "act": null, "held": false, "trusted": true,
 "rollback": "none", "phase": 4096, "vms": {}, "knobs": {
  "ksm/pages_to_scan": {"was": "100", "ours": "2000"},
  "transparent_hugepage/khugepaged/max_ptes_shared": {"was": "256", "ours": "0"}}}
EOF
  echo 2000 >"$ksm/pages_to_scan"
  echo 0 >"$thp/max_ptes_shared"
}

as_found() {
  [[ $(<"$ksm/pages_to_scan") == 100 && $(<"$thp/max_ptes_shared") == 256 ]]
}

no_knobs() {
  [[ $(jq '.knobs | length' "$state/ledger.json") == 0 ]]
}

# What else is in the sandbox instead of ballastd: COMMAND
instead() {
  mkdir -p "$dropin"
  printf '[Service]\nType=exec\nRestart=no\nWatchdogSec=0\nExecStart=\nExecStart=%s\n' "$1" >"$dropin/instead.conf"
  systemctl daemon-reload
}

# --- the next ballastd ----------------------------------------------------------
leave_behind
check 'it starts' timeout 40 systemctl start "$unit"
check 'what was left is put back, where Mode= asks for nothing' wait_for 10 as_found
systemctl stop "$unit"
check 'and is not in the ledger any more' no_knobs

# --- none follows ----------------------------------------------------------------
instead '/bin/sleep infinity'
leave_behind
systemctl start "$unit"
check 'something else runs in its sandbox' still "$unit" "$(property "$unit" MainPID)"
kill -KILL "$(property "$unit" MainPID)"
check 'after kill -9 the unit puts it back' wait_for 10 as_found
check 'and forgets it' wait_for 5 no_knobs
check 'and says so' wait_for 5 journal "$unit" \
  'any(.[]; .MESSAGE == "2 of the host'\''s settings are as they were before ballastd")'

# --- no more than that --------------------------------------------------------------
instead '/bin/sh -c "echo 5 > /sys/kernel/mm/transparent_hugepage/khugepaged/alloc_sleep_millisecs; echo $$? > /var/lib/ballast/a; echo never > /sys/kernel/mm/transparent_hugepage/enabled; echo $$? > /var/lib/ballast/b; sleep infinity"'
before=$(<"$thp/alloc_sleep_millisecs")
enabled=$(</sys/kernel/mm/transparent_hugepage/enabled)
systemctl start "$unit"
wait_for 5 test -s "$state/b" || true
check 'khugepaged can be written to' test "$(<"$state/a")" = 0
check 'what is beside it cannot' test "$(<"$state/b")" != 0
check 'and is as it was' test "$(</sys/kernel/mm/transparent_hugepage/enabled)" = "$enabled"
echo "$before" >"$thp/alloc_sleep_millisecs"
rm -f "$state/a" "$state/b"

show_journal_if_failed "$unit"
finish
