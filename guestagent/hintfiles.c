/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which pages of which file are where: programs and libraries, since these are
 * what guests of one image have in common.
 *
 * Nothing is read in: only pages that mincore(2) finds in the page cache are
 * touched, and pagemap then says where they are.  mincore tells the truth to a
 * file's owner only, so that files of others are passed over.  MADV_RANDOM keeps
 * the touch from counting as a use (and from reading ahead, should a page have
 * gone meanwhile).
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/clock.h"
#include "guestagent/hints.h"

#define FILES        256U
#define PART         4096U /* pages of a file that are looked at together */
#define FLAGS_WINDOW 512U

#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_PFN     ((UINT64_C(1) << 55) - 1)

struct where {
        uint64_t pfn;
        uint64_t index;
};

struct work {
        const struct guest_job *job;
        struct hint_sink *sink;
        int pagemap, kpageflags;
        struct hint_stream stream;
        struct {
                uint64_t dev, inode;
        } seen[FILES];
        size_t n_seen;
        unsigned char resident[PART];
        uint64_t entry[PART];
        struct where page[PART];
        uint64_t flags[FLAGS_WINDOW];
        uint64_t flags_at; /* the first page that `flags` is about */
        size_t n_flags;
};

uint64_t hint_identity(const char *path, uint64_t size, uint64_t mtime_ns)
{
        uint64_t hash = UINT64_C(0xcbf29ce484222325);
        char number[2][24];
        const char *part[] = {path, number[0], number[1]};

        (void)snprintf(number[0], sizeof number[0], "%" PRIu64, size);
        (void)snprintf(number[1], sizeof number[1], "%" PRIu64, mtime_ns);
        for (size_t i = 0; i < 3; i++)
                for (const char *p = part[i];; p++) {
                        hash = (hash ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
                        if (*p == '\0')
                                break;
                }
        return hash;
}

/* "5581a000-5581c000 r-xp 00002000 fe:01 1234    /usr/bin/env" */
bool hint_parse_mapping(char *line, struct hint_mapping *ret)
{
        struct hint_mapping m = {0};
        char perms[5];
        int end = 0;

        if (sscanf(line, "%*x-%*x %4s %*x %x:%x %" SCNu64 " %n", perms, &m.major, &m.minor, &m.inode, &end) < 4)
                return false;
        if (end == 0 || strlen(perms) < 4 || perms[2] != 'x' || line[end] != '/' || m.inode == 0)
                return false;
        line[strcspn(line, "\n")] = '\0';
        m.path = line + end;
        *ret = m;
        return true;
}

/* 0 where it cannot be known. */
static uint64_t page_flags(struct work *w, uint64_t pfn)
{
        ssize_t n;

        if (pfn < w->flags_at || pfn - w->flags_at >= w->n_flags) {
                w->flags_at = pfn / FLAGS_WINDOW * FLAGS_WINDOW;
                n = pread(w->kpageflags, w->flags, sizeof w->flags, (off_t)(w->flags_at * sizeof w->flags[0]));
                w->n_flags = n < 0 ? 0 : (size_t)n / sizeof w->flags[0];
        }
        return pfn - w->flags_at < w->n_flags ? w->flags[pfn - w->flags_at] : 0;
}

static bool is_clean_cache(uint64_t flags)
{
        return (flags & HINT_KPF_UPTODATE) &&
               !(flags & (HINT_KPF_DIRTY | HINT_KPF_WRITEBACK | HINT_KPF_ANON | HINT_KPF_SWAPBACKED | HINT_KPF_LOCKED |
                          HINT_KPF_ERROR | HINT_KPF_HWPOISON));
}

static int by_pfn(const void *a, const void *b)
{
        const struct where *x = a, *y = b;

        return x->pfn < y->pfn ? -1 : x->pfn > y->pfn;
}

/* Neighbours in memory that are neighbours in the file are one run. */
static void add_pages(struct work *w, size_t n)
{
        struct bl_wire_run run = {0};

        qsort(w->page, n, sizeof w->page[0], by_pfn);
        for (size_t i = 0; i < n; i++) {
                const struct where *p = &w->page[i];

                if (!is_clean_cache(page_flags(w, p->pfn)))
                        continue;
                if (run.pages > 0 && p->pfn == run.pfn + run.pages && p->index == run.index + run.pages) {
                        run.pages++;
                        continue;
                }
                if (run.pages > 0)
                        (void)hint_add(w->sink, &w->stream, &run);
                run = (struct bl_wire_run){.pfn = p->pfn, .pages = 1, .index = p->index};
        }
        if (run.pages > 0)
                (void)hint_add(w->sink, &w->stream, &run);
        hint_flush(w->sink, &w->stream);
}

/* Touches what is resident of this part, and notes where it is. */
static size_t locate(struct work *w, const volatile uint8_t *map, size_t pages, uint64_t index)
{
        uint64_t first = (uint64_t)(uintptr_t)map / HINT_PAGE;
        ssize_t got;
        size_t n = 0;

        for (size_t i = 0; i < pages; i++)
                if (w->resident[i] & 1)
                        (void)map[i * HINT_PAGE];
        got = pread(w->pagemap, w->entry, pages * sizeof w->entry[0], (off_t)(first * sizeof w->entry[0]));
        for (size_t i = 0; got > 0 && i < (size_t)got / sizeof w->entry[0]; i++)
                if ((w->resident[i] & 1) && (w->entry[i] & PAGEMAP_PRESENT) && (w->entry[i] & PAGEMAP_PFN))
                        w->page[n++] = (struct where){.pfn = w->entry[i] & PAGEMAP_PFN, .index = index + i};
        return n;
}

static bool is_over(const struct work *w)
{
        return w->sink->error || w->sink->left < HINT_OVERHEAD * 2 || guest_clock(CLOCK_MONOTONIC) >= w->job->until;
}

static void hint_part(struct work *w, int fd, uint64_t index, size_t pages)
{
        void *map = mmap(NULL, pages * HINT_PAGE, PROT_READ, MAP_SHARED, fd, (off_t)(index * HINT_PAGE));

        if (map == MAP_FAILED)
                return;
        if (madvise(map, pages * HINT_PAGE, MADV_RANDOM) == 0 && mincore(map, pages * HINT_PAGE, w->resident) == 0)
                add_pages(w, locate(w, map, pages, index));
        (void)munmap(map, pages * HINT_PAGE);
}

static int open_quietly(const char *path)
{
        int fd = open(path, O_RDONLY | O_NOATIME | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);

        return fd < 0 ? -errno : fd;
}

/* It has to be the file that is mapped, not one of that name (another mount namespace, a replaced file). */
static void hint_file(struct work *w, const struct hint_mapping *m)
{
        _cleanup_close_ int fd = open_quietly(m->path);
        struct stat st;
        uint64_t pages;

        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_ino != m->inode ||
            st.st_dev != makedev(m->major, m->minor) || st.st_size <= 0)
                return;
        w->stream.kind = BL_HINT_FILE;
        w->stream.file = hint_identity(m->path, (uint64_t)st.st_size,
                                       (uint64_t)st.st_mtim.tv_sec * 1000000000 + (uint64_t)st.st_mtim.tv_nsec);
        pages = ((uint64_t)st.st_size - 1) / HINT_PAGE + 1;
        for (uint64_t index = 0; index < pages && !is_over(w); index += PART)
                hint_part(w, fd, index, (size_t)bl_min(PART, pages - index));
}

