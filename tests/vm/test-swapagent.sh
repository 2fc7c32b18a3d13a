#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The agent's part of swap on the store, on a disk that is a file here: found by its serial
# number, tuned, formatted, swapped on before other swap, filled by a squeeze, given back,
# left again; and what it must not touch.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"
export AGENT_ARGS='--transport virtio-serial'
DISK_MIB=384

# numbers of include/ballast/wire.h
ON=5 OFF=6 GIVE=7
AVAILABLE=4 SWAP_USED=26 SWAP_ERROR=27 SWAP_AHEAD=28

# ask COMMAND...: what the agent answers, one line each
ask() { python3 "$CHECK_HERE/agentcall.py" "$VM_DIR"/lib/qemu/channel/target/*/org.ballast.agent.0 "$@"; }
answers() { # WANT COMMAND...: the last line
  local want=$1 got
  shift
  got=$(ask "$@" | tail -n 1)
  [ "$got" = "$want" ] || { echo "# $*: $got"; return 1; }
}
at_most() { # MOST TAG
  local got
  got=$(ask "stat $2")
  [ "$got" -le "$1" ] || { echo "# statistic $2: $got"; return 1; }
}
at_least() { ! at_most "$(($1 - 1))" "$2" > /dev/null; }
in_guest() {
  local reply
  reply=$(vm_cmd g1 "sh $1") && echo "${reply#ok }"
}
guest_says() { [ "$(in_guest "$1")" = "$2" ]; }
host_mib() { du -m "$VM_DIR/img/swap" | cut -f1; }
host_holds_at_most() { [ "$(host_mib)" -le "$1" ]; }
sum() {
  local s
  s=$(vm_cmd g1 "sum $1") && s=${s#*sum=} && echo "${s%% *}"
}
disk_xml() { # TARGET FILE SERIAL
  cat <<-X
	<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' discard='unmap'/>
	<source file='$2'/><target dev='$1' bus='virtio'/><serial>$3</serial></disk>
	X
}

begin
truncate -s "${DISK_MIB}M" "$VM_DIR/img/swap"
truncate -s 64M "$VM_DIR/img/own"
chmod 666 "$VM_DIR/img/swap" "$VM_DIR/img/own"
vm_define g1 --memory 256 --free-page-reporting off --devices "$(disk_xml vda "$VM_DIR/img/own" admins-own)"
vm_start g1
in_guest 'mkswap /dev/vda > /dev/null && swapon /dev/vda' > /dev/null
check 'the guest swaps on its own disk already' guest_says 'grep -c ^/dev/vda /proc/swaps' 1
check 'without the disk there is none' answers none "state none 20"
check 'and nothing to switch on' answers none "act $ON" "state none 5"

disk_xml vdb "$VM_DIR/img/swap" ballast-swap > "$VM_DIR/img/disk.xml"
vm_virsh attach-device g1 "$VM_DIR/img/disk.xml" --live > /dev/null
check 'the disk appears' until_true 10 guest_says 'cat /sys/block/vdb/serial' ballast-swap
in_guest 'printf mine | dd of=/dev/vdb bs=512 seek=3 2> /dev/null; sync' > /dev/null
check 'what holds something else is refused' answers failed "act $ON" "state failed 10"
check 'the error is EEXIST' answers 17 "stat $SWAP_ERROR"
check 'and it is still there' guest_says 'dd if=/dev/vdb bs=512 skip=3 count=1 2> /dev/null | head -c 4' mine
in_guest 'dd if=/dev/zero of=/dev/vdb bs=512 count=8 2> /dev/null; rm /dev/vdb; sync' > /dev/null
check 'an empty one is swapped on' answers on "act $ON" "state on 10"
check 'also where /dev has no node of it' guest_says 'grep -c ^/run/ballast-agent/vdb /proc/swaps' 1
check 'it does not turn' guest_says 'cat /sys/block/vdb/queue/rotational' 0
check 'it comes before other swap' answers 0 "stat $SWAP_AHEAD"

for i in a b c; do vm_cmd g1 "alloc $i 36" > /dev/null; done
before="$(sum a) $(sum b) $(sum c)"
vm_virsh setmem g1 110M --live
check 'a squeeze fills it' until_true 20 at_least "$(mib 40)" "$SWAP_USED"
check "the host holds it ($(host_mib) MiB)" [ "$(host_mib)" -ge 40 ]
check 'what does not fit is not brought back' answers no_room "act $OFF"
vm_virsh setmem g1 256M --live
check 'the guest has memory again' until_true 20 at_least "$(mib 120)" "$AVAILABLE"
check 'the slots are given back' answers on "act $GIVE" "state on 1" "state on 15"
check 'by the guest' until_true 15 at_most "$(mib 2)" "$SWAP_USED"
check "and to the host ($(host_mib) MiB)" until_true 5 host_holds_at_most 2
check 'its pages are right' [ "$before" = "$(sum a) $(sum b) $(sum c)" ]

vm_virsh setmem g1 110M --live
check 'it is squeezed again' until_true 20 at_least "$(mib 40)" "$SWAP_USED"
vm_virsh setmem g1 256M --live
check 'and let go' until_true 20 at_least "$(mib 120)" "$AVAILABLE"
vm_virsh blkdeviotune g1 vdb --total-bytes-sec 8000000 --live
check 'it is left' answers leaving "act $OFF" "state leaving 5"
vm_cmd g1 'agent kill' > /dev/null
check 'where the agent dies it stays on' until_true 20 guest_says 'grep -c vdb /proc/swaps' 1
vm_cmd g1 'agent start' > /dev/null
check 'which another one finds' answers on "state on 10"
vm_virsh blkdeviotune g1 vdb --total-bytes-sec 0 --live
check 'it is left for good' answers off "act $OFF" "state off 20"
check 'the host holds nothing' until_true 5 host_holds_at_most 1
check 'nor has the guest a node of it' guest_says '[ -e /run/ballast-agent/vdb ] || echo gone' gone
check 'its own swap is as it was' guest_says 'grep -c ^/dev/vda /proc/swaps' 1
check 'its pages are right again' [ "$before" = "$(sum a) $(sum b) $(sum c)" ]
vm_virsh detach-device g1 "$VM_DIR/img/disk.xml" --live > /dev/null
check 'without the disk there is none again' answers none "state none 10"
check_guests_well g1
finish
