/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ways from the host to a guest's agent.  Transports are peers behind this
 * table and never include each other; all they have in common is that they end
 * in a connected stream socket, which daemon/channel/agent.h takes over.
 *
 * A new one: a file of its own here with one `const struct bl_transport`, what
 * it needs to know of a VM added to bl_agent_address, and a line where the
 * manager chooses.
 */
#ifndef BALLAST_DAEMON_CHANNEL_TRANSPORT_H
#define BALLAST_DAEMON_CHANNEL_TRANSPORT_H

#include <sys/types.h>

/* Where a VM's agent may be; what is not known is NULL or 0. */
struct bl_agent_address {
        const char *socket_path; /* virtio-serial: of QEMU's chardev, as in the domain's live XML */
        pid_t vmm_pid;
};

struct bl_transport {
        const char *name; /* "virtio-serial" */

        /*
         * Connects without blocking.  `*ret_fd` is a stream socket,
         * close-on-exec and non-blocking, owned by the caller.  When to try
         * again is the manager's business; the errors are meant for that:
         *
         *   -EADDRNOTAVAIL  this VM has no such channel
         *   -ENOENT         the channel's socket is not there (yet)
         *   -ECONNREFUSED   nobody listens: the VMM is gone or going
         *   -EAGAIN         others wait there already: try later
         *   -ENOTSOCK       what is there is no socket: try no more
         *   other           negative errno, as -EACCES
         */
        int (*connect)(const struct bl_agent_address *a, int *ret_fd);
};

#endif
