/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A way to the host: a byte stream that comes and goes.  Transports are peers
 * behind this table and do not know each other.  None of the calls blocks, and
 * none allocates.
 */
#ifndef BALLAST_GUEST_TRANSPORT_H
#define BALLAST_GUEST_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct guest_transport;

struct guest_transport_ops {
        const char *name; /* for people */

        /* Each `open` is a new connection, which the host welcomes by itself
         * and which is over for good when it ends.  Otherwise a device, which
         * stays open while hosts come and go. */
        bool dials;

        /* A descriptor that poll(2) understands.  -ENOENT, -ENODEV,
         * -EAFNOSUPPORT: no such device (yet); -EBUSY: somebody else has it;
         * other negative errno.  Where it dials the connection may be under
         * way still. */
        int (*open)(struct guest_transport *t);

        /* Is the host at the other end now?  1; 0: not yet.  Where it dials,
         * poll(2) says POLLOUT when that is decided, and a negative errno here
         * that nothing comes of it.  For a device poll(2) may report POLLHUP at
         * once and for ever meanwhile: do not poll, ask this. */
        int (*connected)(int fd);

        /* Bytes taken, perhaps fewer than given; -EAGAIN: none now, because
         * the host is away or does not read; -ENODEV: the device is gone. */
        ssize_t (*send)(int fd, const void *data, size_t size);

        /* Bytes read; 0: the host went away; -EAGAIN; -ENODEV: as above. */
        ssize_t (*receive)(int fd, void *buf, size_t size);
};

struct guest_transport {
        const struct guest_transport_ops *ops;
        const char *device; /* where: a path for virtio-serial; for people */
        const char *root; /* put before /sys and /dev in looking for it; "" */
        uint32_t cid; /* vsock: whom to call */
        uint32_t port; /* vsock: where the last call came from; 0: none yet */
};

extern const struct guest_transport_ops guest_virtio_serial;
extern const struct guest_transport_ops guest_vsock;

#endif
