// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/pages/regions.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/vfs.h>

#include "daemon/sense/guest_ram.h"

struct mapping {
        uint64_t start, end;
        char mode[8]; /* "rw-p" */
        const char *name; /* "": none */
};

/* What a mapping is mapped from. */
enum backing {
        ANONYMOUS,
        MEMORY_FILE, /* tmpfs: memfd, System V, shared anonymous memory */
        HUGE_PAGES, /* hugetlbfs */
        DISK_FILE,
        DEVICE,
};

/* --- one mapping ------------------------------------------------------------ */

static bool begins(const char *s, const char *with)
{
        return strncmp(s, with, strlen(with)) == 0;
}

static enum backing guess_by_name(const char *name)
{
        static const char *const memory[] = {"/memfd:", "/SYSV", "/dev/shm/", "/drm mm object"};

        for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
                if (begins(name, memory[i]))
                        return MEMORY_FILE;
        if (begins(name, "/anon_hugepage") || begins(name, "/dev/hugepages/"))
                return HUGE_PAGES;
        return begins(name, "/dev/") || name[0] != '/' ? DEVICE : DISK_FILE;
}

/* The link of /proc/PID/map_files leads to the very file, deleted or not (proc(5)). */
static enum backing ask_map_files(int proc_dirfd, const struct mapping *m)
{
        _cleanup_close_ int fd = -1;
        struct statfs fs;
        struct stat st;
        char path[64];

        (void)snprintf(path, sizeof path, "map_files/%" PRIx64 "-%" PRIx64, m->start, m->end);
        fd = proc_dirfd < 0 ? -1 : openat(proc_dirfd, path, O_PATH | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
                return guess_by_name(m->name);
        if (!S_ISREG(st.st_mode))
                return DEVICE;
        if (fs.f_type == HUGETLBFS_MAGIC)
                return HUGE_PAGES;
        return fs.f_type == TMPFS_MAGIC ? MEMORY_FILE : DISK_FILE;
}

static enum backing backing_of(int proc_dirfd, const struct mapping *m)
{
        const bool shared = m->mode[3] == 's';

        /* "[anon_shmem:NAME]" is the name that prctl(PR_SET_VMA_ANON_NAME) gives to shared memory */
        if (begins(m->name, "[anon_shmem:"))
                return MEMORY_FILE;
        if (m->name[0] == '\0' || m->name[0] == '[')
                return ANONYMOUS;
        /* shared anonymous memory is called so; a private mapping of the device is anonymous memory, too */
        if (strcmp(m->name, "/dev/zero") == 0 || strcmp(m->name, "/dev/zero (deleted)") == 0)
                return shared ? MEMORY_FILE : ANONYMOUS;
        return ask_map_files(proc_dirfd, m);
}

static bool parse_line(char *line, struct mapping *ret)
{
        struct mapping m;
        int name = 0;

        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %*s %*s %*s %n", &m.start, &m.end, m.mode, &name) != 3 ||
            name == 0 || m.end <= m.start || strlen(m.mode) != 4)
                return false;
        m.name = line + name;
        *ret = m;
        return true;
}

static bool is_guest_ram(const struct mapping *m, const struct bl_guest_ram *ram)
{
        if (m->mode[2] == 'x' || strcmp(m->name, "[heap]") == 0)
                return false;
        for (size_t i = 0; i < ram->n; i++)
                if (ram->part[i].start == m->start && ram->part[i].end == m->end)
                        return true;
        return false;
}

/* --- all of them ------------------------------------------------------------ */

static int add(struct bl_regions *all, const struct mapping *m, enum bl_pagemap_files files, bool shared)
{
        struct bl_region *r = reallocarray(all->r, all->n + 1, sizeof *r);

        if (!r)
                return -ENOMEM;
        all->r = r;
        all->r[all->n++] = (struct bl_region){
                .start = m->start, .first = all->pages, .n = (m->end - m->start) / BL_PAGE_SIZE, .files = files};
        all->pages += all->r[all->n - 1].n;
        all->bytes += m->end - m->start;
        if (shared)
                all->shared_bytes += m->end - m->start;
        return 0;
}

