/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <linux/fs.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/swap.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/clock.h"
#include "guestagent/job.h"
#include "guestagent/report.h"
#include "guestagent/swapdisk.h"
#include "guestagent/swapjob.h"
#include "guestagent/swaps.h"

/* include/linux/swap.h; of the two kinds of discard the one while it runs: we discard all before */
#ifndef SWAP_FLAG_DISCARD
#define SWAP_FLAG_DISCARD 0x10000
#endif
#ifndef SWAP_FLAG_DISCARD_PAGES
#define SWAP_FLAG_DISCARD_PAGES 0x40000
#endif

/* Before other swap, also such as is added later: zram-generator's default is 100. */
#define PRIORITY      16384
#define PRIORITY_LAST SWAP_FLAG_PRIO_MASK

/* swapoff(2) is interrupted after so long, and memory looked at. */
#define SLICE      (200 * BL_MSEC)
#define SLICE_LAST (30 * BL_SEC) /* so long where nothing came back in a shorter one: it has to look at all memory */
#define WAIT       (500 * BL_MSEC) /* for others to need less memory */
#define STALL_PART 5U /* of the time of a slice: more stalls of all programs for want of memory, and we wait, too */
#define PATIENCE   (60 * BL_SEC) /* without anything brought back */

#define MARGIN      (32 * BL_MIB)
#define MARGIN_PART 20U

struct work {
        const struct swap_job *job;
        const struct swap_system *system;
        struct swap_disk disk;
        int swaps;
        struct guest_reader *reader;
};

static int discard_all(int fd, uint64_t size)
{
        uint64_t range[2] = {0, size};

        return ioctl(fd, BLKDISCARD, range);
}

static const struct swap_system real = {.on = swapon, .off = swapoff, .discard = discard_all};

uint64_t swap_job_margin(uint64_t total)
{
        return bl_max(MARGIN, total / MARGIN_PART);
}

/* --- on ----------------------------------------------------------------------- */

static int next_priority(const struct guest_swaps *s)
{
        if (s->highest < PRIORITY)
                return PRIORITY;
        return s->highest < PRIORITY_LAST ? s->highest + 1 : PRIORITY_LAST;
}

/* All that was on it is gone then. */
static int make_empty(const struct work *w, bool format)
{
        _cleanup_close_ int fd = swap_disk_open(&w->disk);
        int r = fd < 0 ? fd : swap_disk_check(fd, &w->disk);

        if (r < 0)
                return r;
        swap_disk_tune(w->job->root, &w->disk);
        /* without discard it works all the same; the host gets nothing back */
        if (w->system->discard(fd, w->disk.size) < 0 && errno != EOPNOTSUPP)
                return -errno;
        return format ? swap_disk_format(fd, &w->disk, (uint64_t)sysconf(_SC_PAGESIZE)) : 0;
}

static int switch_on(const struct work *w, int priority)
{
        int flags = SWAP_FLAG_DISCARD | SWAP_FLAG_DISCARD_PAGES | SWAP_FLAG_PREFER | (priority & SWAP_FLAG_PRIO_MASK);
        int r = make_empty(w, true);

        if (r < 0)
                return r;
        return w->system->on(w->disk.path, flags) < 0 ? -errno : 0;
}

/* --- off ---------------------------------------------------------------------- */

static void on_alarm(int signal)
{
        (void)signal; /* it interrupts, and that is all */
}

static void set_alarm(usec_t every)
{
        const struct timeval t = {.tv_sec = (time_t)(every / BL_SEC), .tv_usec = (suseconds_t)(every % BL_SEC)};
        /* again and again: the first may come before swapoff(2) has begun */
        const struct itimerval timer = {.it_interval = t, .it_value = t};

        (void)setitimer(ITIMER_REAL, &timer, NULL);
}

static int try_off(const struct work *w, usec_t slice)
{
        int r;

        set_alarm(slice);
        r = w->system->off(w->disk.path) < 0 ? -errno : 0;
        set_alarm(0);
        return r;
}

struct look {
        usec_t at; /* 0: none yet */
        uint64_t full;
};

static void rest(usec_t time)
{
        (void)nanosleep(&(struct timespec){.tv_sec = (time_t)(time / BL_SEC), .tv_nsec = (long)(time % BL_SEC) * 1000},
                        NULL);
}

