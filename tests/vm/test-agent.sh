#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# With an agent, without one, with one that dies, freezes and comes back; and a guest
# that writes into the agent's port whatever may do harm to the host.
# shellcheck source=tests/vm/lib-check.sh
. "$(dirname "$0")/lib-check.sh"

begin
for g in good bad; do vm_define "$g" --memory 256 --free-page-reporting off; done
vm_define plain --memory 256 --free-page-reporting off --no-agent
vm_start good bad plain
touched_and_freed 120 good bad plain
# so small a budget that the guests are always asked for what they can spare
ballast_start budget=300M stats_period=1s act=no
check 'all are seen' until_true 20 ballast_knows good bad plain

# GUEST COMMAND: its output, in the guest's /bin/sh
in_guest() {
  local reply
  reply=$(vm_cmd "$1" "sh $2") && echo "${reply#ok }"
}
check 'with an agent, the agent tells' until_true 5 source_is good agent
check 'also in the other' until_true 5 source_is bad agent
check 'without one, the balloon' source_is plain balloon
check 'all are managed' [ "$(ctl --json list | jq '[.vms[] | select(.managed and .reclaimable)] | length')" = 3 ]
check 'the agent says its version and kernel' \
  [ "$(ballast_vm good '[.agent.version, .agent.kernel] | map(length > 2) | all')" = true ]
check 'and there is none where none is' [ "$(ballast_vm plain .agent)" = null ]

# What it costs the guest
pid=$(vm_cmd good 'agent status') && pid=${pid##*pid=}
anon=$(in_guest good "grep RssAnon /proc/$pid/status" | grep -o '[0-9]*' | head -n 1)
check "the agent has at most 1 MiB of its own ($anon KiB)" [ "$anon" -le 1024 ]

# One agent dies, the other freezes
vm_cmd good 'agent kill' > /dev/null
vm_cmd bad 'agent freeze' > /dev/null
check 'an agent that died: the balloon tells' until_true 6 source_is good balloon
check 'an agent that froze: the balloon tells' until_true 6 source_is bad balloon
ctl act on > /dev/null
for g in good bad plain; do
  check "$g gives memory without an agent" until_true 15 actual_at_most "$g" "$(mib 226)"
done
vm_cmd good 'agent start' > /dev/null
vm_cmd bad 'agent thaw' > /dev/null
check 'an agent that was started tells again' until_true 8 source_is good agent
check 'an agent that was thawed tells again' until_true 8 source_is bad agent

# --- a hostile guest -------------------------------------------------------

ticks() { awk '{ print $14 + $15 }' "/proc/$BALLAST_PID/stat"; }
rss_kib() { awk '/^VmRSS:/ { print $2 }' "/proc/$BALLAST_PID/status"; }
now_ms() { date +%s%3N; }

# age GUEST: of its statistics, in milliseconds
age() { ballast_vm "$1" '.stats.age_us // 1e9 | . / 1000 | floor'; }

# watch_daemon WHAT: for five seconds
watch_daemon() {
  local what=$1 first end before slowest=0 good=0 plain=0 t
  first=$(ticks)
  end=$(($(now_ms) + 5000))
  while (($(now_ms) < end)); do
    before=$(now_ms)
    answers_within 10 || true
    t=$(($(now_ms) - before))
    ((t <= slowest)) || slowest=$t
    t=$(age good)
    ((t <= good)) || good=$t
    t=$(age plain)
    ((t <= plain)) || plain=$t
    sleep 0.3
  done
  t=$((($(ticks) - first) * 1000000 / ($(getconf CLK_TCK) * ($(now_ms) - end + 5000)))) # per mille
  check "$what: it answers within a second ($slowest ms)" [ "$slowest" -lt 1000 ]
  check "$what: it needs less than 10 % of a core ($((t / 10)).$((t % 10)) %)" [ "$t" -lt 100 ]
  check "$what: what another agent says is fresh ($good ms)" [ "$good" -lt 3000 ]
  # QEMU's time of it counts whole seconds
  check "$what: what another balloon says is fresh ($plain ms)" [ "$plain" -lt 3500 ]
}

vm_cmd bad 'agent stop' > /dev/null
# shellcheck disable=SC2016 # the guest's variables
port=$(in_guest bad 'cd /sys/class/virtio-ports; for p in *; do grep -q org.ballast.agent $p/name && echo /dev/$p; done')
check "its port is found ($port)" [ "${port#/dev/vport}" != "$port" ]
rss=$(rss_kib)
said=$(wc -l < "$VM_DIR/ballast/log")

# write_port COMMANDS: their output into the port, over and over, until quiet
write_port() {
  vm_cmd bad "sh (while :; do $1; done > $port 2> /dev/null) > /dev/null 2>&1 & echo \$! > /tmp/writer" > /dev/null
}
quiet() {
  # shellcheck disable=SC2016
  vm_cmd bad 'sh kill -9 $(cat /tmp/writer); killall -9 cat dd sleep; true' > /dev/null
}

# Whole frames, of another guest: 2 GiB, which this one cannot have
frames=$(sed '/^#/d; s/\(..\)/\\x\1/g' "$CHECK_HERE/../data/wire/agent-1.0.hex" | tr -d '\n')
vm_cmd bad "sh printf '$frames' > /tmp/frames" > /dev/null
kernel_is_theirs() { [ "$(ballast_vm bad .agent.kernel)" = 4.19.0-27-amd64 ]; }
reason_is() { [ "$(ballast_vm "$1" .decision.reason)" = "$2" ]; }
write_port 'cat /tmp/frames; sleep 1'
check 'absurd figures are heard' until_true 5 kernel_is_theirs
check 'and said to be that' until_true 5 reason_is bad skip.stats-absurd
ballast_mark
sleep 2
check 'and nothing is done on them' no_commands bad
quiet

write_port 'dd if=/dev/urandom bs=4k count=16; echo >> /tmp/chunks; dd if=/dev/urandom bs=1 count=300'
watch_daemon 'noise'
chunks=$(in_guest bad 'wc -l < /tmp/chunks' || echo 0)
check "noise: it arrived ($chunks x 64 KiB)" [ "${chunks:-0}" -ge 3 ]
quiet
# the start of a frame, and nothing more
vm_cmd bad "sh dd if=/tmp/frames bs=1 count=50 of=$port" > /dev/null 2>&1
vm_cmd bad 'agent start' > /dev/null
heard_again() { source_is bad agent && ! kernel_is_theirs; }
check 'the true agent is heard again' until_true 12 heard_again
vm_cmd bad 'agent stop' > /dev/null

vm_cmd bad 'sh for i in 0 1 2 3 4 5 6 7 8 9; do cat /tmp/frames; done > /tmp/frames10' > /dev/null
write_port 'cat /tmp/frames10'
watch_daemon 'frames'
check 'frames: they arrived' kernel_is_theirs
check 'who floods has no agent statistics' source_is bad balloon
grown=$(($(rss_kib) - rss))
check "the daemon has not grown by more than 2 MiB ($grown KiB)" [ "$grown" -le 2048 ]
said=$(($(wc -l < "$VM_DIR/ballast/log") - said))
check "nor its log by more than 20 lines ($said)" [ "$said" -le 20 ]
quiet
check_guests_well good bad plain
check 'clean end' ballast_stop
finish
