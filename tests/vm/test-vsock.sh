#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The guest's own virtio-vsock driver and the daemon: the device is plugged in
# live, with private guest RAM; who dies and who takes over; what a hostile guest
# reaches.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"
begin

want=$(vm_vsock_transport)
vm_define a --memory 256 --vsock --autodeflate off
vm_define b --memory 256 --vsock --machine q35
vm_define plain --memory 256
ballast_start budget=4G act=yes stats_period=1s
vm_start a b plain

channel_is() { is "$1" .agent.channel "$2"; }
fresh() { [ "$(ballast_vm "$1" 'select(.stats.source == "agent") | .stats.age_us')" -lt "${2:-2500000}" ] 2> /dev/null; }
on_vsock() { channel_is "$1" "$want" && fresh "$1"; }
on_serial() { channel_is "$1" virtio-serial && fresh "$1"; }
in_guest() { vm_cmd "$1" "sh $2" | sed '1s/^ok *//'; }

check "a speaks over $want" until_true 30 on_vsock a
check "so does b, a q35 machine" until_true 30 on_vsock b
check 'plain speaks over virtio-serial' until_true 15 on_serial plain
check 'list says so' [ "$(ctl list | grep -cE "^(a|b) .* $want |^plain .* virtio-serial ")" = 3 ]
check "it is the guest's own driver" [ "$(in_guest a 'grep -l 0x0013 /sys/bus/virtio/devices/*/device | wc -l')" = 1 ]
check 'which has taken it' \
  [ "$(in_guest a 'ls /sys/bus/virtio/drivers/vmw_vsock_virtio_transport | grep -c ^virtio')" = 1 ]
if [ "$want" = vhost-user-vsock ]; then
  ram=$(grep -E 'memfd:(pc.ram|memory-backend-memfd)' "/proc/$(vm_pid a)/maps" | awk '!n++ { print $2 }')
  check "its RAM is a private mapping ($ram)" [ "${ram:3:1}" = p ]
fi

pings() { ctl ask "$1" ping > /dev/null; }
check 'it answers a ping' pings a
told() { in_guest "$1" 'ballast-agent status' | grep -q 'MiB'; }
check 'the guest sees what it is granted' until_true 5 told a

# --- lives and deaths ---------------------------------------------------------

started() { vm_cmd a 'agent start' > /dev/null; }
vm_cmd a 'agent kill' > /dev/null
until_true 5 started
check 'the agent is killed and started: heard again' until_true 10 on_vsock a

ballast_kill || true
ballast_launch
check 'ballastd is killed and started: a is heard again' until_true 15 on_vsock a
check 'and b' until_true 15 on_vsock b

vm_virsh reset a > /dev/null
sleep 1
vm_wait a
check 'the guest is reset: heard again' until_true 20 on_vsock a

if [ "$want" = vhost-user-vsock ]; then
  workers() { vsock_workers | wc -l; }
  check 'one worker a VM' [ "$(workers)" = 2 ]
  for pid in $(vsock_workers); do kill -KILL "$pid"; done
  check 'workers are killed: a is heard again' until_true 15 on_vsock a
  check 'and b' until_true 15 on_vsock b
  check_not 'no device was unplugged for it' log_says 'is unplugged'

  # supervisor and workers, as when somebody ends the whole service
  vsock_stop
  check 'the backend is gone: a falls back to virtio-serial' until_true 20 on_serial a
  check 'and the guest lives' vm_cmd a ping > /dev/null
  vsock_start
  check 'the backend is back: a gets another device' until_true 40 on_vsock a
  check 'and b' until_true 40 on_vsock b
  check 'the dead device was unplugged' log_says 'is unplugged'

  # a worker that hangs: its own guest only
  victim=$(vsock_workers | sed -n 1p)
  kill -STOP "$victim"
  sleep 3
  check 'a frozen worker: the daemon answers' answers_within 2
  check 'plain is fresh' fresh plain
  one_fresh() { fresh a || fresh b; }
  check 'and the other guest' one_fresh
  both_fresh() { fresh a && fresh b; }
  check "its guest falls back by itself" until_true 40 both_fresh
  kill -CONT "$victim"
  both_vsock() { on_vsock a && on_vsock b; }
  check 'and comes back when it goes on' until_true 40 both_vsock
fi

# --- hostile -------------------------------------------------------------------

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
said() { in_guest a "$1" | tail -n 1; }
check 'an ordinary port of the guest is not heard' [ "$(said 'vsockcall once 711 5000')" != open ]
check 'nor is another service there' [ "$(said 'vsockcall once 712 1000' | cut -d: -f1)" = refused ]
check 'a is still heard' until_true 10 on_vsock a

lines=$(wc -l < "$VM_DIR/ballast/log")
fds=$(find "/proc/$BALLAST_PID/fd" | wc -l)
begun=$(ticks "$BALLAST_PID")
made=$(said 'vsockcall flood 711 5')
used=$(($(ticks "$BALLAST_PID") - begun))
check "a flood of connections ($made): ballastd used less than 25 % of a core ($used ticks in 5 s)" [ "$used" -lt 125 ]
check 'the other guests are fresh' fresh plain
check 'b too' fresh b
made=$(said 'vsockcall noise 711 4')
check "a stream of noise ($made) arrives" [ "${made#sent=}" -gt 100000 ]
check 'and the others are fresh' fresh b
made=$(said 'vsockcall many 711 40')
check "not many connections at once ($made)" [ "${made#open=}" -le 2 ]
check 'the true agent is heard again' until_true 20 on_vsock a
check "the log has not grown much ($(($(wc -l < "$VM_DIR/ballast/log") - lines)) lines)" \
  [ $(($(wc -l < "$VM_DIR/ballast/log") - lines)) -le 20 ]
few_fds() { [ "$(find "/proc/$BALLAST_PID/fd" | wc -l)" -le $((fds + 2)) ]; }
check 'no descriptor is left over' until_true 10 few_fds

check_guests_well a b plain
check 'clean end' ballast_stop
finish
