#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Guests' swap on the store, as an administrator has it: plugged in live, filled by a
# squeeze, right when it comes back, given back when it is freed; who dies and what
# goes on; drained; full; and who may not open it.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"
# shellcheck source=tests/bench/store-cycles.sh
. "$CHECK_HERE/../bench/store-cycles.sh"
say() { printf '# %s\n' "$*"; }
begin
export VM_ON_EXIT='ballast_stop || true; vsock_stop; store_stop'

in_guest() { vm_cmd "$1" "sh $2" | sed '1s/^ok *//'; }
stage_is() { [ "$(swap_stage "$1")" = "$2" ]; }
holds() { [ "$(store_vm "$1" .held)" -ge "$2" ]; }
holds_at_most() { [ "$(store_vm "$1" .stored)" -le "$2" ]; }
content() { vm_cmd "$1" 'sum w' 120 | cut -d' ' -f1-4; } # what follows is the time it took
store_state() { ballast_status .store.state; }
store_state_is() { [ "$(store_state)" = "$1" ]; }
disk_of() { in_guest "$1" 'grep -l ballast-swap /sys/block/*/serial' | sed -n 's|^/sys/block/\([a-z]*\)/serial.*|\1|p'; }
has_disk() { [ -n "$(disk_of "$1")" ]; }
not_short() { [ "$(ballast_status .state)" = high ] || [ "$(ballast_status .state)" = clear ]; }
has_no_disk() { ! has_disk "$1"; }

# --- there is no store yet -----------------------------------------------------------

STORE_CONF=(pool_size=1664M pool_ready=64M)
ballast_start budget=16G act=no stats_period=1s
vm_define a --memory 384 --autodeflate off
vm_enroll_swap a 400MiB
check 'a VM starts while the store is down' vm_start a
check 'and waits for it' until_true 20 stage_is a waiting
check_not 'it has no such disk' has_disk a
store_start "${STORE_CONF[@]}"
check 'the store comes: a gets its disk live and its agent swaps on it' until_true 40 swap_on a
disk=$(disk_of a)
check 'the guest knows that it is no turning disk' [ "$(in_guest a "cat /sys/block/$disk/queue/rotational")" = 0 ]
check "it is not in the VM's definition" [ "$(vm_virsh dumpxml a --inactive | grep -c nbd)" = 0 ]

# --- squeezed, right, given back -----------------------------------------------------

vm_cmd a 'alloc w 200 fill=half' > /dev/null
before=$(content a)
vm_virsh setmem a 120M --live
check 'a squeeze fills it' until_true 60 holds a $((100 << 20))
until_true 60 actual_at_most a $((126 << 20)) || true
check 'tiers says so' [ "$(ctl tiers | grep -cE '^ *a ')" = 1 ]
check 'what comes back is right' [ "$(content a)" = "$before" ]
check 'still so' [ "$(content a)" = "$before" ]
stored=$(store_vm a .stored)
check "what is held of it is known ($((stored >> 20)) MiB)" [ "$(ballast_vm a .store.held)" -gt $((64 << 20)) ]

# --- who may not have it --------------------------------------------------------------

uuid=$(vm_virsh domuuid a)
check_not "another process, of root, is refused a's pages" \
  timeout 20 nbdinfo --size "nbd+unix:///$uuid?socket=$(store_socket)" 2> /dev/null
check_not 'nor is it told what there is' timeout 20 nbdinfo --list "nbd+unix:///?socket=$(store_socket)" 2> /dev/null

# --- drained ---------------------------------------------------------------------------

