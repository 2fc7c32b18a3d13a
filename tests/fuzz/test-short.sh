#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# A short run of each fuzz target from its corpus, ten seconds each and a minute
# altogether; `make fuzz-long` is the real one.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=${BUILD:-build}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
targets=("$build"/tests/fuzz/fuzz-*)
seconds=$((50 / ${#targets[@]}))
if ((seconds > 10)); then seconds=10; fi
failed=0
for bin in "${targets[@]}"; do
  name=$(basename "$bin")
  # the first folder receives what is found, the second is only read
  mkdir "$dir/$name"
  folders=("$dir/$name")
  if [ -d "tests/fuzz/corpus/${name#fuzz-}" ]; then folders+=("tests/fuzz/corpus/${name#fuzz-}"); fi
  if "$bin" -seed=1 -max_total_time="$seconds" -artifact_prefix="$dir/" -print_final_stats=1 \
    "${folders[@]}" > "$dir/log" 2>&1; then
    echo "ok - $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/log") executions, no finding"
  else
    tail -n 40 "$dir/log"
    echo "not ok - $name"
    failed=1
  fi
done
exit "$failed"
