/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Clean cache and fragmentation: the kernel does the work, we choose how much.
 * memory.reclaim (Linux 5.19, Documentation/admin-guide/cgroup-v2.rst) takes
 * what is coldest, in small slices that are looked after one by one: where no
 * more of the inactive list is clean we stop, since what comes next is in use.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/clock.h"
#include "guestagent/job.h"

#define CGROUP_DIR "/sys/fs/cgroup"
#define COMPACT    "/proc/sys/vm/compact_memory"
#define SLICE      (16 * BL_MIB)
/* Stays where it is: the kernel's estimate of what is inactive and clean is no promise. */
#define LEAVE   (4 * BL_MIB)
#define CGROUPS 64U

int guest_write_all(int fd, const void *data, size_t size)
{
        const uint8_t *p = data;

        while (size > 0) {
                ssize_t n = write(fd, p, size);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                p += n;
                size -= (size_t)n;
        }
        return 0;
}

static int open_top(const char *root)
{
        char path[PATH_MAX];
        int fd;

        if ((size_t)snprintf(path, sizeof path, "%s" CGROUP_DIR, root) >= sizeof path)
                return -ENAMETOOLONG;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

struct cgroup {
        char name[NAME_MAX + 1];
};

/* Those cgroups at the top that can be asked to reclaim; how many there are.
 * getdents64 rather than readdir, since the agent itself asks this too. */
static size_t list_cgroups(int top, struct cgroup *ret, size_t max)
{
        char entries[2048] __attribute__((aligned(8)));
        size_t count = 0;
        ssize_t n;

        while (count < max && (n = getdents64(top, entries, sizeof entries)) > 0)
                for (ssize_t at = 0; at < n && count < max;) {
                        const struct dirent64 *d = (const void *)(entries + at);
                        char path[NAME_MAX + sizeof "/memory.reclaim"];

                        at += d->d_reclen;
                        (void)snprintf(path, sizeof path, "%s/memory.reclaim", d->d_name);
                        if (d->d_name[0] == '.' || faccessat(top, path, W_OK, AT_EACCESS) < 0)
                                continue;
                        (void)snprintf(ret[count++].name, sizeof ret->name, "%s", d->d_name);
                }
        return count;
}

bool guest_can_trim(const char *root)
{
        _cleanup_close_ int top = open_top(root);
        struct cgroup one;

        return top >= 0 && list_cgroups(top, &one, 1) > 0;
}

static uint64_t find_stat(const char *text, const char *name)
{
        size_t n = strlen(name);

        for (const char *p = text; p; p = strchr(p, '\n')) {
                p += *p == '\n';
                if (strncmp(p, name, n) == 0 && p[n] == ' ')
                        return strtoull(p + n + 1, NULL, 10);
                if (*p == '\0')
                        break;
        }
        return 0;
}

/* Cache of this cgroup, and that part of it which nobody would miss. */
static int read_cache(int top, const struct cgroup *g, uint64_t *ret_file, uint64_t *ret_idle)
{
        char path[sizeof g->name + sizeof "/memory.stat"], text[16384];
        _cleanup_close_ int fd = -1;
        ssize_t n;

        (void)snprintf(path, sizeof path, "%s/memory.stat", g->name);
        fd = openat(top, path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = read(fd, text, sizeof text - 1);
        if (n < 0)
                return -errno;
        text[n] = '\0';
        *ret_file = find_stat(text, "file");
        *ret_idle = bl_sub_sat(find_stat(text, "inactive_file"),
                               bl_add_sat(find_stat(text, "file_dirty"), find_stat(text, "file_writeback")));
        return 0;
}

/* Without swappiness= (Linux 6.9) the kernel might take anonymous memory too,
 * but hardly does while the inactive file list is long: vmscan.c, cache_trim_mode. */
static int reclaim(int top, const struct cgroup *g, uint64_t bytes)
{
        char path[sizeof g->name + sizeof "/memory.reclaim"], text[64];
        _cleanup_close_ int fd = -1;
        int n;

        (void)snprintf(path, sizeof path, "%s/memory.reclaim", g->name);
        fd = openat(top, path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = snprintf(text, sizeof text, "%" PRIu64 " swappiness=0", bytes);
        if (write(fd, text, (size_t)n) >= 0)
                return 0;
        if (errno != EINVAL)
                return -errno;
        n = snprintf(text, sizeof text, "%" PRIu64, bytes);
        return write(fd, text, (size_t)n) < 0 ? -errno : 0;
}

/* One slice of this cgroup.  Bytes given; 0: there is nothing (more) here. */
static uint64_t trim_slice(int top, const struct cgroup *g, uint64_t most)
{
        uint64_t before = 0, after = 0, idle = 0;

        if (read_cache(top, g, &before, &idle) < 0)
                return 0;
        most = bl_min(bl_min(most, SLICE), bl_sub_sat(idle, LEAVE));
        if (most < 4096)
                return 0;
        /* EAGAIN: less than that could be had; how much, the difference says */
        if (reclaim(top, g, most) < 0 && errno != EAGAIN)
                return 0;
        return read_cache(top, g, &after, &idle) < 0 ? 0 : bl_sub_sat(before, after);
}

enum bl_wire_status guest_job_trim(struct guest_job *j)
{
        _cleanup_close_ int top = open_top(j->root);
        _cleanup_free_ struct cgroup *groups = calloc(CGROUPS, sizeof *groups);
        uint64_t before;
        size_t n;

        if (top < 0 || !groups)
                return BL_RESULT_UNKNOWN;
        n = list_cgroups(top, groups, CGROUPS);
        if (n == 0)
                return BL_RESULT_UNKNOWN;
        do {
                before = j->given;
                for (size_t i = 0; i < n && j->given < j->bytes; i++)
                        j->given += trim_slice(top, &groups[i], j->bytes - j->given);
        } while (j->given > before && j->given < j->bytes && guest_clock(CLOCK_MONOTONIC) < j->until);
        return j->given >= j->bytes ? BL_RESULT_DONE : BL_RESULT_PARTLY;
}

static int open_compact(const char *root)
{
        char path[PATH_MAX];
        int fd;

        if ((size_t)snprintf(path, sizeof path, "%s" COMPACT, root) >= sizeof path)
                return -ENAMETOOLONG;
        fd = open(path, O_WRONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

bool guest_can_compact(const char *root)
{
        _cleanup_close_ int fd = open_compact(root);

        return fd >= 0;
}

enum bl_wire_status guest_job_compact(struct guest_job *j)
{
        _cleanup_close_ int fd = open_compact(j->root);

        if (fd < 0)
                return BL_RESULT_UNKNOWN;
        return guest_write_all(fd, "1", 1) < 0 ? BL_RESULT_FAILED : BL_RESULT_DONE;
}
