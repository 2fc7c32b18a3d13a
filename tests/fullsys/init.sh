#!/bin/busybox sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=dash
# /init of the full-system guest.  Puts the root together, then becomes systemd,
# or (fs.init=plain) runs commands for the test with no init system at all.
#
#   /      overlay: the initrd's /fast below, memory above
#   /usr   overlay: /fast/usr, then the machine's own /usr over 9p; memory above
PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
while read -r m; do
  insmod "/modules/$m" || echo "fullsys: cannot load $m" >/dev/console
done </modules/order

mount -t tmpfs -o mode=755 tmpfs /rw
mkdir /rw/root /rw/up /rw/work /rw/usrup /rw/usrwork
mount -t overlay -o lowerdir=/fast,upperdir=/rw/up,workdir=/rw/work overlay /rw/root
usr=/fast/usr
if mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro usr /hostusr; then
  usr=/fast/usr:/hostusr
else
  echo "fullsys: no 9p share of /usr" >/dev/console
fi
mount -t overlay -o "lowerdir=$usr,upperdir=/rw/usrup,workdir=/rw/usrwork" overlay /rw/root/usr
# Only our own choice of units; and no /usr/local but what a test installs.
mount -o bind /fast/usr/lib/systemd/system /rw/root/usr/lib/systemd/system
for d in system-generators system-environment-generators user-generators system-shutdown; do
  [ ! -d "/hostusr/lib/systemd/$d" ] || mount -t tmpfs tmpfs "/rw/root/usr/lib/systemd/$d"
done
mount -t tmpfs -o mode=755 tmpfs /rw/root/usr/local
for d in dev proc sys; do
  mount -o move "/$d" "/rw/root/$d"
done
mount -t tmpfs -o mode=755 tmpfs /rw/root/run
mount -t tmpfs -o mode=1777 tmpfs /rw/root/tmp
mkdir -p /rw/root/run/lock /rw/root/run/dbus

next=/lib/systemd/systemd
if grep -qw fs.init=plain /rw/root/proc/cmdline; then
  mount -t cgroup2 cgroup2 /rw/root/sys/fs/cgroup
  next=/fs-exec
fi
# switch_root would empty the initrd's root, which is in use
cd /rw/root || exit
mount -o move . /
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LANG=C.UTF-8
# shellcheck disable=SC2094
exec chroot . "$next" <dev/console >dev/console 2>&1
