// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/store/disk_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/ioprio.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A write of BL_RING_WRITE_SIZE lets the reads that are there go first, but not for ever. */
#define YIELD_NS    200000L
#define YIELD_TIMES 5U

struct bl_worker_io bl_worker_io = {.pread = pread, .pwrite = pwrite};

struct worker {
        struct bl_ring *ring;
        int fd;
        bool direct;
};

/* --- one request ------------------------------------------------------------------- */

/* Filesystems that take O_DIRECT at open(2) and not after. */
static bool drop_direct(struct worker *w)
{
        const int flags = fcntl(w->fd, F_GETFL);

        if (!w->direct || flags < 0 || fcntl(w->fd, F_SETFL, flags & ~O_DIRECT) < 0)
                return false;
        w->direct = false;
        return true;
}

static int move_bytes(struct worker *w, enum bl_ring_kind kind, uint8_t *bytes, const struct bl_ring_slot *s)
{
        for (uint32_t done = 0; done < s->size;) {
                const off_t at = (off_t)(s->offset + done);
                const ssize_t n = kind == BL_RING_READ ? bl_worker_io.pread(w->fd, bytes + done, s->size - done, at)
                                                       : bl_worker_io.pwrite(w->fd, bytes + done, s->size - done, at);

                if (n < 0 && (errno == EINTR || (errno == EINVAL && drop_direct(w))))
                        continue;
                if (n <= 0)
                        return -EIO;
                done += (uint32_t)n;
        }
        return 0;
}

/* Without O_DIRECT: what went to the disk, or came from it, is not to stay in the host's memory. */
static int drop_cache(struct worker *w, enum bl_ring_kind kind, const struct bl_ring_slot *s)
{
        if (w->direct)
                return 0;
        if (kind == BL_RING_WRITE && fdatasync(w->fd) < 0)
                return -EIO;
        (void)posix_fadvise(w->fd, (off_t)s->offset, s->size, POSIX_FADV_DONTNEED);
        return 0;
}

static bool reads_wait(struct bl_ring *r)
{
        for (uint32_t i = 0; i < BL_RING_READS; i++) {
                const uint32_t state = atomic_load_explicit(&r->reads[i].state, memory_order_relaxed);

                if (state == BL_RING_QUEUED || state == BL_RING_RUNNING)
                        return true;
        }
        return false;
}

static void serve(struct worker *w, enum bl_ring_kind kind, uint32_t i)
{
        static const struct timespec pause = {.tv_nsec = YIELD_NS};
        struct bl_ring_slot *s = &bl_ring_slots(w->ring, kind)[i];
        int r;

        for (unsigned n = 0; kind == BL_RING_WRITE && n < YIELD_TIMES && reads_wait(w->ring); n++)
                (void)nanosleep(&pause, NULL);
        r = move_bytes(w, kind, bl_ring_bytes(w->ring, kind, i), s);
        if (r == 0)
                r = drop_cache(w, kind, s);
        s->result = r;
        atomic_store_explicit(&s->state, BL_RING_DONE, memory_order_release);
        bl_ring_wake(&s->state, INT_MAX);
}

/* --- the processes ------------------------------------------------------------------ */

/* Takes the oldest request of this kind; false: there is none. */
static bool take(struct bl_ring *r, enum bl_ring_kind kind, uint32_t *ret)
{
        struct bl_ring_slot *slots = bl_ring_slots(r, kind);

        for (;;) {
                uint32_t best = UINT32_MAX, best_order = 0, queued = BL_RING_QUEUED;

                for (uint32_t i = 0; i < bl_ring_count(kind); i++) {
                        const uint32_t state = atomic_load_explicit(&slots[i].state, memory_order_relaxed),
                                       order = atomic_load_explicit(&slots[i].order, memory_order_relaxed);

                        if (state != BL_RING_QUEUED || (best != UINT32_MAX && (int32_t)(order - best_order) > 0))
                                continue;
                        best = i;
                        best_order = order;
                }
                if (best == UINT32_MAX)
                        return false;
                if (atomic_compare_exchange_strong(&slots[best].state, &queued, BL_RING_RUNNING)) {
                        *ret = best;
                        return true;
                }
        }
}

/* ioprio_set(2) has no wrapper.  Readers go first where the I/O scheduler looks at it. */
static void set_priority(enum bl_ring_kind kind)
{
        const int level = kind == BL_RING_READ ? 0 : 7;

        (void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_BE, level));
}

/* False: the parent is gone already. */
static bool die_with(pid_t parent)
{
        return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == parent;
}

static _Noreturn void lane(struct worker *w, enum bl_ring_kind kind, pid_t parent)
{
        if (!die_with(parent))
                _exit(1);
        set_priority(kind);
        for (;;) {
                const uint32_t bell = atomic_load_explicit(&w->ring->bell[kind], memory_order_acquire);
                uint32_t i;

                if (take(w->ring, kind, &i))
                        serve(w, kind, i);
                else
                        bl_ring_wait(&w->ring->bell[kind], bell, BL_UNSET);
        }
}

/* Nothing of the store stays open: neither its sockets nor, above all, the lock of its pool. */
static int keep_only(int disk)
{
        if (disk > 0 && close_range(0, (unsigned)disk - 1, 0) < 0)
                return -errno;
        return close_range((unsigned)disk + 1, ~0U, 0) < 0 ? -errno : 0;
}

static int open_disk(struct worker *w, int disk, const char *path)
{
        w->direct = true;
        w->fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
        if (w->fd < 0) {
                w->direct = false;
                w->fd = open(path, O_RDWR | O_CLOEXEC);
        }
        if (w->fd < 0)
                return -errno;
        (void)close(disk);
        (void)posix_fadvise(w->fd, 0, 0, POSIX_FADV_RANDOM);
        return 0;
}

static int start_lanes(struct worker *w)
{
        const pid_t self = getpid();

        for (uint32_t i = 0; i < BL_WORKER_READERS + BL_WORKER_WRITERS; i++) {
                const pid_t pid = fork();

                if (pid < 0)
                        return -errno;
                if (pid == 0)
                        lane(w, i < BL_WORKER_READERS ? BL_RING_READ : BL_RING_WRITE, self);
        }
        return 0;
}

_Noreturn void bl_worker_main(struct bl_ring *ring, int disk, const char *path, pid_t parent)
{
        struct worker w = {.ring = ring};

        if (keep_only(disk) < 0 || !die_with(parent))
                _exit(1);
        (void)setsid();
        (void)prctl(PR_SET_NAME, "ballast-disk");
        /* whatever writes to standard error must not find the disk there */
        for (int i = 0; i < 3; i++)
                if (i != disk && open("/dev/null", O_RDWR) != i)
                        _exit(1);
        if (open_disk(&w, disk, path) < 0)
                _exit(1);
        while (flock(w.fd, LOCK_EX) < 0)
                if (errno != EINTR)
                        _exit(1);
        if (start_lanes(&w) < 0)
                _exit(1);
        atomic_store_explicit(&ring->locked, 1, memory_order_release);
        for (;;)
                if (waitpid(-1, NULL, 0) > 0 || errno != EINTR)
                        _exit(1);
}
