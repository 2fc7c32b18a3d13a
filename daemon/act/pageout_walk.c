// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/act/pageout_walk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "daemon/sense/guest_ram.h"
#include "daemon/sense/resident.h"
#include "daemon/util/clock.h"
#include "daemon/util/fs.h"
#include "daemon/util/procstat.h"

/* Less is asked of a cgroup in one write: the write comes back when it is done. */
#define CGROUP_STEP (8 * BL_MIB)
/* A cgroup that gives less than this part of what it was asked for has nothing cold left. */
#define CGROUP_WORTH 4U

#define PAGES_MAX (BL_WALK_SLICE / 4096)
/* /proc/PID/pagemap, Documentation/admin-guide/mm/pagemap.rst */
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)

struct slice {
        uint32_t rest_until; /* seconds of CLOCK_MONOTONIC */
        uint16_t rest; /* seconds; 0: it was never paged out */
};

struct bl_walk {
        struct bl_walk_options o;
        pid_t pid;
        int dirfd;
        uint64_t guest_ram;
        char reclaim[PATH_MAX]; /* "": it has no cgroup of its own */
        unsigned form; /* of what is written there: kernels differ */
        struct bl_guest_ram ram;
        size_t n;
        struct slice *slices; /* of all parts, one after the other */
        size_t at;
};

static int64_t kernel_advise(int pidfd, uint64_t start, uint64_t size)
{
        struct iovec v = {.iov_base = (void *)(uintptr_t)start, .iov_len = size}; // NOLINT(performance-no-int-to-ptr)
        ssize_t n = process_madvise(pidfd, &v, 1, MADV_PAGEOUT, 0);

        return n < 0 ? -errno : n;
}

/* --- life ------------------------------------------------------------------- */

bool bl_walk_cgroup(const char *text, char *ret, size_t size)
{
        /* "0::/machine.slice/machine-qemu\x2d1\x2dg1.scope/libvirt/emulator", one line a hierarchy; 0 is v2 */
        const char *line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
        const char *p, *end;

        if (!line)
                return false;
        line = strchr(line, '/');
        if (!line)
                return false;
        end = line + strcspn(line, "\n");
        for (p = line; p < end; p++) {
                const char *name = p + 1, *stop = name + strcspn(name, "/\n");
                size_t n = (size_t)(stop - name);

                if ((n > 19 && strncmp(name, "machine-qemu", 12) == 0 && strncmp(stop - 6, ".scope", 6) == 0) ||
                    (n > 13 && strncmp(stop - 13, ".libvirt-qemu", 13) == 0)) {
                        if ((size_t)(stop - line) >= size)
                                return false;
                        memcpy(ret, line, (size_t)(stop - line));
                        ret[stop - line] = '\0';
                        return true;
                }
                p = stop - 1;
        }
        return false;
}

static void find_cgroup(struct bl_walk *w)
{
        char text[PATH_MAX], path[PATH_MAX], file[PATH_MAX + 64];

        if (bl_fs_read_at(w->dirfd, "cgroup", text, sizeof text) < 0 || !bl_walk_cgroup(text, path, sizeof path))
                return;
        (void)snprintf(file, sizeof file, "/sys/fs/cgroup%s/memory.reclaim", path);
        if (bl_path_join(w->reclaim, sizeof w->reclaim, w->o.root, file) < 0 || access(w->reclaim, W_OK) < 0)
                w->reclaim[0] = '\0';
}

int bl_walk_new(const struct bl_walk_options *o, pid_t pid, int dirfd, uint64_t guest_ram, struct bl_walk **ret)
{
        _cleanup_(bl_walk_freep) struct bl_walk *w = calloc(1, sizeof *w);

        if (!w)
                return -ENOMEM;
        w->o = *o;
        if (!w->o.advise)
                w->o.advise = kernel_advise;
        w->pid = pid;
        w->guest_ram = guest_ram;
        w->dirfd = fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
        if (w->dirfd < 0)
                return -errno;
        find_cgroup(w);
        *ret = BL_TAKE(w);
        return 0;
}

struct bl_walk *bl_walk_free(struct bl_walk *w)
{
        if (!w)
                return NULL;
        bl_closep(&w->dirfd);
        free(w->slices);
        free(w);
        return NULL;
}

bool bl_walk_by_cgroup(const struct bl_walk *w)
{
        return w->reclaim[0] != '\0';
}

/* --- one more look ---------------------------------------------------------- */

static size_t slices_of(const struct bl_guest_ram *ram, size_t part)
{
        uint64_t first = ram->part[part].start / BL_WALK_SLICE, last = (ram->part[part].end - 1) / BL_WALK_SLICE;

        return (size_t)(last - first + 1);
}

