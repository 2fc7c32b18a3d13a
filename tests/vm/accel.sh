#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# accel.sh: prints how QEMU should run guests here, "kvm" or "tcg".
#
# That /dev/kvm can be opened says little: under some nested hypervisors a stock
# guest hangs on it. So the test guest is booted on it once, with a time limit.
# The answer is kept in build/vm/accel until the machine boots anew.
# VM_ACCEL=kvm|tcg overrides, VM_IMAGE=DIR is the image directory.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
image=${VM_IMAGE:-$here/../../build/vm}
limit=15

boots_on_kvm() {
  local kernel initrd log qemu=0 ok=1
  [[ -c /dev/kvm && -r /dev/kvm && -w /dev/kvm ]] || return 1
  read -r kernel initrd < <("$here/build-image.sh" "$image")
  log=$(mktemp)
  qemu-system-x86_64 -nodefaults -no-user-config -machine pc -accel kvm -cpu host -m 256 \
    -sandbox on -display none -monitor none -kernel "$kernel" -initrd "$initrd" \
    -append "console=ttyS0 quiet" -serial "file:$log" -serial null >/dev/null 2>&1 9>&- &
  qemu=$!
  for ((i = 0; i < limit * 10; i++)); do
    if grep -q 'guestcmd: up' "$log"; then
      ok=0
      break
    fi
    kill -0 "$qemu" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 "$qemu" 2>/dev/null || true
  wait "$qemu" 2>/dev/null || true
  rm -f "$log"
  return "$ok"
}

if [[ -n ${VM_ACCEL:-} ]]; then
  echo "$VM_ACCEL"
  exit
fi
mkdir -p "$image"
exec 9>"$image/.accel.lock"
flock 9
boot_id=$(</proc/sys/kernel/random/boot_id)
if [[ ! -s $image/accel || $(cat "$image/accel.boot" 2>/dev/null) != "$boot_id" ]]; then
  if boots_on_kvm; then
    echo kvm >"$image/accel"
  else
    echo tcg >"$image/accel"
  fi
  echo "$boot_id" >"$image/accel.boot"
fi
cat "$image/accel"
