#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A fresh installation only observes; it acts when told, and only on what it was given.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

begin
for g in g1 g2 g3; do vm_define "$g" --memory 384 --free-page-reporting off; done
vm_define mine --memory 384 --free-page-reporting off \
  --metadata "<ballast:memory xmlns:ballast='urn:org.ballast1:vm:1' manage='no'/>"
vm_define plain --memory 256 --no-balloon
before=$(vm_virsh dumpxml g1 --inactive | sha256sum)
vm_start g1 g2 g3 mine plain
touched_and_freed 200 g1 g2 mine
ballast_mark
# 40 MiB less than what is used already: the host is short from the start
ballast_start budget=$(($(used_memory g1 g2 g3 mine plain) - $(mib 40))) stats_period=1s
check 'it sees guests, balloons and statistics' until_true 20 ballast_knows g1 g2 g3

check 'a fresh installation does not act' [ "$(ballast_status .acting)" = false ]
wants() { [ "$(ctl --json plan | jq '[.decisions[] | select(.act)] | length')" -gt 0 ]; }
check 'but has a plan' until_true 10 wants
check 'and says why' [ "$(ctl --json plan | jq -r '[.decisions[] | select(.act) | .sentence | length > 20] | all')" = true ]
would() { ctl explain | grep -q 'would act'; }
check 'and what it would do is in explain' until_true 10 would
sleep 3
check 'and sets no balloon' no_commands g1 g2 g3 mine
check 'statistics are on without any XML edited' [ "$(vm_virsh dumpxml g1 --inactive | sha256sum)" = "$before" ]
check 'the period is set live' grep -q "<stats period='1'" <(vm_virsh dumpxml g1)
check 'an unmanaged VM keeps its period' [ "$(vm_virsh dumpxml mine | grep -c '<stats period')" = 0 ]
check 'a VM without balloon is said not to be reclaimable' \
  [ "$(ballast_vm plain .reclaimable)" = false ]
check 'with the reason' [ "$(ballast_vm plain '.why_not | length > 5')" = true ]
check 'all guests run confined' vm_assert_confined g1
check 'resident memory is what /proc says' [ "$(ballast_vm g1 .resident)" -gt "$(mib 100)" ]
check 'the agent reports' source_is g1 agent

check 'act on is taken' ctl act on
check 'and acts' until_true 10 some_command g1 g2
sleep 3
check 'but never on what it was not given' no_commands mine plain
check 'act off is taken' ctl act off
sleep 1
ballast_mark
sleep 2
check 'and nothing is set any more' no_commands g1 g2 g3 mine

check 'rollback is taken' ctl rollback
check 'rollback ends' until_true 30 rollback_over
for g in g1 g2 g3; do check "$g has its memory back" until_true 10 actual_at_least "$g" "$(mib 384)"; done
period_gone() { ! grep -q '<stats period' <(vm_virsh dumpxml g1); }
check 'and its statistics period is as it was' until_true 5 period_gone
check_guests_well g1 g2 g3 mine plain
check 'ballastd ends cleanly on SIGTERM' ballast_stop
finish
