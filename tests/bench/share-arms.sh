# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# share-arms.sh: what guests can save, and what saves it (part of bench-share.sh).
#
#   part_oracle            what could be saved, by brute force and by ballastctl scan, at rest
#   part_arms              all arms, `runs` times, in another order each time
#   arm_run ARM FILE       one; its line of JSON goes there.  What it has merged stays
#   arm_end                what the arm has started ends

: "${raw:?where results go}" "${bench:?}" "${runs:?}" "${arms:?}" "${guests=}" "${shared=}" "${own_data=}" "${set_name=}"

oracle_bytes=0
ksmtuned_pid=
arm_after=15 # seconds that an arm is looked at when it has come to rest
# seconds without growth that are rest: a pass over 6 GB takes 5, and the first one over VMs that
# have just come merges nothing
arm_rest=10

# The same state for all: nothing merged, the kernel's settings, all guests mergeable
arm_reset() {
  ksm_defaults
  guests_merge on "${guests[@]}"
  guests_settle
}

# KSM splits huge pages as it merges, and a split maps subpages full of zeros to the kernel's
# own zero page: they are gone for good then, whoever merged first.  So all that is measured
# begins after one merge that is not.
part_first() {
  arm_reset
  ksm_set pages_to_scan 30000 smart_scan 0 run 1
  # two to see each page twice, one for what changed meanwhile
  until_true 240 full_scans_since "$(< "$KSM/full_scans")" 4 || say "   ksmd is slow"
  arm_reset
}
full_scans_since() { [ $(($(< "$KSM/full_scans") - $1)) -ge "$2" ]; }

