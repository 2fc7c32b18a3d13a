# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
#
# channel-cycles.sh: each end of the channel is killed, again and again (part of
# bench-channel.sh).
#
# Two guests with vsock and one with virtio-serial alone. After each kill every
# agent must be heard again within 15 s (else: a hang), by a report that was made
# after it. A QEMU that ends without being told to is a VM lost. What one and the
# same ballastd and supervisor have open is counted before and after the second
# half of it; workers are too many where there are more of them than devices.

# shellcheck disable=SC2154 # raw: bench-channel.sh
: "${DAEMON_KILLS:=40}"
: "${SUPERVISOR_KILLS:=10}"
: "${CUT_KILLS:=5}" # supervisor and worker: the device is dead, the guest must fall back
: "${AGENT_KILLS:=110}"
: "${WORKER_KILLS:=20}"
: "${VM_KILLS:=20}"
CYCLE_GUESTS=(one two plain)
declare -A CYCLE_PID=()
CYCLE_HANGS=0 CYCLE_LOST=0

# A report of this guest has come since then; "new": and over a newer connection
heard_since() { # GUEST US [new]
  ctl --json show "$1" 2> /dev/null | jq -e --argjson d $(($(now_us) - $2)) --arg new "${3:-}" '
    .agent != null and .stats.source == "agent" and .stats.age_us < $d and
    ($new == "" or .agent.connected_us < $d)' > /dev/null
}

all_heard() { # KIND US NEW GUEST...
  local kind=$1 since=$2 new=$3 g
  shift 3
  for g in "$@"; do
    if until_true 15 heard_since "$g" "$since" "$new"; then continue; fi
    say "hang: $g is not heard after $kind"
    CYCLE_HANGS=$((CYCLE_HANGS + 1))
  done
}

note_pids() {
  local g
  for g in "${CYCLE_GUESTS[@]}"; do CYCLE_PID[$g]=$(vm_pid "$g" || true); done
}

# QEMUs that are not those that they were; such a guest is started again
count_lost() { # KIND
  local g pid
  for g in "${CYCLE_GUESTS[@]}"; do
    pid=$(vm_pid "$g" 2> /dev/null || true)
    if [ "$pid" = "${CYCLE_PID[$g]}" ]; then continue; fi
    say "lost: $g after $1"
    CYCLE_LOST=$((CYCLE_LOST + 1))
    cp "$VM_LOG/$g.log" "$raw/lost-$CYCLE_LOST.log" || true
    [ -n "$pid" ] || vm_start "$g" || true
  done
  note_pids
}

kill_daemon() {
  ballast_kill || true
  ballast_launch
}

kill_supervisor() {
  kill -KILL "$VSOCK_PID"
  wait "$VSOCK_PID" || true
  VSOCK_PID=
  vsock_start
}

kill_worker() { # NUMBER: they take turns
  local pids
  mapfile -t pids < <(vsock_workers)
  if ((${#pids[@]})); then kill -KILL "${pids[$1 % ${#pids[@]}]}" || true; fi
}

# With its supervisor gone nobody takes a worker's place
kill_both() { # NUMBER
  kill_supervisor
  kill_worker "$1"
}

agent_restarts() { vm_cmd "$1" 'agent start' > /dev/null 2>&1; }
kill_agent() { # GUEST
  vm_cmd "$1" 'agent kill' > /dev/null
  until_true 5 agent_restarts "$1" || say "no agent in $1"
}

kill_vm() { # GUEST
  vm_destroy "$1"
  vm_start "$1"
}

# cycles COUNT KIND: turn N has number N
cycles() {
  local i kind=$2 since g
  say "$1 x $kind"
  for ((i = 0; i < $1; i++)); do
    g=${CYCLE_GUESTS[i % ${#CYCLE_GUESTS[@]}]}
    since=$(now_us)
    case $kind in
      daemon)
        kill_daemon || true
        all_heard daemon "$since" new "${CYCLE_GUESTS[@]}"
        ;;
      supervisor)
        kill_supervisor
        all_heard supervisor "$since" '' "${CYCLE_GUESTS[@]}"
        ;;
      cut)
        kill_both $i
        all_heard 'supervisor and worker' "$since" '' "${CYCLE_GUESTS[@]}"
        ;;
      agent)
        kill_agent "$g"
        # the old one is dead; QEMU's end of virtio-serial stays connected
        all_heard agent "$(now_us)" '' "$g"
        ;;
      worker)
        kill_worker $i
        all_heard worker "$since" '' "${CYCLE_GUESTS[@]}"
        ;;
      vm)
        kill_vm "$g" || true
        all_heard vm "$(now_us)" '' "$g"
        note_pids
        ;;
    esac
    count_lost "$kind"
  done
}

