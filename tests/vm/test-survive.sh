#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# kill -9 at every step of an action: a restarted ballastd goes on, says what it
# saw, takes its own work for its own, and rollback still restores everything.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

FAULTY=$(cd "$BUILD/../build-faults" && pwd)/ballastd
mapfile -t points < <(sed -nE 's/^BL_FAULT_POINT\([A-Z_]+, "([a-z-]+)"\).*/\1/p' "$CHECK_HERE/../../daemon/fault-points.h")
check 'there are fault points' [ ${#points[@]} -ge 10 ]

begin
for g in g1 g2; do vm_define "$g" --memory 320 --free-page-reporting off; done
vm_start g1 g2
full=$(mib 320)
# so small a budget that the guests are always asked for what they can spare
ballast_conf budget=300M stats_period=1s act=yes

dead() { ! kill -0 "$BALLAST_PID" 2>/dev/null; }
squeezed() { actual_at_most g1 $((full - $(mib 30))) && actual_at_most g2 $((full - $(mib 30))); }
unsqueezed() { actual_at_least g1 "$full" && actual_at_least g2 "$full"; }

one() { # RULE: with what it dies; ROLLBACK: whether it dies while it rolls back
  local rule=$1 rollback=$2 died=0
  # memory to take: resident, and not needed
  touched_and_freed 160 g1 g2
  export BALLAST_FAULT=kill@$rule
  BALLASTD=$FAULTY
  if ballast_launch 2>/dev/null; then
    ctl act on > /dev/null 2>&1 || true
    if [ "$rollback" = yes ]; then
      until_true 20 squeezed || true
      ctl rollback > /dev/null 2>&1 || true
    fi
    until_true 15 dead && died=1
  else
    dead && died=1
  fi
  unset BALLAST_FAULT
  check "$rule: it was killed there" [ "$died" = 1 ]
  ballast_kill || true
  BALLASTD=$BUILD/ballastd
  # what was given back before it died is untouched memory, and not worth taking
  for g in g1 g2; do
    if [ "$rollback" = yes ] && actual_at_least "$g" "$full"; then touched_and_freed 160 "$g"; fi
  done
  ballast_launch
  ctl act on > /dev/null
  check "$rule: a restarted one goes on" until_true 30 squeezed
  sleep 1.5
  check "$rule: and takes nothing of its own for a hand" none_held
  ctl rollback > /dev/null
  check "$rule: rollback ends" until_true 30 rollback_over
  check "$rule: and restores the guests" until_true 10 unsqueezed
  ballast_stop || check "$rule: clean end" false
}

for p in "${points[@]}"; do
  case $p in
    ledger-*) for n in 1 3 5; do one "$p:$n" no; done ;;
    undo-*) one "$p" yes ;;
    store-*) ;; # another program's: tests/unit/test-store-model.c
    knob-*) ;; # KSM's: tests/unit/test-ksm.c
    *) one "$p" no ;;
  esac
done
check 'a command in flight was told of' grep -q 'recover.in-flight\|an earlier ballastd ended while' "$VM_DIR/ballast/log"
check_guests_well g1 g2

# SIGTERM leaves the guests as they are
touched_and_freed 160 g1 g2
ballast_launch
ctl act on > /dev/null
check 'squeezed once more' until_true 30 squeezed
ballast_stop || check 'clean end' false
# a guest that was asked goes on by itself, and gets there
check 'what was asked of the guests is done' until_true 20 settled g1 g2
before=$(vm_balloon_actual g1)
sleep 2
check 'SIGTERM leaves the guests as they are' squeezed
check 'and nobody moves them afterwards' [ "$(vm_balloon_actual g1)" = "$before" ]

# a damaged ledger is kept, said, and not acted upon
echo '{' > "$VM_DIR/ballast/state/ledger.json"
ballast_launch
check 'a damaged ledger stops automatic action' [ "$(ballast_status .acting)" = false ]
check 'it is kept' ls "$VM_DIR/ballast/state/ledger.json.bad-1" > /dev/null
check 'and said' [ "$(ballast_status '.warnings | map(select(test("ledger"))) | length')" -ge 1 ]
check_not 'a second ballastd on the same state is refused' \
  "$BUILD/ballastd" --config "$VM_DIR/ballast/ballast.conf" --state-dir "$VM_DIR/ballast/state" \
  --runtime-dir "$VM_DIR/ballast/run2" --no-system-bus
ballast_stop
finish
