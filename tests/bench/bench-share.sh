#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# make bench-share -> build/bench/share.json; make bench-share-long -> build/bench/share-long.json
#
# What equal pages of real guests can save, how much of it KSM and Ballast get, how soon and
# for how much CPU, on the same running guests: sets dense and herd (share-guests.sh), arms
# ksm-fast, ksm-max and ballast (share-arms.sh), each from the same state, in another order
# each time.  Savings are what the guests' Pss and memfds fall by, seen from outside
# (bench-share-watch).  Then a late guest, khugepaged, and the scanner (share-parts.sh).
# Un-merges all pages of the host on its way; settings of KSM and khugepaged are put back.
# About 25 minutes.  --long: slow arms, once, and set
# herd_same, an hour and a half.
#
#   bench-share.sh [--long] [--runs N] [--sets dense,herd] [--arms ARM,...]
#                  [--only arms|late|thp|scan]   a part; the rest is what an earlier run has left
#                                                in build/bench/raw-share
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${BUILD:=$here/../build}"
BUILD=$(cd "$BUILD" && pwd)
export BUILD AGENT=$BUILD/ballast-agent
# shellcheck source=tests/vm/lib.sh
. "$here/vm/lib.sh"
# shellcheck source=tests/vm/lib-ballast.sh
. "$here/vm/lib-ballast.sh"

usage() { sed -n '/^#   bench-share.sh/,/^[^#]/s/^# *//p' "$0" >&2 && exit 2; }
say() { printf '%s\n' "$*" >&2; }

runs=3 only='' sets=(dense herd) arms=(ksm-fast ksm-max ballast) result=share
while (($# > 0)); do
  case $1 in
    --long) runs=1 sets=(dense herd herd_same) arms=(ksm-fast ksm-default ksmtuned ballast) result=share-long only=arms ;;
    --runs) runs=${2:?} && shift ;;
    --sets) IFS=, read -ra sets <<< "${2:?}" && shift ;;
    --arms) IFS=, read -ra arms <<< "${2:?}" && shift ;;
    --only) only=${2:?} && shift ;;
    *) usage ;;
  esac
  shift
done
case $only in
  late | thp | scan) sets=(dense) ;;
  '' | arms) ;;
  *) usage ;;
esac
with_arm() { [[ " ${arms[*]} " == *" $1 "* ]]; }

bench=$BUILD/tests/bench
raw=$BUILD/bench/raw-$result
mkdir -p "$raw"
[ -n "$only" ] || rm -f "$raw"/*.json*
set_name=
# shellcheck source=tests/bench/share-knobs.sh
. "$here/bench/share-knobs.sh"
# shellcheck source=tests/bench/share-guests.sh
. "$here/bench/share-guests.sh"
# shellcheck source=tests/bench/share-arms.sh
. "$here/bench/share-arms.sh"
# shellcheck source=tests/bench/share-parts.sh
. "$here/bench/share-parts.sh"
# shellcheck source=tests/bench/share-result.sh
. "$here/bench/share-result.sh"

[ -w "$KSM/run" ] || { echo 'bench-share: this kernel has no KSM, or you are not root' >&2 && exit 1; }
env_end() {
  ballast_stop || true
  vsock_stop
  vm_env_stop
}
cleanup() {
  ksmtuned_stop || true
  ballast_stop || true
  [ -z "${VM_DIR:-}" ] || vsock_stop
  knobs_restore || true
}
export VM_ON_EXIT=cleanup
vm_env_trap
knobs_take "$BUILD/bench/share-knobs.found"

part() { # NAME
  local begun=$SECONDS
  say "== $set_name: $1"
  "part_$1"
  say "   $((SECONDS - begun)) s"
}
wanted() { [ -z "$only" ] || [ "$only" = "$1" ]; }

for at in "${sets[@]}"; do
  vm_env_start "$(mktemp -d /tmp/bshare.XXXXXX)"
  guests_up "$at"
  part first
  part oracle
  # what herd_same is for is no matter of slow arms
  if [ "$at" = herd_same ]; then arms=(ksm-fast ksm-max ballast); fi
  if wanted arms; then part arms; fi
  for more in scan late thp; do
    if [ "$at" = dense ] && wanted $more; then part $more; fi
  done
  env_end
done
result_write > "$BUILD/bench/$result.json"
jq 'del(.notes, .sets[].guests, .sets[].arms[].repeats, .raw)' "$BUILD/bench/$result.json"