/* Is there memory for more?  swapoff(2) does not count as a stall itself: 120 MiB in 13 s, and PSI stood still. */
static bool has_room(const struct work *w, struct look *last)
{
        usec_t now = guest_clock(CLOCK_MONOTONIC);
        struct bl_wire_stats m;
        uint64_t stalled;

        if (guest_reader_read(w->reader, &m) < 0 || m.v[BL_STAT_MEM_AVAILABLE] == BL_UNSET)
                return false;
        stalled = bl_sub_sat(bl_or_zero(m.v[BL_STAT_PSI_FULL]), last->full);
        if (last->at && stalled > (now - last->at) / STALL_PART) {
                *last = (struct look){0}; /* one slice after each wait */
                return false;
        }
        *last = (struct look){.at = now, .full = bl_or_zero(m.v[BL_STAT_PSI_FULL])};
        return m.v[BL_STAT_MEM_AVAILABLE] > swap_job_margin(bl_or_zero(m.v[BL_STAT_MEM_TOTAL]));
}

/* Is this worth another try? */
static bool is_passing(int error)
{
        /* EINVAL: another swapoff is under way, of an agent that died */
        return error == -EINTR || error == -ENOMEM || error == -EINVAL;
}

/*
 * Brings everything back.  0: swap is off; -ENOMEM: memory is too short; or what
 * swapoff(2) answers.
 */
static int bring_back(const struct work *w)
{
        struct look last = {0};
        uint64_t least = BL_UNSET; /* bytes of slots used */
        usec_t slice = SLICE, progress_at = guest_clock(CLOCK_MONOTONIC);

        for (;;) {
                struct guest_swaps s;
                usec_t now = guest_clock(CLOCK_MONOTONIC);
                int r = guest_read_swaps(w->swaps, w->disk.name, &s);

                if (r < 0)
                        return r;
                if (!s.on)
                        return 0;
                if (s.used < least) {
                        least = s.used;
                        progress_at = now;
                        slice = SLICE;
                } else {
                        slice = bl_min(slice * 2, SLICE_LAST);
                }
                if (now - progress_at > PATIENCE)
                        return -ENOMEM;
                r = has_room(w, &last) ? try_off(w, slice) : -ENOMEM;
                if (r == 0)
                        return 0;
                if (!is_passing(r))
                        return r;
                if (r != -EINTR)
                        rest(WAIT);
        }
}

static int leave(const struct work *w)
{
        int r = bring_back(w);

        if (r >= 0)
                r = make_empty(w, false);
        if (r >= 0)
                swap_disk_forget(w->job->root, &w->disk);
        return r;
}

/* All or nothing: while swapoff(2) brings slots back the kernel does not discard them (free_cluster, which wants
 * SWP_WRITEOK), so that half of the way only makes them stale. */
static int give(const struct work *w)
{
        struct guest_swaps s;
        sigset_t term;
        int r = guest_read_swaps(w->swaps, w->disk.name, &s);

        if (r < 0 || !s.on)
                return r;
        r = bring_back(w);
        if (r < 0)
                return r;
        /* neither the agent's end nor its orders come between: without swap nobody may stay */
        (void)sigemptyset(&term);
        (void)sigaddset(&term, SIGTERM);
        (void)sigprocmask(SIG_BLOCK, &term, NULL);
        return switch_on(w, s.priority >= 0 ? s.priority : next_priority(&s));
}

/* --- which -------------------------------------------------------------------- */

static int begin_on(const struct work *w)
{
        struct guest_swaps s;
        int r = guest_read_swaps(w->swaps, w->disk.name, &s);

        return r < 0 || s.on ? r : switch_on(w, next_priority(&s));
}

static int run(const struct swap_job *j)
{
        static struct guest_reader reader;
        _cleanup_close_ int swaps = guest_open_swaps(j->root);
        struct work w = {.job = j, .system = j->system ? j->system : &real, .swaps = swaps, .reader = &reader};
        struct sigaction alarm = {.sa_handler = on_alarm};
        int r = swap_disk_find(j->root, &w.disk);

        if (r < 0)
                return r;
        r = guest_write_all(j->out, w.disk.name, sizeof w.disk.name);
        if (r < 0 || j->kind == SWAP_JOB_FIND)
                return r;
        if (swaps < 0)
                return swaps;
        (void)sigaction(SIGALRM, &alarm, NULL);
        r = guest_reader_open(&reader, j->root);
        if (r >= 0)
                r = swap_disk_node(j->root, &w.disk);
        if (r < 0)
                return r;
        switch (j->kind) {
        case SWAP_JOB_FIND:
                break;
        case SWAP_JOB_ON:
                return begin_on(&w);
        case SWAP_JOB_OFF:
                return leave(&w);
        case SWAP_JOB_GIVE:
                return give(&w);
        }
        return 0;
}

int swap_job_run(const struct swap_job *j)
{
        int r = run(j);

        return r < 0 ? -r : 0;
}
