#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# What an administrator set by hand is seen, held and left alone; a reboot,
# deflate-on-oom and our own results are not taken for a hand.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

begin
for g in g1 g2; do vm_define "$g" --memory 512 --free-page-reporting off; done
vm_start g1 g2
touched_and_freed 300 g1 g2
ballast_start budget=$(($(used_memory g1 g2) - $(mib 100))) stats_period=1s act=yes
# whichever it knows first
taken() { actual_at_most g1 "$(mib 500)" || actual_at_most g2 "$(mib 500)"; }
check 'it takes memory' until_true 20 taken
check 'it comes to rest' until_rest 40 g1 g2
check 'its own result is no hand' held_as g1 none
check 'nor on the other' held_as g2 none

vm_virsh setmem g1 $((448 * 1024)) --live
check 'virsh setmem is seen' until_true 10 held_as g1 hand
check 'and said' log_says 'g1 is held'
ballast_mark
sleep 4
check 'a held VM is left alone' no_commands g1
check 'release is taken' ctl release g1
check 'and shown' held_as g1 none

check 'by hand through ballastctl' ctl balloon g2 --leave 400M
at_400() { [ "$(vm_balloon_actual g2)" -le "$(mib 401)" ] && [ "$(vm_balloon_actual g2)" -ge "$(mib 398)" ]; }
check 'is done' until_true 10 at_400
check 'and held' held_as g2 manual
check 'release' ctl release g2

# deflate-on-oom: the guest takes pages back by itself
ctl act off > /dev/null
vm_cmd g2 'alloc hog 380' > /dev/null 2>&1 || true
oom_seen() { [ "$(ballast_vm g2 .oom_deflates)" -ge 1 ]; }
if [ "$(vm_autodeflate_count g2)" -gt 0 ]; then
  check 'deflate-on-oom is seen as such' until_true 10 oom_seen
fi
check 'and is no hand' held_as g2 none
vm_cmd g2 'free hog' > /dev/null 2>&1 || true

vm_virsh reset g1
vm_wait g1
sleep 4
check 'a reboot is no hand' held_as g1 none
check 'and is said' log_says 'g1 rebooted'

# across a restart of the daemon: a hand that moved while it was away
ballast_stop || check 'clean end' false
vm_virsh setmem g2 $((352 * 1024)) --live
sleep 2
ballast_launch
check 'a hand that moved while ballastd was away is seen' until_true 15 held_as g2 hand
check_guests_well g1
ballast_stop
finish
