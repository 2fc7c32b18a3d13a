#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# fullsys: --plain --memory 256 --cmdline psi=0
# A kernel started without PSI: the reader says so, and that is all.
set -euo pipefail
# shellcheck source=guest.sh
. "$(dirname "$0")/guest.sh"

check 'the kernel runs with psi=0' grep -qw psi=0 /proc/cmdline
for mode in --read '--seconds 1'; do
  rc=0
  # shellcheck disable=SC2086 # two words
  psi-probe $mode >"$work/out" 2>&1 || rc=$?
  if [[ $rc == 3 ]] && grep -q '^unsupported: .*psi=' "$work/out"; then
    ok "psi-probe $mode: not supported, with the reason"
  else
    not_ok "psi-probe $mode: not supported, with the reason" "$rc, $(<"$work/out")"
  fi
done
finish
