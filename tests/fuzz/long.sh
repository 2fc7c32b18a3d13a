#!/usr/bin/env bash
# long.sh [RUNS [SECONDS]]: runs each fuzzer until it has executed RUNS inputs or
# SECONDS are over. Starts from the corpus in git; what it finds new is kept in
# BUILD/fuzz/NAME, failing inputs in BUILD/fuzz/NAME-*.
# Half of the effort goes to short inputs, which run faster and mutate deeper.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${BUILD:-$here/../../build}
runs=${1:-5000000} seconds=${2:-3600}

for fuzzer in "$build"/tests/fuzz/fuzz-*; do
    [[ -x $fuzzer ]] || continue
    name=${fuzzer##*/fuzz-}
    mkdir -p "$build/fuzz/$name"
    for len in 512 4096; do
        echo "fuzz-$name: inputs up to $len bytes"
        "$fuzzer" -runs="$((runs / 2))" -max_total_time="$((seconds / 2))" -max_len="$len" -verbosity=0 \
            -print_final_stats=1 -artifact_prefix="$build/fuzz/$name-" "$build/fuzz/$name" "$here/corpus/$name"
    done
done
