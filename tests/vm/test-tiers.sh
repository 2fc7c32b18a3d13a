#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A guest without an agent is paged out by the host's kernel, into zram, when the host
# is short of memory; its content stays right; when it reads back what went it is left
# alone; and the tier that 'ballastctl tiers setup' made goes away without a trace.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

if [ ! -e /sys/class/zram-control/hot_add ]; then
  echo '# skip: this kernel has no zram'
  exit 0
fi
tiers() { "$BUILD/ballastctl" tiers "$@" --state-dir "$VM_DIR/tiers"; }
tiers_away() { [ ! -e "$VM_DIR/tiers/tiers.json" ] || tiers rollback > /dev/null || true; }
export VM_ON_EXIT='ballast_stop || true; tiers_away'
vm_env_trap
vm_env_start "$(mktemp -d /tmp/btest.XXXXXX)"
zrams() { ls -d /sys/block/zram*; }
zrams_before=$(zrams || true)
swaps_before=$(awk 'NR > 1 { print $1 }' /proc/swaps)

# its balloon has no driver, and it has no agent: the kernel is the only way
vm_define mute --memory 384 --no-agent --free-page-reporting off --cmdline module_blacklist=virtio_balloon
vm_start mute
vm_cmd mute 'alloc half 180 fill=half' > /dev/null
vm_cmd mute 'alloc random 20' > /dev/null
content() { for a in random half; do vm_cmd mute "sum $a" | cut -d' ' -f1-4; done; }
before=$(content)
check 'it has content' [ "$(grep -c '^ok' <<< "$before")" = 2 ]

check 'a zram tier is prepared' tiers setup zram 512M --force
check 'and not twice' [ "$(tiers setup zram 512M --force 2> /dev/null; echo $?)" = 6 ]
device=$(jq -r '.changes[0].device' "$VM_DIR/tiers/tiers.json")
check 'it is swap, before all other' grep -qE "^/dev/$device +partition +[0-9]+ +[0-9]+ +100$" <(tr '\t' ' ' < /proc/swaps)

used=$(vm_rss mute)
pid=$(vm_pid mute)
vm_swap() { awk '/^VmSwap:/ { print $2 * 1024 }' "/proc/$pid/status"; }
# far more than there may be: the host is low
ballast_start budget=$((used - $(mib 100))) min_free=32M reservation=0 stats_period=1s act=no
tiers_json() { ctl --json tiers | jq -r "$1"; }
offered() { [ "$(tiers_json '.kernel.vms[] | select(.name == "mute") | .why')" = null ]; }
check 'it is offered to be paged out' until_true 20 offered
check 'nothing is done unless Ballast acts' [ "$(vm_swap)" = 0 ]
begin_us=$(date +%s%6N)
ctl act on > /dev/null
below() { [ "$(vm_rss mute)" -le $((used - $(mib 60))) ]; }
check 'it is paged out' until_true 20 below
took=$((($(date +%s%6N) - begin_us) / 1000))
swapped=$(vm_swap)
check 'into the host swap' [ "$swapped" -ge "$(mib 60)" ]
echo "# $((swapped >> 20)) MiB in $took ms, $(tiers_json '.kernel.cpu_us') us of CPU"
no_oom() { [ "$(vm_oom_kills mute)" = 0 ]; }
check 'ballastctl tiers tells' [ "$(tiers_json '.kernel.all.paged_out')" -ge "$(mib 60)" ]
check 'and of the device' [ "$(tiers_json ".kernel.zram[] | select(.name == \"$device\") | .held + .same")" -gt 0 ]
check 'metrics tell' grep -qE '^ballast_vm_host_swapped_bytes\{vm="mute".* [1-9]' <(ctl metrics)
ctl tiers | sed 's/^/# /'

# It uses all of it: back off
backs_off() { [ "$(tiers_json '.kernel.vms[] | select(.name == "mute") | .backoff_us > 0')" = true ]; }
read_back() {
  local i
  for ((i = 0; i < 4; i++)); do
    content > "$VM_DIR/content"
    cmp -s "$VM_DIR/content" <(echo "$before") || return 1
    ! backs_off || return 0
  done
}
check 'what it reads back is right' read_back
check 'that it reads back is seen' until_true 5 backs_off
back=$(vm_swap)
said_why() { ctl explain mute | grep -q 'take.pageout, done'; }
check 'why it was paged out is said' until_true 15 said_why
sleep 2
check 'and it is left alone' [ "$(vm_swap)" -le $((back + $(mib 2))) ]
check 'which is said' log_says 'nothing of mute is paged out for 30s: it reads back'
check 'ballastctl tiers says so' grep -q '^mute: not paged out for [0-9]* s: it read back' <(ctl tiers)
check 'the policy knows why' is mute .decision.reason skip.refaults
check 'its content is right' [ "$(content)" = "$before" ]
check 'no OOM kill in it' no_oom
check 'ballastd ends cleanly' ballast_stop

check 'the tier is taken away' tiers rollback
check 'its content is still right' [ "$(content)" = "$before" ]
check 'no device is left' [ "$(zrams || true)" = "$zrams_before" ]
check 'no swap is left' [ "$(awk 'NR > 1 { print $1 }' /proc/swaps)" = "$swaps_before" ]
check 'nothing is on record' [ ! -e "$VM_DIR/tiers/tiers.json" ]
finish
