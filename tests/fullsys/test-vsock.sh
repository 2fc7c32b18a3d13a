#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fullsys-limit: 180
# The kernel's vsock: the daemon's own listener, the agent that calls it, and
# ballastd, each as shipped.  vsock_loopback stands for the device: who calls has
# CID 1 there, and as long as there is no device CID 2, the host, leads back too.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

agent_unit=ballast-agent.service
hog=fullsys-hog.service
host=$work/host # what vsock-host says
host_pid=
agent_pid=

if ! install_ballast; then
  skip 'agents over vsock' 'Ballast is not built'
  finish
fi
if ! modprobe vsock_loopback 2>"$work/modprobe"; then
  not_ok 'the kernel has vsock_loopback' "$(<"$work/modprobe")"
  finish
fi

start_host() { # CID
  : >"$host"
  vsock-host "$1" <&"$to" >"$host" 2>&1 &
  host_pid=$!
  wait_for 10 grep -qx listening "$host"
}

stop_host() {
  [[ -n $host_pid ]] || return 0
  kill "$host_pid" 2>/dev/null || true
  wait "$host_pid" || true
  host_pid=
}

stop_agent() {
  [[ -n $agent_pid ]] || return 0
  kill "$agent_pid" 2>/dev/null || true
  wait "$agent_pid" || true
  agent_pid=
}

at_end() {
  stop_agent
  stop_host
  systemctl stop "$hog" fullsys-swaphog.service "$agent_unit" ballastd.service 2>/dev/null || true
  systemctl reset-failed "$hog" 2>/dev/null || true
  rmmod virtio_blk 2>/dev/null || true
  rm -rf "$work"
}
trap at_end EXIT

count() { # REGEX: lines that vsock-host said
  grep -cE "$1" "$host" || true
}

more() { # REGEX THAN
  (($(count "$1") > $2))
}

calls() { # CID FROM ANSWER
  local answer
  answer=$(vsock-call "$1" 711 "$2")
  echo "$answer"
  # shellcheck disable=SC2053 # a pattern
  [[ $answer == $3 ]]
}

ask() { # KIND [BYTES]: the line of its result in $answer
  local n
  n=$(count "^result kind=$1 ")
  answer=
  echo "$*" >&"$to"
  wait_for 40 more "^result kind=$1 " "$n" || return 1
  answer=$(grep "^result kind=$1 " "$host" | tail -n 1)
}

value() { # LINE NAME
  sed -nE "s/.* $2=([0-9]+).*/\1/p" <<<"$1"
}

status_is() { # JQ-EXPRESSION
  ballast-agent status --json | jq -e "$1"
}

meminfo() { # NAME: bytes
  awk -v name="$1:" '$1 == name { print $2 * 1024 }' /proc/meminfo
}

mkfifo "$work/commands"
exec {to}<>"$work/commands"

# --- who may call -------------------------------------------------------------
check 'nobody listens: refused' calls 1 1000 'refused: *'
check 'the listener is there' start_host 1
check 'a port of any user is hung up on without a word' calls 1 0 'closed, 0 bytes'
check 'and that is what was seen of it' grep -qx 'refused port' "$host"
check 'nobody was taken' test "$(count '^caller')" = 0
stop_host
check 'where another CID is expected' start_host 7
check 'the caller is hung up on without a word' calls 1 1000 'closed, 0 bytes'
check 'for its CID' grep -qx 'refused cid=1' "$host"
stop_host

