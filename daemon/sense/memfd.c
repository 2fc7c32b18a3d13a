// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/sense/memfd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

/* Looked at, then punched: the smaller, the shorter the time between the two. */
#define PIECE (2 * BL_MIB)

static bool is_memfd(int dirfd, const char *name)
{
        char link[64];
        ssize_t n = readlinkat(dirfd, name, link, sizeof link - 1);

        if (n < 0)
                return false;
        link[n] = '\0';
        return strncmp(link, BL_MEMFD_NAME, strlen(BL_MEMFD_NAME)) == 0;
}

int bl_memfd_find(int proc_dirfd, struct bl_memfds *ret)
{
        int fd = openat(proc_dirfd, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct bl_memfds found = {0};
        DIR *d = fd < 0 ? NULL : fdopendir(fd);

        if (!d) {
                int r = -errno;

                bl_closep(&fd);
                return r == -ENOENT ? -ESRCH : r;
        }
        for (const struct dirent *e = readdir(d); e && found.n < BL_MEMFD_MAX; e = readdir(d))
                if (is_memfd(dirfd(d), e->d_name))
                        found.fds[found.n++] = atoi(e->d_name);
        (void)closedir(d);
        *ret = found;
        return 0;
}

uint64_t bl_memfd_held(int proc_dirfd, const struct bl_memfds *f)
{
        uint64_t sum = 0;

        for (unsigned i = 0; i < f->n; i++) {
                char name[32];
                struct stat st;

                (void)snprintf(name, sizeof name, "fd/%d", f->fds[i]);
                if (fstatat(proc_dirfd, name, &st, 0) == 0 && S_ISREG(st.st_mode))
                        sum = bl_add_sat(sum, (uint64_t)st.st_blocks * 512);
        }
        return sum;
}

/* Every mapping of such a file must be private. */
static int check_private(int proc_dirfd)
{
        _cleanup_fclose_ FILE *f = NULL;
        int fd = openat(proc_dirfd, "maps", O_RDONLY | O_CLOEXEC);
        char line[512];

        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        f = fdopen(fd, "r");
        if (!f) {
                bl_closep(&fd);
                return -ENOMEM;
        }
        while (fgets(line, sizeof line, f)) {
                char mode[8] = "";

                if (strstr(line, BL_MEMFD_NAME) && (sscanf(line, "%*s %7s", mode) != 1 || mode[3] != 'p'))
                        return -EBUSY;
        }
        return 0;
}

static bool all_zeros(const char *p, size_t n)
{
        return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static int drop_piece(int fd, char *buf, off_t at, off_t size)
{
        ssize_t n = pread(fd, buf, (size_t)size, at);

        if (n < 0)
                return -errno;
        if (!all_zeros(buf, (size_t)n))
                return -EBUSY;
        return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, size) < 0 ? -errno : 0;
}

static int drop_file(int fd, char *buf)
{
        off_t at = 0;

        for (;;) {
                off_t end, start = lseek(fd, at, SEEK_DATA);
                int r;

                /* ENXIO: there is no more */
                if (start < 0)
                        return errno == ENXIO ? 0 : -errno;
                end = lseek(fd, start, SEEK_HOLE);
                if (end < 0)
                        return -errno;
                at = start + (off_t)bl_min((uint64_t)(end - start), PIECE);
                r = drop_piece(fd, buf, start, at - start);
                if (r < 0)
                        return r;
        }
}

/* Its number may be another file's by now: what was opened is looked at. */
static bool is_own_memfd(int fd)
{
        _cleanup_close_ int self = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
        char name[16];

        (void)snprintf(name, sizeof name, "%d", fd);
        return self >= 0 && fcntl(fd, F_GET_SEALS) >= 0 && is_memfd(self, name);
}

static int open_memfd(int proc_dirfd, int number)
{
        _cleanup_close_ int fd = -1;
        char name[32];

        (void)snprintf(name, sizeof name, "fd/%d", number);
        fd = openat(proc_dirfd, name, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        return is_own_memfd(fd) ? bl_take_fd(&fd) : -EBUSY;
}

int bl_memfd_drop(int proc_dirfd, const struct bl_memfds *f, uint64_t *ret_freed)
{
        uint64_t before = bl_memfd_held(proc_dirfd, f);
        _cleanup_free_ char *buf = malloc(PIECE);
        int r = buf ? check_private(proc_dirfd) : -ENOMEM;

        for (unsigned i = 0; i < f->n && r >= 0; i++) {
                _cleanup_close_ int fd = open_memfd(proc_dirfd, f->fds[i]);

                r = fd < 0 ? fd : drop_file(fd, buf);
        }
        *ret_freed = bl_sub_sat(before, bl_memfd_held(proc_dirfd, f));
        return r;
}
