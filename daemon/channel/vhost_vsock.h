/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel's vhost-vsock: one AF_VSOCK listener on BL_WIRE_VSOCK_PORT for all
 * VMs that have
 *
 *      <vsock model='virtio'><cid auto='yes'/></vsock>
 *
 * The CID of a connection is the kernel's word (vsock(7)); whose it is, is
 * looked up in the live XML of the domains, and one of nobody's is closed, as
 * is a source port that an ordinary user of the guest could have taken
 * (wire.h).  CIDs are given out again: the VM that has it now is meant.
 */
#ifndef BALLAST_DAEMON_CHANNEL_VHOST_VSOCK_H
#define BALLAST_DAEMON_CHANNEL_VHOST_VSOCK_H

#include "daemon/channel/transport.h"

extern const struct bl_transport bl_transport_vhost_vsock;

#endif
