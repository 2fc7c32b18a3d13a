#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make bench-react -> build/bench/react.json
#
# How soon and how fast Ballast moves memory between real guests, seen from
# outside: an observer of its own (bench-observe, every 4 ms) sees the budget
# crossed, QEMU's own trace sees the balloon command and the balloon move.
#
# Three givers hold memory that they have used and freed (no free page reporting,
# so it is still the host's loss).  Each run, interleaved:
#   growth      a fourth guest allocates 704 MiB at full speed: time from the
#               pressure that the observer sees to the first command
#   at once     the budget is cut by what makes 512 MiB missing: time from the
#               reload to 512 MiB in the givers' balloons
#   mechanism   `virsh setmem` takes 512 MiB from one giver, Ballast not acting
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
BUILD=$(cd "${BUILD:-$here/../build}" && pwd)
export BUILD AGENT=$BUILD/ballast-agent
# shellcheck source=tests/vm/lib.sh
. "$here/vm/lib.sh"
# shellcheck source=tests/vm/lib-ballast.sh
. "$here/vm/lib-ballast.sh"

runs=${RUNS:-22}
move=$((512 << 20))
out=$BUILD/bench
raw=$out/raw-react
mkdir -p "$raw"
observer=

cleanup() {
  if [ -n "$observer" ]; then kill "$observer" 2>/dev/null || true; fi
  ballast_stop || true
}
export VM_ON_EXIT=cleanup
vm_env_trap
vm_env_start "$(mktemp -d /tmp/breact.XXXXXX)"

givers=(g1 g2 g3)
all=("${givers[@]}" need)
for g in "${givers[@]}"; do vm_define "$g" --memory 1024 --free-page-reporting off; done
vm_define need --memory 1024
vm_start "${all[@]}"
declare -A pid
for g in "${all[@]}"; do
  vm_assert_confined "$g"
  pid[$g]=$(vm_pid "$g")
done

say() { printf '%s\n' "$*" >&2; }

# Givers: memory that was used and is free again, resident on the host
fill_givers() { touched_and_freed 640 "${givers[@]}"; }

used() { used_memory "${all[@]}"; }

# No awk here ends before its input does: under pipefail that would end the script.
# us of the first command to a giver since FROM_US
first_command() { # FROM_US
  local g
  for g in "${givers[@]}"; do vm_balloon_commands "$g"; done | sort -n | awk -v f="$1" '$1 >= f && !n++ { print $1 }'
}

# us at which the balloons of all givers together hold $2 bytes more than at $1
when_moved() { # FROM_US BYTES
  local g
  for g in "${givers[@]}"; do vm_balloon_moves "$g" | sed "s/^/$g /"; done | sort -n -k2 |
    awk -v f="$1" -v want="$2" '
      { if ($2 < f) base[$1] = $3; cur[$1] = $3 }
      $2 >= f { sum = 0; for (g in cur) sum += cur[g] - base[g]; if (sum >= want && !n++) print $2 }'
}

moved_since() { [ -n "$(when_moved "$1" "$move")" ]; }

now_us() { date +%s%6N; }

full() { # all givers have all their memory back
  local g
  for g in "${givers[@]}"; do [ "$(vm_balloon_actual "$g")" -ge $((1020 << 20)) ] || return 1; done
}

fill_givers
ballast_start budget=8G stats_period=1s
until_true 20 ballast_knows "${all[@]}"

# Everything as at the start: full balloons, set by hand and handed back
reset() {
  local g
  ctl act off > /dev/null
  for g in "${all[@]}"; do vm_virsh setmem "$g" 1048576 --live; done
  until_true 30 full || say "the givers are not full again"
  fill_givers
  sleep 2.5 # statistics of a guest at rest
  for g in "${all[@]}"; do ctl release "$g" > /dev/null; done
}

set_budget() { ballast_reload budget="$1" stats_period=1s; }

