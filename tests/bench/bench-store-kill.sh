#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make bench-store-kill -> build/bench/store-kill.json
#
# kill -9 of the store, again and again, while real guests verify and rewrite memory of which
# at least a quarter is in the store, with requests under way.  No guest may read a wrong byte,
# see an I/O error, or stay hung.
#
#   BALLAST_CYCLES=1000   kills
#   GUESTS=3
#   PAUSE_MS=1500         at most so long between two kills, chosen at random
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${BUILD:=$here/../build}"
BUILD=$(cd "$BUILD" && pwd)
export BUILD AGENT=$BUILD/ballast-agent
# shellcheck source=tests/vm/lib.sh
. "$here/vm/lib.sh"
# shellcheck source=tests/vm/lib-ballast.sh
. "$here/vm/lib-ballast.sh"
# shellcheck source=tests/bench/store-cycles.sh
. "$here/bench/store-cycles.sh"

cycles=${BALLAST_CYCLES:-1000}
raw=$BUILD/bench/store-kill.jsonl
mkdir -p "$BUILD/bench"
say() { printf '%s\n' "$*" >&2; }
cleanup() {
  ballast_stop || true
  vsock_stop
  [ -z "${VM_DIR:-}" ] || store_stop
}
export VM_ON_EXIT=cleanup
vm_env_trap
vm_env_start "$(mktemp -d /tmp/bkill.XXXXXX)"

guests=()
for ((i = 1; i <= ${GUESTS:-3}; i++)); do guests+=("k$i"); done
begun=$SECONDS
store_start pool_size=1G pool_ready=384M
ballast_start budget=16G act=no stats_period=1s
cycles_guests "${guests[@]}"
cycles_run "$cycles" "${PAUSE_MS:-1500}" "$raw" "${guests[@]}"
cycles_result "$raw" "$((SECONDS - begun))" "${guests[@]}" > "$BUILD/bench/store-kill.json"
jq 'del(.raw)' "$BUILD/bench/store-kill.json"
jq -e '.wrong_bytes == 0 and .io_errors == 0 and .hung == 0' "$BUILD/bench/store-kill.json" > /dev/null
