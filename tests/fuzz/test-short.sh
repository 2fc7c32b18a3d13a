#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A short run of each fuzz target from its corpus; `make fuzz-long` is the real one.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
runs=${FUZZ_RUNS:-200000}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
for bin in "$build"/tests/fuzz/fuzz-*; do
  name=$(basename "$bin")
  corpus=tests/fuzz/corpus/${name#fuzz-}
  mkdir "$dir/$name"
  # the first folder receives what is found, the second is only read
  if "$bin" -runs="$runs" -seed=1 -max_total_time=60 -artifact_prefix="$dir/" -print_final_stats=1 \
    "$dir/$name" "$corpus" > "$dir/log" 2>&1; then
    echo "ok - $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/log") executions, no finding"
  else
    tail -n 40 "$dir/log"
    echo "not ok - $name"
    exit 1
  fi
done