descriptors() { # PID
  local n=("/proc/$1/fd/"*)
  echo ${#n[@]}
}

count_open() {
  jq -cn --argjson d "$(fewest "$BALLAST_PID")" --argjson s "$(fewest "$VSOCK_PID")" '{ballastd_fds: $d, supervisor_fds: $s}'
}

# Of a few looks: calls that are under way have descriptors too
fewest() { # PID
  local i n least=-1
  for ((i = 0; i < 6; i++)); do
    n=$(descriptors "$1")
    if ((least < 0 || n < least)); then least=$n; fi
    sleep 0.5
  done
  echo "$least"
}

back_to_vsock() {
  local g
  for g in one two; do
    until_true 60 channel_is "$g" "$(vm_vsock_transport)" || say "the agent of $g does not come by vsock"
  done
}

no_workers() { [ -z "$(vsock_workers)" ]; }

part_cycles() {
  local g before after workers devices=0
  env_begin
  vm_define one --memory 192 --vsock
  vm_define two --memory 192 --vsock
  vm_define plain --memory 192
  if [ "$(vm_vsock_transport)" = vhost-user-vsock ]; then devices=2; fi
  vm_start "${CYCLE_GUESTS[@]}"
  note_pids
  ballast_start budget=8G stats_period=1s act=no
  back_to_vsock
  all_heard 'the start' "$(now_us)" '' "${CYCLE_GUESTS[@]}"

  cycles "$DAEMON_KILLS" daemon
  cycles "$SUPERVISOR_KILLS" supervisor
  cycles "$CUT_KILLS" cut
  # so that all workers are children of the supervisor that lives from here on
  for g in one two; do kill_vm "$g"; done
  note_pids
  back_to_vsock
  before=$(count_open)
  cycles "$AGENT_KILLS" agent
  cycles "$WORKER_KILLS" worker
  cycles "$VM_KILLS" vm
  back_to_vsock
  after=$(count_open)
  workers=$(vsock_workers | wc -l)
  for g in "${CYCLE_GUESTS[@]}"; do vm_destroy "$g"; done
  until_true 10 no_workers || true
  cp "$VM_DIR/ballast/log" "$raw/cycles.log"
  cp "$VM_DIR/ballast/vsock.log" "$raw/cycles-vsock.log" 2> /dev/null || true
  jq -n --argjson before "$before" --argjson after "$after" --argjson workers $((workers - devices)) \
    --argjson left "$(vsock_workers | wc -l)" --argjson hangs $CYCLE_HANGS --argjson lost $CYCLE_LOST \
    --argjson daemon "$DAEMON_KILLS" --argjson backend $((SUPERVISOR_KILLS + CUT_KILLS + WORKER_KILLS)) \
    --argjson agent "$AGENT_KILLS" --argjson vm "$VM_KILLS" '
    {kills: {agent: $agent, daemon: $daemon, vm: $vm, backend: $backend}, before: $before, after: $after,
     workers_too_many: $workers, workers_left: $left, hangs: $hangs, vms_lost: $lost,
     leaks: ([($before | keys[] as $k | $after[$k] - $before[$k]), $workers, $left] | map([., 0] | max) | add)}' > "$raw/cycles.json"
  env_end
}
