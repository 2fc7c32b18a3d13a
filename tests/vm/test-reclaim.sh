#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What cannot or must not give memory is said, with the reason, and never commanded,
# however short the host is; private memory of a memfd gives like any other.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

# Huge pages for one guest. Pages in use outlive the setting, so that it is put back
# as soon as that guest has them, and nothing is left behind by a test that is killed.
knob=/proc/sys/vm/nr_hugepages
huge_before=$(< "$knob")
huge_back() { echo "$huge_before" > "$knob"; }
export VM_ON_EXIT='ballast_stop || true; huge_back'
vm_env_trap
vm_env_start "$(mktemp -d /tmp/btest.XXXXXX)" --hugepages
echo $((huge_before + 130)) > "$knob"
if [ "$(< "$knob")" -lt $((huge_before + 130)) ]; then
  echo '# skip: the host has not as many huge pages'
  exit 0
fi

vm_define plain --memory 256 --free-page-reporting off --no-balloon
vm_define huge --memory 256 --free-page-reporting off --hugepages
vm_define dumb --memory 256 --free-page-reporting off --no-agent --cmdline module_blacklist=virtio_balloon
vm_define memfd --memory 320 --free-page-reporting off --memfd
vm_define other --memory 256 --free-page-reporting off
vm_start plain huge dumb memfd other
huge_back
vm_cmd memfd 'alloc keep 40' > /dev/null
content() { vm_cmd memfd 'sum keep' | cut -d' ' -f1-4; } # what follows is the time it took
content=$(content)
touched_and_freed 120 plain huge dumb memfd other
ballast_mark
# so small a budget that the guests are always asked for what they can spare
ballast_start budget=300M stats_period=1s act=no
check 'it sees those that it can see' until_true 20 ballast_knows huge memfd other

reason_is() { [[ "$(ballast_vm "$1" .decision.reason)" =~ ^($2)$ ]]; }
explained() { [ "$(ballast_vm "$1" '.decision.sentence | length > 20')" = true ]; }
check 'no balloon: not reclaimable' is plain .reclaimable false
check 'no balloon: why' is plain .why_not no-balloon
check 'huge pages: not reclaimable' is huge .reclaimable false
check 'huge pages: why' is huge .why_not hugepages
check 'both are said once' \
  [ "$(grep -cE '(plain|huge) cannot give memory back: .*(no virtio balloon device|huge pages)' "$VM_DIR/ballast/log")" = 2 ]
check 'a balloon without a driver has no statistics' is dumb .stats.source none
check 'private memfd: reclaimable' is memfd .reclaimable true
check 'what a memfd holds is seen' [ "$(ballast_vm memfd .resident)" -gt "$(mib 160)" ]

vm_cmd other 'agent freeze' > /dev/null
vm_virsh suspend other > /dev/null
check 'paused is seen' until_true 5 is other .run paused
high=$(vm_rss memfd)
ctl act on > /dev/null
check 'the memfd guest gives memory' until_true 20 actual_at_most memfd "$(mib 200)"
fallen() { [ "$(vm_rss memfd)" -le $((high - $(mib 80))) ]; }
check 'which the host has back' until_true 5 fallen
for g in plain huge; do
  check "$g: the decision is said" reason_is "$g" skip.not-reclaimable
  check "$g: in a sentence" explained "$g"
done
check 'dumb: the decision is said' reason_is dumb 'skip.stats-missing|skip.booting'
check 'paused: the decision is said' reason_is other skip.paused
check_not 'none by hand, where there is none' ctl balloon plain --leave 200M
check 'none of them was commanded' no_commands plain huge dumb other

# A process that is stopped
ctl act off > /dev/null
vm_virsh resume other > /dev/null
check 'running again' until_true 5 is other .run running
pid=$(vm_pid other)
kill -STOP "$pid"
check 'a stopped process is seen' until_true 10 is other .hung true
ctl act on > /dev/null
check 'stopped: the decision is said' until_true 3 reason_is other skip.hung
sleep 2
ctl act off > /dev/null
kill -CONT "$pid"
check 'goes on' until_true 5 is other .hung false
check 'stopped: it was not commanded' no_commands other

# Old figures: no agent, and nobody asks for the balloon's
sleep 1 # it is looked at anew, and its period set
vm_virsh dommemstat other --period 0 --live
check 'stale: the decision is said' until_true 8 reason_is other skip.stats-stale
ballast_mark
ctl act on > /dev/null
sleep 3
check 'stale: still so' reason_is other skip.stats-stale
check 'stale: in a sentence' explained other
check 'stale: it is not commanded' no_commands other
vm_cmd other 'agent thaw' > /dev/null
check 'with figures it gives memory' until_true 15 actual_at_most other "$(mib 226)"

check 'the content of the memfd guest is right' [ "$(content)" = "$content" ]
check 'still none was commanded that must not be' no_commands plain huge dumb
check_guests_well plain huge dumb memfd other
check 'clean end' ballast_stop
finish
