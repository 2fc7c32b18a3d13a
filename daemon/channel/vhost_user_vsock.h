/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Our own vhost-user-vsock backend (daemon/vsock/): a worker process a VM, which
 * carries the guest's connections to BL_WIRE_VSOCK_PORT to the Unix socket that
 * is made here, one by one.
 *
 * A worker says whose call it carries by the name that it binds its own end to,
 * in the abstract namespace:
 *
 *      ballast-vsock/UUID/NUMBER       NUMBER makes it unique
 *
 * so that there is nothing to be read before the guest's first byte.  Anybody
 * may take such a name, so who calls is checked by the kernel's word
 * (SO_PEERCRED): it has to be root or who we run as.
 */
#ifndef BALLAST_DAEMON_CHANNEL_VHOST_USER_VSOCK_H
#define BALLAST_DAEMON_CHANNEL_VHOST_USER_VSOCK_H

#include "daemon/channel/transport.h"

/* The name of the listener in ballastd's runtime directory. */
#define BL_VHOST_USER_VSOCK_SOCKET "vsock.sock"
#define BL_VHOST_USER_VSOCK_NAME   "ballast-vsock/" /* abstract: after the first NUL */

/* `listen`'s place is a path: an old socket there is replaced, mode 0600. */
extern const struct bl_transport bl_transport_vhost_user_vsock;

#endif
