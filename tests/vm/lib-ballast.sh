# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# lib-ballast.sh: ballastd over the guests of the current environment (lib.sh).
#
#     ballast_start budget=1G act=yes     settings of ballast.conf, see ballast_conf
#     ctl list
#     ballast_stop                        SIGTERM; ballast_kill: SIGKILL
#     vsock_stop                          ballast-vsock, which ballast_start starts
#
# One daemon and one ballast-vsock an environment; their files are in
# $VM_DIR/ballast, and both end with it (vm__env_pids).  ballast-vsock outlives
# ballast_stop, as on any host, and its workers outlive it.

: "${BUILD:=$VM_HERE/../../build}"
BALLAST_PID=
VSOCK_PID=
: "${BALLASTD:=$BUILD/ballastd}"
: "${BALLAST_VSOCK:=$BUILD/ballast-vsock}"

ctl() {
  "$BUILD/ballastctl" --socket "$VM_DIR/ballast/run/ballast.sock" "$@"
}

# ballast_conf KEY=VALUE...: writes the configuration; each key goes to its section
ballast_conf() {
  local kv section
  mkdir -p "$VM_DIR/ballast/state" "$VM_DIR/ballast/run"
  {
    for kv in libvirt_run_dir="$VM_RUN" vsock_control="$(vsock_control)" "$@"; do
      case ${kv%%=*} in
        budget | psi | psi_stall | psi_window | sample_min | sample_max) section=host ;;
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
