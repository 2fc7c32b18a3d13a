# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# share-parts.sh: what else is measured on the guests of set dense (part of bench-share.sh).
#
#   part_thp    khugepaged, let loose on what an arm has merged
#   part_late   a guest that comes when all others have been merged
#   part_scan   how fast memory is scanned, and what a guest notices of it

: "${raw:?where results go}" "${bench:?}" "${guests=}" "${set_name=}" "${knobs_file=}" "${late_guest:?}" "${late_replica:?}" "${touch_guest:?}"

thp_seconds=30

# --- khugepaged ------------------------------------------------------------------------

khugepaged_collapsed() { cat "$KHUGEPAGED/pages_collapsed"; }
khugepaged_fast() {
  echo 10 > "$KHUGEPAGED/scan_sleep_millisecs"
  echo 65536 > "$KHUGEPAGED/pages_to_scan"
}
khugepaged_as_found() {
  grep -E "^$KHUGEPAGED/(scan_sleep_millisecs|pages_to_scan) " "$knobs_file" | knobs_write
}

# What is saved before and after, against what the guests took before the arm
thp_run() { # ARM FILE
  local before after took from scans
  from=$(khugepaged_collapsed)
  scans=$(< "$KHUGEPAGED/full_scans")
  took=$(jq .used_before "$2")
  before=$(guests_used)
  khugepaged_fast
  sleep $thp_seconds
  khugepaged_as_found
  after=$(guests_used)
  jq -nc --arg arm "$1" --argjson took "$took" --argjson before "$before" --argjson after "$after" \
    --argjson collapsed $(($(khugepaged_collapsed) - from)) --argjson scans $(($(< "$KHUGEPAGED/full_scans") - scans)) \
    '{arm: $arm, saved_before: ($took - $before), saved_after: ($took - $after), collapsed: $collapsed, full_scans: $scans,
      kept_fraction: (($took - $after) / ($took - $before))}' >> "$raw/thp.jsonl"
  tail -n 1 "$raw/thp.jsonl" | jq -r '"   khugepaged after \(.arm): kept \(.kept_fraction * 1000 | round / 1000), \(.collapsed) collapsed"' >&2
}

part_thp() {
  # shellcheck disable=SC2034 # of arm_run
  local arm arm_after=0
  : > "$raw/thp.jsonl"
  for arm in ksm-fast ballast; do
    with_arm $arm || continue
    # khugepaged has made of the guests what they were before the first merge
    part_first
    arm_run $arm "$raw/arm.json"
    thp_run $arm "$raw/arm.json"
    arm_end
  done
}

# --- a late guest --------------------------------------------------------------------

ballast_rests() { [ "$(< "$KSM/run")" = 0 ] && [ "$(ctl --json share | jq -r .state)" = rest ]; }

late_plain() {
  ksm_set pages_to_scan 30000 sleep_millisecs 20 smart_scan 1
  echo 1 > "$KSM/run"
  until_true 240 full_scans_since "$(< "$KSM/full_scans")" 25
}
late_ballast() {
  local g
  ballast_ready
  for g in "${late_out[@]}"; do ctl set "$g" --sharing off --live > /dev/null; done
  ballast_write_conf mode=group host_knobs=yes
  ctl reload > /dev/null
  sleep 10
  until_true 120 ballast_rests || say "   ballastd does not come to rest"
}

# What it has saved in the end is what un-merging it takes: the 90 % are those of the most that it
# saved by either arm (share-result.sh), and time 0 is when it answers, however much has been
# merged by then.
# among: all others have been merged with each other, which KSM finds at once in its stable tree.
# pair: nobody but one replica of it takes part, whose pages nobody has had a copy of.
late_run() { # ARM among|pair
  local all=("${guests[@]}") g line before after
  guests=() late_out=()
  for g in "${all[@]}"; do
    if [ "$g" = "$late_guest" ]; then continue; fi
    if [ "$2" = among ] || [ "$g" = "$late_replica" ]; then guests+=("$g"); else late_out+=("$g"); fi
  done
  # it is saved and comes back with all that it holds: loading takes minutes, in which others are merged
  vm_virsh managedsave "$late_guest" > /dev/null
  arm_reset
  [ ${#late_out[@]} = 0 ] || guests_merge off "${late_out[@]}"
  "late_$1"
  guests=("${guests[@]}" "$late_guest")
  vm_start "$late_guest"
  line=$(watch --limit 120 --rest 20 --after 0 -- true)
  if [ "$1" = ballast ]; then for g in "${late_out[@]}"; do ctl set "$g" --sharing group --live > /dev/null; done; fi
  arm_end
  echo 0 > "$KSM/run"
  before=$(guests_used)
  guests_merge off "$late_guest"
  after=$(guests_used)
  guests=("${all[@]}")
  jq -c --arg arm "$1" --arg scene "$2" --argjson own $((after - before)) '
    {arm: $arm, scene: $scene, own_bytes: $own, saved_after_load: .saved_bytes, at_rest: (.rest_s != null),
     watched_s: .series[-1][0], series: .series}' <<< "$line" >> "$raw/late.jsonl"
  tail -n 1 "$raw/late.jsonl" | jq -r '"   late guest, \(.scene), \(.arm): \(.own_bytes / 1e6 | round) MB"' >&2
}

part_late() {
  local arm scene
  : > "$raw/late.jsonl"
  for scene in pair among; do
    for arm in plain ballast; do
      if [ "$arm" = plain ] || with_arm ballast; then late_run $arm $scene; fi
    done
  done
}

# --- the scanner -----------------------------------------------------------------------

scan_once() { "$BUILD/ballastctl" --json scan --connect "$VM_URI" --libvirt-run-dir "$VM_RUN" "${guests[@]}"; }
scan_on() { while scan_once > /dev/null 2>&1; do :; done; }

touch_run() { # quiet|scanned RUN
  local scanner='' answer
  if [ "$1" = scanned ]; then
    scan_on &
    scanner=$!
    sleep 0.5
  fi
  answer=$(vm_cmd "$touch_guest" 'sh /tools/share-touch 64 4' 120)
  if [ -n "$scanner" ]; then
    pkill -P "$scanner" 2> /dev/null || true
    kill "$scanner" 2> /dev/null || true
    wait "$scanner" 2> /dev/null || true
  fi
  jq -nc --arg state "$1" --argjson run "$2" --arg answer "$answer" '
    {state: $state, run: $run} + ($answer | [scan("([a-z0-9_]+)=([0-9]+)") | {key: .[0], value: (.[1] | tonumber)}] | from_entries)' >> "$raw/touch.jsonl"
}

part_scan() {
  local i
  arm_reset
  : > "$raw/touch.jsonl"
  rm -f "$raw/speed.json"
  if [ -x "$bench/bench-scan" ]; then
    # shellcheck disable=SC2046 # words
    "$bench/bench-scan" $(pids_of "${guests[@]}") > "$raw/speed.json" || rm -f "$raw/speed.json"
  fi
  scan_once > /dev/null 2>&1 || { say "   ballastctl cannot scan" && return 0; }
  vm_cmd "$touch_guest" 'sh mkdir -p /tools && tar -xf /dev/vdb -C /tools' > /dev/null
  for ((i = 1; i <= 5; i++)); do
    touch_run quiet $i
    touch_run scanned $i
  done
}
