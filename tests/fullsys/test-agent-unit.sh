#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fullsys-limit: 90
# ballast-agent as a service of a real guest: its sandbox lets it work, over a
# virtio-serial port here (test-vsock.sh has the other way).
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

unit=ballast-agent.service
dropin=/run/systemd/system/$unit.d
port_file=/mnt/fullsys/agent.out # what arrives at the host's end of the port

if ! install_ballast; then
  skip 'ballast-agent as a service' 'it is not built'
  finish
fi

at_end() {
  systemctl stop "$unit" 2>/dev/null || true
  rm -rf "$work" "$dropin"
  systemctl daemon-reload
}
trap at_end EXIT

private() { # PID: KiB of memory that are its alone
  awk '/^Private_/ { sum += $2 } END { print sum }' "/proc/$1/smaps_rollup"
}

check 'it can be enabled' systemctl enable -q "$unit"
systemctl disable -q "$unit"
check 'it starts' systemctl start "$unit"
pid=$(property "$unit" MainPID)
check 'its hello arrives at the host' wait_for 15 test -s "$port_file"
sleep 2
check 'it stays' still "$unit" "$pid"
check 'the journal has no complaint' journal "$unit" 'all(.[]; ((.PRIORITY // "6") | tonumber) > 4)'
size=$(private "$pid")
echo "# private memory $size KiB"
check 'it is small' test "$size" -le 1024
check 'and locked in memory' grep -qE '^VmLck:\s+[1-9]' "/proc/$pid/status"
check 'it stops' timeout 20 systemctl stop "$unit"
check 'with success' test "$(property "$unit" Result)" = success

# --- a guest with no way to its host ------------------------------------------
modprobe vsock_loopback || true # then each call is refused; without it there is nothing to call by
mkdir -p "$dropin"
printf '[Service]\nExecStart=\nExecStart=%s --device /dev/virtio-ports/none\n' "$(type -P ballast-agent)" \
  >"$dropin/fullsys.conf"
systemctl daemon-reload
lines=$(journal_lines "$unit")
check 'with nobody to talk to it starts' systemctl start "$unit"
pid=$(property "$unit" MainPID)
sleep 6
check 'and stays' still "$unit" "$pid"
lines=$(($(journal_lines "$unit") - lines))
check 'and says so no more than once for each way' test "$lines" -le 3
check 'it stops' timeout 20 systemctl stop "$unit"
show_journal_if_failed "$unit"
finish
