#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A VM killed, paused, saved, migrated away or undefined in the middle of an
# action: ballastd goes on and says what it saw.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

begin
here=$VM_DIR
there=$(mktemp -d /tmp/btest.XXXXXX)
vm_env_start "$there"
vm_env_use "$here"
for g in stay dies pause save move gone; do vm_define "$g" --memory 320 --free-page-reporting off; done
vm_start stay dies pause
vm_start save move gone
touched_and_freed 150 stay dies pause
touched_and_freed 150 save move gone
ballast_start budget=4G stats_period=1s act=yes
check 'it sees the guests' until_true 25 ballast_knows stay dies pause save move gone

unknown() { ! ctl --json list | jq -e --arg n "$1" '.vms[] | select(.name == $n)' > /dev/null; }

ballast_mark
ballast_reload budget=700M stats_period=1s act=yes
until_true 10 some_command dies || check 'an action began' false

# all at once, while balloons move
vm_destroy dies
vm_virsh suspend pause > /dev/null
check 'a VM killed in an action is gone' until_true 10 unknown dies
check 'a paused VM is shown as paused' until_true 10 is pause .run paused
vm_virsh save save "$VM_DIR/img/save.state" > /dev/null
check 'a saved VM is gone' until_true 10 unknown save
vm_virsh undefine gone > /dev/null
vm_destroy gone
check 'an undefined VM is gone' until_true 10 unknown gone
check 'ballastd answers' answers_within 2

# --- paused: not stuck
sleep 5
check 'a paused VM is not called stuck' [ "$(ballast_vm pause .stuck)" = false ]
ballast_mark
sleep 2
check 'and is left alone' no_commands pause
vm_virsh resume pause > /dev/null
check 'resumed' until_true 10 is pause .run running

# --- restored: its balloon comes back with it, and is ours
vm_virsh restore "$VM_DIR/img/save.state" > /dev/null
check 'a restored VM is seen' until_true 20 ballast_knows save
sleep 3
check 'its balloon is not taken for a hand' held_as save none
saved_original=$(ballast_vm save .original)

# --- migrated away, while its balloon moves
vm_migrate move "$there"
vm_env_use "$here"
check 'a VM migrated away is gone' until_true 20 unknown move
vm_env_use "$there"
check 'and lives there' [ "$(vm_cmd move ping | cut -d' ' -f1)" = ok ]
vm_env_use "$here"

# --- everything back
ctl rollback > /dev/null
check 'rollback ends' until_true 40 rollback_over
for g in stay pause; do check "$g is restored" until_true 10 actual_at_least "$g" "$(mib 320)"; done
if [ "$saved_original" != null ]; then
  check 'the restored VM, too' until_true 10 actual_at_least save "$(mib 320)"
fi
check_guests_well stay pause save
check 'ballastd ends cleanly' ballast_stop
finish
