#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# launch.sh DIR HUGE COMMAND...: lays DIR over libvirt's directories and becomes
# COMMAND. Run by lib-env.sh inside a mount namespace of its own.
#
# HUGE: where to mount a hugetlbfs, or "none".
set -euo pipefail

dir=$1 huge=$2
shift 2

# Where guests hang on KVM, it is hidden: libvirt would probe it for 15 s on every
# start, and never trust what an earlier probe without KVM found. A file bound
# over /dev/kvm will not do: libvirt moves all mounts below /dev into the guest's
# namespace and fails on that one. For the same reason the mounts below /dev are
# moved here and not bound: none may stay listed that cannot be reached.
hide_kvm() {
  local m
  mkdir -p "$dir/dev"
  mount -t tmpfs -o mode=0755,nosuid tmpfs "$dir/dev"
  find /dev -maxdepth 1 \( -type c -o -type l \) ! -name kvm -exec cp -a -t "$dir/dev" {} +
  while read -r m; do # one turn for each, where several lie on one another
    mkdir -p "$dir$m"
    mount --move "$m" "$dir$m"
  done < <(awk '$2 ~ "^/dev/[^/]+$" { print $2 }' /proc/self/mounts)
  mount --move "$dir/dev" /dev
}

[[ $(<"$dir/img/accel") == kvm || ! -e /dev/kvm ]] || hide_kvm
for d in cache lib log; do
  mount --bind "$dir/$d" "/var/$d/libvirt"
done
mount --bind "$dir/etc" /etc/libvirt
mount --bind "$dir/run" /run/libvirt
[[ $huge == none ]] || mount -t hugetlbfs hugetlbfs "$huge"
exec "$@"
