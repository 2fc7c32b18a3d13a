/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/util/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ballast/cleanup.h>

int bl_path_join(char *buf, size_t size, const char *root, const char *path)
{
        size_t root_len = root ? strlen(root) : 0;
        int n;

        while (root_len && root[root_len - 1] == '/')
                root_len--;
        if (root_len >= size)
                return -ENAMETOOLONG;
        n = snprintf(buf, size, "%.*s%s", (int)root_len, root_len ? root : "", path);
        return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* Reads until the end, NUL-terminates.  -EFBIG when there is more than fits. */
static ssize_t read_whole(int fd, char *buf, size_t size)
{
        size_t len = 0;

        if (size == 0)
                return -EINVAL;
        for (;;) {
                char beyond;
                const size_t room = size - 1 - len;
                const ssize_t n = pread(fd, room ? buf + len : &beyond, room ? room : 1, (off_t)len);

                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }
                if (n == 0 || room == 0) {
                        buf[len] = '\0';
                        return n ? -EFBIG : (ssize_t)len;
                }
                len += (size_t)n;
        }
}

ssize_t bl_fs_read_at(int dirfd, const char *path, char *buf, size_t size)
{
        _cleanup_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

        return fd < 0 ? -errno : read_whole(fd, buf, size);
}

ssize_t bl_fs_read(const char *root, const char *path, char *buf, size_t size)
{
        char full[PATH_MAX];
        const int r = bl_path_join(full, sizeof full, root, path);

        return r < 0 ? r : bl_fs_read_at(AT_FDCWD, full, buf, size);
}

int bl_fs_read_alloc(const char *path, size_t max, char **ret, size_t *ret_len)
{
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        _cleanup_free_ char *buf = NULL;
        struct stat st;
        size_t size;
        ssize_t n;

        if (fd < 0)
                return -errno;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (S_ISDIR(st.st_mode))
                return -EISDIR;
        if (__builtin_add_overflow(max, 1U, &size))
                return -EINVAL;
        /* a file that is longer than `max` fails below, one that says how long it is needs no more */
        if (S_ISREG(st.st_mode) && st.st_size > 0 && (uintmax_t)st.st_size < max)
                size = (size_t)st.st_size + 1;

        buf = malloc(size);
        if (!buf)
                return -ENOMEM;
        n = read_whole(fd, buf, size);
        if (n < 0)
                return (int)n;

        *ret = BL_TAKE(buf);
        if (ret_len)
                *ret_len = (size_t)n;
        return 0;
}

static int write_whole(int fd, const char *p, size_t len)
{
        while (len) {
                const ssize_t n = write(fd, p, len);

                if (n < 0) {
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }
                p += n;
                len -= (size_t)n;
        }
        return 0;
}

static int sync_parent(const char *path)
{
        _cleanup_free_ char *copy = strdup(path);
        _cleanup_close_ int fd = -1;
        char *slash;

        if (!copy)
                return -ENOMEM;
        slash = strrchr(copy, '/');
        if (slash)
                slash[slash == copy] = '\0';
        fd = open(slash ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        return fsync(fd) < 0 ? -errno : 0;
}

int bl_fs_write_atomic(const char *path, const void *data, size_t len, mode_t mode, bool sync)
{
        _cleanup_close_ int fd = -1;
        char tmp[PATH_MAX];
        int r, n;

        n = snprintf(tmp, sizeof tmp, "%s.XXXXXX", path);
        if (n < 0 || (size_t)n >= sizeof tmp)
                return -ENAMETOOLONG;

        fd = mkostemp(tmp, O_CLOEXEC);
        if (fd < 0)
                return -errno;

        r = write_whole(fd, data, len);
        if (r < 0)
                goto fail;
        if (fchmod(fd, mode) < 0 || (sync && fsync(fd) < 0) || rename(tmp, path) < 0) {
                r = -errno;
                goto fail;
        }
        return sync ? sync_parent(path) : 0;

fail:
        (void)unlink(tmp);
        return r;
}

int bl_fs_mkdir_p(const char *path, mode_t mode)
{
        char buf[PATH_MAX];
        const size_t len = strlen(path);
        struct stat st;

        if (len == 0)
                return -EINVAL;
        if (len >= sizeof buf)
                return -ENAMETOOLONG;
        memcpy(buf, path, len + 1);

        for (char *p = buf + 1;; p++) {
                const char c = *p;

                if (c != '/' && c != '\0')
                        continue;
                *p = '\0';
                if (mkdir(buf, mode) < 0 && errno != EEXIST)
                        return -errno;
                if (c == '\0')
                        break;
                *p = c;
        }
        if (stat(path, &st) < 0)
                return -errno;
        return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int bl_reader_open(struct bl_reader *r, const char *root, const char *path)
{
        char full[PATH_MAX];
        int fd, k;

        k = bl_path_join(full, sizeof full, root, path);
        if (k < 0)
                return k;
        fd = open(full, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        if (fd < 0)
                return -errno;
        r->fd = fd;
        return 0;
}

void bl_reader_close(struct bl_reader *r)
{
        bl_closep(&r->fd);
        r->fd = -1;
}

ssize_t bl_reader_read(const struct bl_reader *r, char *buf, size_t size)
{
        return r->fd < 0 ? -EBADF : read_whole(r->fd, buf, size);
}

ssize_t bl_reader_read_once(const struct bl_reader *r, char *buf, size_t size)
{
        ssize_t n;

        if (r->fd < 0)
                return -EBADF;
        if (size == 0)
                return -EINVAL;
        do
                n = pread(r->fd, buf, size - 1, 0);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        buf[n] = '\0';
        /* a full buffer: there may be more */
        return (size_t)n == size - 1 ? -EFBIG : n;
}
