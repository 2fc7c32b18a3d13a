#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# run.sh [-v] [TEST...]: runs tests/fullsys/test-*.sh, or those named, in real
# systems: one guest for all tests that want the same.  A line in a test
#     # fullsys: OPTIONS       gives options to fs_boot (lib.sh)
#     # fullsys-limit: SECONDS its time limit (120)
# Prints TAP; status 1 when something failed.  -v shows what else tests say.
#
# Ballast itself is taken from $BUILD (build) and installed into a directory that
# guests see as /mnt/fullsys/root; FS_INSTALLED=DIR names one that is ready, such
# as an unpacked package.  Without QEMU or systemd on this machine all is skipped.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
# shellcheck source=lib.sh
. "$here/lib.sh"
build=${BUILD:-build}
[[ $build == /* ]] || build=$FS_PROJECT/$build
verbose=${FS_VERBOSE:-}
failed=0

if [[ ${1:-} == -v ]]; then
  verbose=1
  shift
fi
tests=("$@")
((${#tests[@]} > 0)) || tests=("$here"/test-*.sh)

for tool in qemu-system-x86_64 cpio dpkg-deb modprobe busybox setpriv "${CC:-cc}"; do
  if ! type -P "$tool" >/dev/null; then
    echo "ok - full system # SKIP no $tool here"
    exit 0
  fi
done
if [[ ! -x /usr/lib/systemd/systemd || ! -x /usr/bin/dbus-daemon ]]; then
  echo "ok - full system # SKIP no systemd or no dbus here"
  exit 0
fi

scratch=$(mktemp -d "${TMPDIR:-/tmp}/ballast-fullsys.XXXXXX")
cleanup() {
  fs_kill
  rm -rf "$scratch"
}
trap cleanup EXIT

# bin/: the tests' own programs.  root/: what Ballast installs.
prepare() {
  local share=$scratch/share flags program
  mkdir -p "$share/bin" "$share/root"
  flags=(-std=gnu17 -O2 -g -Wall -Wextra -D_GNU_SOURCE "-I$FS_PROJECT/include" "-I$FS_PROJECT")
  "${CC:-cc}" "${flags[@]}" -o "$share/bin/psi-probe" "$here/psi-probe.c" \
    "$FS_PROJECT"/daemon/sense/psi.c "$FS_PROJECT"/daemon/util/fs.c
  "${CC:-cc}" "${flags[@]}" -o "$share/bin/pageout-probe" "$here/pageout-probe.c" \
    "$FS_PROJECT"/daemon/act/pageout_walk.c "$FS_PROJECT"/daemon/sense/{guest_ram,memfd,resident}.c \
    "$FS_PROJECT"/daemon/util/{clock,fields,fs,procstat}.c
  for program in memory-hog vm-peek vsock-call; do
    "${CC:-cc}" "${flags[@]}" -o "$share/bin/$program" "$here/$program.c"
  done
  "${CC:-cc}" "${flags[@]}" -o "$share/bin/vsock-host" "$here/vsock-host.c" \
    "$FS_PROJECT"/daemon/channel/{agent,wire,vhost_vsock}.c "$FS_PROJECT"/daemon/util/{clock,sock}.c -lsystemd
  "${CC:-cc}" "${flags[@]}" -o "$share/bin/store-client" "$here/store-client.c" \
    "$FS_PROJECT"/daemon/util/{clock,fs,procstat,uuid}.c -lnbd
  if [[ -n ${FS_INSTALLED:-} ]]; then
    cp -a "$FS_INSTALLED/." "$share/root/"
    return
  fi
  [[ -x $build/ballastd ]] || return 0
  if ! make -s --no-print-directory -C "$FS_PROJECT" BUILD="${BUILD:-build}" DESTDIR="$share/root" install \
    >"$scratch/install.log" 2>&1; then
    echo "not ok - make install into a directory"
    sed 's/^/# /' "$scratch/install.log"
    failed=1
  fi
}

option_of() { # TEST NAME
  sed -n "s/^# $2: *//p" "$1" | head -n 1
}

report() { # TEST STATUS OUTPUT-FILE
  local name passed
  name=$(basename "$1" .sh)
  if [[ -n $verbose ]]; then
    sed 's/^\(ok\|not ok\) - /&'"$name: /" "$3"
  else
    grep -E '^(ok|not ok|#)' "$3" | sed 's/^\(ok\|not ok\) - /&'"$name: /" || true
  fi
  passed=$(grep -cE '^(not )?ok ' "$3" || true)
  case $2 in
    0) if [[ $passed == 0 ]]; then echo "not ok - $name: it asserted nothing" && failed=1; fi ;;
    124) echo "not ok - $name: stopped after its time limit" ;;
    125) echo "not ok - $name: the guest does not answer" ;;
    *) grep -qE '^not ok ' "$3" || echo "not ok - $name: exit status $2" ;;
  esac
  if [[ $2 != 0 ]]; then
    failed=1
    [[ -n $verbose ]] || grep -vE '^(ok|not ok|#)' "$3" | tail -n 30 | sed 's/^/# /' || true
  fi
}

run_in_guest() { # TEST
  local limit rc=0
  limit=$(option_of "$1" fullsys-limit)
  fs_run "exec bash '$1'" "${limit:-120}" >"$scratch/output" 2>&1 || rc=$?
  report "$1" "$rc" "$scratch/output"
  [[ $rc != 125 ]]
}

prepare
declare -A done_with=()
for first in "${tests[@]}"; do
  options=$(option_of "$first" fullsys)
  [[ -z ${done_with[${options:-none}]:-} ]] || continue
  done_with[${options:-none}]=1
  read -r -a words <<<"$options"
  begin=$SECONDS
  if ! fs_boot "$scratch/guest" --share "$scratch/share:fullsys" \
    --port "org.ballast.agent.0:$scratch/share/agent.out" \
    --disk ballast-swap:64 --disk fullsys-store:64 "${words[@]}"; then
    echo "not ok - the guest${options:+ ($options)} does not boot"
    failed=1
    continue
  fi
  echo "# guest${options:+ ($options)} up after $((SECONDS - begin)) s"
  for t in "${tests[@]}"; do
    [[ $(option_of "$t" fullsys) == "$options" ]] || continue
    begin=$SECONDS
    run_in_guest "$(cd "$(dirname "$t")" && pwd)/$(basename "$t")" || break
    echo "# $(basename "$t") took $((SECONDS - begin)) s"
  done
  fs_shutdown
done
exit "$failed"
