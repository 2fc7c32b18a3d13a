/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/vsock/control.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include <ballast/cleanup.h>

#include "daemon/util/clock.h"

#define BACKLOG     64
#define CID_FIRST   3U /* 0 to 2: the hypervisor, the own machine, the host */
#define CID_ANY     UINT32_MAX
#define ERROR_LEAST (-4095) /* as the kernel bounds them */
#define RETRY       (10 * BL_MSEC)

static int make_address(const char *path, struct sockaddr_un *ret)
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

/* Is the other side root or who we run as?  The kernel's word. */
static int check_peer(int fd)
{
        struct ucred peer;
        socklen_t len = sizeof(peer);

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
                return -errno;
        return peer.uid == 0 || peer.uid == geteuid() ? 0 : -EPERM;
}

static struct timespec time_until(usec_t deadline, usec_t at_most)
{
        const usec_t left = bl_min(bl_sub_sat(deadline, bl_now()), at_most);

        return (struct timespec){.tv_sec = (time_t)(left / BL_SEC), .tv_nsec = (long)(left % BL_SEC) * 1000};
}

/* A full backlog says EAGAIN, and poll(2) does not say when it is over. */
static int connect_until(int fd, const struct sockaddr_un *a, usec_t deadline)
{
        while (connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0) {
                const struct timespec t = time_until(deadline, RETRY);

                if (errno != EAGAIN && errno != EINTR)
                        return errno == EPROTOTYPE ? -EPROTO : -errno;
                if (t.tv_sec == 0 && t.tv_nsec == 0)
                        return -ETIMEDOUT;
                (void)nanosleep(&t, NULL);
        }
        return 0;
}

static int wait_readable(int fd, usec_t deadline)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};

        for (;;) {
                const struct timespec t = time_until(deadline, UINT32_MAX);
                const int n = ppoll(&p, 1, &t, NULL);

                if (n > 0)
                        return 0;
                if (n == 0)
                        return -ETIMEDOUT;
                if (errno != EINTR)
                        return -errno;
        }
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

ssize_t bl_vsock_recv_fd(int fd, void *buf, size_t size, int *ret_fd)
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

static int receive_reply(int fd, int *ret_fd)
{
        struct bl_vsock_reply reply;
        _cleanup_close_ int given = -1;
        const ssize_t n = bl_vsock_recv_fd(fd, &reply, sizeof(reply), &given);

        if (n < 0)
                return (int)n;
        if (n != sizeof(reply) || reply.magic != BL_VSOCK_CONTROL_MAGIC)
                return -EPROTO;
        if (reply.error > 0 || reply.error < ERROR_LEAST || (reply.error == 0) != (given >= 0))
                return -EPROTO;
        if (reply.error < 0)
                return reply.error;
        *ret_fd = bl_take_fd(&given);
        return 0;
}

int bl_vsock_control_serve(const char *path, const struct bl_vsock_request *q, usec_t limit, int *ret_fd)
{
        const usec_t deadline = bl_add_sat(bl_now(), limit);
        _cleanup_close_ int fd = -1;
        struct sockaddr_un a;
        int r = make_address(path, &a);

        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        r = connect_until(fd, &a, deadline);
        if (r < 0)
                return r;
        r = check_peer(fd);
        if (r < 0)
                return r;
        if (send(fd, q, sizeof(*q), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(*q))
                return -EPROTO;
        r = wait_readable(fd, deadline);
        return r < 0 ? r : receive_reply(fd, ret_fd);
}

static int take_lock(const char *path, int *ret_lock)
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
        *ret_lock = bl_take_fd(&fd);
        return 0;
}

int bl_vsock_control_listen(const char *path, int *ret_lock, int *ret_fd)
{
        _cleanup_close_ int lock = -1, fd = -1;
        struct sockaddr_un a;
        struct stat st;
        int r = make_address(path, &a);

        if (r < 0)
                return r;
        r = take_lock(path, &lock);
        if (r < 0)
                return r;
        if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
                return -EEXIST;
        if (unlink(path) < 0 && errno != ENOENT)
                return -errno;
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        /* nobody can connect before listen(2), so the mode is right in time */
        if (bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
                return -errno;
        if (chmod(path, 0600) < 0 || listen(fd, BACKLOG) < 0) {
                r = -errno;
                (void)unlink(path);
                return r;
        }
        *ret_lock = bl_take_fd(&lock);
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

int bl_vsock_control_receive(int fd, struct bl_vsock_request *ret)
{
        struct bl_vsock_request q;
        const ssize_t n = recv(fd, &q, sizeof(q), MSG_DONTWAIT | MSG_TRUNC);
        int r;

        if (n < 0)
                return errno == EINTR ? -EAGAIN : -errno;
        if (n == 0)
                return -EPIPE;
        r = check_peer(fd);
        if (r < 0)
                return r;
        if (n != sizeof(q) || q.magic != BL_VSOCK_CONTROL_MAGIC)
                return -EPROTO;
        if (q.cid < CID_FIRST || q.cid == CID_ANY || q.pid <= 0)
                return -EINVAL;
        *ret = q;
        return 0;
}

int bl_vsock_control_reply(int fd, int error, int qemu)
{
        union {
                char buf[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = {};
        struct bl_vsock_reply reply = {.magic = BL_VSOCK_CONTROL_MAGIC, .error = error};
        struct iovec part = {.iov_base = &reply, .iov_len = sizeof(reply)};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};

        if (qemu >= 0) {
                struct cmsghdr *c;

                m.msg_control = &control;
                m.msg_controllen = sizeof(control);
                c = CMSG_FIRSTHDR(&m);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(qemu));
                memcpy(CMSG_DATA(c), &qemu, sizeof(qemu));
        }
        return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}
