#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A squeezed guest that suddenly needs memory asks and gets it before its OOM
# killer is near, with autodeflate off and no swap. Two guests take turns: what one
# has just freed is idle and resident on the host, and has to come from there to
# the other. bench-channel times it.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"
begin

guests=(left right)
for g in "${guests[@]}"; do
  vm_define "$g" --memory 640 --vsock --autodeflate off --free-page-reporting off
done
vm_start "${guests[@]}"
touched_and_freed 440 "${guests[@]}"
ballast_start budget=8G act=yes stats_period=1s

on_vsock() { channel_is "$1" "$(vm_vsock_transport)"; }
for g in "${guests[@]}"; do check "$g: its agent is heard over vsock" until_true 30 on_vsock "$g"; done
requests() { ballast_vm "$1" '.agent.requests // 0'; }

# the host carries one of them near its floor and the other one full, and a reserve
floor_known() { [ "$(ballast_vm left .floor)" -gt 0 ]; }
until_true 10 floor_known
small=$(($(ballast_vm left .floor) + (40 << 20)))
ctl balloon left --leave $small > /dev/null
check 'left is squeezed' until_true 20 actual_at_most left $((small + (4 << 20)))
sleep 3
ballast_reload budget=$(($(ballast_status .budget.used) + (272 << 20))) min_free=256M act=yes stats_period=1s
sleep 0.5
ctl release left > /dev/null

check 'at rest nobody asks' [ $(($(requests left) + $(requests right))) -le 4 ]
squeezed=0
for round in 1 2 3 4; do
  g=${guests[(round + 1) % 2]}
  sleep 2.5
  until_rest 15 "${guests[@]}" || true
  had=$(vm_balloon_actual "$g")
  before=$(requests "$g")
  reply=$(vm_cmd "$g" 'alloc need 420' 60 || true)
  check "$round: $g has $((had >> 20)) MiB and gets 420 more at full speed ($reply)" [ "${reply%% *}" = ok ]
  if ((had < (480 << 20))); then
    squeezed=$((squeezed + 1))
    check "$round: it asked" [ "$(requests "$g")" -gt "$before" ]
  fi
  check "$round: its memory is right" vm_cmd "$g" 'sum need' > /dev/null
  vm_cmd "$g" 'free need' > /dev/null
done
check "they were squeezed each time or nearly ($squeezed of 4)" [ "$squeezed" -ge 3 ]
ctl explain > "$VM_DIR/explained"
check 'explain names the requests' grep -q 'grant.request' "$VM_DIR/explained"
check_guests_well "${guests[@]}"
check 'clean end' ballast_stop
finish
