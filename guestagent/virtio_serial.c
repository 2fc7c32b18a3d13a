/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * virtio-serial: a character device per port.  How it behaves (Linux
 * drivers/char/virtio_console.c): one opener at a time, else EBUSY; while the
 * host end is closed poll(2) says POLLHUP, read(2) 0 and a non-blocking
 * write(2) EAGAIN; EAGAIN too when the host does not read and the queue is
 * full; after hot-unplug ENODEV.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/transport.h"

#define CLASS_DIR "/sys/class/virtio-ports"

static int open_port(const char *path)
{
        _cleanup_close_ int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
        struct stat st;

        if (fd < 0)
                return -errno;
        /* a regular file of this name would take all reports and grow */
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISCHR(st.st_mode))
                return -ENODEV;
        return bl_take_fd(&fd);
}

/* Is this the port whose sysfs attribute `name` is `name`? */
static bool has_name(int class_fd, const char *dir, const char *name)
{
        char path[NAME_MAX + sizeof "/name"];
        char text[128];
        _cleanup_close_ int fd = -1;
        ssize_t n;

        (void)snprintf(path, sizeof path, "%s/name", dir);
        fd = openat(class_fd, path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return false;
        n = read(fd, text, sizeof text);
        if (n > 0 && text[n - 1] == '\n')
                n--;
        return n > 0 && (size_t)n == strlen(name) && memcmp(text, name, (size_t)n) == 0;
}

/* Without udev there is no /dev/virtio-ports/NAME: looks the name up in sysfs.
 * getdents64 rather than opendir, which allocates. */
static int open_by_name(const char *root, const char *name)
{
        char path[PATH_MAX];
        char entries[2048] __attribute__((aligned(8)));
        _cleanup_close_ int class_fd = -1;
        ssize_t n;

        if ((size_t)snprintf(path, sizeof path, "%s" CLASS_DIR, root) >= sizeof path)
                return -ENAMETOOLONG;
        class_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (class_fd < 0)
                return -errno;
        while ((n = getdents64(class_fd, entries, sizeof entries)) > 0)
                for (ssize_t at = 0; at < n;) {
                        const struct dirent64 *d = (const void *)(entries + at);

                        at += d->d_reclen;
                        if (d->d_name[0] == '.' || !has_name(class_fd, d->d_name, name))
                                continue;
                        if ((size_t)snprintf(path, sizeof path, "%s/dev/%s", root, d->d_name) >= sizeof path)
                                return -ENAMETOOLONG;
                        return open_port(path);
                }
        return n < 0 ? -errno : -ENOENT;
}

static int virtio_serial_open(struct guest_transport *t)
{
        const char *slash = strrchr(t->device, '/');
        int fd = open_port(t->device);

        if (fd == -ENOENT)
                return open_by_name(t->root, slash ? slash + 1 : t->device);
        return fd;
}

static int virtio_serial_connected(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};

        return poll(&p, 1, 0) >= 0 && !(p.revents & (POLLHUP | POLLERR | POLLNVAL));
}

/* Only the three answers that the table knows. */
static ssize_t answer(ssize_t n)
{
        if (n >= 0)
                return n;
        return errno == EAGAIN || errno == EINTR || errno == ENOMEM ? -EAGAIN : -ENODEV;
}

static ssize_t virtio_serial_send(int fd, const void *data, size_t size)
{
        return answer(write(fd, data, size));
}

static ssize_t virtio_serial_receive(int fd, void *buf, size_t size)
{
        return answer(read(fd, buf, size));
}

const struct guest_transport_ops guest_virtio_serial = {
        .name = "virtio-serial",
        .open = virtio_serial_open,
        .connected = virtio_serial_connected,
        .send = virtio_serial_send,
        .receive = virtio_serial_receive,
};
