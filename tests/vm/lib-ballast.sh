# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# lib-ballast.sh: ballastd over the guests of the current environment (lib.sh).
#
#     ballast_start budget=1G act=yes     settings of ballast.conf, see ballast_conf
#     ctl list
#     ballast_stop                        SIGTERM; ballast_kill: SIGKILL
#     vsock_stop                          ballast-vsock, which ballast_start starts
#
#     store_start pool=512M              ballast-store, before ballast_start
#     vm_enroll_swap g1 256MiB [GROUP]    before its start
#     store_stop                          with all that it holds
#
# One daemon, one ballast-vsock and one ballast-store an environment; their files are in
# $VM_DIR/ballast, and all end with it (vm__env_pids).  ballast-vsock outlives
# ballast_stop, as on any host, and its workers outlive it.

: "${BUILD:=$VM_HERE/../../build}"
BALLAST_PID=
VSOCK_PID=
STORE_PID=
: "${BALLASTD:=$BUILD/ballastd}"
: "${BALLAST_VSOCK:=$BUILD/ballast-vsock}"
: "${BALLAST_STORE:=$BUILD/ballast-store}"

ctl() {
  "$BUILD/ballastctl" --socket "$VM_DIR/ballast/run/ballast.sock" "$@"
}

# ballast_conf KEY=VALUE...: writes the configuration; each key goes to its section
ballast_conf() {
  local kv section
  mkdir -p "$VM_DIR/ballast/state" "$VM_DIR/ballast/run"
  {
    for kv in libvirt_run_dir="$VM_RUN" vsock_control="$(vsock_control)" socket="$(store_socket)" \
      control="$(store_control)" "${STORE_CONF[@]}" "$@"; do
      case ${kv%%=*} in
        pool_size | pool_ready | disk | disk_size | default_group | socket | control) section=store ;;
        budget | psi | psi_stall | psi_window | sample_min | sample_max) section=host ;;
        mode | group | scan_cpu | host_knobs | pays_at | wake_at | reserve | ksmd_cpu) section=sharing ;;
        stats_period | manage | reservation | shares_per_mib) section=vm ;;
        libvirt_uri | libvirt_run_dir | vsock_control | act | log_level) section=daemon ;;
        *) section=policy ;;
      esac
      printf '[%s]\n%s\n' "$section" "$kv"
    done
  } > "$VM_DIR/ballast/ballast.conf"
}

# ballast_launch: starts it with the configuration that is there
ballast_launch() {
  local i
  vsock_start
  "$BALLASTD" --config "$VM_DIR/ballast/ballast.conf" --connect "$VM_URI" --state-dir "$VM_DIR/ballast/state" \
    --runtime-dir "$VM_DIR/ballast/run" --no-system-bus >> "$VM_DIR/ballast/log" 2>&1 9>&- &
  BALLAST_PID=$!
  for ((i = 0; i < 100; i++)); do
    if ctl status > /dev/null 2>&1; then return; fi
    if ! kill -0 "$BALLAST_PID" 2>/dev/null; then break; fi
    sleep 0.1
  done
  tail -n 20 "$VM_DIR/ballast/log" >&2
  vm__die "ballastd does not answer"
}

ballast_start() {
  ballast_conf "$@" && ballast_launch
}

# ballast_reload KEY=VALUE...: another configuration, re-read while it runs
ballast_reload() {
  ballast_conf "$@"
  kill -HUP "$BALLAST_PID"
}

ballast_stop() {
  [ -n "$BALLAST_PID" ] || return 0
  kill "$BALLAST_PID" 2>/dev/null || true
  ballast_reap
}

ballast_kill() {
  kill -KILL "$BALLAST_PID" 2>/dev/null || true
  ballast_reap
}

vsock_control() { echo "$VM_DIR/ballast/vsock/control.sock"; }

# vsock_start: unless it runs, or has not been built
vsock_start() {
  [ -x "$BALLAST_VSOCK" ] || return 0
  if [ -n "$VSOCK_PID" ] && kill -0 "$VSOCK_PID" 2>/dev/null; then return; fi
  mkdir -p "$VM_DIR/ballast/vsock" "$VM_DIR/ballast/run"
  "$BALLAST_VSOCK" --control "$(vsock_control)" --host-socket "$VM_DIR/ballast/run/vsock.sock" \
    >> "$VM_DIR/ballast/vsock.log" 2>&1 9>&- &
  VSOCK_PID=$!
}

# vsock_workers: pids, one for each VM that it serves, also of one that is gone
vsock_workers() {
  pgrep -f -- "--control $(vsock_control)" | grep -vx -e "${VSOCK_PID:-none}" || true
}

# vsock_stop: with its workers, so that guests lose their vsock; SIGKILL, as
# nothing of it is to be kept
vsock_stop() {
  local pid
  for pid in $VSOCK_PID $(vsock_workers); do kill -KILL "$pid" 2>/dev/null || true; done
  [ -z "$VSOCK_PID" ] || wait "$VSOCK_PID" 2>/dev/null || true
  VSOCK_PID=
}

# --- ballast-store: the program that holds its sockets, and nbdkit below it ---------

# Settings of [Store], for ballastd too
STORE_CONF=()
store_socket() { echo "$VM_DIR/ballast/store-nbd"; }
store_control() { echo "$VM_DIR/ballast/store-control"; }

