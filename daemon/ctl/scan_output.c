/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/scan_output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <ballast/cleanup.h>

#include "daemon/util/fs.h"

/* 1: it is replaced (or new), 0: it is a device or the like, and written to. */
static int is_replaced(const char *path)
{
        struct stat st;

        if (stat(path, &st) < 0)
                return errno == ENOENT ? 1 : -errno;
        if (S_ISDIR(st.st_mode))
                return -EISDIR;
        return S_ISREG(st.st_mode);
}

/* A link stays, and what it points to is replaced. */
static int resolve(const char *path, char ret[PATH_MAX])
{
        if (realpath(path, ret))
                return 0;
        if (errno != ENOENT)
                return -errno;
        if (strlen(path) >= PATH_MAX)
                return -ENAMETOOLONG;
        (void)strcpy(ret, path);
        return 0;
}

int ctl_scan_output_check(const char *path)
{
        _cleanup_free_ char *probe = NULL;
        char real[PATH_MAX];
        int fd, r;

        if (!*path)
                return -ENOENT;
        r = is_replaced(path);
        if (r < 0)
                return r;
        if (r == 0)
                return access(path, W_OK) < 0 ? -errno : 0;
        r = resolve(path, real);
        if (r < 0)
                return r;
        if (asprintf(&probe, "%s.XXXXXX", real) < 0)
                return -ENOMEM;
        fd = mkostemp(probe, O_CLOEXEC);
        if (fd < 0)
                return -errno;
        (void)close(fd);
        (void)unlink(probe);
        return 0;
}

static int write_to(const char *path, const char *text, size_t len)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);

        if (fd < 0)
                return -errno;
        while (len > 0) {
                ssize_t n = write(fd, text, len);

                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n > 0) {
                        text += n;
                        len -= (size_t)n;
                }
        }
        return 0;
}

int ctl_scan_output_write(const char *path, const char *text, size_t len)
{
        char real[PATH_MAX];
        int r = is_replaced(path);

        if (r < 0)
                return r;
        if (r == 0)
                return write_to(path, text, len);
        r = resolve(path, real);
        return r < 0 ? r : bl_fs_write_atomic(real, text, len, 0644, false);
}
