#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# systemd/ballastd.service is well-formed and as locked up as it says.
set -euo pipefail

unit=systemd/ballastd.service
# the number that the unit's comment and this test agree on, in tenths
threshold=25

if ! command -v systemd-analyze > /dev/null; then
  echo "1..0 # SKIP no systemd-analyze"
  echo "ok 1 - unit file # SKIP no systemd-analyze"
  exit 0
fi

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# verify wants the program to be there; it need not be ours
sed 's|^\(Exec[A-Za-z]*\)=/usr/sbin/ballastd\>|\1=/bin/true|' "$unit" > "$tmp/ballastd.service"

rc=0
check() {
  local n=$1 what=$2
  shift 2
  if "$@" > "$tmp/out" 2>&1; then
    echo "ok $n - $what"
  else
    echo "not ok $n - $what"
    sed 's/^/# /' "$tmp/out"
    rc=1
  fi
}

# called by check
# shellcheck disable=SC2317
# verify says what is wrong, but ends with 0 for a directive that it does not know
verify() {
  systemd-analyze verify --man=no "$tmp/ballastd.service" && [ ! -s "$tmp/out" ]
}

echo "1..4"
check 1 "the program is named once, where install puts it" test "$(grep -c '^ExecStart=/usr/sbin/ballastd$' "$unit")" = 1
check 2 "systemd-analyze verify has nothing to say" verify
check 3 "systemd-analyze security is at $threshold or below" \
  systemd-analyze security --offline=true --no-pager --threshold="$threshold" "$tmp/ballastd.service"
check 4 "the unit names that threshold" grep -q -- "--threshold=$threshold " "$unit"
exit "$rc"
