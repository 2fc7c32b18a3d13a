#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fullsys-limit: 150
# ballast-store as a service of a real systemd, with a client that registers itself
# and goes through all of it as QEMU does: killed, hung, restarted, stopped, on a
# file and on a block device, without settings, and removed.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

unit=ballast-store.service
sockets=(ballast-store.socket ballast-store-control.socket)
dir=/run/ballast-store
state=/var/lib/ballast-store
conf=/etc/ballast/ballast.conf.d/fullsys.conf
uuid=6ba7b810-9dad-11d1-80b4-00c04fd430c8
mib=16 # of the export: more than the pool
client_pid=

if ! install_ballast; then
  skip 'ballast-store as a service' 'it is not built'
  finish
fi

at_end() {
  [[ -z $client_pid ]] || kill "$client_pid" 2>/dev/null || true
  systemctl stop "${sockets[@]}" "$unit" 2>/dev/null || true
  systemctl disable -q "$unit" 2>/dev/null || true
  systemctl reset-failed "$unit" "${sockets[@]}" 2>/dev/null || true
  ballast-store --remove >/dev/null 2>&1 || true
  rmmod virtio_blk 2>/dev/null || true
  rm -rf "$work" "$conf" "${state:?}/disk" /run/systemd/system/ballast-store*.d
  systemctl daemon-reload
}
trap at_end EXIT

# Shorter limits than the shipped ones, which are looked at first.
limits() { # UNIT LINE...
  mkdir -p "/run/systemd/system/$1.d"
  printf '%s\n' "${@:2}" >"/run/systemd/system/$1.d/fullsys.conf"
}

settings() { # LINE...
  mkdir -p "${conf%/*}"
  printf '%s\n' '[Store]' "$@" >"$conf"
}

main_pid() {
  property "$unit" MainPID
}

anew() { # OLD-PID
  local pid
  pid=$(main_pid)
  [[ $pid != "$1" ]] && still "$unit" "$pid"
}

# --- the client, a process that stays ------------------------------------------
start_client() {
  coproc client { exec store-client "$dir/nbd.sock" "$dir/control.sock" "$uuid" $((mib << 20)) 2>&1; }
  client_pid=$!
  read -r -t 20 answer <&"${client[0]}"
}

stop_client() {
  kill "$client_pid" 2>/dev/null || true
  wait "$client_pid" 2>/dev/null || true
  client_pid=
}

begin() { # COMMAND
  echo "$1" >&"${client[1]}"
}

# Its answer also in $answer.
answered() { # REGEX
  answer=
  read -r -t 60 answer <&"${client[0]}" || true
  echo "$answer"
  [[ $answer =~ ^$1$ ]]
}

says() { # COMMAND REGEX
  begin "$1"
  answered "$2"
}

figure() { # NAME
  begin status
  answered '.*' >/dev/null
  sed -nE "s/.*\b$1=([0-9]+).*/\1/p" <<<"$answer"
}

