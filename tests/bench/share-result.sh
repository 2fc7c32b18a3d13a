# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# share-result.sh: one JSON document of what bench-share.sh has left in $raw.

: "${raw:?where results are}" "${here:?}" "${runs:?}" "${result:?}" "${sets:?}"

# what has not been measured is null
result_file() { # NAME: a file of $raw, or nothing
  [ ! -e "$raw/$1" ] || cat "$raw/$1"
}

result_set() { # NAME
  jq -n --arg set "$1" --slurpfile oracle <(result_file "oracle-$1.json") --slurpfile scan <(result_file "scan-$1.json") \
    --slurpfile runs <(result_file "arms-$1.jsonl") '
    def median: map(. // infinite) | sort | if length == 0 then null else .[(length - 1) / 2 | floor] end
      | if . == null or . == infinite then null else . end;
    def over($a; $b): if $a == null or $b == null or $b == 0 then null else ($a / $b * 1000 | round) / 1000 end;
    def round4: if . == null then null else (. * 10000 | round) / 10000 end;
    def cpu: .[3] + .[4] + .[5];
    # [seconds, CPU] when MARK was saved, between the looks before and after it
    def reached($mark): . as $rows | first(range(length) | select($rows[.][1] >= $mark)) as $i
      | $rows[$i] as $b | if $i == 0 then [$b[0], ($b | cpu)] else $rows[$i - 1] as $a
        | (($mark - $a[1]) / ($b[1] - $a[1])) as $f
        | [$a[0] + $f * ($b[0] - $a[0]), ($a | cpu) + $f * (($b | cpu) - ($a | cpu))] end;
    ($runs | map(.arm) | unique) as $names
    | ([$names[] as $n | [$runs[] | select(.arm == $n) | .saved_bytes] | median] | max) as $most
    | [$names[] as $n | {name: $n, repeats: [$runs[] | select(.arm == $n)
        | (if $most == null then null else ([.series | reached(0.9 * $most)] | first) end) as $at
        | {run, t90_s: ($at[0] | round4), cpu_s: ($at[1] | round4), rest_s, rest_cpu_s, saved_bytes, available_bytes, seconds,
           cpu_all: (.series[-1] as $l | [.columns, $l] | transpose | .[3:] | map({key: .[0], value: .[1]}) | from_entries),
           watch_cpu_s}]}
       | {name, t90_s: ([.repeats[].t90_s] | median), cpu_s: ([.repeats[].cpu_s] | median),
          rest_cpu_s: ([.repeats[].rest_cpu_s] | median), saved_bytes: ([.repeats[].saved_bytes] | median), repeats}] as $arms
    | ([$arms[] | select(.name != "ballast" and .t90_s != null)] | min_by(.t90_s)) as $plain
    | ([$arms[] | select(.name == "ballast")] | first) as $ours
    | {dense: "eight guests of 512 MiB of one image, eight programs with data of their own, 5/6 of the userland read",
       herd: "four guests of 1 GiB of one image (two pairs of replicas) that have read the userland of another one, too, and four of 768 MiB that hold 660 MiB of their own and run other kernels (Debian'"'"'s generic and real-time builds, two each), as on a mixed host; herd_same is the same with one kernel for all",
       herd_same: "as herd, but all guests run one kernel"} as $note
    | {($set): {
        note: $note[$set], oracle_bytes: $oracle[0].surplus_bytes, present_bytes: $oracle[0].present_bytes,
        duplicate: over($oracle[0].surplus_bytes; $oracle[0].present_bytes),
        private_part: over($oracle[0].left_out_bytes; $oracle[0].surplus_bytes),
        scan_bytes: (if $scan[0] == null then null else $scan[0].saved_pages * 4096 end),
        scan_difference_bytes: (if $scan[0] == null or $oracle[0] == null then null else $scan[0].saved_pages * 4096 - $oracle[0].surplus_bytes end),
        scan_verify: $scan[0].verify, most_bytes: $most, reference: $plain.name,
        ratios: {saved: over($ours.saved_bytes; $plain.saved_bytes), t90: over($ours.t90_s; $plain.t90_s), cpu: over($ours.cpu_s; $plain.cpu_s)},
        arms: $arms, guests: $oracle[0].guests}}'
}

