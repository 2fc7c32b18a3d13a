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
#include <sys/types.h>

struct guest_transport;

struct guest_transport_ops {
        const char *name; /* for people */

        /* A descriptor that poll(2) understands.  -ENOENT, -ENODEV: no such
         * device (yet); -EBUSY: somebody else has it; other negative errno. */
        int (*open)(struct guest_transport *t);

        /* Is the host at the other end now?  While it is not, poll(2) may
         * report POLLHUP at once and for ever: do not poll, ask this. */
        bool (*connected)(int fd);

        /* Bytes taken, perhaps fewer than given; -EAGAIN: none now, because
         * the host is away or does not read; -ENODEV: the device is gone. */
        ssize_t (*send)(int fd, const void *data, size_t size);

        /* Bytes read; 0: the host went away; -EAGAIN; -ENODEV: as above. */
        ssize_t (*receive)(int fd, void *buf, size_t size);
};

struct guest_transport {
        const struct guest_transport_ops *ops;
        const char *device; /* where: a path for virtio-serial */
        const char *root; /* put before /sys and /dev in looking for it; "" */
};

extern const struct guest_transport_ops guest_virtio_serial;

#endif
