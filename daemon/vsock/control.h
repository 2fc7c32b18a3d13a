/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How ballastd asks the supervisor (ballast-vsock) for a backend: one
 * SOCK_SEQPACKET Unix socket, one request and one reply a connection, structs in
 * host byte order.  Root only: the socket's mode, and SO_PEERCRED.
 */
#ifndef BALLAST_VSOCK_CONTROL_H
#define BALLAST_VSOCK_CONTROL_H

#include <stdint.h>
#include <sys/types.h>

#include <ballast/snapshot.h>
#include <ballast/units.h>

#define BL_VSOCK_CONTROL_MAGIC   0x424c5643U
#define BL_VSOCK_CONTROL_DEFAULT "/run/ballast-vsock/control.sock"

struct bl_vsock_request {
        uint32_t magic;
        uint32_t cid; /* the guest's, 3 or more */
        uint8_t uuid[BL_UUID_LEN];
        int32_t pid; /* of QEMU */
        uint32_t pad;
        uint64_t start; /* field 22 of /proc/PID/stat, in clock ticks */
};

struct bl_vsock_reply {
        uint32_t magic;
        int32_t error; /* 0, or negative errno */
};

/*
 * A new backend for a VM; blocks for `limit` at most, so it belongs into a
 * worker thread.  `*ret_fd` is the socket that QEMU is to have (chardev).  An older
 * worker for the same UUID goes on until its own connection ends.
 * -ENOENT, -ECONNREFUSED: no supervisor runs; -ETIMEDOUT; -ESRCH: there is no such
 * process; -EPERM; -EPROTO: something else answered; -EAGAIN: too many VMs.
 */
int bl_vsock_control_serve(const char *path, const struct bl_vsock_request *q, usec_t limit, int *ret_fd);

/*
 * The supervisor's side; nothing of it blocks.  `*ret_lock` is held as long as it
 * serves, so that an old socket may be replaced: -EADDRINUSE: another supervisor
 * holds it; -EEXIST: what is there is no socket.
 */
int bl_vsock_control_listen(const char *path, int *ret_lock, int *ret_fd);
/* A request on an accepted connection.  -EAGAIN: not yet; -EPIPE: gone without one;
 * -EPERM: not from root or who we run as; -EPROTO, -EINVAL. */
int bl_vsock_control_receive(int fd, struct bl_vsock_request *ret);
/* `qemu`: the descriptor to hand over, -1: none. */
int bl_vsock_control_reply(int fd, int error, int qemu);

#endif
