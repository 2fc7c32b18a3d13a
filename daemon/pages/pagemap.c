// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/pages/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#define PM_FRAME     ((UINT64_C(1) << 55) - 1)
#define PM_EXCLUSIVE (UINT64_C(1) << 56)
#define PM_GUARD     (UINT64_C(1) << 58) /* since Linux 6.15; it comes with PM_SWAPPED */
#define PM_FILE      (UINT64_C(1) << 61) /* of a file, or shared memory */
#define PM_SWAPPED   (UINT64_C(1) << 62)
#define PM_PRESENT   (UINT64_C(1) << 63)

#define KPF_KSM       (UINT64_C(1) << 21)
#define KPF_ZERO_PAGE (UINT64_C(1) << 24) /* the huge one too */

#define BATCH 512U /* the kernel walks so many pages at a time (fs/proc/task_mmu.c, PAGEMAP_WALK_SIZE) */
/* An entry of kpageflags costs 50 ns, a call 120 more: neighbours at most so far apart are read by one. */
#define SPAN_GAP 3U
#define SPAN_MAX 64U

/* --- opening ---------------------------------------------------------------- */

/* The frame of the kernel's zero page is the same for all, as long as the host is up. */
static uint64_t find_zero_frame(int flags)
{
        _cleanup_close_ int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
        const size_t size = BL_PAGE_SIZE;
        uint64_t entry, kpf, frame = 0;
        volatile const char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (p == MAP_FAILED)
                return 0;
        (void)*p;
        if (fd >= 0 &&
            pread(fd, &entry, sizeof entry, (off_t)((uintptr_t)p / BL_PAGE_SIZE * sizeof entry)) == sizeof entry &&
            entry & PM_PRESENT)
                frame = entry & PM_FRAME;
        if (frame &&
            (pread(flags, &kpf, sizeof kpf, (off_t)(frame * sizeof kpf)) != sizeof kpf || !(kpf & KPF_ZERO_PAGE)))
                frame = 0;
        (void)munmap((void *)(uintptr_t)p, size); // NOLINT(performance-no-int-to-ptr)
        return frame;
}

