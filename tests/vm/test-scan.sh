#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# ballastctl scan of real guests of one image, with content that is known: running, paused (then it is exact, and a
# brute-force count says the same), against libvirt's own dumps, and while one of them is destroyed.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

scan() { "$BUILD/ballastctl" scan --connect "$VM_URI" --libvirt-run-dir "$VM_RUN" "$@"; }
# scanned ARGUMENT...: leaves the document in $D, standard error in $E, and its status
scanned() {
  local rc=0
  D=$(scan --json "$@" 2> "$VM_DIR/err") || rc=$?
  E=$(cat "$VM_DIR/err")
  return $rc
}
document() {
  if jq -e "$1" <<< "$D" > /dev/null; then return; fi
  echo "# not so: $1"
  jq -c 'del(.vms[].runs)' <<< "$D" | sed 's/^/# /'
  return 1
}
value() { jq "$1" <<< "$D"; }
ends_with() {
  local want=$1 rc=0
  shift
  "$@" || rc=$?
  [ "$rc" = "$want" ]
}

# KSM is the host's: whoever else tries something with it would merge these guests
exec 9> /tmp/ksm.lock
flock 9
begin
pages=$((48 << 8))
for g in a b c; do vm_define $g --memory 256; done
vm_start a b c
vm_cmd a 'alloc same 48 seed=7' > /dev/null
vm_cmd b 'alloc same 48 seed=7' > /dev/null
vm_cmd c 'alloc other 48' > /dev/null
vm_cmd c 'alloc nothing 24 fill=zero' > /dev/null

# --- as they run
check 'all that run' scanned --svg "$VM_DIR/report.svg"
check 'are the three' document '[.vms[].name] == ["a", "b", "c"] and all(.vms[]; .kind == "vm" and .error == null)'
check 'with 256 MiB each' document 'all(.vms[]; .size == 268435456 and .pages + .absent + .swapped + .kernel_zero == 65536)'
check 'two have in common what they were given' document ".matrix[0][1] >= $pages"
check 'beside what is of the image' document ".matrix[0][1] >= .matrix[0][2] + 0.98 * $pages"
check 'which the third has, too' document '.matrix[0][2] > 2000 and .matrix[1][2] > 2000'
check 'zeros are found where they are' document ".vms[2].zero >= 24 * 256 * 0.98"
check 'classes add up' document '.pages == .saved_pages + .unique + .volatile + .unreadable'
check 'what runs is not exact' document '.exact | not'
check 'large pieces lie together' document "([.runs[4:][]] | add) > 1.9 * $pages"
check 'a picture of it' python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$VM_DIR/report.svg"
check 'brute force beside running guests is no failure' scanned --verify
check 'and says how far they moved' document '.verify.ran and (.verify.binding | not) and
  (.verify.saved_pages - .saved_pages | fabs) < 0.05 * .pages'

# --- paused
for g in a b c; do vm_virsh suspend $g > /dev/null; done
before=$(vm_rss a)
check 'paused, with a brute-force count' scanned --verify
check 'it is exact' document '.exact and all(.vms[]; .still) and .volatile == 0'
check 'and the count is the same' document '.verify.equal and .verify.binding and .verify.difference == null'
three=$D
check 'reading made nothing' [ "$(vm_rss a)" = "$before" ]
check 'again' scanned
# what merging does not change, nor another seed
figures='[.pages + .kernel_zero, .zero + .kernel_zero, .unique, .duplicate_intra, .duplicate_inter, .with_others,
  .matrix, .runs]'
same_as() { [ "$(value "$figures" | jq -c .)" = "$(jq -c "$figures" <<< "$1")" ]; }
check 'the same, with another seed' same_as "$three"
check 'a and b alone' scanned a b
check 'are exact, too' document '.exact and (.vms | length) == 2'
two=$D

# --- libvirt's dump of what is paused: all of guest memory, so what was never touched is zero pages in it, and some
# ROM beside it.  Reading that for the dump maps the kernel's zero page, which costs nothing.
vm_virsh dump --memory-only b "$VM_DIR/b.core" > /dev/null
check 'b beside its own dump' scanned b --dump "$VM_DIR/b.core"
check 'has all of its content in it' document '.matrix[0][1] == .vms[0].unique'
check 'which has next to nothing else' document '.vms[1].unique < 300 and .vms[1].pages >= 65536 and .vms[1].pages < 66200'
check 'its zero pages are those of b, and what b never touched' document \
  '.vms[1].zero - (.vms[0].zero + .vms[0].absent + .vms[0].kernel_zero) | . >= 0 and . < 600'
check 'which map the zero page now, and cost nothing' document \
  ".vms[0].kernel_zero > 0 and .vms[0].pages == $(jq '.vms[1].pages' <<< "$two")"