result_write() {
  local s kernel
  kernel=$(sed 's/^linux-image-//' "$VM_IMAGE/kernel/done")
  for s in "${sets[@]}"; do result_set "$s"; done | jq -s --arg cpu "$(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo)" \
    --arg kernel "$(uname -r)" --arg cores "$(nproc)" --arg memory "$(awk '/^MemTotal/ { print $2 * 1024 }' /proc/meminfo)" \
    --arg huge "$(knob /sys/kernel/mm/transparent_hugepage/enabled)" --arg accel "$("$here/vm/accel.sh")" --arg guest "$kernel" \
    --arg qemu "$(qemu-system-x86_64 --version | awk 'NR == 1 { print $4 }')" --arg libvirt "$(libvirtd --version | awk '{ print $NF }')" \
    --arg commit "$(git -C "$here" describe --always --dirty 2> /dev/null || echo none)" --arg runs "$runs" --arg seconds $SECONDS \
    --arg command "make bench-${result}" --slurpfile late <(result_file late.jsonl) --slurpfile thp <(result_file thp.jsonl) \
    --slurpfile touch <(result_file touch.jsonl) --slurpfile speed <(result_file speed.json) '
    def median: sort | if length == 0 then null else .[(length - 1) / 2 | floor] end;
    def over($a; $b): if $a == null or $b == null or $b == 0 then null else ($a / $b * 1000 | round) / 1000 end;
    # until 90 % of the most; what never came to that, what it was watched for
    def late($scene; $arm): ([$late[] | select(.scene == $scene) | .own_bytes] | max) as $most
      | [$late[] | select(.arm == $arm and .scene == $scene)] | first // null | if . == null then null else
          (.series[-1][1] - .own_bytes + 0.9 * $most) as $mark
          | [first(.series[] | select(.[1] >= $mark))[0]] as $at
          | {s: ($at[0] // .watched_s), reached: ($at != []), saved_bytes: .own_bytes} end;
    def late($scene): late($scene; "plain") as $p | late($scene; "ballast") as $b
      | {plain_s: $p.s, plain_reached: $p.reached, plain_saved_bytes: $p.saved_bytes,
         ballast_s: $b.s, ballast_reached: $b.reached, ballast_saved_bytes: $b.saved_bytes, ratio: over($b.s; $p.s)};
    def kept($arm): [$thp[] | select(.arm == $arm) | .kept_fraction * 1000 | round / 1000] | median;
    def touch($state; $key): [$touch[] | select(.state == $state) | .[$key]] | median;
    {schema: 1, command: $command, date: (now | todate), commit: $commit,
     machine: {cpu: $cpu, cores: ($cores | tonumber), memory_bytes: ($memory | tonumber), kernel: $kernel, accel: $accel, qemu: $qemu,
       libvirt: $libvirt, guest_kernel: $guest, transparent_hugepage: $huge},
     runs: ($runs | tonumber), seconds: ($seconds | tonumber),
     notes: {
       saved_bytes: "what the sum of Pss of the QEMU processes and of the blocks of their memfds fell by from time 0 to the end of the arm",
       time_0: "the write to ksm/run; for ballast the reload that says Mode=group to a ballastd that runs, with Mode=off, since 5 s",
       t90_s: "until 90 % of most_bytes were saved: the most that any arm saved in the set (medians); between two looks, 0.25 s apart, on a straight line",
       cpu_s: "until then: ksmd, khugepaged and our processes (ballastd, its children, and the command)",
       rest_cpu_s: "the same in the 15 s after savings had grown by less than 1 MiB in 10 s",
       state: "all arms begin after one merge that was not measured: KSM splits huge pages, and a split maps pages of zeros to the kernel'"'"'s own; so does the oracle",
       oracle: "guests paused; XXH3-128, then bytes; mappings of 16 MiB and more that are mergeable; one copy of each content stays, while the scan counts all pages of zeros as saved (scan_difference_bytes: that one); private_part: what of it the guests with data of their own make",
       late_vm: "a guest that comes with all it holds, to one replica that has been alone since 25 passes: from then to 90 % of the most that it saved by either arm (what un-merging it takes in the end), or, where an arm never came to that (reached: false), what it was watched for, 20 s without progress at its end; among_merged: to seven that are merged with each other; plain: 30,000 pages / 20 ms, smart_scan as it comes",
       thp: "saved after 30 s of a fast khugepaged over saved before; plain: after ksm-fast, with the settings as found",
       scan_gbps: "memory scanned for a CPU-second; scan_read_gbps: bytes read for one, as what has copies is read twice",
       touch_p99_ratio: "a guest reads and writes words of random pages of 64 MiB, while ballastctl scans all guests and while not, in turn; the medians of 5 99th percentiles"},
     sets: add,
     late_vm: (late("pair") + {among_merged: late("among")}),
     thp: {kept_fraction: kept("ballast"), plain_kept_fraction: kept("ksm-fast")},
     scan_gbps: $speed[0].scan_gbps, readv_gbps: $speed[0].readv_gbps, scan_of_readv: over($speed[0].scan_gbps; $speed[0].readv_gbps),
     scan_read_gbps: $speed[0].scan_read_gbps, scan_read_of_readv: over($speed[0].scan_read_gbps; $speed[0].readv_gbps),
     touch_p99_ratio: over(touch("scanned"; "p99_ns"); touch("quiet"; "p99_ns")),
     raw: {late: ($late | map(del(.series))), thp: $thp, touch: $touch}}'
}
