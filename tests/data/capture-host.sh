#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/data/capture-host.sh DIR [PID...]
#
# Dumps what daemon/sense reads of this host into DIR, as a fixture for the
# tests: the memory files of /proc, and of the given processes (QEMUs) their
# memory files and command lines. Look through the command lines before the
# dump leaves the house.
set -euo pipefail

if [ $# -lt 1 ]; then
  echo "usage: $0 DIR [PID...]" >&2
  exit 2
fi
dir=$1
shift

# these files have no size: cp would copy nothing
dump() {
  [ -r "$1" ] || return 0
  mkdir -p "$dir$(dirname "$1")"
  cat "$1" > "$dir$1"
}

dump /proc/meminfo
dump /proc/vmstat
dump /proc/pressure/memory
dump /sys/kernel/mm/ksm/advisor_mode
dump /sys/kernel/mm/ksm/run
uname -r > "$dir/uname"

for pid in "$@"; do
  for f in status stat smaps_rollup ksm_merging_pages comm cmdline; do
    dump "/proc/$pid/$f"
  done
done