# How long the client was without its store, while COMMAND was done to that.
gap_at_most() { # MILLISECONDS COMMAND...
  begin 'hold 40'
  sleep 0.3
  "${@:2}"
  answered 'gap=[0-9]+'
  gaps+=" ${answer#gap=}"
  ((${answer#gap=} <= $1))
}

# --- what there is of a pool ------------------------------------------------------
segments() {
  ipcs -m | awk '$2 ~ /^[0-9]+$/' | wc -l
}

# Of each worker's descriptor of PATH the flags of open(2).
disk_flags() {
  local pid fd
  for pid in $(pgrep ballast-disk); do
    for fd in "/proc/$pid/fd"/*; do
      [[ $(readlink "$fd") != "$1" ]] || awk '$1 == "flags:" { print $2 }' "${fd/\/fd\///fdinfo/}"
    done
  done
}

direct() { # PATH: each worker has it with O_DIRECT
  local flags n=0
  for flags in $(disk_flags "$1"); do
    ((flags & 040000)) || return 1
    n=$((n + 1))
  done
  ((n >= 3))
}

gaps=

# --- its life -----------------------------------------------------------------
segments_before=$(segments)
settings PoolSize=8M PoolReady=4M "Disk=$state/disk" DiskSize=24M
check 'it can be enabled' systemctl enable -q "$unit"
check 'with its sockets' systemctl is-enabled "${sockets[@]}"
check 'it starts' timeout 60 systemctl start "$unit"
if ((failed > 0)); then
  show_journal_if_failed "$unit"
  finish
fi
check 'it is active, by READY=1' test "$(property "$unit" ActiveState),$(property "$unit" Type)" = active,notify
check 'so are its sockets' systemctl is-active "${sockets[@]}"
pid=$(main_pid)
check 'it became nbdkit' test "$(<"/proc/$pid/comm")" = nbdkit
check 'its pool is one segment' test "$(segments)" = $((segments_before + 1))
check 'which is locked' sh -c "ipcs -m | grep -q locked"
check 'nothing is mounted' sh -c "! grep -q ' $dir' /proc/self/mounts"
check 'its process is locked in memory' grep -qE '^VmLck:\s+[1-9]' "/proc/$pid/status"
check 'of capabilities it has the one' grep -qx "CapEff:\s*0000000000004000" "/proc/$pid/status"
check 'no memory of its may be both written and executed' sh -c "! grep -qE '^[^ ]+ .wx' /proc/$pid/maps"
check 'the NBD socket is for all, the control socket for root' \
  test "$(stat -c %a "$dir/nbd.sock" "$dir/control.sock" | xargs)" = '666 600'
disk_workers=$(pgrep -c ballast-disk || true)
check 'the disk has its workers' test "$disk_workers" -ge 3
check 'and its file is of root alone' test "$(stat -c %a:%u "$state/disk")" = 600:0

check 'a client registers itself' start_client
check 'and is taken' test "$answer" = registered
check 'it fills its export' says 'write 1' wrong=0
check 'more than the pool holds: some went to the disk' test "$(figure demoted)" -gt $((1 << 20))
check 'it reads all of it back' says 'check 1' wrong=0
check 'the disk too' test "$(figure disk_reads)" -gt 0
check 'which works' test "$(figure disk_failed)" = 0
echo "# $answer"
incarnation=$(figure incarnation)
check 'a stranger is not answered' sh -c "! timeout 20 nbdinfo 'nbd+unix:///$uuid?socket=$dir/nbd.sock'"

# --- killed, restarted, hung, stopped ------------------------------------------
pid=$(main_pid)
check 'killed: another serves in 2 s' gap_at_most 2000 kill -KILL "$pid"
check 'which systemd started' wait_for 5 anew "$pid"
check 'over the same pool' test "$(figure incarnation)" = "$incarnation"
check 'with all that was there' says 'check 1' wrong=0
check 'and it takes more' says 'write 2' wrong=0
pid=$(main_pid)
check 'it has a watchdog' test "$(property "$unit" WatchdogUSec)" = 8s
limits "$unit" '[Service]' WatchdogSec=4s
check 'its sockets have limits' \
  test "$(property "${sockets[0]}" TriggerLimitBurst),$(property "${sockets[1]}" TriggerLimitBurst)" = 20,20
for socket in "${sockets[@]}"; do limits "$socket" '[Socket]' TriggerLimitBurst=4; done
systemctl daemon-reload
check 'systemctl restart: another in 2 s' gap_at_most 2000 systemctl restart "$unit"
check 'as another process' anew "$pid"
check 'with all that was there' says 'check 2' wrong=0
check 'of the old one nothing is left' wait_for 5 sh -c "[ \$(pgrep -xc nbdkit),\$(pgrep -c ballast-disk) = 1,$disk_workers ]"

pid=$(main_pid)
check 'hung: the watchdog ends it, another serves in 10 s' gap_at_most 10000 kill -STOP "$pid"
check 'as another process' wait_for 5 anew "$pid"
check 'with all that was there' says 'check 2' wrong=0

check 'it stops' timeout 30 systemctl stop "$unit"
check 'the sockets stay' systemctl is-active "${sockets[@]}"
check 'the pool stays' test "$(segments)" = $((segments_before + 1))
check 'no process stays' sh -c '! pgrep -x nbdkit && ! pgrep ballast-disk'
check 'it starts again' timeout 60 systemctl start "$unit"
check 'over the same pool' test "$(figure incarnation)" = "$incarnation"
systemctl stop "$unit" 2>/dev/null
check 'stopped: a client that asks starts it' says 'check 2' wrong=0
check 'as the service that it is' systemctl is-active "$unit"
echo "# without a store: killed, restarted, hung:$gaps ms"

# --- without settings -----------------------------------------------------------
settings PoolSize=0
systemctl stop "$unit" 2>/dev/null
check 'PoolSize=0: it does not start' sh -c "! timeout 30 systemctl start $unit"
check 'for its settings' test "$(property "$unit" ExecMainStatus)" = 2
sleep 1
check 'and is not tried again' test "$(property "$unit" ActiveState),$(property "$unit" NRestarts)" = failed,0
lines=$(journal_lines "$unit")
begin 'hold 0' # waits at the socket, which starts the service again and again
gave_up() { [[ $(property "${sockets[0]}" Result) == trigger-limit-hit ]]; }
check 'nor without end while somebody waits' wait_for 15 gave_up
echo "# with a client at the door: $(($(journal_lines "$unit") - lines)) times"
settings PoolSize=8M PoolReady=4M "Disk=$state/disk" DiskSize=24M
check 'with settings it starts again' timeout 60 systemctl start "$unit"
check 'its sockets too' systemctl is-active "${sockets[@]}"
check 'and serves who waited' answered 'none'

# --- dying again and again ---------------------------------------------------------
# More often than the sockets stand: they go, and come back with the service.
gaps=
for _ in {1..5}; do
  check 'it dies' gap_at_most 10000 kill -KILL "$(main_pid)"
done
echo "# without a store:$gaps ms"
limits_hit() {
  journalctl -b -q -u "${sockets[0]}" -o cat --no-pager | grep -c 'trigger-limit-hit'
}
check 'and a socket by that' test "$(limits_hit)" -ge 2
check 'it is not given up' says 'check 2' wrong=0
check 'nor are its sockets' systemctl is-active "${sockets[@]}"

# --- removed ----------------------------------------------------------------------
check 'its export is forgotten' says forget forgotten
stop_client
check '--remove is refused while it runs' sh -c '! ballast-store --remove'
systemctl stop "$unit" "${sockets[@]}"
check 'stopped, it is removed' ballast-store --remove
check 'no segment is left' test "$(segments)" = "$segments_before"
check 'nor a file, nor a mount' sh -c "! [ -e $dir ] && ! grep -q '$dir' /proc/self/mounts && ! ls /dev/shm | grep -q ballast"
rm -f "$state/disk"

# --- a block device ---------------------------------------------------------------
modprobe virtio_blk
disk=$(grep -lx fullsys-store /sys/block/*/serial 2>/dev/null | cut -d/ -f4 || true)
if [[ -n $disk ]]; then
  settings PoolSize=8M PoolReady=4M "Disk=/dev/$disk"
  check 'it starts on a block device' timeout 60 systemctl start "$unit"
  check 'which its workers have with O_DIRECT' direct "/dev/$disk"
  start_client || true
  check 'it takes more than the pool holds' says 'write 3' wrong=0
  check 'killed: another serves in 2 s' gap_at_most 2000 kill -KILL "$(main_pid)"
  check 'with all that was there' says 'check 3' wrong=0
  check 'from the disk' test "$(figure disk_reads)" -gt 0
  stop_client
else
  not_ok 'it starts on a block device' 'there is none'
fi
systemctl stop "$unit" "${sockets[@]}"
ballast-store --remove || true
check 'the journal has no complaint of its' journal "$unit" \
  'all(.[]; ._SYSTEMD_UNIT != "ballast-store.service" or ((.PRIORITY // "6") | tonumber) > 4)'
show_journal_if_failed "$unit"
finish