/* What was learnt of memory that moved is worth nothing. */
static int learn_ram(struct bl_walk *w)
{
        struct bl_guest_ram ram;
        struct slice *slices;
        size_t n = 0;
        int r = bl_guest_ram_find(w->dirfd, w->guest_ram, &ram);

        if (r < 0)
                return r;
        /* a shared page that another process maps is left where it is, and a file's page counts on in the file */
        if (ram.shared)
                return -EOPNOTSUPP;
        if (w->slices && bl_guest_ram_equal(&ram, &w->ram))
                return 0;
        for (size_t i = 0; i < ram.n; i++)
                n += slices_of(&ram, i);
        slices = calloc(bl_max(n, 1), sizeof *slices);
        if (!slices)
                return -ENOMEM;
        free(w->slices);
        w->slices = slices;
        w->n = n;
        w->at = 0;
        w->ram = ram;
        return 0;
}

/* Is it still the process that was meant, and does it run? */
static int look(struct bl_walk *w)
{
        char stat[2048], state;
        uint64_t start;
        ssize_t n = bl_fs_read_at(w->dirfd, "stat", stat, sizeof stat);
        int r;

        if (n < 0)
                return n == -ENOENT ? -ESRCH : (int)n;
        r = bl_proc_stat_parse(stat, &state, &start);
        if (r < 0)
                return r;
        if (state == 'Z' || state == 'X')
                return -ESRCH;
        return state == 'T' || state == 't' ? -EBUSY : 0;
}

static int resident(const struct bl_walk *w, struct bl_proc_mem *ret)
{
        char buf[8192];
        ssize_t n = bl_fs_read_at(w->dirfd, "status", buf, sizeof buf);

        if (n < 0)
                return n == -ENOENT ? -ESRCH : (int)n;
        return bl_proc_mem_parse(buf, ret);
}

/* --- by slices -------------------------------------------------------------- */

static void slice_range(const struct bl_walk *w, size_t at, uint64_t *ret_start, uint64_t *ret_end)
{
        size_t part = 0;
        uint64_t base;

        for (; at >= slices_of(&w->ram, part); part++)
                at -= slices_of(&w->ram, part);
        base = (w->ram.part[part].start / BL_WALK_SLICE + at) * BL_WALK_SLICE;
        *ret_start = bl_max(base, w->ram.part[part].start);
        *ret_end = bl_min(base + BL_WALK_SLICE, w->ram.part[part].end);
}

/* Pages that are in memory; negative errno. */
static int64_t count_present(int pagemap, uint64_t start, uint64_t end)
{
        uint64_t words[PAGES_MAX];
        const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        const size_t want = (size_t)((end - start) / page) * sizeof words[0];
        ssize_t n = pread(pagemap, words, want, (off_t)(start / page * sizeof words[0]));
        int64_t present = 0;

        if (n < 0)
                return -errno;
        for (size_t i = 0; i < (size_t)n / sizeof words[0]; i++)
                present += (words[i] & PAGEMAP_PRESENT) != 0;
        return present;
}

enum verdict { GO, NOTHING_THERE, RESTS };

static enum verdict judge(struct slice *s, uint64_t present, uint64_t pages, uint32_t now)
{
        if (present == 0)
                return NOTHING_THERE;
        if (s->rest == 0)
                return GO;
        if (now < s->rest_until)
                return RESTS;
        if (present > pages / 4) {
                s->rest = (uint16_t)bl_min(s->rest * 2U, BL_WALK_REST_MAX / BL_SEC);
                s->rest_until = now + s->rest;
                return RESTS;
        }
        s->rest = BL_WALK_REST / BL_SEC;
        return GO;
}

/* Half of a CPU at most. */
static void rest_for(usec_t used)
{
        struct timespec ts = {.tv_sec = (time_t)(used / BL_SEC), .tv_nsec = (long)(used % BL_SEC * 1000)};

        (void)nanosleep(&ts, NULL);
}

struct under_way {
        struct bl_walk *w;
        int pidfd, pagemap;
        struct bl_proc_mem mem; /* at the last look */
        struct bl_walk_result *res;
};

/* By how much resident memory fell since the last look. */
static int count_freed(struct under_way *u, uint64_t *ret)
{
        struct bl_proc_mem now;
        int r = resident(u->w, &now);

        if (r < 0)
                return r;
        *ret = bl_sub_sat(bl_add_sat(u->mem.anon, u->mem.shmem), bl_add_sat(now.anon, now.shmem));
        u->res->freed += *ret;
        u->mem = now;
        return 0;
}

