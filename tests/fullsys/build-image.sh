#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# build-image.sh [OUTDIR]: makes the kernel and the initrd of the full-system
# guest, in build/fullsys unless told otherwise, and prints "KERNEL INITRD".
#
# The kernel is Debian's generic one, downloaded by apt and unpacked, never
# installed.  The initrd holds what a systemd with journal and bus needs to come
# up, copied from this machine (with the libraries that ldd names): what is
# there is read from memory.  Everything else of /usr the guest sees through 9p
# (init.sh), so nothing has to be listed here to work, only to be quick.
#
# Environment: FS_KERNEL_PACKAGE  default: what linux-image-amd64 stands for
#
# Safe to run in parallel: one lock per OUTDIR, results renamed into place.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
out=${1:-$here/../../build/fullsys}
mkdir -p "$out"
out=$(cd "$out" && pwd)

# With their dependencies (modprobe knows them) and in this order.
boot_modules=(virtio_pci virtio_console virtio_rng 9p 9pnet_virtio overlay)
# For tests to load with modprobe.
more_modules=(autofs4 zram lz4 zstd vsock_loopback vhost_vsock virtio_balloon virtio_blk loop)

programs=(bash sh cat chmod cp cut date dd dirname basename echo env false find head id ln ls mkdir mknod mktemp mv
  nproc printf readlink rm rmdir seq sleep sort stat sync tail tee test timeout touch tr true truncate uname uniq wc
  base64 sha256sum grep sed mawk awk jq kill ps pgrep pidof setsid mount umount findmnt mountpoint swapon swapoff
  mkswap dmesg flock systemctl systemd-run systemd-notify journalctl busctl systemd-cat systemd-cgls systemd-analyze
  dbus-daemon dbus-send modprobe setpriv getent)
systemd_programs=(systemd systemd-journald systemd-shutdown systemd-cgroups-agent)
# Libraries that are loaded by name or that Ballast will want.
libraries=(libnss_systemd.so.2 libvirt.so.0 libvirt-qemu.so.0 libsystemd.so.0 libinih.so.1 libjansson.so.4
  libxml2.so.2 libsmartcols.so.1)

die() {
  echo "build-image: $*" >&2
  exit 1
}

