# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# lib-observe.sh: what an outside observer sees of a guest (part of lib.sh).
#
# Balloon facts come from QEMU's trace events in the domain log, not from
# libvirt or the guest, so that a test of Ballast does not rely on what Ballast
# uses. Lines look like
#   1234@1795356243.123456:virtio_balloon_to_target balloon target: 0x8000000 num_pages: 32768
#   1234@1795356243.234567:virtio_balloon_set_config actual: 256 oldactual: 0
# where num_pages and actual count the 4 KiB pages in the balloon.

# vm_rss NAME: bytes of RssAnon + RssShmem of QEMU (hugetlb pages not included)
vm_rss() {
  local pid
  pid=$(vm_pid "$1") || return
  awk '/^Rss(Anon|Shmem):/ { kib += $2 } END { printf "%.0f\n", kib * 1024 }' "/proc/$pid/status"
}

# vm_balloon_actual NAME: bytes the guest has, asked of QEMU itself
vm_balloon_actual() {
  vm_virsh qemu-monitor-command "$1" '{"execute":"query-balloon"}' | jq -e '.return.actual // empty' ||
    vm__die "$1 has no balloon"
}

# vm_balloon_commands NAME: one line a balloon command: wall-clock us, target bytes
vm_balloon_commands() {
  local us target
  while read -r us target; do
    echo "$us $((target))"
  done < <(sed -nE 's/^[0-9]+@([0-9]+)\.([0-9]{6}):virtio_balloon_to_target balloon target: (0x[0-9a-f]+) .*/\1\2 \3/p' \
    "$VM_LOG/$1.log")
}

# vm_balloon_moves NAME: one line a step of the guest's balloon: wall-clock us,
# bytes in the balloon
vm_balloon_moves() {
  sed -nE 's/^[0-9]+@([0-9]+)\.([0-9]{6}):virtio_balloon_set_config actual: ([0-9]+) .*/\1\2 \3/p' \
    "$VM_LOG/$1.log" | awk '{ printf "%s %.0f\n", $1, $2 * 4096 }'
}

# vm_autodeflates NAME: one line a firing: wall-clock us of its first step, bytes
# vm_autodeflate_count NAME: how many
#
# A firing: the balloon shrinks though it is no larger than the last command
# asked. Steps less than a second apart without a command between are one
# firing. Not counted:
#  - the one step that may be under way when a command arrives: the guest looks
#    at its target between steps of 256 pages;
#  - steps of more than 256 pages: the guest has been reset.
vm_autodeflates() {
  awk -F '[@: ]' '
    function flush() { if (bytes > 0) printf "%s %.0f\n", first, bytes; bytes = 0 }
    { split($2, t, "."); us = t[1] t[2]; now = t[1] + t[2] / 1e6 }
    /: starting up libvirt/ { flush(); want = actual = grace = 0; next }
    $3 == "virtio_balloon_to_target" {
      flush()
      grace = actual > want
      want = $NF + 0
    }
    $3 == "virtio_balloon_set_config" {
      actual = $6 + 0
      old = $NF + 0
      if (actual >= old) { flush(); next }
      step = old - actual
      if (old > want || step > 256) { next }
      if (grace) { grace = 0; next }
      if (bytes > 0 && now - last > 1) flush()
      if (bytes == 0) first = us
      bytes += step * 4096
      last = now
    }
    END { flush() }' "$VM_LOG/$1.log"
}

vm_autodeflate_count() {
  vm_autodeflates "$1" | wc -l
}

# vm_oom_kills NAME: OOM kills in the guest since it booted; from its kernel's
# counter, or from the console log when it does not answer
vm_oom_kills() {
  local reply
  if reply=$(vm_cmd "$1" 'vmstat oom_kill' 5 2>/dev/null); then
    echo "${reply#ok }"
  else
    awk '/guestcmd: up/ { n = 0 } /Out of memory: Killed process/ { n++ } END { print n + 0 }' \
      "$VM_DIR/con/$1.log"
  fi
}