/* False: it was seen before, or there is no room to remember it. */
static bool is_new(struct work *w, const struct hint_mapping *m)
{
        uint64_t dev = makedev(m->major, m->minor);

        for (size_t i = 0; i < w->n_seen; i++)
                if (w->seen[i].dev == dev && w->seen[i].inode == m->inode)
                        return false;
        if (w->n_seen == FILES) {
                w->sink->cut = true;
                return false;
        }
        w->seen[w->n_seen].dev = dev;
        w->seen[w->n_seen++].inode = m->inode;
        return true;
}

static void hint_process(struct work *w, const char *pid, char **line, size_t *size)
{
        char path[PATH_MAX];
        _cleanup_fclose_ FILE *f = NULL;
        struct hint_mapping m;

        if ((size_t)snprintf(path, sizeof path, "%s/proc/%s/maps", w->job->root, pid) >= sizeof path)
                return;
        f = fopen(path, "re");
        while (f && !is_over(w) && getline(line, size, f) > 0)
                if (hint_parse_mapping(*line, &m) && is_new(w, &m))
                        hint_file(w, &m);
}

static int open_proc(const char *root, const char *name)
{
        char path[PATH_MAX];
        int fd;

        if ((size_t)snprintf(path, sizeof path, "%s/proc/%s", root, name) >= sizeof path)
                return -ENAMETOOLONG;
        fd = open(path, O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

void hint_files(const struct guest_job *j, struct hint_sink *sink)
{
        char path[PATH_MAX];
        _cleanup_free_ struct work *w = calloc(1, sizeof *w);
        _cleanup_free_ char *line = NULL;
        _cleanup_closedir_ DIR *dir = NULL;
        _cleanup_close_ int pagemap = open_proc(j->root, "self/pagemap");
        _cleanup_close_ int kpageflags = open_proc(j->root, "kpageflags");
        const struct dirent *d;
        size_t size = 0;

        if (!w || pagemap < 0 || kpageflags < 0 ||
            (size_t)snprintf(path, sizeof path, "%s/proc", j->root) >= sizeof path)
                return;
        w->job = j;
        w->sink = sink;
        w->pagemap = pagemap;
        w->kpageflags = kpageflags;
        dir = opendir(path);
        while (dir && !is_over(w) && (d = readdir(dir)))
                if (isdigit((unsigned char)d->d_name[0]))
                        hint_process(w, d->d_name, &line, &size);
        if (is_over(w))
                sink->cut = true;
}
