#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# build-image.sh [OUTDIR]: makes the test guest's kernel and initrd.
#
#   OUTDIR/vmlinuz, OUTDIR/initrd.gz   the newest build
#   OUTDIR/initrd-STAMP.gz             the same, by content: what a test uses, so
#                                      that another build cannot change it
#   OUTDIR/guestcall, OUTDIR/reaper    helpers of lib.sh, for the host
#   OUTDIR/vsockcall                   a hostile program, in every guest
#
# Prints "KERNEL INITRD" (absolute paths) on stdout, everything else on stderr.
#
# Environment: GUESTCMD=path  a ready static guestcmd instead of a fresh build
#              AGENT=path     ballast-agent to put in, which is static; without
#                             it the guest has no agent
#              AGENT_ARGS=... its arguments
#              VM_KERNEL_PACKAGE  default: what linux-image-cloud-amd64 stands for
#
# The kernel is Debian's own, downloaded by apt and unpacked, never installed.
# Safe to run in parallel: one lock per OUTDIR, results renamed into place.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:-$here/../../build/vm}
mkdir -p "$out"
out=$(cd "$out" && pwd)

modules="drivers/virtio/virtio drivers/virtio/virtio_ring
  drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci_legacy_dev
  drivers/virtio/virtio_pci drivers/virtio/virtio_balloon
  drivers/char/virtio_console drivers/block/virtio_blk
  net/vmw_vsock/vsock net/vmw_vsock/vmw_vsock_virtio_transport_common
  net/vmw_vsock/vmw_vsock_virtio_transport"

die() {
  echo "build-image: $*" >&2
  exit 1
}

# The kernel package is fetched once; a newer one in the archive is not looked
# for again, so that results stay comparable (remove OUTDIR/kernel to renew).
fetch_kernel() {
  local package=${VM_KERNEL_PACKAGE:-} tmp=$out/kernel.tmp
  [[ -e $out/kernel/done ]] && return
  if [[ -z $package ]]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '$1 == "Depends:" && !n++ { print $2 }')
  fi
  [[ -n $package ]] || die "apt knows no linux-image-cloud-amd64 (apt-get update?)"
  rm -rf "$tmp"
  mkdir -p "$tmp/root"
  # -o: the download must not fail because user _apt cannot write here
  fetch() { (cd "$tmp" && apt-get -q -o APT::Sandbox::User=root download "$package") >&2; }
  # an old list names a version that the archive has no more
  fetch || { apt-get update -q >&2 && fetch; }
  dpkg-deb -x "$tmp/$package"_*.deb "$tmp/root"
  mv "$tmp"/root/boot/vmlinuz-* "$tmp/vmlinuz"
  mv "$tmp"/root/lib/modules/*/kernel "$tmp/modules"
  rm -rf "$tmp/root" "$tmp"/*.deb
  echo "$package" >"$tmp/done"
  rm -rf "$out/kernel"
  mv "$tmp" "$out/kernel"
}

compile() { # TARGET SOURCE...: only when something is newer
  local target=$1 file fresh=1
  shift
  for file in "$@" "$here/guestcmd.h"; do
    [[ $target -nt $file ]] || fresh=0
  done
  ((!fresh)) || return 0
  # static: guestcmd has no libraries in the guest, the others do not mind
  "${CC:-cc}" -std=gnu17 -D_GNU_SOURCE -O2 -Wall -Wextra -static -o "$target.tmp" "$@"
  mv "$target.tmp" "$target"
}

fill_root() { # ROOT GUESTCMD
  local root=$1 m
  mkdir -p "$root"/{bin,dev,proc,sys,run,tmp,etc,lib/modules}
  install "$(command -v busybox)" "$root/bin/busybox"
  for m in $(busybox --list); do
    [[ $m == busybox ]] || ln -s busybox "$root/bin/$m"
  done
  for m in $modules; do
    cp "$out/kernel/modules/$m.ko" "$root/lib/modules/"
  done
  install "$here/init.sh" "$root/init"
  install "$2" "$root/bin/guestcmd"
  install "$out/vsockcall" "$root/bin/vsockcall"
  if [[ -n ${AGENT:-} && -e ${AGENT:-} ]]; then
    install "$AGENT" "$root/bin/ballast-agent"
    printf '%s\n' "${AGENT_ARGS:-}" >"$root/etc/ballast-agent.args"
  fi
}

stamp_of() { # of everything that goes in
  {
    cat "$out/kernel/done" "$here/init.sh" "$here/build-image.sh" "$1" "$out/vsockcall" "$(command -v busybox)"
    echo "${AGENT_ARGS:-}"
    [[ -z ${AGENT:-} || ! -e ${AGENT:-} ]] || cat "$AGENT"
  } | sha256sum | cut -c1-16
}

exec 9>"$out/.lock"
flock 9
fetch_kernel
guestcmd=${GUESTCMD:-}
if [[ -z $guestcmd ]]; then
  guestcmd=$out/guestcmd
  compile "$guestcmd" "$here"/guest{cmd,slot,work,agent,util}.c
fi
compile "$out/guestcall" "$here/guestcall.c"
compile "$out/vsockcall" "$here/vsockcall.c"
compile "$out/reaper" "$here/reaper.c"
stamp=$(stamp_of "$guestcmd")
initrd=$out/initrd-$stamp.gz
if [[ ! -e $initrd ]]; then
  root=$(mktemp -d "$out/root.XXXXXX")
  trap 'rm -rf "$root"' EXIT
  fill_root "$root" "$guestcmd"
  (cd "$root" && find . -print0 | LC_ALL=C sort -z |
    cpio --null --quiet -o -H newc --owner=0:0 --reproducible | gzip -1n) >"$initrd.tmp"
  mv "$initrd.tmp" "$initrd"
  # Builds of an hour ago that no test can still be about to copy.
  find "$out" -maxdepth 1 -name 'initrd-*.gz' -mmin +60 ! -name "initrd-$stamp.gz" -delete
fi
ln -sf "kernel/vmlinuz" "$out/vmlinuz"
ln -sf "initrd-$stamp.gz" "$out/initrd.gz"
touch -c "$initrd" # in use: keeps it from the clean-up above
echo "$out/kernel/vmlinuz $initrd"