static int page_out_slice(struct under_way *u, size_t at)
{
        struct slice *s = &u->w->slices[at];
        const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        uint32_t now = (uint32_t)(bl_now() / BL_SEC);
        uint64_t start, end, freed;
        int64_t n;

        slice_range(u->w, at, &start, &end);
        n = count_present(u->pagemap, start, end);
        if (n < 0)
                return (int)n;
        switch (judge(s, (uint64_t)n, (end - start) / page, now)) {
        case NOTHING_THERE:
                return 0;
        case RESTS:
                u->res->rested += (uint64_t)n * page;
                return 0;
        case GO:
                break;
        }
        u->res->tried += (uint64_t)n * page;
        n = u->w->o.advise(u->pidfd, start, end - start);
        if (n < 0)
                return (int)n;
        if (s->rest == 0)
                s->rest = BL_WALK_REST / BL_SEC;
        s->rest_until = now + s->rest;
        return count_freed(u, &freed);
}

static int walk_slices(struct under_way *u, uint64_t bytes, usec_t until, const atomic_bool *stop)
{
        struct bl_walk *w = u->w;
        size_t i;

        for (i = 0; i < w->n && u->res->freed < bytes && bl_now() < until && !atomic_load(stop); i++) {
                usec_t cpu = bl_now_thread_cpu();
                int r = page_out_slice(u, w->at);

                if (r < 0)
                        return r;
                w->at = (w->at + 1) % w->n;
                rest_for(bl_now_thread_cpu() - cpu);
        }
        u->res->round = i == w->n;
        return 0;
}

/* --- by the cgroup ---------------------------------------------------------- */

/* memory.reclaim: "swappiness=max" (anonymous memory only) since Linux 6.16, "swappiness=" since 6.8.  0, also when
 * less was reclaimed. */
static int ask_cgroup(struct bl_walk *w, uint64_t bytes)
{
        static const char *const forms[] = {" swappiness=max", " swappiness=200", ""};
        _cleanup_close_ int fd = open(w->reclaim, O_WRONLY | O_CLOEXEC);
        char text[64];

        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        for (;; w->form++) {
                int n = snprintf(text, sizeof text, "%" PRIu64 "%s", bytes, forms[w->form]);

                if (write(fd, text, (size_t)n) >= 0 || errno == EAGAIN)
                        return 0;
                if (errno != EINVAL || w->form + 1 == sizeof forms / sizeof forms[0])
                        return -errno;
        }
}

static int walk_cgroup(struct under_way *u, uint64_t bytes, usec_t until, const atomic_bool *stop)
{
        while (u->res->freed < bytes && bl_now() < until && !atomic_load(stop)) {
                usec_t cpu = bl_now_thread_cpu();
                uint64_t step = bl_min(CGROUP_STEP, bytes - u->res->freed), freed = 0;
                int r = ask_cgroup(u->w, step);

                if (r == 0)
                        r = count_freed(u, &freed);
                if (r < 0)
                        return r;
                u->res->tried += step;
                u->res->round = freed < step / CGROUP_WORTH;
                if (u->res->round)
                        return 0;
                rest_for(bl_now_thread_cpu() - cpu);
        }
        return 0;
}

/* --- the job ---------------------------------------------------------------- */

static int run(struct bl_walk *w, uint64_t bytes, usec_t until, const atomic_bool *stop, struct bl_walk_result *res)
{
        _cleanup_close_ int pidfd = pidfd_open(w->pid, 0), pagemap = -1;
        struct under_way u = {.w = w, .res = res};
        int r;

        if (pidfd < 0)
                return -errno;
        /* alive after its number was looked up: so the number was its own */
        r = look(w);
        if (r >= 0)
                r = resident(w, &u.mem);
        if (r < 0)
                return r;
        if (u.mem.locked > w->guest_ram / 2 || u.mem.pinned > w->guest_ram / 2 || u.mem.hugetlb > w->guest_ram / 2)
                return -EOPNOTSUPP;
        if (bl_walk_by_cgroup(w))
                return walk_cgroup(&u, bytes, until, stop);
        r = learn_ram(w);
        if (r < 0)
                return r;
        pagemap = openat(w->dirfd, "pagemap", O_RDONLY | O_CLOEXEC);
        if (pagemap < 0)
                return -errno;
        u.pidfd = pidfd;
        u.pagemap = pagemap;
        return walk_slices(&u, bytes, until, stop);
}

void bl_walk_run(struct bl_walk *w, uint64_t bytes, usec_t time, const atomic_bool *stop, struct bl_walk_result *ret)
{
        usec_t begin = bl_now(), cpu = bl_now_thread_cpu();
        struct bl_walk_result res = {0};

        res.error = run(w, bytes, bl_add_sat(begin, time), stop, &res);
        res.cpu = bl_now_thread_cpu() - cpu;
        res.took = bl_now() - begin;
        *ret = res;
}
