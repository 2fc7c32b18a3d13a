#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# Memory moves to the guest that needs it and back; content stays right; limits,
# reservations and a guest that does not follow are respected.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

begin
for g in g1 g2; do vm_define "$g" --memory 512 --free-page-reporting off; done
vm_define need --memory 512
# its balloon driver is never loaded: it cannot follow
vm_define deaf --memory 384 --free-page-reporting off --cmdline module_blacklist=virtio_balloon
vm_start g1 g2 need deaf
touched_and_freed 300 g1 g2 deaf
vm_cmd g1 'alloc keep 60' > /dev/null
used=$(used_memory g1 g2 need deaf)
# a small minFree, so that the host is high again when the need is over, though one
# guest cannot give and one is reserved
ballast_start budget=$((used + $(mib 150))) min_free=40M stats_period=1s act=yes
check 'it sees the guests' until_true 20 ballast_knows g1 g2 need
check 'a reservation is taken live' ctl set g2 --reservation 400M --live
check 'and in force at once' until_true 5 is g2 .reservation "$(mib 400)"
sleep 2
ballast_mark

sum=$(vm_cmd g1 'sum keep')
vm_cmd need 'alloc n 380' > /dev/null
check 'memory is taken for the one in need' until_true 5 some_command g1
smaller() { actual_at_most g1 "$(mib 460)"; }
check 'the balloon of g1 grows' until_true 10 smaller
sleep 3
check 'g2 keeps its reservation' actual_at_least g2 "$(mib 400)"
check 'what the guest holds is right' [ "$(vm_cmd need 'sum n' | cut -d' ' -f1)" = ok ]
check 'what the giver holds is right' [ "$(vm_cmd g1 'sum keep' | cut -d' ' -f1-2)" = "$(cut -d' ' -f1-2 <<< "$sum")" ]
check 'each command has a reason id and a sentence' \
  [ "$(ctl --json explain g1 | jq '[.events[] | select(.outcome == "done") | (.reason | test("^[a-z]+\\.[a-z-]+$")) and (.sentence | length > 20)] | length > 0 and all')" = true ]
check 'one that does not follow is not taken for one that does' actual_at_least deaf "$(mib 384)"

vm_cmd need 'free n' > /dev/null
# need too: what it had freed was taken for g1, and it waits its turn
back() { actual_at_least g1 "$(mib 500)" && actual_at_least need "$(mib 500)"; }
check 'memory goes back when it is free again' until_true 60 back
check 'and comes to rest' until_rest 60 g1 g2 need deaf
ballast_mark
sleep 10
check 'and stays there' no_commands g1 g2 need deaf

check 'a limit is taken, live and persistent' ctl set g1 --limit 300M
limited() { actual_at_most g1 "$(mib 301)"; }
check 'and is followed' until_true 10 limited
check 'the persistent XML has it' grep -q 'limit=' <(vm_virsh dumpxml g1 --inactive)
check_not 'a limit below the reservation is not taken' ctl set g2 --limit 100M
check_guests_well g1 g2 need deaf
check 'ballastd ends cleanly' ballast_stop
finish
