#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Page sharing on real guests and the real KSM: who is merged and who is not, at rest
# afterwards, kept, given up; and the host's knobs as they were, whatever happened.
# Savings are Pss, measured here and not by ballastd.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

# shellcheck source=tests/vm/lib-share.sh
. "$(dirname "$0")/lib-share.sh"

share_begin
ksmd_cpu() { awk '{ print $1 }' "/proc/$(pgrep -x ksmd)/schedstat"; }

N=$((96 << 20)) # of the same bytes in each guest
# without free page reporting: what they free stays with them
for g in a b foreign; do vm_define "$g" --memory 512 --free-page-reporting off; done
vm_start a b foreign
for g in a b foreign; do vm_cmd "$g" 'alloc w 96 seed=7' > /dev/null; done
group_of a group web
group_of b group web
group_of foreign group db
sum_a=$(content a)

# --- off by default; two groups are an error ----------------------------------------------

ballast_start budget=16G act=yes stats_period=1s
sleep 3
check 'off by default: nothing is merged' not_merged a
check 'and no knob is touched' knobs_as_found
check 'share says so' sharing_is .state off
ballast_reload budget=16G act=yes stats_period=1s mode=group
check 'two groups ask: an error' until_true 10 sharing_is '.error != null' true
check "which names both: $(sharing .error)" grep -qE 'web.*db|db.*web' <<< "$(sharing .error)"
sleep 2
check 'nobody is merged' not_merged a
check 'and no knob is touched' knobs_as_found

# --- merged, and at rest -------------------------------------------------------------------

# looks faster than by default, so that the test need not wait for minutes
ballast_reload budget=16G act=yes stats_period=1s mode=group group=web host_knobs=yes scan_cpu=2% wake_at=16M
check 'Group= says which: a and b are merged' until_true 30 saves $((N * 9 / 10)) a b
check 'ksmd rests afterwards' until_true 60 rests
check 'the other group is not merged, though it holds the same' not_merged foreign
check "and says why: $(vm_sharing foreign .why_not)" [ "$(vm_sharing foreign '.why_not != null')" = true ]
check 'its property says so' [ "$(merge_property foreign)" = false ]
check 'its group is told what it saves' until_true 45 sharing_is ".all.saved >= $((N * 8 / 10))" true
cpu=$(ksmd_cpu)
had=$(saved a b)
sleep 5
check 'at rest ksmd takes nothing' [ "$(ksmd_cpu)" = "$cpu" ]
check 'and what is merged is kept' saves $((had - (4 << 20))) a b
check 'content is right' [ "$(content a)" = "$sum_a" ]
hinted() { ctl --json explain "$1" | grep -q 'said which pages'; }
check 'agents are asked where to look first' until_true 60 hinted a
check 'list --sharing shows it' grep -qE '^a +web +group ' <(ctl list --sharing)

# --- kept from khugepaged ---------------------------------------------------------------------

scan=$(cat $THP/scan_sleep_millisecs) pages=$(cat $THP/pages_to_scan)
echo 10 > $THP/scan_sleep_millisecs
echo 100000 > $THP/pages_to_scan
sleep 8
echo "$scan" > $THP/scan_sleep_millisecs
echo "$pages" > $THP/pages_to_scan
check 'khugepaged undoes at most a tenth' saves $((had * 9 / 10)) a b

# --- what is filled anew --------------------------------------------------------------------

# By samples alone this takes many minutes: the guests take nothing more from the host.
ballast_reload budget=16G act=yes stats_period=1s mode=group group=web host_knobs=yes wake_at=16M
for g in a b; do
  vm_cmd "$g" 'alloc y 270' > /dev/null
  vm_cmd "$g" 'free y' > /dev/null
done
sleep 5
had=$(saved a b) took=$(vm_rss a)
for g in a b; do vm_cmd "$g" 'alloc y 96 seed=9' > /dev/null; done
check 'guests say that they use more, and what is equal of it is merged' until_true 90 saves $((had + N * 9 / 10)) a b
check "they had it from the host before: $(vm_rss a) of $took" [ "$(vm_rss a)" -le $((took + (32 << 20))) ]
until_true 60 rests || true
had=$(saved a b)
ballast_reload budget=16G act=yes stats_period=1s mode=group group=web host_knobs=yes scan_cpu=2% wake_at=16M

# --- a late guest ---------------------------------------------------------------------------