oracle_args() {
  local g
  for g in "${shared[@]}"; do printf '%s=%s ' "$g" "$(vm_pid "$g")"; done
  [ ${#own_data[@]} = 0 ] || printf -- '--without '
  for g in "${own_data[@]}"; do printf '%s=%s ' "$g" "$(vm_pid "$g")"; done
}
look() {
  # shellcheck disable=SC2046 # words
  "$bench/bench-share-oracle" $(oracle_args) > "$raw/oracle-$set_name.json"
  rm -f "$raw/scan-$set_name.json"
  "$BUILD/ballastctl" --json scan --connect "$VM_URI" --libvirt-run-dir "$VM_RUN" --verify "${guests[@]}" \
    > "$raw/scan-$set_name.json.tmp" 2> "$raw/scan-$set_name.err" || { say "ballastctl scan: $(tail -n 1 "$raw/scan-$set_name.err")" && return 0; }
  mv "$raw/scan-$set_name.json.tmp" "$raw/scan-$set_name.json"
}
part_oracle() {
  guests_paused look
  oracle_bytes=$(jq .surplus_bytes "$raw/oracle-$set_name.json")
  jq -r '"   \(.present_bytes / 1e6 | round) MB present, \(.surplus_bytes / 1e6 | round) MB could be saved, \(.left_out_bytes / 1e6 | round) MB of it for the private guests"' \
    "$raw/oracle-$set_name.json" >&2
}

# watch [OPTIONS] -- COMMAND...: of all guests
watch() {
  # shellcheck disable=SC2046 # words
  "$bench/bench-share-watch" $(guest_options "${guests[@]}") --other "$(vm__libvirtd_pid "$VM_DIR")" "$@"
}
part_of_oracle() { echo $((oracle_bytes * $1 / 100)); }

arm_run() { # ARM FILE: not in a subshell, which would keep the pid of ballastd to itself
  "arm_${1//-/_}" > "$2"
}
arm_ksm_fast() {
  ksm_set pages_to_scan 30000 sleep_millisecs 20 smart_scan 0
  watch --limit 120 --begun "$(part_of_oracle 90)" --rest $arm_rest --after $arm_after -- sh -c "echo 1 > $KSM/run"
}
arm_ksm_max() {
  ksm_set pages_to_scan 1250 sleep_millisecs 10
  watch --limit 120 --begun "$(part_of_oracle 94)" --rest $arm_rest --after $arm_after -- sh -c "echo 1 > $KSM/run"
}
arm_ksm_default() {
  watch --limit 1500 --hz 1 --begun "$(part_of_oracle 94)" --rest 60 --after 120 -- sh -c "echo 1 > $KSM/run"
}
arm_ksmtuned() {
  ksmtuned_make
  watch --limit 1500 --hz 1 --begun "$(part_of_oracle 94)" --rest 60 --after 120 -- "$raw/ksmtuned"
}
arm_ballast() {
  ballast_ready
  ballast_write_conf mode=group host_knobs=yes
  watch --limit 120 --begun "$(part_of_oracle 60)" --rest $arm_rest --after $arm_after --own "$BALLAST_PID" ${VSOCK_PID:+--own "$VSOCK_PID"} -- \
    "$BUILD/ballastctl" --socket "$VM_DIR/ballast/run/ballast.sock" reload
  ctl --json share > "$raw/share-$set_name.json" || true
}

# ballastd as it comes, but that it may act; sharing is off until the reload
ballast_write_conf() { ballast_conf act=yes "$@"; }
ballast_ready() {
  ballast_write_conf mode=off host_knobs=yes
  ballast_launch
  until_true 30 ballast_knows "${guests[@]}" || say "   ballastd does not know all guests"
  sleep 5
}
# ballastd ends; what it merged stays
arm_end() {
  ballast_stop || say "   ballastd: $(tail -n 1 "$VM_DIR/ballast/log")"
  ksmtuned_stop
}

# Debian's ksmtuned.  It looks for '^qemu-system.*-enable-kvm', which no command line of
# libvirt matches, and does nothing while a fifth of the host's memory is free: here it is to
# find QEMU, and to do what it does on a host that is short of memory.
ksmtuned_make() {
  local dir=$BUILD/ksmtuned
  if [ ! -e "$dir/usr/sbin/ksmtuned" ]; then
    mkdir -p "$dir"
    (cd "$dir" && apt-get -q -o APT::Sandbox::User=root download ksmtuned) >&2
    dpkg-deb -x "$dir"/ksmtuned_*.deb "$dir"
  fi
  sed -e "s|'^qemu-system.\*-enable-kvm'|'(^\|/)qemu-system'|" -e '/^if \[ -f/,/^fi/d' \
    "$dir/usr/sbin/ksmtuned" > "$raw/ksmtuned.sh"
  printf '#!/bin/sh\nexec env KSM_THRES_COEF=100 PIDFILE=%s DEBUG=1 LOGFILE=%s bash %s > /dev/null 2>&1\n' \
    "$raw/ksmtuned.pid" "$raw/ksmtuned.log" "$raw/ksmtuned.sh" > "$raw/ksmtuned"
  chmod +x "$raw/ksmtuned"
  rm -f "$raw/ksmtuned.pid" "$raw/ksmtuned.log"
}
ksmtuned_stop() {
  [ -e "$raw/ksmtuned.pid" ] || return 0
  ksmtuned_pid=$(< "$raw/ksmtuned.pid")
  pkill -P "$ksmtuned_pid" 2> /dev/null || true
  kill -KILL "$ksmtuned_pid" 2> /dev/null || true
  rm -f "$raw/ksmtuned.pid"
}

part_arms() {
  local run i arm n=${#arms[@]}
  : > "$raw/arms-$set_name.jsonl"
  for ((run = 1; run <= runs; run++)); do
    for ((i = 0; i < n; i++)); do
      arm=${arms[(i + run - 1) % n]}
      arm_reset
      arm_run "$arm" "$raw/arm.json"
      arm_end
      jq -c --arg arm "$arm" --argjson run $run '{arm: $arm, run: $run} + .' "$raw/arm.json" >> "$raw/arms-$set_name.jsonl"
      jq -r --arg arm "$arm" --argjson run $run '"   run \($run), \($arm): \(.saved_bytes / 1e6 | round) MB in \(.seconds) s, at rest after \(.rest_s) s"' \
        "$raw/arm.json" >&2
    done
  done
}
