#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Page sharing of guests whose memory QEMU has in other ways than one anonymous mapping: q35,
# a private memfd, two NUMA nodes, a DIMM plugged in while it runs; and a shared mapping,
# which the kernel does not merge.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"
# shellcheck source=tests/vm/lib-share.sh
. "$(dirname "$0")/lib-share.sh"

share_begin

N=$((96 << 20)) # of the same bytes in each guest
META="<ballast:memory xmlns:ballast='urn:org.ballast1:vm:1' sharing='group' group='web'/>"
changed() { # GUEST SED: its definition, edited
  vm_virsh dumpxml --inactive "$1" > "$VM_DIR/changed.xml"
  sed -i "$2" "$VM_DIR/changed.xml"
  vm_virsh define "$VM_DIR/changed.xml" > /dev/null
}
numa() { printf '<numa>'; for i in "$@"; do printf "<cell id='%s' %smemory='%s' unit='MiB'/>" "${i%:*}" "$([ "${i%:*}" != 0 ] || echo "cpus='0' ")" "${i#*:}"; done; printf '</numa>'; }

vm_define q35 --memory 384 --machine q35 --metadata "$META"
vm_define memfd --memory 384 --memfd --metadata "$META"
vm_define shared --memory 384 --memfd-shared --metadata "$META"
vm_define nodes --memory 384 --metadata "$META"
changed nodes "s|<model[^>]*>Nehalem</model>|&$(numa 0:192 1:192)|"
vm_define dimm --memory 384 --metadata "$META"
changed dimm "s|<model[^>]*>Nehalem</model>|&$(numa 0:384)|; s|<memory unit|<maxMemory slots='4' unit='MiB'>768</maxMemory>&|"
merged=(q35 memfd nodes dimm)
vm_start "${merged[@]}" shared
for g in "${merged[@]}" shared; do vm_cmd "$g" 'alloc w 96 seed=7' > /dev/null; done
sum=$(content q35)

ballast_start budget=16G act=yes stats_period=1s mode=group host_knobs=yes scan_cpu=2% wake_at=16M
check 'all that can be are merged' until_true 40 saves $(((${#merged[@]} - 1) * N * 9 / 10)) "${merged[@]}"
merges() { # GUEST: in any of its mappings
  [ "$(awk '/^KSM:/ { sum += $2 * 1024 } END { print sum + 0 }' "/proc/$(vm_pid "$1")/smaps")" -ge $((N * 9 / 10)) ]
}
for g in "${merged[@]}"; do check "$g is" until_true 30 merges "$g"; done
check "one with shared memory is not, and that is said: $(vm_sharing shared .why_not)" \
  grep -q 'shared mapping' <<< "$(vm_sharing shared .why_not)"
check 'ksmd rests' until_true 60 rests

# --- more memory, while it runs -------------------------------------------------------------

echo "<memory model='dimm'><target><size unit='MiB'>256</size><node>0</node></target></memory>" > "$VM_DIR/dimm.xml"
check 'a DIMM is plugged in' vm_virsh attach-device dimm "$VM_DIR/dimm.xml" --live
# shellcheck disable=SC2016 # the guest's shell
online() {
  vm_cmd dimm 'sh for f in /sys/devices/system/memory/memory*/state; do echo online > $f 2>/dev/null; done; grep MemTotal /proc/meminfo' |
    grep -qE '[56][0-9]{5} kB'
}
check 'the guest has it' until_true 20 online
before=$(saved "${merged[@]}")
vm_cmd q35 'alloc v 180 seed=9' > /dev/null
vm_cmd dimm 'alloc v 360 seed=9' > /dev/null # more than it had before
check 'what lies in it is merged, too' until_true 60 saves $((before + (180 << 20) * 9 / 10)) "${merged[@]}"
in_dimm() { # KiB that are merged in mappings of its size
  awk '/^Size:/ { size = $2 } /^KSM:/ && size == 256 * 1024 { sum += $2 } END { print sum + 0 }' "/proc/$(vm_pid dimm)/smaps"
}
check "some of it does: $(in_dimm) KiB" [ "$(in_dimm)" -ge 1024 ]
check 'ksmd rests again' until_true 60 rests
for g in "${merged[@]}" shared; do check "$g: its content is right" [ "$(content "$g")" = "$sum" ]; done
for g in "${merged[@]}" shared; do vm_virsh suspend "$g" > /dev/null; done
check 'and a scan of the paused guests agrees with brute force' \
  grep -q 'brute force finds the same' <("$BUILD/ballastctl" scan --connect "$VM_URI" --libvirt-run-dir "$VM_RUN" --verify "${merged[@]}" shared 2>&1)
for g in "${merged[@]}" shared; do vm_virsh resume "$g" > /dev/null; done
check_guests_well "${merged[@]}" shared
ballast_stop
check 'the knobs are put back' knobs_as_found
finish
