#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fullsys-limit: 240
# ballastd as a service of a real systemd: start, bus, reload, journal, watchdog,
# libvirt going and coming, stop.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

unit=ballastd.service
conf=/etc/ballast/ballast.conf.d

if ! install_ballast; then
  skip 'ballastd as a service' 'it is not built'
  finish
fi

vm_is() { # JQ-EXPRESSION, of the only VM
  ctl_is list ".vms[0] | $1"
}

# net/unix: state 03 is a connection.  QEMU's end of it is in the network
# namespace of whoever connected.
channel_connected() {
  awk '$6 == "03" && /org\.ballast\.agent\.0/ { found = 1 } END { exit !found }' "/proc/$(main_pid)/net/unix"
}

call() { # METHOD ARGS...
  busctl --system --json=short call org.ballast1 /org/ballast1 org.ballast1.Manager "$@"
}

main_pid() {
  property "$unit" MainPID
}

restarted() { # OLD-PID
  local pid
  pid=$(main_pid)
  [[ $pid != 0 && $pid != "$1" && $(property "$unit" ActiveState) == active ]]
}

# systemctl returns from a start when READY=1 came, from a reload likewise
has_text() { # UNIT PROPERTY
  [[ -n $(property "$1" "$2") ]]
}

at_end() {
  systemctl stop "$unit" 2>/dev/null || true
  virsh -q -c qemu:///system destroy fullsys 2>/dev/null || true
  rm -rf "$work" "$conf/fullsys.conf" /run/systemd/system/"$unit".d
}
trap at_end EXIT

# --- start, with no libvirt yet ---------------------------------------------
check 'the unit is found and can be enabled' systemctl enable "$unit"
check 'it starts' timeout 40 systemctl start "$unit"
check 'it is active, by READY=1' test "$(property "$unit" ActiveState),$(property "$unit" Type)" = active,notify
pid=$(main_pid)
check 'it says what it does in the status line' wait_for 10 has_text "$unit" StatusText
echo "# StatusText=$(property "$unit" StatusText)"
check 'ballastctl asks it' wait_for 10 ctl_is status '.schema == 1'
check 'no libvirt: it says so and stays' ctl_is status '.libvirt.connected == false and (.libvirt.error | length > 0)'
ctl_is status '.warnings[]?' 2>/dev/null | sed 's/^/# warning: /' || true
check 'inside its sandbox it watches memory pressure' ctl_is status '.psi.known == true'

# --- the bus ------------------------------------------------------------------
check 'org.ballast1 is on the system bus' wait_for 10 busctl --system status org.ballast1
busctl --system introspect org.ballast1 /org/ballast1 org.ballast1.Manager >"$work/introspect" 2>&1 || true
check 'its interface is described' grep -qE '^\.Status +method' "$work/introspect"
check 'Status over the bus is the document' test "$(call Status | jq -r '.data[0]' | jq .schema)" = 1
check 'properties can be read' busctl --system get-property org.ballast1 /org/ballast1 org.ballast1.Manager HostState
if setpriv --reuid=65534 --regid=65534 --clear-groups busctl --system call org.ballast1 /org/ballast1 \
  org.ballast1.Manager Act b false >"$work/denied" 2>&1; then
  not_ok 'a stranger may change nothing'
else
  check 'a stranger may change nothing' grep -qiE 'denied|only root' "$work/denied"
fi

# --- libvirt comes, goes and comes --------------------------------------------
if systemctl start libvirtd.service 2>"$work/libvirtd"; then
  check 'libvirt comes: connected' wait_for 40 ctl_is status '.libvirt.connected'
  cat >"$work/domain.xml" <<'XML'
<domain type='qemu'>
  <name>fullsys</name>
  <memory unit='MiB'>96</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <memballoon model='virtio'/>
    <channel type='unix'><target type='virtio' name='org.ballast.agent.0'/></channel>
  </devices>
