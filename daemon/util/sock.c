/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/util/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <ballast/cleanup.h>

int bl_sock_address(const char *path, struct sockaddr_un *ret)
{
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        const size_t len = strlen(path);

        if (len == 0)
                return -EINVAL;
        if (len >= sizeof(a.sun_path))
                return -ENAMETOOLONG;
        memcpy(a.sun_path, path, len + 1);
        *ret = a;
        return 0;
}

int bl_sock_lock(const char *path, int *ret_fd)
{
        _cleanup_free_ char *name = NULL;
        _cleanup_close_ int fd = -1;

        if (asprintf(&name, "%s.lock", path) < 0)
                return -ENOMEM;
        fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
        if (fd < 0)
                return -errno;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

int bl_sock_check_peer(int fd)
{
        struct ucred peer;
        socklen_t len = sizeof(peer);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
                return -errno;
        return peer.uid == 0 || peer.uid == geteuid() ? 0 : -EPERM;
}

int bl_sock_accept(int fd, void *addr, socklen_t *len)
{
        int call;

        do
                call = accept4(fd, addr, len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        while (call < 0 && (errno == EINTR || errno == ECONNABORTED));
        if (call < 0)
                return errno == EPERM ? -EACCES : -errno; /* a security module's: nobody has come */
        return call;
}

int bl_sock_send_fd(int fd, const void *buf, size_t size, int given)
{
        union {
                char buf[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = {};
        struct iovec part = {.iov_base = (void *)(uintptr_t)buf, .iov_len = size};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};

        if (given >= 0) {
                struct cmsghdr *c;

                m.msg_control = &control;
                m.msg_controllen = sizeof(control);
                c = CMSG_FIRSTHDR(&m);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(given));
                memcpy(CMSG_DATA(c), &given, sizeof(given));
        }
        return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* The one descriptor of a message. */
static int take_descriptor(struct msghdr *m)
{
        const struct cmsghdr *c = CMSG_FIRSTHDR(m);
        int fd;

        if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(fd)))
                return -1;
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
        return fd;
}

ssize_t bl_sock_recv_fd(int fd, void *buf, size_t size, int *ret_fd)
{
        union {
                char buf[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control;
        struct iovec part = {.iov_base = buf, .iov_len = size};
        struct msghdr m = {
                .msg_iov = &part,
                .msg_iovlen = 1,
                .msg_control = &control,
                .msg_controllen = CMSG_LEN(sizeof(int)), /* CMSG_SPACE has room for two, of which one would be lost */
        };
        const ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);

        if (n < 0)
                return -errno;
        *ret_fd = take_descriptor(&m);
        return n;
}
