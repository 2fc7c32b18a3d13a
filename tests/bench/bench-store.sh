#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make bench-store -> build/bench/store.json
#
# What the store holds real guests' swapped pages in, beside zram-lz4 and KSM-then-zram,
# and what it costs; over NBD beside nbdkit's memory plugin; its disk tier; how soon
# memory comes back to the host; how fast a guest can be squeezed into it.  Arms are
# interleaved, figures are medians of RUNS.  Some 20 minutes, 5 less when the page sets
# are there already (store-capture.sh).
#
#   PARTS="sets arms nbd disk given squeeze"   only these; the rest is what an earlier run
#                                              left in build/bench/raw-store
#   RUNS=5
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${BUILD:=$here/../build}"
BUILD=$(cd "$BUILD" && pwd)
export BUILD AGENT=$BUILD/ballast-agent
# shellcheck source=tests/vm/lib.sh
. "$here/vm/lib.sh"
# shellcheck source=tests/vm/lib-ballast.sh
. "$here/vm/lib-ballast.sh"
images=$here/images/build.sh
pageset=$BUILD/tests/bench/bench-pageset
# shellcheck source=tests/bench/store-capture.sh
. "$here/bench/store-capture.sh"

runs=${RUNS:-5}
bench=$BUILD/tests/bench
raw=$BUILD/bench/raw-store
mkdir -p "$raw"
# shellcheck source=tests/bench/store-guests.sh
. "$here/bench/store-guests.sh"
floor=

cleanup() {
  if [ -n "$floor" ]; then kill "$floor" 2>/dev/null || true; fi
  floor=
  [ -n "${VM_DIR:-}" ] || return 0
  ballast_stop || true
  vsock_stop
  store_stop
}
export VM_ON_EXIT=cleanup
vm_env_trap

say() { printf '%s\n' "$*" >&2; }
env_begin() { vm_env_start "$(mktemp -d /tmp/bstore.XXXXXX)"; }
env_end() {
  cleanup
  vm_env_stop
}

part_sets() { capture_sets; }

# Footprint and CPU, in process
part_arms() {
  local run set arm files
  : > "$raw/arms.jsonl"
  for ((run = 1; run <= runs; run++)); do
    for set in $all_sets; do
      mapfile -t files < <(set_files "$set")
      for arm in zram ballast ksm; do
        case $arm in
          ballast) "$bench/bench-store" inproc "${files[@]}" ;;
          *) "$bench/bench-zram" $arm "${files[@]}" ;;
        esac | jq -c --arg set "$set" --argjson run $run '{set: $set, run: $run} + .' >> "$raw/arms.jsonl"
      done
    done
    say "   run $run of $runs"
  done
}

# The store as guests meet it, and the same clients on nbdkit's memory plugin
part_nbd() {
  local run n files dir
  mapfile -t files < <(set_files similar4)
  : > "$raw/nbd.jsonl"
  env_begin
  dir=$VM_DIR/ballast
  # ready ahead, as it is where guests are squeezed
  store_start pool_size=512M pool_ready=256M
  until_true 20 store_ready_at_least $((256 << 20))
  nbdkit -f -U "$dir/floor" memory 1G &
  floor=$!
  until_true 5 test -S "$dir/floor"
  for ((run = 1; run <= runs; run++)); do
    for n in 1 2 4; do
      "$bench/bench-nbd" run "$dir/floor" "$(store_socket)" "$(store_control)" $n "${files[@]}" |
        jq -c --argjson run $run '{run: $run} + .' >> "$raw/nbd.jsonl"
      "$bench/bench-nbd" forget "$(store_control)" $n
    done
    # clients that write the same at the same moment are one case, guests squeezed one by one another
    "$bench/bench-nbd" turns "$(store_socket)" "$(store_control)" 4 "${files[@]}" |
      jq -c --argjson run $run '{run: $run} + .' >> "$raw/nbd.jsonl"
    "$bench/bench-nbd" forget "$(store_control)" 4
  done
  env_end
}
store_ready_at_least() { [ "$(store_ask .pool_ready)" -ge "$1" ]; }

part_disk() {
  local run files
  mapfile -t files < <(set_files unique)
  : > "$raw/disk.jsonl"
  for ((run = 1; run <= runs; run++)); do
    "$bench/bench-store" disk "$raw/tier" "${files[@]}" | jq -c . >> "$raw/disk.jsonl"
    rm -f "$raw/tier"
  done
}

for part in ${PARTS-sets arms nbd disk given squeeze}; do
  begun=$SECONDS
  say "== $part"
  "part_$part"
  say "   $((SECONDS - begun)) s"
done

# --- the result -----------------------------------------------------------------

# what has not been measured is null
for part in arms nbd disk given squeeze; do
  [ -e "$raw/$part.jsonl" ] || : > "$raw/$part.jsonl"
