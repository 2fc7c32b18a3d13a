#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The daemon's whole life under valgrind: start, libvirt (its test driver: real
# connection, events and domains, no guest), every call, reload, end.
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(cd "${BUILD:-build}" && pwd)
dir=$(mktemp -d /tmp/bvalgrind.XXXXXX)
pid=
cleanup() {
  if [ -n "$pid" ]; then kill -KILL "$pid" 2>/dev/null || true; fi
  rm -rf "$dir"
}
trap cleanup EXIT
mkdir "$dir/state" "$dir/run"
printf '[host]\nbudget=1G\n[policy]\nidle_tax=50%%\n' > "$dir/ballast.conf"
ctl() { "$build/ballastctl" --socket "$dir/run/ballast.sock" "$@" > /dev/null 2>&1; }

valgrind --quiet --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect \
  --track-fds=no --error-exitcode=99 --log-file="$dir/valgrind.log" \
  "$build/ballastd" --config "$dir/ballast.conf" --connect test:///default --state-dir "$dir/state" \
  --runtime-dir "$dir/run" --no-system-bus > "$dir/log" 2>&1 &
pid=$!
for _ in $(seq 150); do ctl status && break; sleep 0.2; done
ctl status || { cat "$dir/log" "$dir/valgrind.log"; echo "not ok - the daemon answers under valgrind"; exit 1; }
echo "ok - the daemon answers under valgrind"
for _ in $(seq 50); do
  if "$build/ballastctl" --socket "$dir/run/ballast.sock" --json list | jq -e '.vms | length > 0' > /dev/null; then break; fi
  sleep 0.2
done
vm=$("$build/ballastctl" --socket "$dir/run/ballast.sock" --json list | jq -r '.vms[0].name')
if [ "$vm" = test ]; then
  echo "ok - it knows libvirt's test domain"
else
  echo "not ok - it knows libvirt's test domain ($vm)"
  exit 1
fi
for c in "list" "show test" "plan" "explain" "explain test" "config" "metrics" "hold test" "release test" "hold" "release" \
  "act on" "act off" "set test --shares high --live" "show nobody" "rollback" "reload"; do
  # shellcheck disable=SC2086
  ctl --json $c || true
done
kill -HUP "$pid"
sleep 2
ctl status || { echo "not ok - it answers after everything"; exit 1; }
echo "ok - it answers after everything"
kill "$pid"
rc=0
wait "$pid" || rc=$?
pid=
if [ "$rc" = 0 ] && ! grep -q 'ERROR\|definitely lost' "$dir/valgrind.log"; then
  echo "ok - valgrind has nothing to say, and it ends with 0"
else
  cat "$dir/valgrind.log"
  echo "not ok - valgrind, status $rc"
  exit 1
fi