# store_start [KEY=VALUE...]: pool_size=, pool_ready=, disk=, disk_size=, default_group=
store_start() {
  local kv i
  STORE_CONF=("$@")
  mkdir -p "$VM_DIR/ballast"
  chmod 0711 "$VM_DIR/ballast"
  {
    echo '[store]'
    for kv in socket="$(store_socket)" control="$(store_control)" "$@"; do echo "$kv"; done
  } > "$VM_DIR/ballast/store.conf"
  # for who ends the environment when this shell is gone: memory and mounts of the
  # pool outlive every process
  printf '%q ' "$BALLAST_STORE" --config "$VM_DIR/ballast/store.conf" --dir "$VM_DIR/ballast/store" --remove \
    > "$VM_DIR/ballast/store.remove"
  "$BALLAST_STORE" --config "$VM_DIR/ballast/store.conf" --dir "$VM_DIR/ballast/store" \
    >> "$VM_DIR/ballast/store.log" 2>&1 9>&- &
  STORE_PID=$!
  for ((i = 0; i < 100; i++)); do
    if store_ask > /dev/null 2>&1; then return; fi
    kill -0 "$STORE_PID" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 "$VM_DIR/ballast/store.log" >&2
  vm__die "ballast-store does not answer"
}

# store_pids: nbdkit's, and the disk worker's
store_pids() { pgrep -f "^nbdkit .* dir=$VM_DIR/ballast/store( |\$)" || true; }
# store_main: the one that serves
store_main() { pgrep -o -f "^nbdkit .* dir=$VM_DIR/ballast/store( |\$)"; }
# store_kill: kill -9 of what serves; whoever holds the sockets starts another
store_kill() { kill -KILL "$(store_main)" 2>/dev/null || true; }

# store_end: the whole of it, SIGKILL; the pool stays
store_end() {
  local pid
  [ -z "$STORE_PID" ] || { kill -KILL "$STORE_PID" 2>/dev/null || true; wait "$STORE_PID" 2>/dev/null || true; }
  STORE_PID=
  for pid in $(store_pids); do kill -KILL "$pid" 2>/dev/null || true; done
}

# store_stop: and the pool goes; waits for the last of its processes
store_stop() {
  [ -e "$VM_DIR/ballast/store.remove" ] || return 0
  store_end
  until_true 10 store_remove
}
store_remove() {
  sh "$VM_DIR/ballast/store.remove" >> "$VM_DIR/ballast/store.log" 2>&1 && rm -f "$VM_DIR/ballast/store.remove"
}

# store_ask [JQ [ARGS...]]: what the store itself says, past ballastd
store_ask() {
  local answer
  answer=$(timeout 15 "$BUILD/tests/bench/bench-store-ask" "$(store_control)") || return
  jq -r "${1:-.}" <<< "$answer"
}

# store_vm NAME JQ: one VM's part of that; "null" when it is not there
store_vm() {
  store_ask "[.vms[] | select(.uuid == \"$(vm_virsh domuuid "$1")\")] | first | $2"
}

# vm_enroll_swap NAME SIZE [enroll's options]: it gets swap on the store from its next
# start on
vm_enroll_swap() {
  local name=$1 size=$2
  shift 2
  # it would ask the host's own store for room, too, and says that there is none
  ctl enroll "$name" --connect "$VM_URI" --write --swap="$size" "$@" > /dev/null 2> "$VM_DIR/ballast/enroll.log" ||
    { cat "$VM_DIR/ballast/enroll.log" >&2 && return 1; }
}

# swap_stage NAME, swap_on NAME: as ballastd sees it
swap_stage() { ballast_vm "$1" '.store.stage'; }
swap_on() { [ "$(swap_stage "$1")" = on ]; }

# Its status; a daemon that does not end in 10 s is a failure and is ended
ballast_reap() {
  local i rc=0
  for ((i = 0; i < 100; i++)); do
    if ! kill -0 "$BALLAST_PID" 2>/dev/null; then break; fi
    sleep 0.1
  done
  if ((i == 100)); then
    echo "ballastd does not end" >&2
    kill -KILL "$BALLAST_PID" 2>/dev/null || true
  fi
  wait "$BALLAST_PID" || rc=$?
  BALLAST_PID=
  return "$rc"
}

# answers_within SECONDS: by then it has answered a request
answers_within() {
  timeout "$1" "$BUILD/ballastctl" --socket "$VM_DIR/ballast/run/ballast.sock" status > /dev/null
}

# ballast_vm NAME JQ: a field of one VM, as ballastd sees it
ballast_vm() {
  ctl --json show "$1" | jq -r "$2"
}

# channel_of NAME: the transport that its agent is heard over, or "none"
channel_of() {
  ballast_vm "$1" '.agent.channel // "none"' 2>/dev/null
}
channel_is() { [ "$(channel_of "$1")" = "$2" ]; }

# ballast_status JQ
ballast_status() {
  ctl --json status | jq -r "$1"
}

# used_memory GUEST...: host memory behind them
used_memory() {
  local g sum=0
  for g in "$@"; do sum=$((sum + $(vm_rss "$g"))); done
  echo "$sum"
}

# touched_and_freed MIB GUEST...: memory that the guest does not need any more and
# the host still carries (guests without free page reporting)
touched_and_freed() {
  local n=$1 g pids=() p
  shift
  for g in "$@"; do
    (vm_cmd "$g" "alloc w $n" && vm_cmd "$g" 'free w') > /dev/null &
    pids+=($!)
  done
  for p in "${pids[@]}"; do wait "$p"; done
}

# ballast_knows NAME...: it has seen the balloon and statistics of each
ballast_knows() {
  local n
  for n in "$@"; do
    [ "$(ctl --json list | jq --arg n "$n" '[.vms[] | select(.name == $n and .actual > 0 and .stats.source != "none")] | length')" = 1 ] ||
      return 1
  done
}
