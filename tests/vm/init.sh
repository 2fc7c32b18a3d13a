#!/bin/busybox sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=dash
#
# /init of the test guest: mounts, modules, then guestcmd as PID 1.  There is no
# udev: a vsock device that is plugged in later finds its driver loaded.
busybox=/bin/busybox
$busybox mount -t devtmpfs devtmpfs /dev
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci \
  virtio_balloon virtio_console virtio_blk \
  vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport; do
  $busybox insmod /lib/modules/$m.ko
done
export PATH=/bin
exec /bin/guestcmd /dev/ttyS1
