/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio-serial: the Unix socket that QEMU listens on for
 *
 *      <channel type='unix'>
 *        <source mode='bind' path='...'/>    (libvirt fills the path in)
 *        <target type='virtio' name='org.ballast.agent.0'/>
 *      </channel>
 *
 * QEMU serves one client at a time.  A second one connects well, because the
 * kernel puts it into the listener's backlog, and then hears nothing until the
 * first is gone; a third gets -EAGAIN.  So "connected" says nothing: only a
 * hello does.  While no agent has the guest's port open QEMU reads nothing
 * either, and while nobody is connected the guest is told so.
 */
#ifndef BALLAST_DAEMON_CHANNEL_VIRTIO_SERIAL_H
#define BALLAST_DAEMON_CHANNEL_VIRTIO_SERIAL_H

#include "daemon/channel/transport.h"

/*
 * Connects to `socket_path` as the process `qemu_pid` sees it, because libvirt
 * gives QEMU a mount namespace of its own; where that does not work (or
 * `qemu_pid` is 0), as we see it.  Errors: see transport.h.
 *
 * The directory belongs to the user that QEMU runs as, whom we do not trust:
 * symbolic links are followed only below that root, never as the last part, and
 * what is there must be a socket.  It may still be some other socket; who is
 * behind it gets a welcome from us and nothing more, and what comes back is
 * trusted no more than a guest.
 */
int bl_virtio_serial_connect(const char *socket_path, pid_t qemu_pid, int *ret_fd);

extern const struct bl_transport bl_transport_virtio_serial;

#endif