fetch_kernel() {
  local package=${FS_KERNEL_PACKAGE:-} tmp=$out/kernel.tmp release
  # Fetched once: remove OUTDIR/kernel to look for a newer one.
  [[ ! -e $out/kernel/done ]] || return 0
  if [[ -z $package ]]; then
    package=$(apt-cache depends linux-image-amd64 | awk '$1 == "Depends:" && !n++ { print $2 }')
  fi
  [[ -n $package ]] || die "apt knows no linux-image-amd64 (apt-get update?)"
  rm -rf "$tmp"
  mkdir -p "$tmp"
  # -o: the download must not fail because user _apt cannot write here
  fetch() { (cd "$tmp" && apt-get -q -o APT::Sandbox::User=root download "$package") >&2; }
  # an old list names a version that the archive has no more
  fetch || { apt-get update -q >&2 && fetch; }
  # documentation and drivers of things that QEMU has not got stay in the package
  dpkg-deb --fsys-tarfile "$tmp/$package"_*.deb | tar -x -C "$tmp" --wildcards \
    './boot/vmlinuz-*' './lib/modules/*/modules.*' './lib/modules/*/kernel/drivers/virtio' \
    './lib/modules/*/kernel/drivers/block' './lib/modules/*/kernel/drivers/char' \
    './lib/modules/*/kernel/drivers/vhost' './lib/modules/*/kernel/fs' './lib/modules/*/kernel/net/9p' \
    './lib/modules/*/kernel/net/vmw_vsock' './lib/modules/*/kernel/lib' './lib/modules/*/kernel/crypto' \
    './lib/modules/*/kernel/mm'
  release=$(basename "$tmp"/lib/modules/*)
  mv "$tmp/boot/vmlinuz-$release" "$tmp/vmlinuz"
  depmod -b "$tmp" "$release" 2>/dev/null
  rm -rf "${tmp:?}"/*.deb "${tmp:?}/boot"
  echo "$release" >"$tmp/done"
  rm -rf "$out/kernel"
  mv "$tmp" "$out/kernel"
}

module_files() { # RELEASE MODULE...: their .ko files, dependencies first
  local release=$1
  shift
  modprobe -d "$out/kernel" -S "$release" --show-depends -a "$@" | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

copy_in() { # ROOT FILE...: by real directory, so that merged /usr stays merged
  local root=$1 file dir
  shift
  for file; do
    dir=$(readlink -f "$(dirname "$file")")
    [[ ! -e $root$dir/$(basename "$file") ]] || continue
    # one giant (ICU's data) would double the whole: 9p has it for whoever asks
    (($(stat -L -c %s "$file") < 8 << 20)) || continue
    mkdir -p "$root$dir"
    cp -L --preserve=mode,timestamps "$file" "$root$dir/"
  done
}

copy_with_libraries() { # ROOT FILE...
  local root=$1 libs
  shift
  copy_in "$root" "$@"
  mapfile -t libs < <(ldd "$@" 2>/dev/null | grep -oE '(=> )?/[^ :]+ \(' | grep -oE '/[^ ]+' | sort -u)
  copy_in "$root" "${libs[@]}"
}

fill_etc() { # ROOT
  local etc=$1/etc f
  mkdir -p "$etc/systemd/system" "$etc/systemd/system.conf.d" "$etc/systemd/journald.conf.d"
  for f in passwd group ld.so.cache ld.so.conf ld.so.conf.d alternatives dbus-1 polkit-1 libvirt sasl2; do
    # without root some of it cannot be read, and is not needed
    cp -a "/etc/$f" "$etc/" 2>/dev/null || true
  done
  # all belongs to root in the guest, also what polkitd wants to read
  [[ ! -e $etc/polkit-1 ]] || chmod -R u=rwX,go=rX "$etc/polkit-1"
  # what this machine's administrator set up for its own libvirt is not the test's business
  rm -rf "$etc"/libvirt/qemu/*.xml "$etc"/libvirt/qemu/networks "$etc"/libvirt/qemu/autostart \
    "$etc"/libvirt/storage "$etc"/libvirt/nwfilter "$etc"/libvirt/secrets
  printf 'passwd: files systemd\ngroup: files systemd\nshadow: files\nhosts: files\n' >"$etc/nsswitch.conf"
  printf '127.0.0.1 localhost fullsys\n' >"$etc/hosts"
  echo fullsys >"$etc/hostname"
  echo 0123456789abcdef0123456789abcdef >"$etc/machine-id"
  ln -s ../usr/lib/os-release "$etc/os-release"
  ln -s /proc/self/mounts "$etc/mtab"
  : >"$etc/fstab"
  printf '[Manager]\nLogLevel=notice\nShowStatus=no\nDefaultTimeoutStopSec=20s\n' >"$etc/systemd/system.conf.d/fullsys.conf"
  printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\nForwardToConsole=no\nRuntimeMaxUse=16M\n' \
    >"$etc/systemd/journald.conf.d/fullsys.conf"
}

# All of the machine's unit files, so that anything can be started, but wanted
# by a target only what these tests need.
fill_units() { # ROOT
  local units=$1/usr/lib/systemd/system u
  mkdir -p "$units"
  cp -a /usr/lib/systemd/system/. "$units/"
  find "$units" -mindepth 1 -maxdepth 1 \( -name '*.wants' -o -name '*.requires' \) -exec rm -rf {} +
  mkdir -p "$units"/{sysinit,sockets,fullsys}.target.wants
  for u in dbus.socket systemd-journald-dev-log.socket systemd-journald.socket; do
    ln -s "../$u" "$units/sockets.target.wants/$u"
  done
  ln -s ../systemd-journald.service "$units/sysinit.target.wants/systemd-journald.service"
  ln -s ../dbus.service "$units/fullsys.target.wants/dbus.service"
  ln -s ../fs-exec.service "$units/fullsys.target.wants/fs-exec.service"
  ln -sf fullsys.target "$units/default.target"
  # no disks, no terminals, no udev: nothing to wait for
  for u in systemd-remount-fs systemd-udevd systemd-udev-trigger systemd-tmpfiles-setup systemd-tmpfiles-setup-dev \
    systemd-logind systemd-journal-flush; do
    ln -s /dev/null "$1/etc/systemd/system/$u.service"
  done
  cat >"$units/fullsys.target" <<'UNIT'
[Unit]
Description=Everything that Ballast's full-system tests need
Requires=basic.target
After=basic.target
AllowIsolate=yes
UNIT
  cat >"$units/fs-exec.service" <<'UNIT'
[Unit]
Description=Runs commands for the test on the host
After=dbus.service basic.target

[Service]
ExecStart=/fs-exec
KillMode=process
OOMScoreAdjust=-1000
MemoryMin=48M
TasksMax=infinity
UNIT
}

fill_root() { # ROOT RELEASE
  local root=$1 release=$2 fast=$1/fast p f files=()
  mkdir -p "$root"/{bin,dev,proc,sys,modules,rw,hostusr}
  cp "$(command -v busybox)" "$root/bin/busybox"
  cp "$here/init.sh" "$root/init"
  chmod 755 "$root/init"
  while read -r f; do
    cp "$f" "$root/modules/"
    basename "$f" >>"$root/modules/order"
  done < <(module_files "$release" "${boot_modules[@]}")
  mkdir -p "$fast/usr/lib/modules/$release"
  while read -r f; do
    f=${f#"$out/kernel/"}
    mkdir -p "$fast/usr/$(dirname "$f")"
    cp "$out/kernel/$f" "$fast/usr/$f"
  done < <(module_files "$release" "${boot_modules[@]}" "${more_modules[@]}")
  cp "$out/kernel/lib/modules/$release"/modules.{builtin,builtin.modinfo,order} "$fast/usr/lib/modules/$release/"
  depmod -b "$fast/usr" "$release" 2>/dev/null

  mkdir -p "$fast"/{etc,dev,proc,sys,run,tmp,mnt,root,home,srv,var/{lib/dbus,log,tmp,cache,spool}}
  chmod 1777 "$fast/tmp" "$fast/var/tmp"
  ln -s /run "$fast/var/run"
  ln -s /run/lock "$fast/var/lock"
  for f in bin sbin lib lib64 lib32 libx32; do
    [[ ! -L /$f ]] || cp -a "/$f" "$fast/"
  done
  for p in "${programs[@]}"; do
    ! f=$(type -P "$p") || files+=("$f")
  done
  for p in "${systemd_programs[@]}"; do files+=("/usr/lib/systemd/$p"); done
  for p in "${libraries[@]}"; do
    ! f=$(ldconfig -p | awk -v l="$p" '$1 == l && /x86-64/ { print $NF; exit }') || [[ -z $f ]] || files+=("$f")
  done
  copy_with_libraries "$fast" "${files[@]}"
  cp -a /usr/lib/os-release "$fast/usr/lib/"
  mkdir -p "$fast/usr/share" "$fast/usr/local"
  cp -a /usr/share/dbus-1 "$fast/usr/share/"
  cp "$here/exec.sh" "$fast/fs-exec"
  chmod 755 "$fast/fs-exec"
  fill_etc "$fast"
  fill_units "$fast"
}

! ldd "$(command -v busybox)" >/dev/null 2>&1 || die "busybox is not static (apt install busybox-static)"
exec 9>"$out/.lock"
flock 9
fetch_kernel
release=$(<"$out/kernel/done")
# a package that came, went or changed, and what of /etc goes in, make a new image
stamp=$({
  cat "$here"/{build-image,init,exec}.sh
  echo "$release"
  stat -c '%n %s %Y' /var/lib/dpkg/status /etc/ld.so.cache /etc/passwd /etc/group
} | sha256sum | cut -c1-16)
initrd=$out/initrd-$stamp.cpio
if [[ ! -e $initrd ]]; then
  root=$(mktemp -d "$out/root.XXXXXX")
  trap 'rm -rf "$root"' EXIT
  fill_root "$root" "$release"
  # not compressed: unpacking costs an emulated processor more than reading
  (cd "$root" && find . -print0 | LC_ALL=C sort -z |
    cpio --null --quiet -o -H newc --owner=0:0) >"$initrd.tmp"
  mv "$initrd.tmp" "$initrd"
  find "$out" -maxdepth 1 -name 'initrd-*.cpio' -mmin +60 ! -name "initrd-$stamp.cpio" -delete
fi
touch "$initrd" # in use: keeps it from the clean-up above
echo "$out/kernel/vmlinuz $initrd"
