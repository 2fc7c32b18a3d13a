#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fullsys-limit: 150
# ballast-vsock, the backend of vhost-user-vsock, as a service of a real systemd;
# and what enroll makes of a VM for either vsock, as libvirt and QEMU take it.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

unit=ballast-vsock.service
peek=fullsys-peek.service
socket=/run/ballast-vsock/control.sock
export LIBVIRT_DEFAULT_URI=qemu:///system

if ! install_ballast; then
  skip 'ballast-vsock as a service' 'it is not built'
  finish
fi

at_end() {
  virsh -q destroy fullsys-vsock 2>/dev/null || true
  virsh -q undefine fullsys-vsock 2>/dev/null || true
  systemctl disable -q --now "$unit" 2>/dev/null || true
  systemctl stop ballastd.service 2>/dev/null || true
  rmmod vhost_vsock 2>/dev/null || true
  rm -rf "$work" "/run/systemd/system/$peek"
}
trap at_end EXIT

main_pid() {
  property "$unit" MainPID
}

listens() { # the kernel's word, in the service's own network namespace
  awk -v path="$socket" '$NF == path && $4 == "00010000" { found = 1 } END { exit !found }' "/proc/$(main_pid)/net/unix"
}

anew() { # OLD-PID
  local pid
  pid=$(main_pid)
  [[ $pid != "$1" ]] && still "$unit" "$pid"
}

# --- its life -----------------------------------------------------------------
check 'the unit is found and can be enabled' systemctl enable -q "$unit"
check 'it starts' timeout 40 systemctl start "$unit"
check 'it is active, by READY=1' test "$(property "$unit" ActiveState),$(property "$unit" Type)" = active,notify
check 'it listens' listens
check 'for root only' test "$(stat -c %a:%u "$socket")" = 600:0
check 'in a directory of root only' test "$(stat -c %a:%u "${socket%/*}")" = 700:0
pid=$(main_pid)
check 'it restarts' timeout 40 systemctl restart "$unit"
check 'as another process' anew "$pid"
check 'that listens' listens
pid=$(main_pid)
kill -KILL "$pid"
check 'killed: systemd starts it anew' wait_for 20 anew "$pid"
check 'and it listens' wait_for 5 listens
pid=$(main_pid)
echo "# VmRSS $(awk '/^VmRSS/ { print $2 }' "/proc/$pid/status") KiB"
check 'ballastd starts beside it' timeout 40 systemctl start ballastd.service
systemctl restart ballastd.service
check "ballastd's restart does not touch it" still "$unit" "$pid"

# --- VMs ----------------------------------------------------------------------
define_vm() {
  cat >"$work/domain.xml" <<'XML'
<domain type='qemu'>
  <name>fullsys-vsock</name>
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <features><acpi/></features>
  <devices><memballoon model='virtio'/></devices>
</domain>
XML
  virsh -q define "$work/domain.xml"
}

enroll_says() { # REGEX [ARGS...]
  ballastctl enroll fullsys-vsock "${@:2}" >"$work/enroll" && cat "$work/enroll" && grep -qE "$1" "$work/enroll"
}

# not run: an emulator in an emulator is slow, and there is nothing to boot
start_vm() {
  virsh -q start --paused fullsys-vsock
}

attached() {
  virsh -q qemu-monitor-command --hmp fullsys-vsock 'info qtree' | grep -q vhost-user-vsock-pci
}

workers() {
  pgrep -c -P "$(main_pid)" || true
}

has_worker() {
  [[ $(workers) == 1 ]]
}

vm_pid() {
  cat /run/libvirt/qemu/fullsys-vsock.pid
}

# The shipped sandbox around a program that does what the workers do.
peeks() { # PID
  sed -E "s/^Type=.*/Type=oneshot/; s,^ExecStart=.*,ExecStart=$(type -P vm-peek) $1,; /^(Restart|RuntimeDirectory)/d" \
    "$(property "$unit" FragmentPath)" >"/run/systemd/system/$peek"
  systemctl daemon-reload
  systemctl start "$peek" || {
    journalctl -b -q -u "$peek" -o cat --no-pager
    false
  }
}

if systemctl start libvirtd.service 2>"$work/libvirtd" && wait_for 40 virsh -q version && define_vm; then
  rmmod vhost_vsock 2>/dev/null || true
  check 'enroll: virtio-serial, as there is no vhost-vsock' enroll_says 'org\.ballast\.agent\.0'
  check 'and no vsock device' sh -c "! grep -q '<vsock' '$work/enroll'"
  check 'enroll for vhost-user-vsock' enroll_says 'neither migrate nor save' --channel vhost-user-vsock --write
  check 'the VM starts' start_vm
  check 'ballastd plugs its device in, both in their sandboxes' wait_for 30 attached
  check 'which has a worker' has_worker
  worker=$(pgrep -P "$(main_pid)" || true)
  check "that sandbox reaches the memory of libvirt's QEMU" peeks "$(vm_pid)"
  check 'the backend restarts' timeout 40 systemctl restart "$unit"
  check 'and its worker serves on' kill -0 "$worker"
  check 'the VM has its device still' attached
  check 'the VM ends' virsh -q destroy fullsys-vsock
  check 'and its worker' wait_for 10 sh -c "! kill -0 $worker"
  virsh -q undefine fullsys-vsock

  if modprobe vhost_vsock && define_vm; then
    check "enroll: the kernel's vsock where there is one" enroll_says '<vsock' --write
    check 'with it the VM starts' start_vm
    check 'and has a CID of its own' sh -c "virsh dumpxml fullsys-vsock | grep -qE '<cid .*address=.[3-9]'"
    virsh -q destroy fullsys-vsock
  else
    not_ok 'the kernel has vhost_vsock'
  fi
else
  skip 'enroll and its VMs' 'libvirtd does not start here'
fi

# --- its end ------------------------------------------------------------------
systemctl stop ballastd.service
cgroup=/sys/fs/cgroup$(property "$unit" ControlGroup)
check 'it stops' timeout 30 systemctl stop "$unit"
check 'with success' test "$(property "$unit" Result),$(property "$unit" ExecMainStatus)" = success,0
check 'no process is left' sh -c "! [ -s '$cgroup/cgroup.procs' ]"
check 'no socket is left' sh -c "! [ -e '$socket' ]"
check 'the journal has no complaint of its' journal "$unit" \
  'all(.[]; ._SYSTEMD_UNIT != "ballast-vsock.service" or ((.PRIORITY // "6") | tonumber) > 4)'
show_journal_if_failed "$unit"
show_journal_if_failed ballastd.service
finish
