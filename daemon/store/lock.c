/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/store/lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include <ballast/cleanup.h>

#include "daemon/util/clock.h"

#define POLL (2 * BL_MSEC)

/* Its holder may have removed it, and somebody made another one, before it was ours.  1, 0 or negative errno. */
static int is_current(int fd, const char *path)
{
        struct stat mine, there;

        if (fstat(fd, &mine) < 0)
                return -errno;
        if (stat(path, &there) < 0)
                return errno == ENOENT ? 0 : -errno;
        return mine.st_dev == there.st_dev && mine.st_ino == there.st_ino;
}

static int try_lock(const char *path, int *ret_fd, int *ret_pid)
{
        _cleanup_close_ int fd = -1;
        char text[16] = "";
        int r;

        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
        if (fd < 0)
                return -errno;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                if (errno != EWOULDBLOCK)
                        return -errno;
                *ret_pid = pread(fd, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : 0;
                return -EBUSY;
        }
        r = is_current(fd, path);
        if (r <= 0)
                return r < 0 ? r : -EBUSY;
        r = snprintf(text, sizeof(text), "%d\n", (int)getpid());
        if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)r, 0) < 0)
                return -errno;
        *ret_fd = bl_take_fd(&fd);
        return 0;
}

int bl_lock_file(const char *path, usec_t wait, int *ret_fd, int *ret_pid)
{
        const struct timespec pause = {.tv_nsec = (long)(POLL * 1000)};
        const usec_t deadline = bl_add_sat(bl_now(), wait);
        int r;

        while ((r = try_lock(path, ret_fd, ret_pid)) == -EBUSY && bl_now() < deadline)
                (void)nanosleep(&pause, NULL);
        return r;
}