# --- the agent ----------------------------------------------------------------
check 'again for CID 1' start_host 1
ballast-agent --transport vsock --cid 1 >"$work/agent" 2>&1 &
agent_pid=$!
check 'the agent calls and says hello' wait_for 10 grep -q '^hello' "$host"
grep '^hello' "$host" | sed 's/^/# /' || true
check 'from CID 1' grep -qx 'caller cid=1' "$host"
check 'and reports' wait_for 10 more '^stats total=[1-9][0-9]* available=[1-9]' 1
stop_host
sleep 2
check 'it lives while nobody listens' kill -0 "$agent_pid"
check 'the host is back' start_host 1
check 'and so is the agent, in 10 s' wait_for 10 grep -q '^hello' "$host"
check 'with its reports' wait_for 10 more '^stats' 1
check 'it is the same process' kill -0 "$agent_pid"
lines=$(wc -l <"$work/agent")
if ((lines < 12)); then ok 'it does not say much about it'; else not_ok 'it does not say much about it' "$lines lines"; fi
stop_agent
check 'it hangs up when it ends' wait_for 10 grep -q '^closed' "$host"
stop_host

# --- its unit, inside its sandbox -----------------------------------------------
start_host 1
rmmod virtio_blk 2>/dev/null || true
check 'the unit as shipped starts' systemctl start "$agent_unit"
agent_main=$(property "$agent_unit" MainPID)
check 'its agent finds the host over vsock' wait_for 10 grep -q '^hello' "$host"
if ((failed > 0)); then
  show "$host" "$work/agent"
  show_journal_if_failed "$agent_unit"
  finish
fi
check 'and answers' ask ping
check 'well' test "$(value "$answer" status)" = 0

echo 'grant 268435456' >&"$to"
check 'it shows what it is granted' wait_for 5 status_is '.limit == 268435456'

# page cache to be given, of files that nobody uses here
find /usr/lib/x86_64-linux-gnu -maxdepth 1 -type f -size +1M -size -24M -print0 | head -z -n 20 | xargs -0 cat >/dev/null
begin=$SECONDS
check 'hints are sent' ask hints 262144
check 'all that were asked for' test "$(value "$answer" status)" -le 1
check 'in 10 s' test $((SECONDS - begin)) -le 10
awk '/^hints/ { for (i = 2; i <= NF; i++) { split($i, f, "="); v[f[1]] = f[2] }
    n++; pages[v["kind"]] += v["pages"]; if (v["error"]) bad++; if (v["end"] > end) end = v["end"]; last += v["last"] }
  END { printf "%d %d %d %d %d %d %d\n", n, pages[1], pages[2], pages[3], bad, end, last }' "$host" >"$work/hints"
read -r messages free inactive file bad end last <"$work/hints"
echo "# $messages messages; pages free $free, inactive file $inactive, of known files $file"
check 'free pages' test "$free" -gt 0
check 'inactive page cache' test "$inactive" -gt 0
check 'page cache with its files' test "$file" -gt 0
check 'to the end' test "$last" = 1
check 'none of them spoilt' test "$bad" = 0
check 'each within the memory there is' test "$((free + inactive))" -le "$end"

before=$(meminfo Cached)
check 'it trims page cache' ask trim $((24 << 20))
check 'and says how much' test "$(value "$answer" bytes)" -ge $((8 << 20))
after=$(meminfo Cached)
echo "# Cached $((before >> 20)) MiB before, $((after >> 20)) after"
check 'which has gone' test "$after" -le $((before - (8 << 20)))
check 'and not all of it' test "$after" -ge $((before / 4))
check 'it compacts' ask compact
check 'as the kernel lets it' test "$(value "$answer" status)" = 0
grep '^result' "$host" | sed 's/^/# /' || true