</domain>
XML
  # not run: an emulator in an emulator is slow, and there is nothing to boot
  check 'a VM is started (paused)' virsh -q -c qemu:///system create --paused "$work/domain.xml"
  check 'it is seen' wait_for 20 vm_is '.name == "fullsys"'
  vm_pid=$(cat /run/libvirt/qemu/fullsys.pid 2>/dev/null || true)
  check 'with its process' vm_is ".pid == $vm_pid"
  # another user's process and socket, read through the sandbox
  check 'with its memory' wait_for 10 vm_is '.resident > 1000000'
  check 'its agent channel is connected' wait_for 20 channel_connected
  systemctl stop libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd.service
  check 'libvirt goes: said' wait_for 40 ctl_is status '.libvirt.connected == false'
  systemctl start libvirtd.service
  check 'libvirt is back: connected' wait_for 40 ctl_is status '.libvirt.connected'
  check 'and the VM is known again' wait_for 20 vm_is '.name == "fullsys"'
else
  skip 'libvirt comes and goes' 'libvirtd does not start here'
  vm_pid=
fi
check 'all that in one process' still "$unit" "$pid"

# --- reload -------------------------------------------------------------------
mkdir -p "$conf"
printf '[Host]\nPSIStall=150ms\n' >"$conf/fullsys.conf"
check 'systemctl reload' timeout 30 systemctl reload "$unit"
check 'the new setting is in force' wait_for 5 ctl_is config 'any(.settings[]; .key == "PSIStall" and .value == "150ms")'
printf '[Host]\nPSIStall=nonsense\n' >"$conf/fullsys.conf"
timeout 30 systemctl reload "$unit" || true
check 'with a bad file it stays up' still "$unit" "$pid"
check 'and keeps what it had' ctl_is config 'any(.settings[]; .key == "PSIStall" and .value == "150ms")'
rm "$conf/fullsys.conf"
timeout 30 systemctl reload "$unit" || true

# --- journal ------------------------------------------------------------------
check 'the journal has message ids' journal "$unit" 'any(.[]; (.MESSAGE_ID // "") | test("^[0-9a-f]{32}$"))'
check 'and reasons' journal "$unit" 'any(.[]; (.REASON // "") == "daemon.started")'
id=$(journalctl -b -u "$unit" -o json --no-pager | jq -r 'select(.REASON == "daemon.started") | .MESSAGE_ID' | head -n 1)
check 'journalctl finds an event by its id' sh -c "journalctl -b --no-pager -q MESSAGE_ID=${id:-none} | grep -q ."
check 'errors have their priority' journal "$unit" 'any(.[]; .PRIORITY == "3")'

# --- watchdog, crash ----------------------------------------------------------
check 'the unit has a watchdog' test "$(property "$unit" WatchdogUSec)" != 0
mkdir -p /run/systemd/system/"$unit".d
printf '[Service]\nWatchdogSec=4\n' >/run/systemd/system/"$unit".d/fullsys.conf
systemctl daemon-reload
systemctl restart "$unit"
pid=$(main_pid)
sleep 6
check 'it feeds the watchdog' still "$unit" "$pid"
kill -STOP "$pid"
check 'hung: systemd starts it anew' wait_for 30 restarted "$pid"
pid=$(main_pid)
kill -KILL "$pid"
check 'killed: systemd starts it anew' wait_for 30 restarted "$pid"
check 'and it answers' wait_for 20 ctl_is status '.schema == 1'
check 'on the bus too' wait_for 10 busctl --system status org.ballast1
if [[ -n $vm_pid ]]; then
  check 'the VM lived through all of it' kill -0 "$vm_pid"
fi

# --- stop ---------------------------------------------------------------------
cgroup=/sys/fs/cgroup$(property "$unit" ControlGroup)
check 'it stops' timeout 30 systemctl stop "$unit"
check 'with success' test "$(property "$unit" Result),$(property "$unit" ExecMainStatus)" = success,0
check 'no process is left' sh -c "! pgrep -x ballastd && ! [ -s $cgroup/cgroup.procs ]"
check 'no name is left on the bus' sh -c '! busctl --system status org.ballast1'
check 'no socket is left' sh -c '! [ -e /run/ballast/ballast.sock ]'
if [[ -n $vm_pid ]]; then
  check 'the VM is still there' kill -0 "$vm_pid"
fi

# --- started by the bus, as long as it is enabled -----------------------------
check 'enabled: a call starts it' call Status
systemctl disable -q "$unit"
systemctl stop "$unit"
check 'disabled: a call does not' sh -c '! busctl --system call org.ballast1 /org/ballast1 org.ballast1.Manager Status'
check 'and it stays off' test "$(property "$unit" ActiveState)" = inactive
show_journal_if_failed "$unit"
finish