drain() { timeout 120 "$BUILD/ballastctl" --socket "$VM_DIR/ballast/run/ballast.sock" drain a --wait > "$VM_DIR/drain" 2>&1; }
check_not 'a drain that does not fit is refused' drain
check "with the figures: $(tr '\n' ' ' < "$VM_DIR/drain")" grep -qE 'takes [0-9.]+ [KMG]iB' "$VM_DIR/drain"
save() { vm_virsh save a "$VM_DIR/img/a.save" 2> "$VM_DIR/save"; }
check_not 'a save is refused' save
check "with the reason: $(tr '\n' ' ' < "$VM_DIR/save")" grep -q 'drain' "$VM_DIR/save"
check 'and the guest lives' vm_cmd a ping > /dev/null
vm_virsh setmem a 384M --live
until_true 30 actual_at_least a $((384 << 20)) || true
sleep 2 # its agent says how much it has now
check 'a drain that fits is done' drain
check 'the disk is unplugged' until_true 20 has_no_disk a
check 'the content is right' [ "$(content a)" = "$before" ]
check 'a save is possible now' save
check 'and a restore' vm_virsh restore "$VM_DIR/img/a.save"
vm_wait a
check 'the content is still right' [ "$(content a)" = "$before" ]
vm_virsh destroy a

# --- started anew: freed memory comes back -----------------------------------------------

vm_start a
check 'started anew it swaps again' until_true 40 swap_on a
check 'on an empty disk' holds_at_most a $((4 << 20))
vm_cmd a 'alloc w 260 fill=half' > /dev/null
vm_virsh setmem a 120M --live
check '150 MiB are swapped' until_true 60 holds a $((150 << 20))
until_true 60 actual_at_most a $((126 << 20)) || true
stored=$(store_vm a .stored)
vm_cmd a 'free w' > /dev/null
given() { holds_at_most a $((stored / 10)); }
check "freed: nine tenths of $((stored >> 20)) MiB come back within 10 s" until_true 10 given
vm_virsh destroy a
gone() { [ "$(store_vm "$1" .held)" = null ] || [ "$(store_vm "$1" .held)" = 0 ]; }
check 'a VM that is gone holds nothing' until_true 10 gone a

# --- deaths --------------------------------------------------------------------------------

guests=(k1 k2)
cycles_guests "${guests[@]}"
foreign() { # k2's process asks for k1's pages: what QEMU says
  vm_virsh qemu-monitor-command k2 "{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":\"nbd\",\"node-name\":\"foreign\",
    \"server\":{\"type\":\"unix\",\"path\":\"$(store_socket)\"},\"export\":\"$(vm_virsh domuuid k1)\"}}" | jq -r '.error.desc // "opened"'
}
refusal=$(foreign)
check "a VM is refused another VM's pages: $refusal" grep -qiE 'export|server' <<< "$refusal"
cycles_run "${BALLAST_CYCLES:-10}" 800 "$VM_DIR/kill.jsonl" "${guests[@]}"
cycles_result "$VM_DIR/kill.jsonl" 0 "${guests[@]}" > "$VM_DIR/kill.json"
fact() { jq -e "$1" "$VM_DIR/kill.json" > /dev/null; }
check "kill -9 of the store ($(jq -c '[.cycles, .in_flight, .resume_s.max]' "$VM_DIR/kill.json")): all were killed" \
  fact ".cycles == ${BALLAST_CYCLES:-10}"
check 'no wrong byte' fact '.wrong_bytes == 0'
check 'no I/O error' fact '.io_errors == 0'
check 'nobody hung' fact '.hung == 0 and .not_served == 0'
check 'a quarter of what they work on was in the store' fact '.below_quarter == 0'
check 'with requests under way' fact '.in_flight >= .cycles / 2'

# a guest goes on: it verifies pages
verifies() { # NAME
  local was
  was=$(cycles_churned "$1") || return
  sleep 0.5
  [ "$(cycles_churned "$1")" != "$was" ]
}
right() { [[ "$(cycles_churned "$1")" == *' 0' ]]; }
all_go_on() {
  local g
  for g in "${guests[@]}"; do verifies "$g" && right "$g" || return; done
}
ballast_kill || true
store_kill
check 'store and ballastd are both dead: the guests go on' until_true 30 all_go_on
store_end
sleep 2
check_not 'the whole of the store is gone: they wait' verifies k1
store_start "${STORE_CONF[@]}"
check 'it comes again: they go on' until_true 60 all_go_on
ballast_launch
check 'and so does ballastd' until_true 30 swap_on k1
check 'for all' until_true 30 swap_on k2

