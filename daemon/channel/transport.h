/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ways between the host and a guest's agent.  Transports are peers behind this
 * table and never include each other; all they have in common is that they end
 * in a connected stream socket, which daemon/channel/agent.h takes over.  Some
 * connect to the guest (virtio-serial), others wait for it (vsock).
 *
 * A new one: a file of its own here with one `const struct bl_transport`, what
 * it needs to know of a VM added to bl_agent_address or bl_agent_caller, and a
 * line in the table of daemon/guests.c.
 */
#ifndef BALLAST_DAEMON_CHANNEL_TRANSPORT_H
#define BALLAST_DAEMON_CHANNEL_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <ballast/snapshot.h>

/* Where a VM's agent may be; what is not known is NULL or 0. */
struct bl_agent_address {
        const char *socket_path; /* virtio-serial: of QEMU's chardev, as in the domain's live XML */
        pid_t vmm_pid;
};

/* Who called, by what the guest cannot choose: one of these is set. */
struct bl_agent_caller {
        uint32_t cid; /* vhost-vsock: the kernel's word; 0: not by CID */
        bool has_uuid; /* vhost-user-vsock: the backend's word */
        uint8_t uuid[BL_UUID_LEN];
};

struct bl_transport {
        const char *name; /* "virtio-serial"; for people and JSON */

        /*
         * Connects without blocking; NULL: this one is called.  `*ret_fd` is a
         * stream socket, close-on-exec and non-blocking, owned by the caller.
         * When to try again is the manager's business; the errors are meant for
         * that:
         *
         *   -EADDRNOTAVAIL  this VM has no such channel
         *   -ENOENT         the channel's socket is not there (yet)
         *   -ECONNREFUSED   nobody listens: the VMM is gone or going
         *   -EAGAIN         others wait there already: try later
         *   -ENOTSOCK       what is there is no socket: try no more
         *   other           negative errno, as -EACCES
         */
        int (*connect)(const struct bl_agent_address *a, int *ret_fd);

        /* Begins to wait for guests; NULL: this one connects.  `place` is a
         * path for those that need one.  `*ret_fd` polls readable when one
         * calls.  -EAFNOSUPPORT, -ENODEV: this kernel has no such thing. */
        int (*listen)(const char *place, int *ret_fd);

        /* Takes one call.  -EAGAIN: none (more); -EPERM: one came that may not
         * (not a guest's root, not our backend) and was closed: go on; -EMFILE
         * and the like. */
        int (*accept)(int listen_fd, struct bl_agent_caller *ret, int *ret_fd);
};

#endif
