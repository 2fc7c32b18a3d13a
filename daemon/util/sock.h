/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What all who listen on a socket, or hand descriptors over one, do alike. */
#ifndef BALLAST_UTIL_SOCK_H
#define BALLAST_UTIL_SOCK_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* -EINVAL: empty; -ENAMETOOLONG. */
int bl_sock_address(const char *path, struct sockaddr_un *ret);

/* PATH.lock, held for as long as the descriptor is open: who has it owns the socket at
 * `path`.  -EADDRINUSE: somebody else does; -ENOMEM, others from open(2). */
int bl_sock_lock(const char *path, int *ret_fd);

/* Is the other side root or who we run as?  The kernel's word (unix(7), SO_PEERCRED).
 * 0; -EPERM; others from getsockopt(2). */
int bl_sock_check_peer(int fd);

/* accept4(2), close-on-exec and non-blocking, past callers that went meanwhile.  `addr` and
 * `len` as there.  A descriptor; -EACCES: a security module does not let us; others. */
int bl_sock_accept(int fd, void *addr, socklen_t *len);

/* One message with a descriptor (-1: none), never blocking; 0 or negative errno. */
int bl_sock_send_fd(int fd, const void *buf, size_t size, int given);

/* One message of a SOCK_SEQPACKET socket, its true length, with at most one descriptor (-1: none); never
 * blocks.  Negative errno. */
ssize_t bl_sock_recv_fd(int fd, void *buf, size_t size, int *ret_fd);

#endif
