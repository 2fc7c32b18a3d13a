#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# measure.sh: the figures in README.md, one "name value unit" a line.
#
# Takes about two minutes; wants a quiet machine with 3 GiB free.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=lib.sh source-path=SCRIPTDIR
. "$here/lib.sh"

say() { # NAME VALUE UNIT
  printf '%-44s %10s %s\n' "$1" "$2" "$3"
}

now_us() {
  date +%s%6N
}

rate() { # MIB US: MiB/s
  echo $(($1 * 1000000 / $2))
}

mib() {
  echo $(($1 / 1048576))
}

# Value of KEY=... in a guest's reply
field() { # KEY REPLY
  grep -oP "(?<= $1=)[^ ]+" <<<"$2"
}

timed_start() { # TEXT NAME...
  local text=$1 t0
  shift
  t0=$(now_us)
  vm_start "$@"
  say "$text" $((($(now_us) - t0) / 1000)) ms
}

# RSS of QEMU without its guest's RAM, the one mapping of the guest's size
own_rss() { # NAME MEMORY_MIB
  awk -v kib=$(($2 * 1024)) '
    /^[0-9a-f]+-/ { next }
    $1 == "Size:" { guest = $2 == kib }
    $1 == "Rss:" && !guest { rss += $2 }
    END { print int(rss / 1024) }' "/proc/$(vm_pid "$1")/smaps"
}

wait_for_balloon() { # NAME MIB
  local i
  for ((i = 0; i < 600; i++)); do
    (($(vm_balloon_actual "$1") != $2 << 20)) || return 0
    sleep 0.05
  done
  vm__die "$1 does not reach $2 MiB"
}

# From the command to the guest's last step, both by QEMU's clock
move() { # TEXT NAME MIB
  local text=$1 name=$2 to=$3 from command last
  from=$(mib "$(vm_balloon_actual "$name")")
  vm_virsh setmem "$name" "${to}M" --live
  wait_for_balloon "$name" "$to"
  read -r command _ < <(vm_balloon_commands "$name" | tail -n 1)
  read -r last _ < <(vm_balloon_moves "$name" | tail -n 1)
  local moved=$((to > from ? to - from : from - to))
  say "$text" "$(rate "$moved" $((last - command)))" MiB/s
}

alloc() { # TEXT NAME ID MIB
  say "$1" "$(rate "$4" "$(field us "$(vm_cmd "$2" "alloc $3 $4")")")" MiB/s
}

measure_boot() {
  local i
  vm_define b1
  for i in 1 2 3; do
    timed_start "start and boot, one guest, run $i" b1
    vm_destroy b1
  done
  for i in 2 3 4; do
    vm_define "b$i"
  done
  timed_start "start and boot, four guests at once" b1 b2 b3 b4
  sleep 3
  say "QEMU's own RSS, idle 256 MiB guest" "$(own_rss b1 256)" MiB
  say "whole RSS, idle 256 MiB guest" "$(mib "$(vm_rss b1)")" MiB
  for i in 1 2 3 4; do
    vm_destroy "b$i"
  done
}

measure_balloon() {
  local before
  vm_define m1 --memory 1024 --free-page-reporting off
  vm_start m1
  move "inflate 512 of 1024 MiB, never touched" m1 512
  move "deflate 512 MiB" m1 1024
  alloc "alloc 800 MiB, first touch on the host" m1 a 800
  say "sum (read and verify)" "$(rate 800 "$(field us "$(vm_cmd m1 'sum a')")")" MiB/s
  vm_cmd m1 'free a' >/dev/null
  alloc "alloc 800 MiB, host pages present" m1 a 800
  vm_cmd m1 'free a' >/dev/null
  before=$(vm_rss m1)
  move "inflate 512 of 1024 MiB, touched and freed" m1 512
  say "  RSS given back by it" "$(mib $((before - $(vm_rss m1))))" MiB
  move "deflate 512 MiB" m1 1024
  say "domain log so far" "$(($(stat -c %s "$VM_LOG/m1.log") / 1024))" KiB
  vm_destroy m1
}

cpu_ms() { # NAME: what its QEMU has used
  awk -v hz="$(getconf CLK_TCK)" '{ print int(($14 + $15) * 1000 / hz) }' "/proc/$(vm_pid "$1")/stat"
}

# The same movements with and without trace events, in CPU time of QEMU
measure_trace() {
  local name t0 i
  vm_define t1 --memory 1024 --free-page-reporting off
  vm_define t2 --memory 1024 --free-page-reporting off --no-trace
  vm_start t1 t2
  for name in t1 t2 t2 t1; do
    t0=$(cpu_ms "$name")
    for i in 1 2 3; do
      vm_virsh setmem "$name" 512M --live
      wait_for_balloon "$name" 512
      vm_virsh setmem "$name" 1024M --live
      wait_for_balloon "$name" 1024
    done
    say "512 MiB in and out, $([[ $name == t1 ]] && echo traced || echo untraced), CPU" \
      $((($(cpu_ms "$name") - t0) / i)) ms
  done
  say "domain log of one such movement" "$(($(stat -c %s "$VM_LOG/t1.log") / 6 / 1024))" KiB
  vm_destroy t1
  vm_destroy t2
}

measure_reporting() {
  local before t0 i
  vm_define r1 --memory 1024
  vm_start r1
  vm_cmd r1 'alloc a 800' >/dev/null
  before=$(vm_rss r1)
  t0=$(now_us)
  vm_cmd r1 'free a' >/dev/null
  for i in 200 400 600; do
    while (($(vm_rss r1) > before - (i << 20))); do
      (($(now_us) - t0 < 60000000)) || break 2
      sleep 0.1
    done
    say "free page reporting: $i of 800 MiB back after" $((($(now_us) - t0) / 1000)) ms
  done
  vm_destroy r1
}

dir=$(mktemp -d /tmp/bvm.XXXXXX)
vm_env_trap
say "accelerator" "$("$here/accel.sh")" ""
t0=$(now_us)
vm_env_start "$dir"
say "environment" $((($(now_us) - t0) / 1000)) ms
measure_boot
measure_balloon
measure_trace
measure_reporting
t0=$(now_us)
vm_env_stop
say "end of the environment" $((($(now_us) - t0) / 1000)) ms
