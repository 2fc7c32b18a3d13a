/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include <linux/vm_sockets.h>

#include <ballast/cleanup.h>
#include <ballast/wire.h>

#include "daemon/channel/vhost_vsock.h"
#include "daemon/util/sock.h"

#define BACKLOG 128

static int vhost_vsock_listen(const char *place, int *ret_fd)
{
        const struct sockaddr_vm addr = {
                .svm_family = AF_VSOCK,
                .svm_port = BL_WIRE_VSOCK_PORT,
                .svm_cid = VMADDR_CID_ANY,
        };
        _cleanup_close_ int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        (void)place;
        if (fd < 0)
                return -errno;
        if (bind(fd, (const struct sockaddr *)&addr, sizeof addr) < 0 || listen(fd, BACKLOG) < 0)
                return -errno;
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

static int vhost_vsock_accept(int listen_fd, struct bl_agent_caller *ret, int *ret_fd)
{
        struct sockaddr_vm peer = {0};
        socklen_t len = sizeof peer;
        _cleanup_close_ int fd = -1;

        fd = bl_sock_accept(listen_fd, &peer, &len);
        if (fd < 0)
                return fd;
        if (len < sizeof peer || peer.svm_family != AF_VSOCK || peer.svm_port >= BL_WIRE_VSOCK_PORT_ROOT)
                return -EPERM;
        *ret = (struct bl_agent_caller){.cid = peer.svm_cid};
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

const struct bl_transport bl_transport_vhost_vsock = {
        .name = "vhost-vsock",
        .listen = vhost_vsock_listen,
        .accept = vhost_vsock_accept,
};