int bl_pagemap_open(int proc_dirfd, struct bl_pagemap *ret)
{
        struct bl_pagemap m = BL_PAGEMAP_INIT;

        m.pagemap = openat(proc_dirfd, "pagemap", O_RDONLY | O_CLOEXEC);
        if (m.pagemap < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        m.flags = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
        if (m.flags >= 0)
                m.zero_frame = find_zero_frame(m.flags);
        /* without CAP_SYS_ADMIN all frames are 0, our own too */
        m.blind = m.zero_frame == 0;
        *ret = m;
        return 0;
}

void bl_pagemap_close(struct bl_pagemap *m)
{
        bl_closep(&m->pagemap);
        bl_closep(&m->flags);
        m->pagemap = m->flags = -1;
}

/* --- looking ---------------------------------------------------------------- */

static int read_entries(int fd, uint64_t *ret, uint64_t first, size_t n)
{
        char *to = (char *)ret;
        const size_t size = n * sizeof *ret;
        size_t done = 0;

        do {
                ssize_t got = pread(fd, to + done, size - done, (off_t)(first * sizeof *ret + done));

                if (got < 0 && errno == EINTR)
                        continue;
                /* 0: the memory is gone, its process has ended (or is another program now, exec(2)) */
                if (got <= 0)
                        return got == 0 || errno == ESRCH ? -ESRCH : -EIO;
                done += (size_t)got;
        } while (done < size);
        return 0;
}

/* Pages that are mapped more than once, for a second question. */
struct doubtful {
        size_t n;
        uint16_t at[BATCH];
};

static struct bl_page_look judge(uint64_t e, enum bl_pagemap_files files, const struct bl_pagemap *m,
                                 bool *ret_doubtful)
{
        struct bl_page_look l = {.state = BL_PAGE_ABSENT};

        if (files == BL_PAGEMAP_FILES_SKIP && e & PM_FILE)
                return l;
        if (!(e & PM_PRESENT)) {
                if ((e & (PM_SWAPPED | PM_GUARD)) == PM_SWAPPED)
                        l.state = BL_PAGE_SWAPPED;
                return l;
        }
        l.state = BL_PAGE_PRESENT;
        if (e & PM_EXCLUSIVE || m->blind)
                return l;
        if ((e & PM_FRAME) == m->zero_frame)
                l.state = BL_PAGE_KERNEL_ZERO;
        else
                *ret_doubtful = true;
        return l;
}

static void settle(struct bl_page_look *l, uint64_t e, uint64_t kpf, enum bl_pagemap_files files)
{
        /* pagemap takes the huge zero page for one of a file */
        if (kpf & KPF_ZERO_PAGE) {
                l->state = BL_PAGE_KERNEL_ZERO;
        } else if (!(e & PM_FILE) || files == BL_PAGEMAP_FILES_SHARED) {
                l->state = BL_PAGE_MERGED;
                l->relative = !(kpf & KPF_KSM);
                l->frame = e & PM_FRAME;
        }
}

/* Frames of neighbours are often neighbours: what KSM merged was one piece of memory in the first VM. */
static int ask_flags(const struct bl_pagemap *m, const uint64_t *entries, const struct doubtful *d,
                     enum bl_pagemap_files files, struct bl_page_look *ret)
{
        uint64_t kpf[SPAN_MAX];

        for (size_t i = 0, end; i < d->n; i = end) {
                const uint64_t first = entries[d->at[i]] & PM_FRAME;
                uint64_t last = first;
                int r;

                for (end = i + 1; end < d->n; end++) {
                        const uint64_t frame = entries[d->at[end]] & PM_FRAME;

                        if (frame < first || frame - first >= SPAN_MAX || (frame > last && frame - last > SPAN_GAP))
                                break;
                        last = bl_max(last, frame);
                }
                r = read_entries(m->flags, kpf, first, (size_t)(last - first + 1));
                if (r < 0)
                        return -EIO;
                for (size_t k = i; k < end; k++) {
                        const uint64_t e = entries[d->at[k]];

                        settle(&ret[d->at[k]], e, kpf[(e & PM_FRAME) - first], files);
                }
        }
        return 0;
}

static enum bl_pagemap_way way_of(uint64_t e)
{
        if (!(e & PM_PRESENT))
                return BL_PAGEMAP_GONE;
        return e & (PM_EXCLUSIVE | PM_FILE) ? BL_PAGEMAP_PIN : BL_PAGEMAP_MEM;
}

static int judge_batch(const struct bl_pagemap *m, const uint64_t *entries, size_t n, enum bl_pagemap_files files,
                       struct bl_page_look *ret)
{
        struct doubtful d = {.n = 0};

        for (size_t i = 0; i < n; i++) {
                bool doubtful = false;

                ret[i] = judge(entries[i], files, m, &doubtful);
                if (doubtful)
                        d.at[d.n++] = (uint16_t)i;
        }
        return ask_flags(m, entries, &d, files, ret);
}

int bl_pagemap_look(const struct bl_pagemap *m, uint64_t start, size_t n, enum bl_pagemap_files files,
                    struct bl_page_look *ret, uint8_t *ret_ways)
{
        uint64_t entries[BATCH];

        for (size_t done = 0; done < n;) {
                const size_t batch = (size_t)bl_min(n - done, BATCH);
                int r = read_entries(m->pagemap, entries, start / BL_PAGE_SIZE + done, batch);

                if (r >= 0 && ret)
                        r = judge_batch(m, entries, batch, files, ret + done);
                if (r < 0)
                        return r;
                for (size_t i = 0; i < batch && ret_ways; i++)
                        ret_ways[done + i] = (uint8_t)way_of(entries[i]);
                done += batch;
        }
        return 0;
}
