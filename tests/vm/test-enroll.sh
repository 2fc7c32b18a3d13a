#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A VM defined without anything for Ballast is enrolled: shown first, written only
# when told, in force when it is next started, and nothing else of it is touched.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

enroll() { "$BUILD/ballastctl" enroll --connect "$VM_URI" --no-color "$@"; }
# the two definitions that libvirt has of it, and their sums
persistent() { vm_virsh dumpxml vm --inactive --security-info; }
live() { vm_virsh dumpxml vm; }
sum() { "$1" | sha256sum; }
same() { [ "$(sum "$1")" = "$2" ]; }
has() { "$1" | grep -q "$2"; }

begin
uuid=$(< /proc/sys/kernel/random/uuid)
vm_define vm --memory 256 --current 240 --no-agent --autodeflate off --free-page-reporting off --uuid "$uuid" \
  --metadata "<a:lien xmlns:a='urn:someone.else:1' note='kept &amp; whole'>it's &lt;theirs&gt;</a:lien>" \
  --domain "<description>one's own words</description><on_reboot>restart</on_reboot>"
vm_start vm
ballast_start stats_period=1s act=no
check 'without an agent its balloon tells' until_true 20 source_is vm balloon

before=$(persistent)
p=$(sum persistent) l=$(sum live) pid=$(vm_pid vm)
out=$(enroll vm)
check 'it shows a diff' grep -q '^@@' <<< "$out"
check 'of the balloon' grep -q "^+.*<memballoon.*autodeflate='on'.*freePageReporting='on'" <<< "$out"
check 'of the channel' grep -q '^+.*org.ballast.agent.0' <<< "$out"
check 'of nothing else' [ "$(grep -c '^[-+] ' <<< "$out")" = "$(grep '^[-+] ' <<< "$out" | grep -cE 'memballoon|channel|org.ballast')" ]
check 'and changes nothing' same persistent "$p"
check 'neither live' same live "$l"
check 'by UUID too' [ "$(enroll "$uuid" | grep -c '^+.*org.ballast')" = 1 ]
check 'as JSON: changed, not written' [ "$(enroll --json vm | jq -c '[.changed, .written]')" = '[true,false]' ]

says() { enroll "$@" | grep -q "$WORDS"; }
WORDS='next start' check 'with --write it writes, and says when it counts' says vm --write
check 'the balloon deflates on OOM' has persistent "<memballoon .*autodeflate='on'"
check 'and reports free pages' has persistent "<memballoon .*freePageReporting='on'"
check 'the channel is there' has persistent "<target type='virtio' name='org.ballast.agent.0'/>"
check 'the live guest is not touched' same live "$l"
check 'and runs on' [ "$(vm_pid vm)" = "$pid" ]
check 'the daemon has no other source yet' source_is vm balloon
# What libvirt says of all the rest: the same, but for the channel's controller
rest() {
  sed -E "/<channel type='unix'>/,/<\/channel>/d; /<controller type='virtio-serial'/,/<\/controller>/d
    s/ (autodeflate|freePageReporting)='(on|off)'//g"
}
check 'nothing else of the definition has changed' diff <(rest <<< "$before") <(persistent | rest)
check 'UUID, memory and the metadata of somebody else are among that' \
  [ "$(rest <<< "$before" | grep -cE "$uuid|<memory unit='KiB'>262144<|<currentMemory unit='KiB'>245760<|urn:someone.else:1|one(.|&apos;)s own words")" = 5 ]

out=$(enroll vm --write)
check 'enrolling again says that nothing is to do' grep -q 'Nothing to change' <<< "$out"
p=$(sum persistent)
check 'and does nothing' same persistent "$p"

# a reboot inside the guest is no start
vm_destroy vm
vm_start vm
check 'the next start has the balloon' has live "<memballoon .*autodeflate='on'.*freePageReporting='on'"
cmdline() { tr '\0' '\n' < "/proc/$(vm_pid vm)/cmdline"; }
check 'so has QEMU, the first' has cmdline '"deflate-on-oom":true'
check 'and the second' has cmdline '"free-page-reporting":true'
check 'its agent tells' until_true 15 source_is vm agent
check 'the guest has the memory that it had' actual_at_most vm "$(mib 240)"
# what is freed goes back by itself now
rss() { [ "$(vm_rss vm)" -lt "$1" ]; }
vm_cmd vm 'alloc x 100' > /dev/null
high=$(vm_rss vm)
vm_cmd vm 'free x' > /dev/null
check 'free pages go back to the host' until_true 10 rss $((high - $(mib 70)))

check 'a VM that is not there is an error' [ "$(enroll nobody > /dev/null 2>&1; echo $?)" != 0 ]
WORDS='next start' check '--remove takes the channel out' says vm --remove --write
check 'and only that' has persistent "<memballoon .*autodeflate='on'.*freePageReporting='on'"
check_not 'it is gone' has persistent org.ballast.agent
check_guests_well vm
check 'clean end' ballast_stop
finish