samples=$raw/samples
: > "$samples"
for ((i = 1; i <= runs; i++)); do
  # --- growth of a real guest ---
  reset
  # 24 MiB above the soft mark (0.64 of minFree, 6 % of a budget below 4 GiB): at
  # rest nothing is to be done, and growth is pressure before anything can foresee it
  budget=$(awk -v u="$(used)" 'BEGIN { printf "%.0f", (u + 24 * 1048576) / (1 - 0.64 * 0.06) }')
  set_budget "$budget"
  sleep 0.5
  mark=$((budget - $(ballast_status .marks.soft)))
  ctl act on > /dev/null
  sleep 1
  "$BUILD/tests/bench/bench-observe" --interval-us 4000 --mark "$mark" --mark "$budget" --raw "$raw/run-$i" \
    "${pid[@]}" > "$raw/observe-$i" &
  observer=$!
  sleep 0.2
  start=$(now_us)
  vm_cmd need 'alloc need 704' > "$raw/alloc-$i"
  until_true 10 test -n "$(when_moved "$start" "$move")" || true
  sleep 0.5
  grown=$(when_moved "$start" "$move")
  kill "$observer"
  wait "$observer" || true
  observer=
  crossed=$(awk -v m="$mark" '$1 == "cross" && $2 == m { print $3; exit }' "$raw/observe-$i")
  over=$(awk -v m="$budget" '$1 == "cross" && $2 == m { print $3; exit }' "$raw/observe-$i")
  gap=$(awk '$1 == "end" { print $3 }' "$raw/observe-$i")
  first=$(first_command "$start")
  vm_cmd need 'free need' > /dev/null

  # --- 512 MiB wanted at once: the budget is cut while the guests are at rest ---
  ctl act off > /dev/null
  set_budget 8G
  reset
  # minFree is 6 % of a budget below 4 GiB and the goal a sixteenth above that
  cut=$(awk -v u="$(used)" -v m="$move" 'BEGIN { printf "%.0f", (u - m * 1.06) / (1 - 0.06 * 17 / 16) }')
  ctl act on > /dev/null
  sleep 0.5
  cut_at=$(now_us)
  set_budget "$cut"
  until_true 10 moved_since "$cut_at" || true
  moved=$(when_moved "$cut_at" "$move")
  ctl act off > /dev/null
  set_budget 8G

  # --- the mechanism alone ---
  reset
  direct_start=$(now_us)
  vm_virsh setmem g1 $((1024 * 1024 - (move >> 10))) --live
  until_true 20 moved_since "$direct_start" || true
  direct_end=$(when_moved "$direct_start" "$move")
  direct_first=$(first_command "$direct_start")
  jq -cn --argjson i "$i" --argjson budget "$budget" --argjson start "$start" --argjson crossed "${crossed:-null}" --argjson over "${over:-null}" \
    --argjson first "${first:-null}" --argjson grown "${grown:-null}" --argjson gap "${gap:-null}" \
    --argjson cut "$cut_at" --argjson moved "${moved:-null}" --argjson df "${direct_first:-null}" \
    --argjson de "${direct_end:-null}" \
    '{run: $i, budget_bytes: $budget, start_us: $start, soft_mark_crossed_us: $crossed, budget_crossed_us: $over, first_command_us: $first,
      moved_by_growth_us: $grown, observer_longest_gap_us: $gap, budget_cut_us: $cut, moved_us: $moved,
      direct_command_us: $df, direct_moved_us: $de}' |
    tee -a "$samples" >&2
done

