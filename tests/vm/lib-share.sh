# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# lib-share.sh: a test of page sharing on the real KSM (beside lib-check.sh): nobody else tests
# with it meanwhile, and the host's knobs are put back, however it ends.
#
#     . tests/vm/lib-check.sh
#     . tests/vm/lib-share.sh
#     share_begin

KSM=/sys/kernel/mm/ksm
THP=/sys/kernel/mm/transparent_hugepage/khugepaged
KNOBS=("$KSM"/{run,pages_to_scan,sleep_millisecs,smart_scan,use_zero_pages,max_page_sharing,advisor_mode}
  "$THP"/{max_ptes_shared,max_ptes_none,max_ptes_swap,pages_to_scan,scan_sleep_millisecs})
knobs() {
  local k
  for k in "${KNOBS[@]}"; do
    # as it is written: the chosen one of "[none] scan-time"
    [ ! -e "$k" ] || echo "$k $(sed 's/.*\[\(.*\)\].*/\1/' "$k")"
  done
}
share_put_back() {
  local k v
  ballast_stop || true
  vsock_stop
  [ -z "$SWAPFILE" ] || { swapoff "$SWAPFILE" 2>/dev/null || true; rm -f "$SWAPFILE"; }
  echo 2 > "$KSM/run" # what the guests' end has not un-merged
  while read -r k v; do echo "$v" > "$k" 2>/dev/null || true; done <<< "$FOUND"
}
share_begin() {
  if [ ! -w "$KSM/run" ]; then
    echo 'ok - page sharing # SKIP this kernel has no KSM'
    exit 0
  fi
  # One KSM on the machine: whoever tests with it waits for the others
  exec 7> /tmp/ksm.lock
  flock 7
  FOUND=$(knobs)
  SWAPFILE=
  begin
  export VM_ON_EXIT=share_put_back
}
knobs_as_found() { [ "$(knobs)" = "$FOUND" ]; }

pss() { awk '/^Pss_Anon:/ { print $2 * 1024 }' "/proc/$(vm_pid "$1")/smaps_rollup"; }
anon() { awk '/^Anonymous:/ { print $2 * 1024 }' "/proc/$(vm_pid "$1")/smaps_rollup"; }
saved() { # GUEST...: by Pss
  local g sum=0
  for g in "$@"; do sum=$((sum + $(anon "$g") - $(pss "$g"))); done
  echo "$sum"
}
saves() { local n=$1; shift; [ "$(saved "$@")" -ge "$n" ]; }
saves_at_most() { local n=$1; shift; [ "$(saved "$@")" -le "$n" ]; }
# KiB of guest RAM that is merged: what is left of the process is its video RAM and the like,
# which no property takes out (SECURITY.md)
merged_ram() {
  awk -v ram="${2:-512}" '/^Size:/ { size = $2 } /^KSM:/ && size >= ram * 512 { sum += $2 } END { print sum + 0 }' \
    "/proc/$(vm_pid "$1")/smaps"
}
not_merged() { [ "$(merged_ram "$1")" = 0 ]; }
sharing() { ctl --json share | jq -r "$1"; }
sharing_is() { [ "$(sharing "$1")" = "$2" ]; }
vm_sharing() { sharing ".vms[] | select(.name == \"$1\") | $2"; }
vm_sharing_is() { [ "$(vm_sharing "$1" "$2")" = "$3" ]; }
rests() { [ "$(cat $KSM/run)" = 0 ] && sharing_is .state rest; }
group_of() { # GUEST MODE GROUP: its metadata, followed live
  vm_virsh metadata "$1" urn:org.ballast1:vm:1 --key ballast --set "<memory sharing='$2' group='$3'/>" --config --live
}
content() { vm_cmd "$1" 'sum w' 120 | cut -d' ' -f1-4; } # what follows is the time it took
merge_property() { vm_virsh qemu-monitor-command "$1" '{"execute":"qom-get","arguments":{"path":"/objects/pc.ram","property":"merge"}}' | jq -r .return; }
