// SPDX-License-Identifier: LGPL-2.1-or-later
/* The memory of a running process as a source of pages. */
#include "daemon/pages/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/uio.h>

#include "daemon/pages/regions.h"
#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"

#define BATCH IOV_MAX /* pages: as many ranges as one process_vm_readv takes, if none are neighbours */
/* What was looked at is mostly read at once: so many pages need no second question, for so long. */
#define FRESH_PAGES  2048U
#define FRESH_RANGES 64U
#define FRESH_FOR    (10 * BL_MSEC)

struct process {
        struct bl_source s;
        pid_t pid;
        int pidfd;
        int proc; /* /proc/PID */
        int mem; /* /proc/PID/mem; like pagemap it belongs to the memory, and not to the number */
        struct bl_pagemap pagemap;
        uint64_t guest_ram;
        struct bl_regions regions;
        uint64_t mapped; /* pages that the process had mapped when they were found; 0: not known */
        size_t hint; /* of bl_regions_at() */
        struct {
                usec_t until;
                size_t n_ranges, n_ways;
                struct {
                        uint64_t first; /* page */
                        size_t n, at; /* its ways are from there on */
                } range[FRESH_RANGES];
                uint8_t way[FRESH_PAGES]; /* enum bl_pagemap_way */
        } fresh; /* of the last looks */
};

static struct process *process_of(struct bl_source *s)
{
        return (struct process *)(void *)s;
}

/* The memory is what it was: neither has the process ended, nor is it another program now, exec(2). */
static int check_memory(const struct process *p)
{
        uint64_t entry;
        const off_t at = (off_t)(p->regions.r[0].start / BL_PAGE_SIZE * sizeof entry);

        return pread(p->pagemap.pagemap, &entry, sizeof entry, at) == sizeof entry ? 0 : -ESRCH;
}

/* A pidfd polls readable once its process has ended (pidfd_open(2)): alive now, it had its number all the time. */
static int check_alive(const struct process *p)
{
        struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

        return poll(&pfd, 1, 0) == 0 ? check_memory(p) : -ESRCH;
}

/* --- looking ---------------------------------------------------------------- */

/* Where the ways of `n` pages from `first` on go; NULL: they are too many. */
static uint8_t *open_fresh(struct process *p, uint64_t first, size_t n)
{
        const usec_t now = bl_now();

        if (now >= p->fresh.until || p->fresh.n_ranges == FRESH_RANGES || n > FRESH_PAGES - p->fresh.n_ways) {
                p->fresh.n_ranges = p->fresh.n_ways = 0;
                p->fresh.until = now + FRESH_FOR;
        }
        if (n > FRESH_PAGES)
                return NULL;
        p->fresh.range[p->fresh.n_ranges].first = first;
        p->fresh.range[p->fresh.n_ranges].at = p->fresh.n_ways;
        return p->fresh.way + p->fresh.n_ways;
}

static void close_fresh(struct process *p, size_t n)
{
        p->fresh.range[p->fresh.n_ranges++].n = n;
        p->fresh.n_ways += n;
}

/* Not in any that was looked at: NULL.  The last look comes first. */
static const uint8_t *find_fresh(const struct process *p, uint64_t page, size_t *hint)
{
        const size_t n = p->fresh.n_ranges;

        for (size_t i = 0; i <= n; i++) {
                const size_t k = i == 0 ? *hint : n - i;

                if (k < n && page - p->fresh.range[k].first < p->fresh.range[k].n) {
                        *hint = k;
                        return &p->fresh.way[p->fresh.range[k].at + (page - p->fresh.range[k].first)];
                }
        }
        return NULL;
}

/* That its pagemap can be read says that the memory is there still (it ends with the process, and with exec(2)). */
static int process_look(struct bl_source *s, uint64_t first, size_t n, struct bl_page_look *ret)
{
        struct process *p = process_of(s);
        const size_t known = (size_t)bl_min(n, bl_sub_sat(s->n_pages, first));
        uint8_t *ways = open_fresh(p, first, known);

        memset(ret + known, 0, (n - known) * sizeof *ret);
        for (size_t done = 0; done < known;) {
                const struct bl_region *r = bl_regions_at(&p->regions, first + done, &p->hint);
                const uint64_t at = first + done - r->first;
                const size_t run = (size_t)bl_min(known - done, r->n - at);
                int k = bl_pagemap_look(&p->pagemap, r->start + at * BL_PAGE_SIZE, run, r->files, ret + done,
                                        ways ? ways + done : NULL);

                if (k < 0)
                        return k;
                done += run;
        }
        if (ways)
                close_fresh(p, known);
        return known > 0 ? 0 : check_alive(p);
}

