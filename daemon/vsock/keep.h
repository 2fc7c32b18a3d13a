/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What outlives a worker.  The supervisor makes it in shared memory before it
 * forks, holds copies of every descriptor (a worker sends those that come from
 * QEMU up to it), and forks the next worker over it when one dies otherwise than
 * by its own decision.
 */
#ifndef BALLAST_VSOCK_KEEP_H
#define BALLAST_VSOCK_KEEP_H

#include <stdint.h>
#include <sys/types.h>

#include <ballast/snapshot.h>

#include "daemon/vsock/vhost_user.h"

enum bl_keep_fd {
        BL_KEEP_QEMU, /* the vhost-user connection */
        BL_KEEP_PIDFD, /* QEMU's process */
        BL_KEEP_KICK_RX,
        BL_KEEP_KICK_TX,
        BL_KEEP_CALL_RX,
        BL_KEEP_CALL_TX,
        _BL_KEEP_FD_MAX,
};

/* MAP_SHARED | MAP_ANONYMOUS. */
struct bl_keep {
        uint8_t uuid[BL_UUID_LEN];
        pid_t pid; /* QEMU */
        uint64_t start; /* when it started: field 22 of /proc/PID/stat */
        struct bl_vu_state vu;
        uint32_t calls; /* connections made for the guest: numbers their names */
};

/*
 * A worker's life, in a forked child: serves until QEMU closes the connection or
 * ends, or breaks the protocol.  `fds` are its own (-1: none).  `up` is a
 * SOCK_SEQPACKET to the supervisor: each new kick or call descriptor goes there
 * as one message, a uint32_t enum bl_keep_fd with the descriptor (or none: it was
 * taken away), *before* the message that brought it is marked as handled.
 * `host_socket` is where ballastd listens (daemon/channel/vhost_user_vsock.h).
 * Returns the exit status: 0 it ended as it should, 1 it cannot go on (said on
 * standard error).  Only a death by signal is taken over by the next worker.
 */
int bl_worker_run(struct bl_keep *keep, int fds[_BL_KEEP_FD_MAX], int up, const char *host_socket);

#endif
