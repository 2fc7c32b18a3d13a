/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/watch.h"

/* No guest takes memory faster; twice that, so that half of it is left when we see it. */
#define FASTEST (4 * BL_GIB)

#define LOOK_MIN    (50 * BL_MSEC)
#define LOOK_MAX    (250 * BL_MSEC)
#define LOOK_RISING (25 * BL_MSEC)
#define LOOK_ASKING (100 * BL_MSEC)
#define LOOK_ARMED  (1 * BL_SEC) /* not never: tmpfs and sockets take memory without a page fault */

/* After it rang the alarm is silent and we look ourselves; the longer, the sooner it rang again. */
#define HOLD_MIN (25 * BL_MSEC)
#define HOLD_MAX (2 * BL_SEC)
#define HOLD_FOR (500 * BL_MSEC)

/* How far free memory moves before it is worth reading /proc: this or a part of what is available, whichever is more;
 * less where little is free, since then caches are given up for what is allocated. */
#define MOVED      (4 * BL_MIB)
#define MOVED_PART 32U
#define MOVED_LOW  (1 * BL_MIB)
#define FREE_LOW   (128 * BL_MIB)

static uint64_t free_ram(struct guest_watch *w)
{
        struct sysinfo info;

        (void)w;
        return sysinfo(&info) < 0 ? BL_UNSET : bl_mul_sat(info.freeram, info.mem_unit);
}

static uint64_t no_free_ram(struct guest_watch *w)
{
        (void)w;
        return BL_UNSET;
}

static int open_trigger(const char *root, uint64_t stall, uint64_t window)
{
        char path[PATH_MAX], text[64];
        _cleanup_close_ int fd = -1;
        int n;

        if ((size_t)snprintf(path, sizeof path, "%s/proc/pressure/memory", root) >= sizeof path)
                return -ENAMETOOLONG;
        fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        n = snprintf(text, sizeof text, "some %llu %llu", (unsigned long long)stall, (unsigned long long)window);
        /* with its NUL, as the kernel's own example does */
        return write(fd, text, (size_t)n + 1) < 0 ? -errno : bl_take_fd(&fd);
}

/* Only root's may be shorter than two seconds. */
static void open_psi(struct guest_watch *w, const char *root)
{
        static const struct {
                usec_t stall, window;
        } ways[] = {{50 * BL_MSEC, 500 * BL_MSEC}, {200 * BL_MSEC, 2 * BL_SEC}};

        for (size_t i = 0; i < sizeof ways / sizeof ways[0] && w->psi < 0; i++) {
                w->psi = open_trigger(root, ways[i].stall, ways[i].window);
                w->psi_stall = ways[i].stall;
                w->psi_window = ways[i].window;
        }
}

void guest_watch_init(struct guest_watch *w, struct guest_reader *r, const char *root)
{
        *w = (struct guest_watch){
                .reader = r,
                .free_ram = root[0] ? no_free_ram : free_ram,
                .psi = -1,
                .alarm = {.signals = -1},
                .hold = HOLD_MIN,
        };
        guest_need_init(&w->need);
        /* a file of a test is no trigger, and would be written to */
        if (root[0])
                return;
        open_psi(w, root);
        (void)guest_alarm_open(&w->alarm); /* without it we look more often */
}

static void end_psi(struct guest_watch *w)
{
        bl_closep(&w->psi);
        w->psi = -1;
}

void guest_watch_end(struct guest_watch *w)
{
        end_psi(w);
        guest_alarm_close(&w->alarm);
}

static bool is_calm(const struct guest_watch *w)
{
        return !w->need.rising && !w->need.asking;
}

usec_t guest_watch_poll(const struct guest_watch *w, struct pollfd *ret_psi, struct pollfd *ret_alarm, usec_t now)
{
        *ret_psi = (struct pollfd){.fd = w->psi < 0 ? -1 : w->psi, .events = POLLPRI};
        *ret_alarm = (struct pollfd){.fd = w->alarm.signals, .events = POLLIN};
        return bl_sub_sat(w->look_at, now);
}

static usec_t rest(const struct guest_watch *w)
{
        return bl_clamp(w->available / (FASTEST / BL_SEC), LOOK_MIN, LOOK_MAX);
}

static void look_again(struct guest_watch *w, usec_t now)
{
        usec_t wait = rest(w);

        if (is_calm(w) && !w->armed && now >= w->arm_at && w->alarm.signals >= 0) {
                guest_alarm_arm(&w->alarm);
                w->armed = true;
                w->armed_at = now;
        }
        if (w->need.rising)
                wait = LOOK_RISING;
        else if (w->need.asking)
                wait = bl_min(wait, LOOK_ASKING);
        else if (w->armed)
                wait = LOOK_ARMED;
        else if (w->arm_at > now)
                wait = bl_min(wait, w->arm_at - now);
        w->look_at = now + wait;
}

/* Somebody begins to touch memory: from here on we look ourselves, until nothing moves. */
static void rang(struct guest_watch *w, usec_t now)
{
        if (!guest_alarm_rang(&w->alarm) || !w->armed)
                return;
        w->armed = false;
        w->hold = now - w->armed_at < HOLD_FOR ? bl_min(w->hold * 2, HOLD_MAX) : HOLD_MIN;
        w->arm_at = now + w->hold;
        w->look_at = now;
        guest_need_still(&w->need, now); /* nobody did before */
}

bool guest_watch_seen(struct guest_watch *w, const struct bl_wire_stats *stats, usec_t now,
                      const struct bl_wire_entitlement *grant, struct bl_wire_request *ret)
{
        struct guest_sample s;
        bool ask;

        if (!guest_sample_from(stats, w->reader->drift, now, &s))
                return false;
        ask = guest_need_judge(&w->need, &s, grant, ret);
        w->available = s.available;
        w->free = bl_or_zero(stats->v[BL_STAT_MEM_FREE]);
        look_again(w, now);
        return ask;
}

/* Is there anything to see? */
static bool is_moving(struct guest_watch *w)
{
        uint64_t now_free = w->free_ram(w);

        if (now_free == BL_UNSET || w->need.asking || w->need.rising)
                return true;
        return bl_distance(w->free, now_free) >=
               (now_free < FREE_LOW && w->available < BL_GIB ? MOVED_LOW : bl_max(MOVED, w->available / MOVED_PART));
}

unsigned guest_watch_step(struct guest_watch *w, short psi_revents, short alarm_revents, usec_t now,
                          const struct bl_wire_entitlement *grant, struct bl_wire_request *ret)
{
        struct bl_wire_stats stats;
        unsigned events = 0;

        if (psi_revents & (POLLERR | POLLHUP | POLLNVAL))
                end_psi(w); /* the trigger is void: psi_trigger_poll */
        else if (psi_revents & POLLPRI)
                events |= GUEST_WATCH_PRESSURE;
        if (alarm_revents)
                rang(w, now);
        if (now < w->look_at && !events)
                return 0;
        if (!events && !is_moving(w)) {
                guest_need_still(&w->need, now);
                look_again(w, now);
                return 0;
        }
        if (guest_reader_glance(w->reader, &stats) < 0) {
                look_again(w, now);
                return events;
        }
        if (guest_watch_seen(w, &stats, now, grant, ret))
                events |= GUEST_WATCH_REQUEST;
        return events;
}