# --- at rest: eight guests, a minute ------------------------------------------
ctl act off > /dev/null
ballast_stop
for g in "${all[@]}"; do vm_virsh setmem "$g" 1048576 --live || true; done
more=(r1 r2 r3 r4)
for g in "${more[@]}"; do vm_define "$g" --memory 256; done
vm_start "${more[@]}"
fill_givers
for g in "${more[@]}"; do pid[$g]=$(vm_pid "$g"); all+=("$g"); done
cpu_of() { awk '{ print $14 + $15 }' "/proc/$1/stat"; } # all threads, in ticks
libvirtd=$(cat "$VM_DIR/libvirtd.pid")
hz=$(getconf CLK_TCK)
sleep 5
before=$(cpu_of "$libvirtd")
sleep 30
libvirtd_alone=$(($(cpu_of "$libvirtd") - before))
ballast_start budget=$(($(used) + (400 << 20)))
ctl act on > /dev/null
until_true 20 ballast_knows "${all[@]}"
sleep 10
rest_from=$(now_us)
before=$(cpu_of "$BALLAST_PID")
before_libvirtd=$(cpu_of "$libvirtd")
sleep 60
ticks=$(($(cpu_of "$BALLAST_PID") - before))
ticks_libvirtd=$(($(cpu_of "$libvirtd") - before_libvirtd))
rest_to=$(now_us)
rss=$(awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$BALLAST_PID/status")
anon=$(awk '/^RssAnon/ { print $2 * 1024 }' "/proc/$BALLAST_PID/status")
# a reversal: at rest a VM is told down and up, or up and down
reversals=0 commands_at_rest=0
for g in "${all[@]}"; do
  turn=$(vm_balloon_commands "$g" | awk -v a="$rest_from" -v b="$rest_to" '
    $1 < a { last = $2; next } $1 <= b { if (last) { d = $2 > last ? 1 : -1; if (dir && d != dir) n++; dir = d } last = $2; c++ }
    END { print n + 0, c + 0 }')
  reversals=$((reversals + ${turn% *}))
  commands_at_rest=$((commands_at_rest + ${turn#* }))
done
ooms=0 deflates=0
for g in "${all[@]}"; do
  ooms=$((ooms + $(vm_oom_kills "$g")))
  deflates=$((deflates + $(vm_autodeflate_count "$g")))
done
ballast_stop

jq -s --arg cpu "$(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo)" --arg kernel "$(uname -r)" \
  --arg cores "$(nproc)" --arg accel "$("$here/vm/accel.sh")" --argjson hz "$hz" \
  --argjson ticks "$ticks" --argjson tl "$ticks_libvirtd" --argjson tl0 "$libvirtd_alone" \
  --argjson rss "$rss" --argjson anon "$anon" --argjson rev $reversals --argjson rest $commands_at_rest \
  --argjson ooms $ooms --argjson deflates $deflates '
  def pct(p): sort | if length == 0 then null else .[([(length * p | ceil) - 1, 0] | max)] end;
  def dist: {p50: pct(0.5), p99: pct(0.99), max: (max // null), samples: .};
  . as $r
  | [$r[] | select(.first_command_us and .budget_crossed_us) | (.first_command_us - .budget_crossed_us) / 1000] as $over
  | [$r[] | select(.first_command_us and .soft_mark_crossed_us) | (.first_command_us - .soft_mark_crossed_us) / 1000] as $soft_ms
  | [$r[] | select(.moved_us) | (.moved_us - .budget_cut_us) / 1e6] as $moved
  | [$r[] | select(.moved_by_growth_us and .soft_mark_crossed_us) | (.moved_by_growth_us - .soft_mark_crossed_us) / 1e6] as $grown
  | [$r[] | select(.direct_moved_us) | (.direct_moved_us - .direct_command_us) / 1e6] as $direct
  | {schema: 1, command: "make bench-react", machine: {cpu: $cpu, cores: $cores, kernel: $kernel, accel: $accel},
     runs: ($r | length),      budget_bytes: [$r[].budget_bytes],
     note: "pressure_to_first_command_ms is counted from the moment the observer sees less than the soft mark left of the budget, which is before the budget itself is crossed; budget_to_first_command_ms from the budget crossed: negative is ahead of it",
     pressure_to_first_command_ms: ($soft_ms | dist),
     budget_to_first_command_ms: ($over | dist), budget_never_crossed: ([$r[] | select(.budget_crossed_us | not)] | length),
     move_512mib_s: (($moved | dist) + {mechanism_p50: ($direct | pct(0.5)), mechanism_samples: $direct,
       ratio_p50: (if ($direct | length) > 0 and ($moved | length) > 0 then ($moved | pct(0.5)) / ($direct | pct(0.5)) else null end)}),
     move_512mib_by_growth_s: ($grown | dist),
     observer_longest_gap_us: ([$r[].observer_longest_gap_us] | max),
     reversals_at_rest: $rev, commands_at_rest: $rest,
     idle_cpu_percent: ($ticks / $hz / 60 * 100), libvirtd_cpu_percent: (($tl / 60 - $tl0 / 30) / $hz * 100),
     libvirtd_alone_cpu_percent: ($tl0 / $hz / 30 * 100),
     private_bytes: $anon, rss_bytes: $rss, guests_at_rest: 8, oom_kills: $ooms, autodeflates: $deflates, raw: $r}' \
  "$samples" > "$out/react.json"
jq 'del(.raw, .pressure_to_first_command_ms.samples, .budget_to_first_command_ms.samples)' "$out/react.json"
