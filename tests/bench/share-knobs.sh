# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# share-knobs.sh: the host's settings of KSM and khugepaged (part of bench-share.sh).
#
#   knobs_take FILE     writes down all of them, and puts back first what a run that was
#                       killed has left in FILE
#   knobs_restore       as they were found; FILE goes
#   ksm_defaults        KSM's as the kernel has them after boot, nothing merged, ksmd stopped
#   ksm_set KNOB VALUE...

KSM=/sys/kernel/mm/ksm
KHUGEPAGED=/sys/kernel/mm/transparent_hugepage/khugepaged
knobs_file=

# All that can be written; of "[none] scan-time" the one that is chosen.  run is last: it is
# set when the rest is as it is to be.
knobs_now() {
  local k
  for k in $(find "$KSM" "$KHUGEPAGED" -maxdepth 1 -type f -perm -u=w ! -name run | sort) "$KSM/run"; do
    echo "$k $(knob "$k")"
  done
}
knob() { sed 's/.*\[\(.*\)\].*/\1/' "$1"; }

knobs_write() { # lines of "PATH VALUE"; what cannot be set is said
  local k v
  while read -r k v; do
    [ "$(knob "$k")" = "$v" ] || { echo "$v" > "$k"; } 2> /dev/null || say "cannot set $k to $v"
  done
}

knobs_take() {
  local boot
  boot=$(< /proc/sys/kernel/random/boot_id)
  knobs_file=$1
  if [ -e "$knobs_file" ] && [ "$(head -n 1 "$knobs_file")" = "boot $boot" ]; then
    say "an earlier run was killed: putting back the settings that it found"
    tail -n +2 "$knobs_file" | knobs_write
  fi
  if [ "$(< "$KSM/run")" != 0 ] || ! nobody_merged; then
    echo "bench-share: KSM is in use on this host; this benchmark would un-merge everything" >&2
    knobs_file=
    return 1
  fi
  { echo "boot $boot" && knobs_now; } > "$knobs_file.tmp"
  mv "$knobs_file.tmp" "$knobs_file"
}

# by the processes: with ksmd stopped, its own counters stay when the last of them ends
nobody_merged() {
  local f n
  for f in /proc/[0-9]*/ksm_merging_pages; do
    n=$(cat "$f" 2> /dev/null || echo 0)
    [ "${n:-0}" = 0 ] || return 1
  done
}

knobs_restore() {
  [ -n "$knobs_file" ] || return 0
  ksm_unmerge
  tail -n +2 "$knobs_file" | knobs_write
  rm -f "$knobs_file"
  knobs_file=
}

ksm_set() {
  while (($# > 1)); do
    # not every kernel has all of them
    [ ! -e "$KSM/$1" ] || echo "$2" > "$KSM/$1"
    shift 2
  done
}

ksm_unmerge() {
  echo 2 > "$KSM/run"
  until_true 60 nothing_merged || say "KSM holds pages merged still"
  echo 0 > "$KSM/run"
}
nothing_merged() { [ "$(< "$KSM/pages_shared")" = 0 ]; }

# mm/ksm.c, and 6.18 as booted
ksm_defaults() {
  ksm_unmerge
  ksm_set advisor_mode none pages_to_scan 100 sleep_millisecs 20 smart_scan 1 use_zero_pages 0 max_page_sharing 256 \
    merge_across_nodes 1 stable_node_chains_prune_millisecs 2000
}
