#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make bench-channel -> build/bench/channel.json
#
# What the channel between guests and ballastd costs, how soon a guest gets memory
# back by it, and what is left after it was cut in every way. Some 20 minutes.
#
#   PARTS="rtt agents ramps cycles"   only these; the rest is what an earlier run
#                                     left in build/bench/raw-channel
#   RAMPS=52 WITHOUT=10               see channel-ramps.sh
#   AGENT_KILLS=110 DAEMON_KILLS=40 and so on; see channel-cycles.sh
#
# fuzz comes from `make fuzz-long`.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${BUILD:=$here/../build}"
BUILD=$(cd "$BUILD" && pwd)
export BUILD AGENT=$BUILD/ballast-agent
# shellcheck source=tests/vm/lib.sh
. "$here/vm/lib.sh"
# shellcheck source=tests/vm/lib-ballast.sh
. "$here/vm/lib-ballast.sh"
# shellcheck source=tests/bench/channel-ramps.sh
. "$here/bench/channel-ramps.sh"
# shellcheck source=tests/bench/channel-cycles.sh
. "$here/bench/channel-cycles.sh"

bench=$BUILD/tests/bench/bench-channel
raw=$BUILD/bench/raw-channel
mkdir -p "$raw"
stamper=

cleanup() {
  if [ -n "$stamper" ]; then kill "$stamper" 2>/dev/null || true; fi
  stamper=
  ballast_stop || true
  vsock_stop
}
export VM_ON_EXIT=cleanup
vm_env_trap

say() { printf '%s\n' "$*" >&2; }
now_us() { date +%s%6N; }
env_begin() { vm_env_start "$(mktemp -d /tmp/bchan.XXXXXX)"; }
env_end() {
  cleanup
  vm_env_stop
}

part_agents() {
  "$bench" agents 1000 30 > "$raw/agents.json"
}

# QEMU's socket of a guest's virtio-serial port, as seen from here
port_of() {
  vm_virsh dumpxml "$1" | sed -n "s|.*path='/var/lib/libvirt\(/.*/org.ballast.agent.0\)'.*|$VM_DIR/lib\1|p"
}

# One guest with vsock and one without; ballastd plugs the device in, and then makes room
part_rtt() {
  local vsock place
  env_begin
  vsock=$(vm_vsock_transport)
  vm_define near --memory 192 --vsock
  vm_define serial --memory 192
  vm_start near serial
  ballast_start budget=8G stats_period=1s act=no
  until_true 30 channel_is near "$vsock" || say "the agent does not come by $vsock"
  ballast_stop
  place=$VM_DIR/ballast/run/vsock.sock
  if [ "$vsock" = vhost-vsock ]; then place=-; fi
  { "$bench" rtt "$vsock" "$place" && "$bench" rtt virtio-serial "$(port_of serial)"; } |
    jq -s 'map({key: .transport, value: del(.transport)}) | from_entries' > "$raw/rtt.json"
  env_end
}

for part in ${PARTS:-rtt agents ramps cycles}; do
  say "== $part"
  "part_$part"
done

# --- the result -----------------------------------------------------------------

# what has not been measured is null
for part in rtt agents ramps cycles; do
  [ -e "$raw/$part.json" ] || echo null > "$raw/$part.json"
done
fuzz=$BUILD/bench/fuzz.json
[ -e "$fuzz" ] || fuzz=/dev/null

jq -n --arg cpu "$(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo)" --arg kernel "$(uname -r)" \
  --arg cores "$(nproc)" --arg accel "$("$here/vm/accel.sh")" --arg transport "$(vm_vsock_transport)" \
  --arg qemu "$(qemu-system-x86_64 --version | awk 'NR == 1 { print $4 }')" \
  --arg libvirt "$(libvirtd --version | awk '{ print $NF }')" \
  --arg guest "$(sed 's/^linux-image-//' "$VM_IMAGE/kernel/done")" \
  --slurpfile rtt "$raw/rtt.json" --slurpfile agents "$raw/agents.json" --slurpfile ramps "$raw/ramps.json" \
  --slurpfile cycles "$raw/cycles.json" --slurpfile fuzz "$fuzz" '
  def pct(p): sort | if length == 0 then null else .[([(length * p | ceil) - 1, 0] | max)] end;
  def dist: {p50: pct(0.5), p99: pct(0.99), max: (max // null), samples: .};
  $ramps[0] as $r | $cycles[0] as $c | $agents[0] as $a
  | {schema: 1, command: "make bench-channel",
     machine: {cpu: $cpu, cores: $cores, kernel: $kernel, accel: $accel, qemu: $qemu, libvirt: $libvirt,
       guest_kernel: $guest},
     transport: $transport,
     note: "guest_need_to_first_command_ms: from the first byte of the allocator'\''s start line, seen on the host in the console'\''s log, to the first command in QEMU'\''s trace that gives this guest more than it had; a ramp counts when the guest had 64 MiB less than it was about to take, and so much was idle in the other guest",
     guest_need_to_first_command_ms:
       ([$r.ramps[]? | select(.squeezed and .first_command_us) | (.first_command_us - .start_us) / 1000] | dist),
     ramps: ([$r.ramps[]? | select(.squeezed)] | length),
     ramps_unanswered: ([$r.ramps[]? | select(.squeezed and .first_command_us == null)] | length),
     ramps_failed: ([$r.ramps[]? | select(.ok | not)] | length),
     ramps_not_squeezed: ([$r.ramps[]? | select(.squeezed | not)] | length),
     ramp_s: ([$r.ramps[]? | select(.squeezed and .ok) | .took_us / 1e6] | dist | del(.samples)),
     oom_kills: $r.oom_kills, channel: $r.channel,
     ramp_settings: ($r // {} | {guest_bytes, budget_bytes, min_free_bytes}),
     without: (if $r.without then {ramps: ($r.without.ramps | length), oom_kills: $r.without.oom_kills} else null end),
     rtt_us: $rtt[0],
     agents_1000_cpu_percent: $a.cpu_percent, bytes_per_agent: $a.heap_bytes_per_agent,
     rss_bytes_per_agent: $a.rss_bytes_per_agent, agents: $a,
     cycles: ($c.kills // {} | add), kills: $c.kills, leaks: $c.leaks, hangs: $c.hangs, vms_lost: $c.vms_lost,
     fuzz: ($fuzz[0] // null), raw: {ramps: $r, cycles: $c}}' > "$BUILD/bench/channel.json"
jq 'del(.raw, .guest_need_to_first_command_ms.samples)' "$BUILD/bench/channel.json"