done
jq -n --arg cpu "$(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo)" --arg kernel "$(uname -r)" \
  --arg cores "$(nproc)" --arg accel "$("$here/vm/accel.sh")" \
  --arg qemu "$(qemu-system-x86_64 --version | awk 'NR == 1 { print $4 }')" \
  --arg libvirt "$(libvirtd --version | awk '{ print $NF }')" --arg nbdkit "$(nbdkit --version | awk '{ print $2 }')" \
  --arg disk "$(df --output=source,fstype "$raw" | awk 'NR == 2 { print $1, $2 }')" \
  --slurpfile arms "$raw/arms.jsonl" --slurpfile nbd "$raw/nbd.jsonl" --slurpfile disk_runs "$raw/disk.jsonl" \
  --slurpfile given "$raw/given.jsonl" --slurpfile squeeze "$raw/squeeze.jsonl" \
  --slurpfile sets <(for g in $all_sets; do cat "$pagesets/$g.json"; done) --arg names "$all_sets" '
  def median: map(select(. != null)) | sort | if length == 0 then null else .[(length - 1) / 2 | floor] end;
  def of($set; $arm; $key): [$arms[] | select(.set == $set and .arm == $arm) | .[$key]] | median;
  def over($a; $b): if $a == null or $b == null or $b == 0 then null else ($a / $b * 1000 | round) / 1000 end;
  def wire($n; $arm; $key): [$nbd[] | select(.clients == $n and .arm == $arm) | .[$key]] | median;
  def wire_over($n; $key): over(wire($n; "ballast-nbd"; $key); wire($n; "nbdkit-memory"; $key));
  def cpu($key): [($names | split(" "))[] as $s | over(of($s; "ballast"; $key); of($s; "zram-lz4"; $key))];
  ($names | split(" ")) as $names
  | {schema: 1, command: "make bench-store",
     machine: {cpu: $cpu, cores: $cores, kernel: $kernel, accel: $accel, qemu: $qemu, libvirt: $libvirt, nbdkit: $nbdkit,
       disk: $disk},
     notes: {
       footprint: "ballast: pool_used + index of bl_store_figures: payload, slack, entries and slot words, hash table and references; zram: mem_used_total + 16 bytes a slot used (sizeof(struct zram_table_entry)); ksm-then-zram: each distinct page frame after ksmd in zram, its table, 64 bytes a page of ksm_rmap_item and 64 a shared page",
       cpu: "us a page of 4 KiB: of the process, all threads (ballast), of the writing or reading thread (zram compresses in its context); writes in 128 KiB, reads of 4 KiB at random; the worst of the sets",
       groups: "all VMs of a set are in one trust group"},
     runs: ([$arms[].run] | max),
     footprint_vs_zram: ($names | map({key: ., value: over(of(.; "ballast"; "footprint"); of(.; "zram-lz4"; "footprint"))}) | from_entries),
     footprint_vs_ksm_zram: ($names | map({key: ., value: over(of(.; "ballast"; "footprint"); of(.; "ksm-then-zram"; "footprint"))}) | from_entries),
     footprint_nbd_vs_zram: {similar4: over(wire(4; "ballast-nbd-turns"; "footprint"); of("similar4"; "zram-lz4"; "footprint")),
       similar4_at_once: over(wire(4; "ballast-nbd"; "footprint"); of("similar4"; "zram-lz4"; "footprint"))},
     fixed_bytes: wire(4; "ballast-nbd"; "fixed_bytes"), fixed_bytes_at_most: (4 * 1048576 + 4 * 1048576),
     fixed_bytes_by_connections: ([1, 2, 4] | map({connections: ., bytes: wire(.; "ballast-nbd"; "fixed_bytes")})),
     cpu_per_write_vs_zram: (cpu("cpu_per_write_us") | max), cpu_per_read_vs_zram: (cpu("cpu_per_read_us") | max),
     cpu_vs_zram_by_set: ($names | to_entries | map({key: .value, value: {write: cpu("cpu_per_write_us")[.key], read: cpu("cpu_per_read_us")[.key]}}) | from_entries),
     nbd_read_p50_vs_memory: wire_over(1; "read_p50_us"), nbd_read_p99_vs_memory: wire_over(1; "read_p99_us"),
     nbd_read32k_p50_vs_memory: wire_over(1; "read32k_p50_us"), nbd_read32k_p99_vs_memory: wire_over(1; "read32k_p99_us"),
     nbd_write128k_vs_memory: wire_over(1; "write128k_mb_s"),
     scale: ([1, 2, 4] | map({clients: ., read_p50_vs_memory: wire_over(.; "read_p50_us"), read_p99_vs_memory: wire_over(.; "read_p99_us"),
       read32k_p50_vs_memory: wire_over(.; "read32k_p50_us"), read32k_p99_vs_memory: wire_over(.; "read32k_p99_us"),
       write128k_vs_memory: wire_over(.; "write128k_mb_s")})),
     disk: {read_p50_us: ([$disk_runs[].read_p50_us] | median), demote_mb_s: ([$disk_runs[].demote_mb_s] | median),
       ram_readers_p99_ratio: ([$disk_runs[].ram_readers_p99_ratio] | median)},
     given_back: ([$given[].part] | median),
     squeeze_to_half: ([("store", "file") as $a | {key: $a, value: {
         seconds: ([$squeeze[] | select(.arm == $a) | .seconds] | median), deaths: ([$squeeze[] | select(.arm == $a) | .deaths] | add)}}] | from_entries),
     squeeze_store_vs_file: over([$squeeze[] | select(.arm == "store") | .seconds] | median; [$squeeze[] | select(.arm == "file") | .seconds] | median),
     wrong: ([$arms[], $nbd[], $disk_runs[] | .wrong_requests // 0] | add),
     sets: $sets, arms: ($arms + $nbd), raw: {disk: $disk_runs, given: $given, squeeze: $squeeze}}' > "$BUILD/bench/store.json"
jq 'del(.raw, .arms, .sets, .notes)' "$BUILD/bench/store.json"