check 'b itself has the figures that it had' document \
  "[.vms[0].unique, .vms[0].duplicate_intra, .vms[0].zero] == $(jq -c '.vms[1] | [.unique + .duplicate_inter, .duplicate_intra, .zero]' <<< "$two")"
check 'a dump needs no libvirt' grep -q '^1 dump holds 256 MiB' \
  <("$BUILD/ballastctl" scan --dump "$VM_DIR/b.core" --connect nowhere:///)
check 'QEMU as a process' scanned --pid "$(vm_pid b)" --dump "$VM_DIR/b.core"
check 'has the guest in it' document ".matrix[0][1] >= $(jq '.vms[1] | .unique + .duplicate_inter' <<< "$two") - 50"
check 'and what is its own' document ".vms[0].pages > $(jq '.vms[1].pages' <<< "$two")"
check 'a VM and its QEMU are one memory' ends_with 2 scanned b --pid "$(vm_pid b)"
rm "$VM_DIR/b.core"

# --- what KSM has merged is seen, and neither read twice nor un-merged
ksm=/sys/kernel/mm/ksm
declare -A knobs
knob() { echo "$2" > "$ksm/$1"; }
restore_knobs() {
  local k
  for k in "${!knobs[@]}"; do [ "$k" = run ] || knob "$k" "${knobs[$k]}"; done
  [ -z "${knobs[run]:-}" ] || knob run "${knobs[run]}"
}
merging() {
  local g n=0
  for g in a b c; do n=$((n + $(< "/proc/$(vm_pid $g)/ksm_merging_pages"))); done
  echo $n
}
passes() { [ "$(< $ksm/full_scans)" -ge "$1" ]; }
if [ -w $ksm/run ]; then
  scanned a b c || true
  three=$D
  for k in run pages_to_scan sleep_millisecs smart_scan use_zero_pages; do
    [ ! -e $ksm/$k ] || knobs[$k]=$(< $ksm/$k)
  done
  export VM_ON_EXIT="restore_knobs; $VM_ON_EXIT"
  [ ! -e $ksm/smart_scan ] || knob smart_scan 0
  [ ! -e $ksm/use_zero_pages ] || knob use_zero_pages 0
  knob pages_to_scan 20000
  knob sleep_millisecs 20
  knob run 1
  check 'KSM goes over them' until_true 90 passes $(($(< $ksm/full_scans) + 4))
  knob run 0
  n=$(merging)
  check 'and merges' [ "$n" -gt $pages ]
  check 'a scan of what is merged' scanned --verify
  # it splits huge pages, and what of them is zeros then maps the kernel's zero page (mm/huge_memory.c)
  check 'has the figures of before' same_as "$three"
  check 'by brute force, too' document '.verify.equal and .verify.binding'
  check 'what is merged is seen' document "(.merged - $n | fabs) <= 0.01 * $n"
  check 'and what that frees: nearly all' document '.merged_saved > 0.9 * (.duplicate_intra + .duplicate_inter) and
    .merged_saved <= .saved_pages'
  check 'merged pages are read once' document '.read < 4096 * (2.2 * .pages - .merged_saved)'
  check 'nothing of it was un-merged' [ "$(merging)" -ge $((n - 5)) ]
  restore_knobs
  knobs=()
else
  echo 'ok - KSM # SKIP this kernel has none'
fi

# --- one is destroyed while it is read: at 2 % of a core there is time
check 'those that will stay' scanned a b
two=$D
scan --json --cpu 2 a b c > "$VM_DIR/out" 2> "$VM_DIR/err" &
scanner=$!
sleep 1.5
vm_destroy c
check 'a VM that is destroyed meanwhile' ends_with 1 wait $scanner
D=$(< "$VM_DIR/out")
check 'is said' grep -q 'c ended during the scan; it is not in these figures' "$VM_DIR/err"
check 'and in the document' document '.vms[2].error != null and .vms[2].pages == 0 and ([.matrix[][2]] | add) == 0'
sums='[.pages, .zero, .unique, .duplicate_intra, .duplicate_inter, .saved_pages, .matrix[0][1]]'
check 'the others are as they were without it' [ "$(value "$sums" | jq -c .)" = "$(jq -c "$sums" <<< "$two")" ]
check 'they are still exact' document .exact
check 'of all that run it is gone' scanned
check 'without a word' document '(.vms | length) == 2 and .left_out == []'
check 'by name it does not run' ends_with 6 scanned c
check 'and that is said' grep -q "c does not run" <<< "$E"

# --- they go on as if nothing had been
for g in a b; do vm_virsh resume $g > /dev/null; done
check 'a goes on' vm_wait a
check 'with what it had' grep -q '^ok' <<< "$(vm_cmd a 'sum same')"
sum() { vm_cmd "$1" 'sum same' | grep -o 'sum=[0-9a-f]*'; }
check 'its content is that of b' [ "$(sum a)" = "$(sum b)" ]
check_guests_well a b
finish
