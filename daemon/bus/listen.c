/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/bus/listen.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "daemon/bus/bus.h"
#include "daemon/util/sock.h"

#define BACKLOG 64

struct bl_listener {
        int fd;
        int lock_fd;
        char *path;
        dev_t dev; /* what we put there: never remove another's */
        ino_t ino;
        bool has_group;
};

/* 0: nobody is behind `path`, which may be replaced. */
static int probe(const char *path, const struct sockaddr_un *a)
{
        _cleanup_close_ int fd = -1;
        struct stat st;

        if (lstat(path, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (!S_ISSOCK(st.st_mode))
                return -EEXIST;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0)
                return -EADDRINUSE;
        switch (errno) {
        case ECONNREFUSED:
        case ENOENT:
                return 0;
        case EAGAIN: /* its backlog is full: it lives */
                return -EADDRINUSE;
        default:
                return -errno;
        }
}

static int make_socket(const char *path, gid_t group, mode_t mode, struct stat *ret_st, bool *ret_has_group,
                       int *ret_fd)
{
        _cleanup_free_ char *temp = NULL;
        _cleanup_close_ int fd = -1;
        struct sockaddr_un a;
        bool has_group = true;
        struct stat st;
        int r;

        if (asprintf(&temp, "%s.new", path) < 0)
                return -ENOMEM;
        r = bl_sock_address(temp, &a);
        if (r < 0)
                return r;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        /* ours by the lock; left by one that was killed just here */
        if (unlink(temp) < 0 && errno != ENOENT)
                return -errno;
        if (bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
                return -errno;
        if (group != BL_BUS_NO_GROUP && lchown(temp, (uid_t)-1, group) < 0) {
                has_group = false;
                mode &= ~(mode_t)077;
        }
        if (chmod(temp, mode) < 0 || listen(fd, BACKLOG) < 0 || lstat(temp, &st) < 0 || rename(temp, path) < 0) {
                r = -errno;
                (void)unlink(temp);
                return r;
        }
        *ret_st = st;
        *ret_has_group = has_group;
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

int bl_listener_new(const char *path, gid_t group, mode_t mode, struct bl_listener **ret)
{
        _cleanup_(bl_listener_freep) struct bl_listener *l = NULL;
        struct stat st = {};
        struct sockaddr_un a;
        int r;

        r = bl_sock_address(path, &a);
        if (r < 0)
                return r;
        l = calloc(1, sizeof(*l));
        if (!l)
                return -ENOMEM;
        l->fd = l->lock_fd = -1;
        r = bl_sock_lock(path, &l->lock_fd);
        if (r < 0)
                return r;
        r = probe(path, &a);
        if (r < 0)
                return r;
        r = make_socket(path, group, mode, &st, &l->has_group, &l->fd);
        if (r < 0)
                return r;
        l->dev = st.st_dev;
        l->ino = st.st_ino;
        l->path = strdup(path);
        if (!l->path) {
                (void)unlink(path);
                return -ENOMEM;
        }
        *ret = BL_TAKE(l);
        return 0;
}

struct bl_listener *bl_listener_free(struct bl_listener *l)
{
        struct stat st;

        if (!l)
                return NULL;
        if (l->path && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
                (void)unlink(l->path);
        bl_closep(&l->fd);
        /* the lock file stays: removing it would let two daemons lock two files of one name */
        bl_closep(&l->lock_fd);
        free(l->path);
        free(l);
        return NULL;
}

int bl_listener_fd(const struct bl_listener *l)
{
        return l->fd;
}

bool bl_listener_has_group(const struct bl_listener *l)
{
        return l->has_group;
}
