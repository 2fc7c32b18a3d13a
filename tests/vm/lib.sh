# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# lib.sh: real guests under a private libvirtd, for tests, demo and benchmarks.
#
#     . tests/vm/lib.sh
#     vm_env_trap
#     vm_env_start "$(mktemp -d /tmp/bvm.XXXXXX)"
#     vm_define g1 --memory 256
#     vm_start g1
#     vm_cmd g1 'alloc a 64'
#
# To be sourced by bash with `set -euo pipefail`, as root. README.md lists the
# functions. Names beginning with vm__ are private to these files.

VM_HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
: "${VM_IMAGE:=$VM_HERE/../../build/vm}" # kernel, initrd, guestcall, accel
: "${VM_BOOT_LIMIT:=90}"                 # seconds until a guest must answer
: "${VM_CMD_LIMIT:=60}"                  # seconds for one guest command

vm__die() {
  echo "vm: $*" >&2
  return 1
}

# until_true SECONDS COMMAND...: polls it; fails when the time is over
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    if ((SECONDS >= end)); then return 1; fi
    sleep 0.2
  done
}

# shellcheck source=lib-env.sh source-path=SCRIPTDIR
. "$VM_HERE/lib-env.sh"
# shellcheck source=lib-domain.sh source-path=SCRIPTDIR
. "$VM_HERE/lib-domain.sh"
# shellcheck source=lib-observe.sh source-path=SCRIPTDIR
. "$VM_HERE/lib-observe.sh"
