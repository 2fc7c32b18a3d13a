#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# verify-units.sh [DIR]: systemd-analyze's opinion of the units in DIR (default:
# what `make install` installs, or systemd/ where that does not go yet), on this
# machine, with no systemd running.
#
#   - verify: unknown settings, missing sections, documentation that is no URI
#   - security: how exposed each service is, against the thresholds below
#   - each program that a unit starts is one that is installed
#
# Prints TAP; status 1 when something failed.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$here/../.." && pwd)
build=${BUILD:-build}
[[ $build == /* ]] || build=$project/$build
failed=0
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ballast-units.XXXXXX")
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# systemd-analyze's exposure (0 to 10) times ten that a service may have at
# most.  A service that reads other processes cannot come near 0.
declare -A threshold=([default]=25 [ballast-store.service]=14)

if ! type -P systemd-analyze >/dev/null; then
  echo "ok - units # SKIP no systemd-analyze here"
  exit 0
fi

result() { # NAME STATUS OUTPUT-FILE
  if [[ $2 == 0 ]]; then
    echo "ok - $1"
  else
    echo "not ok - $1"
    failed=1
    sed 's/^/# /' "$3"
  fi
}

root=
units=${1:-}
if [[ -z $units ]]; then
  if [[ -x $build/ballastd ]] && make -s --no-print-directory -C "$project" BUILD="${BUILD:-build}" DESTDIR="$scratch/root" \
    install >"$scratch/install.log" 2>&1; then
    root=$scratch/root
    units=$(dirname "$(find "$root" -path '*/systemd/system/*.service' | head -n 1)")
  else
    units=$project/systemd
  fi
fi
mapfile -t unit_files < <(find "$units" -maxdepth 1 \( -name '*.service' -o -name '*.socket' \) 2>/dev/null | LC_ALL=C sort)
if ((${#unit_files[@]} == 0)); then
  echo "ok - units # SKIP there are none in $units"
  exit 0
fi

# verify insists that programs are there: stand-ins for ours, which are not installed on this machine
mkdir "$scratch/units"
find "$units" -maxdepth 1 -type f -regex '.*\.\(service\|socket\|timer\|target\|slice\|path\)' -exec cp -t "$scratch/units" {} +
sed -E -i 's,^(Exec[A-Za-z]+=[-@:+!]*)/[^ ]*/ballast[^ ]*,\1/bin/true,' "$scratch"/units/*.service

for file in "${unit_files[@]}"; do
  name=$(basename "$file")
  if [[ -n $root && $name == *.service ]]; then
    rc=0
    : >"$scratch/out"
    while read -r program; do
      [[ -x $root$program || (! $program =~ /ballast && -x $program) ]] || {
        echo "$program is not there" >>"$scratch/out"
        rc=1
      }
    done < <(sed -nE 's,^Exec[A-Za-z]+=[-@:+!]*(/[^ ]+).*,\1,p' "$file")
    result "$name starts programs that are installed" "$rc" "$scratch/out"
  fi
  rc=0
  # it only warns about what it does not know, so any word is a failure
  SYSTEMD_LOG_LEVEL=notice systemd-analyze verify --man=no --recursive-errors=no "$scratch/units/$name" \
    >"$scratch/out" 2>&1 || rc=$?
  grep -vE 'Failed to (open|connect)|/dev/kmsg' "$scratch/out" >"$scratch/said" || true
  [[ ! -s $scratch/said ]] || rc=1
  result "$name: systemd-analyze verify" "$rc" "$scratch/said"
  [[ $name == *.service ]] || continue
  most=${threshold[$name]:-${threshold[default]}}
  rc=0
  systemd-analyze security --no-pager --offline=true --threshold="$most" "$scratch/units/$name" >"$scratch/out" 2>&1 || rc=$?
  # first what costs most
  { grep -i 'overall exposure' "$scratch/out" || cat "$scratch/out"; grep '^✗' "$scratch/out" | sort -rn -k1.1 | head -n 15 || true; } >"$scratch/said"
  result "$name: exposure at most $((most / 10)).$((most % 10))" "$rc" "$scratch/said"
  echo "# $(grep -i 'overall exposure' "$scratch/out" || true)"
done
exit "$failed"
