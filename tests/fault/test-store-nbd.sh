#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The real ballast-store under real and hostile NBD clients, killed again and again, with each kind of memory.
set -u
build=${BUILD:-build}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ "$(id -u)" -ne 0 ] || ! /usr/bin/python3 -c 'import nbd' 2> /dev/null || ! type -P nbdkit > /dev/null; then
  echo "ok - the store over NBD # SKIP needs root, nbdkit and python3-libnbd"
  exit 0
fi
rc=0
for kind in sysv tmpfs; do
  # a tmpfs that is never swapped: Linux 6.4, and the right to mount
  if [ $kind = tmpfs ]; then
    dir=$(mktemp -d /tmp/ballast-noswap-XXXXXX)
    if mount -t tmpfs -o noswap,size=1m ballast-test "$dir" 2> /dev/null; then
      umount "$dir"
      rmdir "$dir"
    else
      rmdir "$dir"
      echo "ok - the store over NBD (tmpfs) # SKIP no noswap tmpfs here"
      continue
    fi
  fi
  /usr/bin/python3 "$here/store-nbd.py" "$build" $kind || rc=1
done
exit $rc
