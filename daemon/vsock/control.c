/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/vsock/control.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include <ballast/cleanup.h>

#include "daemon/util/clock.h"
#include "daemon/util/sock.h"

#define BACKLOG     64
#define CID_FIRST   3U /* 0 to 2: the hypervisor, the own machine, the host */
#define CID_ANY     UINT32_MAX
#define ERROR_LEAST (-4095) /* as the kernel bounds them */
#define RETRY       (10 * BL_MSEC)

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

static int receive_reply(int fd, int *ret_fd)
{
        struct bl_vsock_reply reply;
        _cleanup_close_ int given = -1;
        const ssize_t n = bl_sock_recv_fd(fd, &reply, sizeof(reply), &given);

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
        int r = bl_sock_address(path, &a);

        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        r = connect_until(fd, &a, deadline);
        if (r < 0)
                return r;
        r = bl_sock_check_peer(fd);
        if (r < 0)
                return r;
        if (send(fd, q, sizeof(*q), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(*q))
                return -EPROTO;
        r = wait_readable(fd, deadline);
        return r < 0 ? r : receive_reply(fd, ret_fd);
}

int bl_vsock_control_listen(const char *path, int *ret_lock, int *ret_fd)
{
        _cleanup_close_ int lock = -1, fd = -1;
        struct sockaddr_un a;
        struct stat st;
        int r = bl_sock_address(path, &a);

        if (r < 0)
                return r;
        r = bl_sock_lock(path, &lock);
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
        r = bl_sock_check_peer(fd);
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
        const struct bl_vsock_reply reply = {.magic = BL_VSOCK_CONTROL_MAGIC, .error = error};

        return bl_sock_send_fd(fd, &reply, sizeof(reply), qemu);
}
