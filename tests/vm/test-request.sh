#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A squeezed guest that suddenly needs memory asks and gets it before its OOM
# killer is near, with autodeflate off and no swap; a guest that lies does not
# take from the others.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"
begin

for g in needy idle1 idle2; do
  vm_define "$g" --memory 512 --vsock --autodeflate off --free-page-reporting off
done
vm_start needy idle1 idle2
# memory that nobody needs and the host still carries
touched_and_freed 340 needy idle1 idle2
used=$(used_memory needy idle1 idle2)
# room for one to grow, not for all: the squeeze comes from this budget
budget=$((used - (300 << 20)))
ballast_start budget=$budget act=yes stats_period=1s

on_agent() { source_is "$1" agent; }
for g in needy idle1 idle2; do check "$g: its agent is heard" until_true 30 on_agent "$g"; done
squeezed() { actual_at_most needy $((400 << 20)); }
check 'needy is squeezed' until_true 30 squeezed
until_rest 30 needy idle1 idle2 || true

requests() { ballast_vm needy .agent.requests; }
check 'at rest it does not ask' [ "$(requests)" -le 2 ]
for round in 1 2 3; do
  before=$(requests)
  ballast_mark
  room=$((400 - round * 10))
  reply=$(vm_cmd needy "alloc need $room" 60 || true)
  check "round $round: it gets $room MiB at full speed ($reply)" [ "${reply%% *}" = ok ]
  check "round $round: it asked" [ "$(requests)" -gt "$before" ]
  check "round $round: its memory is right" vm_cmd needy 'sum need' > /dev/null
  vm_cmd needy 'free need' > /dev/null
  until_rest 20 needy || true
done
check 'explain names the request' grep -q 'grant.request' <(ctl explain needy)
check_guests_well needy idle1 idle2
check 'clean end' ballast_stop
finish
