# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# store-guests.sh: what of bench-store.sh is measured on real guests with ballastd.

: "${raw:?where results go}" "${runs:?}"

with_store_swap() { # NAME SIZE: enrolled, started, swapping on the store
  vm_enroll_swap "$1" "$2" --group bench
  vm_start "$1"
  until_true 60 swap_on "$1"
}

# A guest swaps 150 MiB and more, the process that had them ends: part of it that the store
# has let go of within 10 s
part_given() {
  local run before after t
  : > "$raw/given.jsonl"
  env_begin
  store_start pool_size=768M pool_ready=64M
  vm_define giver --memory 384 --autodeflate off
  ballast_start budget=16G act=no stats_period=1s
  with_store_swap giver 400MiB
  for ((run = 1; run <= runs; run++)); do
    vm_cmd giver 'alloc w 260 fill=half' > /dev/null
    vm_virsh setmem giver 130M --live
    until_true 60 store_holds giver $((150 << 20))
    until_true 60 balloon_rests giver
    before=$(store_vm giver .stored)
    vm_cmd giver 'free w' > /dev/null
    t=$(date +%s%3N)
    sleep 10
    after=$(store_vm giver .stored)
    jq -nc --argjson run $run --argjson before "$before" --argjson after "$after" --argjson ms $(($(date +%s%3N) - t)) \
      '{run: $run, stored_before: $before, stored_after: $after, after_ms: $ms, part: ((1 - $after / $before) * 1000 | round / 1000)}' \
      >> "$raw/given.jsonl"
    vm_virsh setmem giver 384M --live
    until_true 30 actual_is giver $((384 << 20))
  done
  env_end
}

store_holds() { [ "$(store_vm "$1" .held)" -ge "$2" ]; }
actual_is() { [ "$(vm_balloon_actual "$1")" = "$2" ]; }
balloon_rests() { # for 2 s
  local had
  had=$(vm_balloon_actual "$1")
  sleep 2
  [ "$(vm_balloon_actual "$1")" = "$had" ]
}

# A guest is squeezed to half of what it has, nearly all of it in use by a program: into the
# store, and into a swap file on the host's disk (cache=none).  Seconds from the command until
# its balloon is there.
part_squeeze() {
  local run arm took from deaths
  local -A seen=([store]=0 [file]=0)
  : > "$raw/squeeze.jsonl"
  env_begin
  store_start pool_size=1G pool_ready=256M
  until_true 20 store_ready_at_least $((256 << 20))
  truncate -s 512M "$VM_DIR/img/file.swap"
  vm_define store --memory 512 --autodeflate off
  vm_define file --memory 512 --autodeflate off --devices \
    "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' discard='unmap'/>
     <source file='$VM_DIR/img/file.swap'/><target dev='vda' bus='virtio'/></disk>"
  ballast_start budget=16G act=no stats_period=1s
  vm_start file
  vm_cmd file 'sh echo 0 > /sys/block/vda/queue/rotational; mkswap /dev/vda && swapon -d /dev/vda' > /dev/null
  with_store_swap store 512MiB
  for ((run = 1; run <= runs; run++)); do
    for arm in store file; do
      vm_cmd $arm 'alloc w 400 fill=half' > /dev/null
      from=$(date +%s%6N)
      vm_virsh setmem $arm 256M --live
      until_true 240 actual_is $arm $((256 << 20)) || say "$arm: not there after 240 s"
      # the last step of its balloon, by QEMU's trace
      took=$(vm_balloon_moves $arm | awk -v f="$from" '$1 >= f { t = $1 } END { printf "%.3f", (t - f) / 1e6 }')
      vm_cmd $arm 'sum w' 240 > /dev/null || say "$arm: its memory is not right"
      deaths=$(($(vm_oom_kills $arm) - seen[$arm]))
      seen[$arm]=$((seen[$arm] + deaths))
      jq -nc --arg arm $arm --argjson run $run --argjson s "$took" --argjson deaths "$deaths" \
        '{arm: $arm, run: $run, seconds: $s, deaths: $deaths}' >> "$raw/squeeze.jsonl"
      vm_cmd $arm 'free w' > /dev/null
      vm_virsh setmem $arm 512M --live
      until_true 60 actual_is $arm $((512 << 20))
    done
  done
  env_end
}
