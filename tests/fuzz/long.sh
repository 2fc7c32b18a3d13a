#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make fuzz-long -> build/bench/fuzz.json
#
# long.sh [RUNS [SECONDS]]: runs each fuzzer until it has executed RUNS inputs
# (20 million), at most SECONDS (no limit); two at a time. Starts from the corpus
# in git, which is only read; what is found new is kept in BUILD/fuzz/NAME and is
# where the next campaign begins. Half of the effort goes to short inputs, which
# run faster and mutate deeper.
#
# An input that fails ends its fuzzer: it is kept as BUILD/fuzz/NAME-crash-... (or
# -timeout-, -oom-, -leak-) and named in the result.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${BUILD:-build}
runs=${1:-20000000} seconds=${2:-0}
mkdir -p "$build/fuzz" "$build/bench"
export build runs seconds

campaign() { # FUZZER: its result is BUILD/fuzz/NAME.json
  local name=${1##*/fuzz-} len log execs=0 n rc=0 found=() dirs input
  log=$build/fuzz/$name.log
  mkdir -p "$build/fuzz/$name"
  dirs=("$build/fuzz/$name")
  [[ ! -d tests/fuzz/corpus/$name ]] || dirs+=("tests/fuzz/corpus/$name")
  for len in 512 4096; do
    rc=0
    "$1" -runs="$((runs / 2))" -max_total_time="$((seconds / 2))" -max_len="$len" -verbosity=0 \
      -print_final_stats=1 -artifact_prefix="$build/fuzz/$name-" "${dirs[@]}" >"$log" 2>&1 || rc=$?
    n=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    execs=$((execs + ${n:-0}))
    ((rc != 0)) || continue
    input=$(sed -n 's/.*Test unit written to //p' "$log")
    found+=("${input:-none}")
    tail -n 60 "$log" >&2
    break
  done
  jq -cn --arg target "$name" --argjson execs "$execs" --argjson findings ${#found[@]} \
    '{target: $target, execs: $execs, findings: $findings, inputs: $ARGS.positional}' --args "${found[@]}" |
    tee "$build/fuzz/$name.json"
}
export -f campaign

rm -f "$build"/fuzz/*.json
# shellcheck disable=SC2016 # the inner shell's
printf '%s\0' "$build"/tests/fuzz/fuzz-* | xargs -0 -P 2 -I{} bash -c 'set -euo pipefail; campaign "$1"' _ {}
jq -s . "$build"/fuzz/*.json >"$build/bench/fuzz.json"
jq -e 'all(.[]; .findings == 0)' "$build/bench/fuzz.json" >/dev/null