vm_define late --memory 512
vm_start late
group_of late group web
vm_cmd late 'alloc w 96 seed=7' > /dev/null
late=$(date +%s%N)
check 'a late guest is merged' until_true 30 saves $((had + N * 9 / 10)) a b late
echo "# after $((($(date +%s%N) - late) / 1000000)) ms"
check 'and ksmd rests again' until_true 60 rests

# --- it breaks apart, and leaves ---------------------------------------------------------------

before=$(saved a b late)
vm_cmd late 'free w' > /dev/null
vm_cmd late 'alloc w 96' > /dev/null
check 'what is written is no longer shared' until_true 10 saves_at_most $((before - N / 2)) a b late
check 'the others are right' [ "$(content b)" = "$(content a)" ]
group_of b off web
check 'a VM that leaves the group is un-merged' until_true 30 not_merged b
check 'with its content' [ "$(content b)" = "$sum_a" ]
group_of b group web
check 'and may come back' until_true 60 saves $((N * 9 / 10)) a b
check 'then ksmd rests' until_true 60 rests

# --- somebody else ----------------------------------------------------------------------------

echo 123 > $KSM/pages_to_scan
check "another hand is seen, and KSM left to it" until_true 10 sharing_is .state yielded
check "it is said: $(sharing .sentence)" grep -q pages_to_scan <<< "$(sharing .sentence)"
check 'its value stays' [ "$(cat $KSM/pages_to_scan)" = 123 ]
others() { [ "$(knobs | grep -v "ksm/pages_to_scan")" = "$(grep -v "ksm/pages_to_scan" <<< "$FOUND")" ]; }
check 'all others are as they were found' others
sed -n "s|^$KSM/pages_to_scan ||p" <<< "$FOUND" > $KSM/pages_to_scan
check 'share resume' ctl share resume > /dev/null
check 'takes it up again' until_true 10 rests

# --- kill -9, and its end ------------------------------------------------------------------------

vm_define late2 --memory 512
vm_start late2
group_of late2 group web
vm_cmd late2 'alloc w 96 seed=7' > /dev/null
check 'another late guest is merged' until_true 60 saves $((2 * N * 9 / 10)) a b late2
ballast_kill || true
check_not 'killed: the knobs stay as they are' knobs_as_found
"$BALLASTD" --restore-host --config "$VM_DIR/ballast/ballast.conf" --state-dir "$VM_DIR/ballast/state" > "$VM_DIR/restore" 2>&1 || true
check "--restore-host puts them back: $(tr '\n' ' ' < "$VM_DIR/restore")" knobs_as_found
ballast_launch
check 'a daemon that comes back goes on' until_true 60 saves $((2 * N * 9 / 10)) a b late2
until_true 60 rests || true
ballast_kill || true
ballast_conf budget=16G act=yes stats_period=1s
ballast_launch
check 'one that is told mode=off puts the knobs back' until_true 10 knobs_as_found
ballast_reload budget=16G act=yes stats_period=1s mode=group group=web
until_true 60 rests || true
ballast_stop
check 'an orderly stop puts them back' knobs_as_found
check 'and what is merged stays merged' saves $((2 * N * 8 / 10)) a b late2
ballast_conf budget=16G act=yes stats_period=1s
ballast_launch
until_true 20 ballast_knows a b foreign late2
ctl rollback > /dev/null
check 'rollback' until_true 60 rollback_over
check "puts the other VM's property back" until_true 10 test "$(merge_property foreign)" = true
check_guests_well a b late late2 foreign

# --- mode zero -----------------------------------------------------------------------------------

SWAPFILE=$(mktemp "${TMPDIR:-/var/tmp}/ballast-swap.XXXXXX")
dd if=/dev/zero of="$SWAPFILE" bs=1M count=256 status=none
chmod 0600 "$SWAPFILE"
mkswap "$SWAPFILE" > /dev/null
if swapon "$SWAPFILE" 2> "$VM_DIR/swapon"; then
  ctl act on > /dev/null
  vm_cmd a 'alloc z 128 fill=zero' > /dev/null
  full=$(vm_rss a)
  ballast_reload budget=16G act=yes stats_period=1s mode=zero
  zeros_gone() { [ "$(vm_rss a)" -le $((full - (100 << 20))) ]; }
  check 'mode zero: zero pages leave the host' until_true 60 zeros_gone
  check 'and no knob of KSM is touched' knobs_as_found
  check 'the guest reads zeros' grep -q ok <(vm_cmd a 'sum z' 120)
  check 'and the rest is right' [ "$(content a)" = "$sum_a" ]
else
  echo "ok - mode zero # SKIP no swap file here: $(cat "$VM_DIR/swapon")"
fi
finish