/* --- reading ---------------------------------------------------------------- */

/* So many pages from the first on are neighbours by address. */
static size_t neighbours(const uint64_t *address, size_t n)
{
        size_t run = 1;

        while (run < n && address[run] == address[0] + run * BL_PAGE_SIZE)
                run++;
        return run;
}

static void *pointer(uint64_t address)
{
        return (void *)(uintptr_t)address; // NOLINT(performance-no-int-to-ptr)
}

/* Pages that are read now; 0: the first one cannot be. */
static ssize_t pin_some(const struct process *p, const uint64_t *address, size_t n, void *to)
{
        const struct iovec local = {.iov_base = to, .iov_len = n * BL_PAGE_SIZE};
        struct iovec remote[IOV_MAX];
        size_t ranges = 0;
        ssize_t got;

        for (size_t i = 0, run; i < n; i += run) {
                run = neighbours(address + i, n - i);
                remote[ranges++] = (struct iovec){.iov_base = pointer(address[i]), .iov_len = run * BL_PAGE_SIZE};
        }
        got = process_vm_readv(p->pid, &local, 1, remote, ranges, 0);
        if (got < 0)
                return errno == EFAULT ? 0 : -errno;
        return got / BL_PAGE_SIZE;
}

/* The same for pages that must not be pinned (pagemap.h). */
static ssize_t copy_some(const struct process *p, const uint64_t *address, size_t n, void *to)
{
        const size_t run = neighbours(address, n);
        ssize_t got = pread(p->mem, to, run * BL_PAGE_SIZE, (off_t)address[0]);

        if (got < 0)
                return errno == EIO || errno == EFAULT ? 0 : -errno;
        return got / BL_PAGE_SIZE;
}

/* One way for all of them.  The kernel ends at the first page that it cannot read: it goes on behind that. */
static int read_way(const struct process *p, enum bl_pagemap_way way, const uint64_t *address, size_t n, char *to,
                    bool *ret_ok)
{
        for (size_t done = 0; done < n;) {
                ssize_t got = way == BL_PAGEMAP_PIN ? pin_some(p, address + done, n - done, to + done * BL_PAGE_SIZE)
                                                    : copy_some(p, address + done, n - done, to + done * BL_PAGE_SIZE);

                if (got == -EINTR)
                        continue;
                if (got < 0)
                        return (int)got;
                memset(ret_ok + done, true, (size_t)got);
                done += (size_t)got;
                if (got == 0)
                        ret_ok[done++] = false;
        }
        return 0;
}

