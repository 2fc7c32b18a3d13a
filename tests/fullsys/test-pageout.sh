#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A process in a memory cgroup of its own, as libvirt makes for a VM: its memory is paged
# out by memory.reclaim, the half that it never touches before the one that it uses; and by
# process_madvise, with no such cgroup.  Its content stays right.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

size=64
group=/sys/fs/cgroup/machine/qemu-1-fullsys.libvirt-qemu
holder=
zram_ready=

end_holder() { # its status: is the content right?
  local rc=0
  [[ -n $holder ]] || return 0
  kill "$holder" 2>/dev/null || true
  wait "$holder" || rc=$?
  holder=
  return "$rc"
}

at_end() {
  end_holder || true
  if [[ -n $zram_ready ]]; then
    swapoff /dev/zram0 || true
    echo 1 >/sys/block/zram0/reset
  fi
  rmdir "$group" "${group%/*}" 2>/dev/null || true
  rm -rf "$work"
}
trap at_end EXIT

start_holder() { # sets holder, address
  pageout-probe hold "$size" >"$work/holder" &
  holder=$!
  wait_for 20 grep -q ' ' "$work/holder"
  read -r _ address <"$work/holder"
}

modprobe zram
echo 256M >/sys/block/zram0/disksize
mkswap /dev/zram0 >/dev/null
swapon /dev/zram0
zram_ready=1
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p "$group"
echo +memory >"${group%/*}/cgroup.subtree_control"
if [[ ! -e $group/memory.reclaim ]]; then
  skip 'memory.reclaim' 'this kernel has none'
  finish
fi

# in the background process itself, so that all of its memory is charged there
start_in_group() {
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    exec pageout-probe hold "$size"
  ) >"$work/holder" &
  holder=$!
  wait_for 20 grep -q ' ' "$work/holder"
  read -r _ address <"$work/holder"
}

field() { sed -n "s/.*\b$1=\([-0-9]*\).*/\1/p" <<<"$out"; }
start_in_group
sleep 1
out=$(pageout-probe walk "$holder" "$address" "$size" $((size / 2 - 4))) || true
echo "# $out"
check 'it is asked of its own cgroup' test "$(field by_cgroup)" = 1
check 'without an error' test "$(field error)" = 0
check 'what was asked for went' test "$(field freed)" -ge $((size / 2 - 8))
check 'the untouched half first' test "$(field cold)" -lt $((size * 128 / 4))
check 'the used half stays' test "$(field hot)" -gt $((size * 128 * 3 / 4))
check 'its content is right' end_holder

start_holder
out=$(pageout-probe walk "$holder" "$address" "$size" $((size * 2))) || true
echo "# $out"
check 'without a cgroup of its own it is by process_madvise' test "$(field by_cgroup)" = 0
check 'which pages out, too' test "$(field freed)" -ge $((size / 2))
check 'and its content is right' end_holder
finish