# --- swap on the host's store -----------------------------------------------------
# Its driver was loaded by the unit.
swap_hog=fullsys-swaphog.service
disk=$(grep -lx ballast-swap /sys/block/*/serial | cut -d/ -f4 || true)
check 'the disk is there' test -b "/dev/$disk"
check 'swap is asked for' ask swap-on
check 'and begun' test "$(value "$answer" status)" = 0
check 'it is on' wait_for 20 status_is '.swap_state == "on"'
check 'as the kernel sees it, before other swap' grep -qE "^/dev/$disk .*\s16384$" /proc/swaps
check 'with discard of clusters' grep -qx 0 "/sys/block/$disk/queue/rotational"
check 'in requests that the store takes' grep -qx 128 "/sys/block/$disk/queue/max_sectors_kb"
used() { # MIB: at least
  awk -v disk="/dev/$disk" -v least=$(($1 << 10)) '$1 == disk && $4 >= least { found = 1 } END { exit !found }' /proc/swaps
}
systemd-run -q --collect --unit="$swap_hog" -p MemoryHigh=16M "$(type -P memory-hog)" 28 60
check 'a program swaps there' wait_for 20 used 4
systemctl set-property --runtime "$swap_hog" MemoryHigh=infinity
systemctl kill -s STOP "$swap_hog" # it would have the only processor
check 'it is asked off' ask swap-off
check 'and begun' test "$(value "$answer" status)" = 0
check 'all comes back' wait_for 20 status_is '.swap_state == "off"'
check 'the kernel has it no more' sh -c "! grep -q '^/dev/$disk\s' /proc/swaps"
check 'and the program lives' systemctl is-active "$swap_hog"
systemctl stop "$swap_hog" 2>/dev/null || true
grep '^result' "$host" | tail -n 2 | sed 's/^/# /' || true
[[ $failed == 0 ]] || ballast-agent status --json | sed 's/^/# /'

# --- want ---------------------------------------------------------------------
kills=$(oom_kills)
n=$(count '^request')
wanted='^request bytes=[1-9]'
systemd-run -q --collect --unit="$hog" "$(type -P memory-hog)" $((($(meminfo MemAvailable) >> 20) - 48)) 60
check 'short of memory it asks for more' wait_for 30 more "$wanted" "$n"
check 'and nobody was killed' test "$(oom_kills)" = "$kills"
systemctl stop "$hog" 2>/dev/null || true
sleep 2
n=$(count '^request')
systemd-run -q --unit="$hog" "$(type -P memory-hog)" 4096 60
gone() { [[ $(property "$hog" ActiveState) != active ]]; }
check 'a hog takes all there is, and is killed' wait_for 60 gone
grep '^request' "$host" | tail -n +$((n + 1)) >"$work/requests" || true
sed 's/^/# /' "$work/requests"
check 'the agent asked before that' grep -qE "$wanted.* oom_kills=$kills\$" "$work/requests"
check 'it lives' still "$agent_unit" "$agent_main"
n=$(count '^stats')
check 'and reports on' wait_for 10 more '^stats' "$n"
[[ $failed == 0 ]] || show "$host"
show_journal_if_failed "$agent_unit"
stop_host

# --- ballastd -----------------------------------------------------------------
check 'ballastd starts' timeout 40 systemctl start ballastd.service
# inside its sandbox; no VM has CID 1
check 'it listens, and hangs up on who is no VM of its' wait_for 10 calls 1 1000 'closed, 0 bytes'
check 'without a complaint' journal ballastd.service 'all(.[]; .MESSAGE | test("cannot wait for agents") | not)'
lines=$(journal_lines "$agent_unit")
sleep 5
check 'the agent, refused too, stays' still "$agent_unit" "$agent_main"
said=$(($(journal_lines "$agent_unit") - lines))
if ((said < 5)); then ok 'and keeps quiet'; else not_ok 'and keeps quiet' "$said lines in 5 s"; fi
check 'vhost_vsock makes its node' sh -c 'modprobe vhost_vsock && test -c /dev/vhost-vsock'
systemctl restart ballastd.service
check 'with it ballastd listens as well' wait_for 10 calls 1 1001 'closed, 0 bytes'
systemctl stop ballastd.service
check 'stopped, it does not' wait_for 5 calls 1 1002 'refused: *'
check 'the agent stops with success' timeout 20 systemctl stop "$agent_unit"
check 'as its unit sees it' test "$(property "$agent_unit" Result)" = success
finish
