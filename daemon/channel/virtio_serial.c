/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "daemon/channel/virtio_serial.h"

/* glibc 2.36 has no wrapper */
static int open_in_root(int root, const char *path)
{
        struct open_how how = {
                /* O_NOFOLLOW with O_PATH opens a symbolic link itself, which is then no socket */
                .flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        };
        long fd = syscall(SYS_openat2, root, path, &how, sizeof how);

        return fd < 0 ? -errno : (int)fd;
}

/* The socket at `path` below `root_path`, O_PATH. */
static int find_socket(const char *root_path, const char *path, int *ret)
{
        _cleanup_close_ int root = open(root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        _cleanup_close_ int fd = -1;
        struct stat st;

        if (root < 0)
                return -errno;
        fd = open_in_root(root, path);
        if (fd < 0)
                return fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISSOCK(st.st_mode))
                return -ENOTSOCK;
        *ret = bl_take_fd(&fd);
        return 0;
}

/* Connects to the very inode that was checked.  Its name under /proc also is
 * short, while libvirt's paths may not fit into sun_path (108 bytes). */
static int connect_to(int path_fd, int *ret_fd)
{
        struct sockaddr_un addr = {.sun_family = AF_UNIX};
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0)
                return -errno;
        (void)snprintf(addr.sun_path, sizeof addr.sun_path, "/proc/self/fd/%d", path_fd);
        /* unix(7): never EINPROGRESS; EAGAIN when the backlog is full */
        if (connect(fd, (const struct sockaddr *)&addr, sizeof addr) < 0)
                return -errno;
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

int bl_virtio_serial_connect(const char *socket_path, pid_t qemu_pid, int *ret_fd)
{
        _cleanup_close_ int path_fd = -1;
        int r = -ENOENT;

        if (!socket_path || socket_path[0] != '/')
                return -EADDRNOTAVAIL;
        if (qemu_pid > 0) {
                char root[64];

                (void)snprintf(root, sizeof root, "/proc/%d/root", (int)qemu_pid);
                r = find_socket(root, socket_path, &path_fd);
        }
        if (path_fd < 0 && r != -ENOTSOCK)
                r = find_socket("/", socket_path, &path_fd);
        if (r < 0)
                return r;
        return connect_to(path_fd, ret_fd);
}

static int virtio_serial_connect(const struct bl_agent_address *a, int *ret_fd)
{
        return bl_virtio_serial_connect(a->socket_path, a->vmm_pid, ret_fd);
}

const struct bl_transport bl_transport_virtio_serial = {
        .name = "virtio-serial",
        .connect = virtio_serial_connect,
};
