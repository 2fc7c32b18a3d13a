#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fullsys-limit: 60
# ballast-agent as a service of a real guest: its sandbox lets it work.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

unit=fullsys-agent.service
port_file=/mnt/fullsys/agent.out # what arrives at the host's end of the port

if ! install_ballast || ! original=$(find /usr/local/lib /usr/lib/systemd -name ballast-agent.service | grep -m 1 .); then
  skip 'ballast-agent as a service' 'it is not built'
  finish
fi
trap 'systemctl stop "$unit" 2>/dev/null; rm -rf "$work" "/run/systemd/system/$unit"' EXIT

# As shipped, but for the device unit: there is no udev here to make one.
sed -E '/^(BindsTo|After)=dev-virtio/d' "$original" >/run/systemd/system/$unit
systemctl daemon-reload

check 'it starts' systemctl start "$unit"
pid=$(property "$unit" MainPID)
check 'its hello arrives at the host' wait_for 15 test -s "$port_file"
sleep 2
check 'it stays' still "$unit" "$pid"
check 'the journal has no complaint' journal "$unit" 'all(.[]; ((.PRIORITY // "6") | tonumber) > 4)'
rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status")
echo "# VmRSS $rss KiB"
check 'it is small' test "$rss" -lt 4096
check 'it stops' timeout 20 systemctl stop "$unit"
check 'with success' test "$(property "$unit" Result)" = success
show_journal_if_failed "$unit"
finish
