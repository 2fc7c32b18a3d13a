/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * AF_VSOCK: a stream socket to the host, vsock(7).  How connect(2) behaves
 * (Linux net/vmw_vsock/af_vsock.c): ENODEV, or ENETUNREACH for an odd CID, where
 * no device leads to the host; ECONNRESET at once where the host has nobody on
 * that port; ETIMEDOUT after 2 s where it does not answer at all.  A closed
 * socket keeps its port until the host has agreed, for up to 8 s.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include <ballast/cleanup.h>
#include <ballast/wire.h>

#include "guestagent/transport.h"

/* Where calls come from: below BL_WIRE_VSOCK_PORT_ROOT, and far above the host's own port, so that nobody takes one
 * for the other.  More than can linger. */
#define PORT_HIGH  (BL_WIRE_VSOCK_PORT_ROOT - 1)
#define PORT_LOW   800U
#define PORT_TRIES 16

/*
 * Where sysfs is there and vsock is not in it, its module is not loaded: it
 * comes with the device.  Asking for a socket would have the kernel start
 * modprobe each time.
 */
static bool is_loaded(const char *root)
{
        char path[PATH_MAX];

        if ((size_t)snprintf(path, sizeof path, "%s/sys/class/misc", root) >= sizeof path || access(path, F_OK) < 0)
                return true;
        return (size_t)snprintf(path, sizeof path, "%s/sys/class/misc/vsock", root) < sizeof path &&
               access(path, F_OK) == 0;
}

/* Another port each time: the last one may linger. */
static int bind_next(struct guest_transport *t, int fd)
{
        for (int i = 0; i < PORT_TRIES; i++) {
                struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY};

                t->port = t->port > PORT_LOW && t->port <= PORT_HIGH ? t->port - 1 : PORT_HIGH;
                a.svm_port = t->port;
                if (bind(fd, (const struct sockaddr *)&a, sizeof a) == 0)
                        return 0;
                if (errno != EADDRINUSE)
                        return -errno;
        }
        return -EADDRINUSE;
}

static int vsock_open(struct guest_transport *t)
{
        struct sockaddr_vm host = {.svm_family = AF_VSOCK, .svm_cid = t->cid, .svm_port = BL_WIRE_VSOCK_PORT};
        _cleanup_close_ int fd = -1;
        int r;

        if (!is_loaded(t->root))
                return -EAFNOSUPPORT;
        fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        r = bind_next(t, fd);
        if (r < 0)
                return r;
        if (connect(fd, (const struct sockaddr *)&host, sizeof host) < 0 && errno != EINPROGRESS)
                return errno == ENETUNREACH ? -ENODEV : -errno;
        return bl_take_fd(&fd);
}

static int vsock_connected(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        int error = 0;
        socklen_t size = sizeof error;

        if (poll(&p, 1, 0) <= 0)
                return 0;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
                return -errno;
        if (error)
                return -error;
        return p.revents & (POLLHUP | POLLERR | POLLNVAL) ? -ECONNRESET : 1;
}

static bool is_later(int error)
{
        return error == EAGAIN || error == EINTR || error == ENOMEM || error == ENOBUFS;
}

static ssize_t vsock_send(int fd, const void *data, size_t size)
{
        ssize_t n = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n >= 0)
                return n;
        return is_later(errno) ? -EAGAIN : -ENODEV;
}

/* However it ended: the host is gone. */
static ssize_t vsock_receive(int fd, void *buf, size_t size)
{
        ssize_t n = recv(fd, buf, size, MSG_DONTWAIT);

        if (n >= 0)
                return n;
        return is_later(errno) ? -EAGAIN : 0;
}

const struct guest_transport_ops guest_vsock = {
        .name = "vsock",
        .dials = true,
        .open = vsock_open,
        .connected = vsock_connected,
        .send = vsock_send,
        .receive = vsock_receive,
};