for g in "${guests[@]}"; do vm_virsh destroy "$g"; done

# --- pressed by Ballast itself, and not while the store does not answer -------------------

vm_define p --memory 384 --autodeflate off
vm_enroll_swap p 400MiB
vm_start p
check 'a guest that nobody has squeezed by hand' until_true 40 swap_on p
vm_cmd p 'alloc w 250 fill=half' > /dev/null
before=$(content p)
swapped() { in_guest p 'cat /proc/meminfo' | awk '/^SwapTotal/ { t = $2 } /^SwapFree/ { f = $2 } END { print t - f }'; } # KiB
sleep 3 # its agent has said so
budget=$(($(ballast_status .budget.used) - (24 << 20)))
victim=$(store_main)
kill -STOP "$victim"
check 'a store that is stopped is seen' until_true 8 store_state_is deaf
ballast_reload budget=$budget act=yes stats_period=1s
sleep 5
check "nobody is pressed into it ($(swapped) KiB)" [ "$(swapped)" -lt 8192 ]
kill -CONT "$victim" 2> /dev/null || true
check 'it goes on' until_true 20 store_state_is there
check 'and then the same shortage is met by pressing' until_true 60 holds p $((24 << 20))
check 'the host is short no more' until_true 60 not_short
check 'the content is right' [ "$(content p)" = "$before" ]
ballast_reload budget=16G act=yes stats_period=1s
check 'with memory to spare it gets its own back' until_true 90 actual_at_least p $((370 << 20))
check 'the content is still right' [ "$(content p)" = "$before" ]
check 'it was said' log_says 'store.*(does not answer|deaf|hangs)'

# --- full ------------------------------------------------------------------------------------

vm_define big --memory 192 --autodeflate off
check_not 'more than pool and disk back is refused by enroll' vm_enroll_swap big 2GiB 2> "$VM_DIR/enroll"
check "with the figures: $(tail -n 1 "$VM_DIR/enroll")" grep -q 'GiB uncompressed' "$VM_DIR/enroll"
vm_virsh metadata big --config --uri urn:org.ballast1:vm:1 --key ballast --set "<memory swap='2GiB'/>" > /dev/null
vm_start big
check 'and where that was gone round, by the store: more than pool and disk back is refused' until_true 20 stage_is big waiting
check "with the reason: $(ballast_vm big .store.why)" [ "$(ballast_vm big '.store.why | length > 10')" = true ]
vm_virsh destroy big
check_guests_well p
vm_virsh destroy p
ballast_stop || check 'clean end' false
store_stop
for g in a p big "${guests[@]}"; do vm_virsh undefine "$g"; done # what they were promised is not any more

# a pool that is smaller than what is swapped, and a disk below it
ballast_conf budget=16G
store_start pool_size=96M pool_ready=64M disk="$VM_DIR/img/tier" disk_size=1G
ballast_start budget=16G act=no stats_period=1s
vm_define d --memory 384 --autodeflate off
vm_enroll_swap d 400MiB
vm_start d
check 'with a disk below it: d swaps' until_true 40 swap_on d
vm_cmd d 'alloc w 270' > /dev/null # noise: it does not compress
before=$(content d)
vm_virsh setmem d 130M --live
check 'more than RAM holds' until_true 90 holds d $((140 << 20))
check 'is on disk' [ "$(store_ask .disk_used)" -gt $((32 << 20)) ]
check 'and right when it comes back' [ "$(content d)" = "$before" ]
store_kill
check 'also when the store has died' [ "$(content d)" = "$before" ]
check_guests_well d
check 'no I/O error' [ "$(cycles_io_errors d)" = 0 ]
check 'clean end' ballast_stop
finish