static int consider(struct bl_regions *all, int proc_dirfd, const struct bl_guest_ram *ram, const struct mapping *m)
{
        const bool shared = m->mode[3] == 's';
        enum bl_pagemap_files files = ram ? BL_PAGEMAP_FILES_COUNT : BL_PAGEMAP_FILES_SHARED;

        if (m->mode[1] != 'w' || (ram && !is_guest_ram(m, ram)))
                return 0;
        switch (backing_of(proc_dirfd, m)) {
        case ANONYMOUS:
                return add(all, m, files, false);
        case MEMORY_FILE:
                return add(all, m, files, shared);
        case HUGE_PAGES:
                return add(all, m, files, true);
        case DISK_FILE:
                if (ram)
                        return add(all, m, files, shared);
                return shared ? 0 : add(all, m, BL_PAGEMAP_FILES_SKIP, false);
        case DEVICE:
                return 0;
        }
        return 0;
}

static int parse(char *text, size_t len, int proc_dirfd, uint64_t guest_ram, struct bl_regions *ret)
{
        _cleanup_(bl_regions_done) struct bl_regions all = {0};
        struct bl_guest_ram ram;
        int r;

        if (guest_ram) {
                _cleanup_fclose_ FILE *f = fmemopen(text, bl_max(len, 1), "r");

                r = f ? bl_guest_ram_parse(f, guest_ram, &ram) : -ENOMEM;
                if (r < 0)
                        return r;
        }
        for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                struct mapping m;

                if (!parse_line(line, &m))
                        continue;
                r = consider(&all, proc_dirfd, guest_ram ? &ram : NULL, &m);
                if (r < 0)
                        return r;
        }
        if (all.n == 0)
                return -ENODATA;
        *ret = all;
        all = (struct bl_regions){0};
        return 0;
}

int bl_regions_parse(FILE *maps, int proc_dirfd, uint64_t guest_ram, struct bl_regions *ret)
{
        _cleanup_free_ char *text = NULL;
        size_t room = 0;
        ssize_t n;

        /* the whole of it at once: it has no NUL */
        errno = 0;
        n = getdelim(&text, &room, '\0', maps);
        if (n < 0)
                return feof(maps) && !ferror(maps) ? -ENODATA : errno ? -errno : -EIO;
        return parse(text, (size_t)n, proc_dirfd, guest_ram, ret);
}

int bl_regions_find(int proc_dirfd, uint64_t guest_ram, struct bl_regions *ret)
{
        _cleanup_close_ int fd = openat(proc_dirfd, "maps", O_RDONLY | O_CLOEXEC);
        _cleanup_fclose_ FILE *f = NULL;

        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        f = fdopen(fd, "r");
        if (!f)
                return -ENOMEM;
        (void)bl_take_fd(&fd);
        return bl_regions_parse(f, proc_dirfd, guest_ram, ret);
}

void bl_regions_done(struct bl_regions *r)
{
        free(r->r);
        *r = (struct bl_regions){0};
}

bool bl_regions_equal(const struct bl_regions *a, const struct bl_regions *b)
{
        bool same = a->n == b->n;

        for (size_t i = 0; same && i < a->n; i++)
                same = a->r[i].start == b->r[i].start && a->r[i].n == b->r[i].n && a->r[i].files == b->r[i].files;
        return same;
}

const struct bl_region *bl_regions_at(const struct bl_regions *r, uint64_t page, size_t *hint)
{
        size_t low = 0, high = r->n;

        if (*hint < r->n && page - r->r[*hint].first < r->r[*hint].n)
                return &r->r[*hint];
        while (high - low > 1) {
                const size_t middle = low + (high - low) / 2;

                if (r->r[middle].first <= page)
                        low = middle;
                else
                        high = middle;
        }
        *hint = low;
        return &r->r[low];
}
