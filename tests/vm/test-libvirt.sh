#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# libvirtd killed, frozen and back; a QEMU that hangs: the guests live on, the
# daemon goes on and nobody waits for the one that hangs.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

begin
for g in g1 g2 g3; do vm_define "$g" --memory 384 --free-page-reporting off; done
vm_start g1 g2 g3
touched_and_freed 200 g1 g2 g3
ballast_start budget=4G stats_period=1s act=yes
check 'it sees the guests' until_true 20 ballast_knows g1 g2 g3

connected() { [ "$(ballast_status .libvirt.connected)" = true ]; }
disconnected() { [ "$(ballast_status .libvirt.connected)" = false ]; }
pressure() { # by a smaller budget, re-read while it runs
  ballast_reload budget="$1" stats_period=1s act=yes
}
shrunk() { local g; for g in "$@"; do actual_at_most "$g" "$(mib 350)" || return 1; done; }

# --- a QEMU that is stopped
kill -STOP "$(vm_pid g2)"
check 'a stopped QEMU is seen' until_true 20 is g2 .hung true
check 'and the loop answers' answers_within 1
ballast_mark
pressure 400M
moved_others() { some_command g1 && some_command g3; }
check 'the others are served' until_true 10 moved_others
check 'the loop still answers' answers_within 1
kill -CONT "$(vm_pid g2)"
check 'when it goes on it is seen' until_true 20 is g2 .hung false
check 'and it gives, too' until_true 20 shrunk g1 g2 g3

# --- libvirtd killed
pressure 4G
vm_env_kill_libvirtd
check 'a killed libvirtd is seen' until_true 15 disconnected
check 'the loop answers' answers_within 1
check 'the guests live on' [ "$(vm_cmd g1 ping | cut -d' ' -f1)" = ok ]
vm_env_restart_libvirtd
check 'ballastd connects again' until_true 15 connected
check 'and knows all guests' until_true 20 ballast_knows g1 g2 g3
grown() { actual_at_least g1 "$(mib 380)" && actual_at_least g3 "$(mib 380)"; }
check 'and moves memory again' until_true 40 grown
check 'nothing was taken for a hand' none_held

# --- libvirtd killed in the middle of an action
touched_and_freed 200 g1 g2 g3
ballast_mark
pressure 400M
until_true 10 some_command g1 || true
vm_env_kill_libvirtd
sleep 1
vm_env_restart_libvirtd
check 'connects after a kill in the middle' until_true 15 connected
check 'and finishes what it began' until_true 40 shrunk g1 g2 g3

# --- libvirtd frozen: keepalive finds out
daemon_pid=$(cat "$VM_DIR/libvirtd.pid")
kill -STOP "$daemon_pid"
check 'the loop answers while libvirtd is frozen' answers_within 1
check 'a frozen libvirtd is seen' until_true 30 disconnected
kill -CONT "$daemon_pid"
check 'and is back' until_true 20 connected
check_guests_well g1 g2 g3
check 'ballastd ends cleanly' ballast_stop
finish