static int find_ways(const struct process *p, const uint64_t *pages, const uint64_t *address, size_t n, uint8_t *ret)
{
        const bool fresh = bl_now() < p->fresh.until;
        size_t hint = 0;

        for (size_t i = 0, run; i < n; i += run) {
                const uint8_t *way = fresh ? find_fresh(p, pages[i], &hint) : NULL;
                int r;

                if (way) {
                        ret[i] = *way;
                        run = 1;
                        continue;
                }
                run = neighbours(address + i, n - i);
                r = bl_pagemap_look(&p->pagemap, address[i], run, BL_PAGEMAP_FILES_COUNT, NULL, ret + i);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int read_batch(struct process *p, const uint64_t *pages, size_t n, char *to, bool *ret_ok)
{
        uint64_t address[BATCH];
        uint8_t way[BATCH];
        int r;

        for (size_t i = 0; i < n; i++) {
                const struct bl_region *region = bl_regions_at(&p->regions, pages[i], &p->hint);

                address[i] = region->start + (pages[i] - region->first) * BL_PAGE_SIZE;
        }
        r = find_ways(p, pages, address, n, way);
        for (size_t i = 0, run; i < n && r >= 0; i += run) {
                for (run = 1; i + run < n && way[i + run] == way[i]; run++)
                        ;
                switch ((enum bl_pagemap_way)way[i]) {
                case BL_PAGEMAP_GONE:
                        memset(ret_ok + i, false, run);
                        break;
                case BL_PAGEMAP_PIN:
                case BL_PAGEMAP_MEM:
                        r = read_way(p, way[i], address + i, run, to + i * BL_PAGE_SIZE, ret_ok + i);
                        break;
                }
        }
        return r;
}

static int process_read(struct bl_source *s, const uint64_t *pages, size_t n, void *buf, bool *ret_ok)
{
        struct process *p = process_of(s);

        /* a number from before the memory was laid out anew */
        while (n > 0 && pages[n - 1] >= s->n_pages)
                ret_ok[--n] = false;
        for (size_t done = 0; done < n;) {
                const size_t batch = (size_t)bl_min(n - done, BATCH);
                int r = read_batch(p, pages + done, batch, (char *)buf + done * BL_PAGE_SIZE, ret_ok + done);

                if (r < 0)
                        return r;
                done += batch;
        }
        return check_alive(p);
}

/* --- life ------------------------------------------------------------------- */

/* Takes *regions. */
static int take_regions(struct process *p, struct bl_regions *regions)
{
        _cleanup_free_ char *warning = NULL;

        if (regions->bytes < p->guest_ram &&
            asprintf(&warning, "Only %" PRIu64 " of %" PRIu64 " MiB of guest memory were found in pid %d.",
                     regions->bytes / BL_MIB, p->guest_ram / BL_MIB, (int)p->pid) < 0)
                return -ENOMEM;
        bl_regions_done(&p->regions);
        p->regions = *regions;
        *regions = (struct bl_regions){0};
        p->hint = 0;
        p->fresh.n_ranges = p->fresh.n_ways = 0;
        free(p->s.warning);
        p->s.warning = BL_TAKE(warning);
        p->s.n_pages = p->regions.pages;
        p->s.shared_bytes = p->regions.shared_bytes;
        return 0;
}

/* All that it has mapped, in pages: /proc/PID/statm costs 2 us, and /proc/PID/maps of a VMM 300. */
static uint64_t read_mapped(const struct process *p)
{
        char statm[128];

        return bl_fs_read_at(p->proc, "statm", statm, sizeof statm) < 0 ? 0 : strtoull(statm, NULL, 10);
}

static int process_again(struct bl_source *s)
{
        struct process *p = process_of(s);
        _cleanup_(bl_regions_done) struct bl_regions now = {0};
        uint64_t mapped;
        int r;

        /* programs map and unmap all the time: the memory is the one that it had when the source was made */
        if (!p->guest_ram)
                return check_alive(p);
        mapped = read_mapped(p);
        if (mapped > 0 && mapped == p->mapped)
                return check_alive(p);
        r = bl_regions_find(p->proc, p->guest_ram, &now);

        /* the file is empty once it has ended */
        if (r == -ENODATA && check_alive(p) < 0)
                return -ESRCH;
        if (r < 0)
                return r;
        p->mapped = mapped;
        if (bl_regions_equal(&now, &p->regions))
                return 0;
        r = take_regions(p, &now);
        return r < 0 ? r : 1;
}

static struct bl_source *process_free(struct bl_source *s)
{
        struct process *p = process_of(s);

        bl_pagemap_close(&p->pagemap);
        bl_regions_done(&p->regions);
        bl_closep(&p->mem);
        bl_closep(&p->proc);
        bl_closep(&p->pidfd);
        free(p->s.name);
        free(p->s.warning);
        free(p);
        return NULL;
}

static const struct bl_source_ops process_ops = {
        .look = process_look,
        .read = process_read,
        .again = process_again,
        .free = process_free,
};

uint64_t bl_source_process_address(const struct bl_source *s, uint64_t page)
{
        const struct process *p = (const struct process *)(const void *)s;
        const struct bl_region *region;
        size_t hint = 0;

        if (s->ops != &process_ops || page >= s->n_pages)
                return BL_UNSET;
        region = bl_regions_at(&p->regions, page, &hint);
        return region->start + (page - region->first) * BL_PAGE_SIZE;
}

int bl_source_process_pidfd(const struct bl_source *s)
{
        return s->ops == &process_ops ? ((const struct process *)(const void *)s)->pidfd : -1;
}

__attribute__((format(printf, 3, 4))) static int fail(char **ret_message, int error, const char *format, ...)
{
        va_list ap;

        va_start(ap, format);
        if (vasprintf(ret_message, format, ap) < 0)
                *ret_message = NULL;
        va_end(ap);
        return error;
}

/* /proc/PID and the pidfd are of the same process: it is there after its number was looked up twice. */
static int find_process(struct process *p, uint64_t start, char **ret_message)
{
        const int pid = (int)p->pid;
        char path[32], stat[2048], state;
        uint64_t started;
        int r;

        (void)snprintf(path, sizeof path, "/proc/%d", pid);
        p->proc = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (p->proc < 0 && errno != ENOENT)
                return fail(ret_message, -errno, "%s cannot be opened: %m", path);
        p->pidfd = p->proc < 0 ? -1 : pidfd_open(p->pid, 0);
        if (p->pidfd < 0 && p->proc >= 0 && (errno == EINVAL || errno == ENOENT))
                return fail(ret_message, -ESRCH, "%d is a thread; name its process", pid);
        if (p->pidfd < 0)
                return fail(ret_message, -ESRCH, "there is no process %d", pid);
        r = (int)bl_fs_read_at(p->proc, "stat", stat, sizeof stat);
        if (r >= 0)
                r = bl_proc_stat_parse(stat, &state, &started);
        if (r < 0 || state == 'Z' || state == 'X')
                return fail(ret_message, -ESRCH, "process %d has ended", pid);
        if (start && start != started)
                return fail(ret_message, -ESRCH, "process %d has ended, and its number is another process's now", pid);
        p->s.still = state == 'T' || state == 't';
        return 0;
}

static int name_it(struct process *p, const char *name, const char *comm)
{
        if (name)
                p->s.name = strdup(name);
        else if (asprintf(&p->s.name, "pid %d (%s)", (int)p->pid, comm) < 0)
                p->s.name = NULL;
        return p->s.name ? 0 : -ENOMEM;
}

/* The name is what the process likes it to be. */
static void read_comm(const struct process *p, char *ret, size_t size)
{
        if (bl_fs_read_at(p->proc, "comm", ret, size) < 0)
                (void)snprintf(ret, size, "?");
        ret[strcspn(ret, "\n")] = '\0';
        for (char *c = ret; *c; c++)
                if ((unsigned char)*c < 0x20 || *c == 0x7f)
                        *c = '?';
}

static int open_memory(struct process *p)
{
        int r = bl_pagemap_open(p->proc, &p->pagemap);

        if (r < 0)
                return r;
        p->s.blind = p->pagemap.blind;
        p->mem = openat(p->proc, "mem", O_RDONLY | O_CLOEXEC);
        return p->mem < 0 ? errno == ENOENT ? -ESRCH : -errno : 0;
}

static int open_process(struct process *p, uint64_t start, const char *name, char **ret_message)
{
        _cleanup_(bl_regions_done) struct bl_regions regions = {0};
        const int pid = (int)p->pid;
        char comm[64];
        int r = find_process(p, start, ret_message);

        if (r < 0)
                return r;
        if (sysconf(_SC_PAGESIZE) != (long)BL_PAGE_SIZE)
                return fail(ret_message, -EOPNOTSUPP, "this host has pages of %ld bytes; only %u are supported",
                            sysconf(_SC_PAGESIZE), BL_PAGE_SIZE);
        read_comm(p, comm, sizeof comm);
        r = bl_regions_find(p->proc, p->guest_ram, &regions);
        if (r == -ENODATA && p->guest_ram)
                return fail(ret_message, r,
                            "pid %d (%s) has no mapping that looks like %" PRIu64 " MiB of guest memory", pid, comm,
                            p->guest_ram / BL_MIB);
        if (r == -ENODATA)
                return fail(ret_message, r, "pid %d (%s) has no memory of its own, as kernel threads have none", pid,
                            comm);
        if (r >= 0)
                r = open_memory(p);
        if (r == -EACCES || r == -EPERM)
                return fail(ret_message, r, "the memory of pid %d (%s) may not be read; run it as root", pid, comm);
        if (r >= 0)
                r = name_it(p, name, comm);
        if (r >= 0)
                r = take_regions(p, &regions);
        if (r >= 0)
                r = check_alive(p);
        return r == -ESRCH ? fail(ret_message, r, "process %d has ended", pid) : r;
}

int bl_source_process(pid_t pid, uint64_t start, uint64_t guest_ram, const char *name, struct bl_source **ret,
                      char **ret_message)
{
        struct process *p = calloc(1, sizeof *p);
        int r = -ENOMEM;

        *ret_message = NULL;
        if (p) {
                *p = (struct process){.s.ops = &process_ops,
                                      .pid = pid,
                                      .pidfd = -1,
                                      .proc = -1,
                                      .mem = -1,
                                      .pagemap = BL_PAGEMAP_INIT,
                                      .guest_ram = guest_ram};
                r = open_process(p, start, name, ret_message);
        }
        if (r < 0) {
                if (!*ret_message && asprintf(ret_message, "pid %d: %s", (int)pid, strerror(-r)) < 0)
                        *ret_message = NULL;
                (void)(p ? process_free(&p->s) : NULL);
                return r;
        }
        *ret = &p->s;
        return 0;
}
