/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/scan_progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "daemon/util/clock.h"

#define EARLY (500 * BL_MSEC) /* a short scan shows nothing, and nothing is known yet */

static int width_of_stderr(void)
{
        struct winsize w;

        if (!isatty(STDERR_FILENO))
                return 0;
        return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col >= 20 ? w.ws_col : 80;
}

void ctl_scan_progress_begin(struct ctl_scan_progress *p, const char *what)
{
        *p = (struct ctl_scan_progress){.began = bl_now(), .width = width_of_stderr()};
        (void)snprintf(p->what, sizeof(p->what), "%s", what);
}

const char *ctl_scan_time_left(usec_t elapsed, permyriad_t part, char *buf, size_t size)
{
        uint64_t s;

        buf[0] = 0;
        if (part < 100 || part > BL_WHOLE || elapsed < EARLY)
                return buf;
        s = bl_mul_sat(elapsed, BL_WHOLE - part) / part / BL_SEC + 1;
        if (s < 60)
                (void)snprintf(buf, size, "about %" PRIu64 " s left", s);
        else if (s < 3600)
                (void)snprintf(buf, size, "about %" PRIu64 " min %" PRIu64 " s left", s / 60, s % 60);
        else
                (void)snprintf(buf, size, "about %" PRIu64 " h %" PRIu64 " min left", s / 3600, s % 3600 / 60);
        return buf;
}

void ctl_scan_progress_say(const struct ctl_scan_progress *p, const char *text)
{
        if (p->width > 0)
                fprintf(stderr, "\r\033[K%.*s", p->width - 1, text);
}

void ctl_scan_progress_show(const struct ctl_scan_progress *p, const struct bl_scan_progress *now)
{
        static const char *const phases[] = {
                [BL_SCAN_HASH] = "reading",
                [BL_SCAN_SORT] = "sorting",
                [BL_SCAN_COMPARE] = "comparing",
                [BL_SCAN_DONE] = "adding up",
        };
        usec_t elapsed = bl_sub_sat(bl_now(), p->began);
        char left[64], line[256];

        if (elapsed < EARLY)
                return;
        (void)ctl_scan_time_left(elapsed, now->part, left, sizeof(left));
        (void)snprintf(line, sizeof(line), "Scanning %s: %s, %" PRIu32 " %%%s%s", p->what, phases[now->phase],
                       now->part / 100, *left ? ", " : "", left);
        ctl_scan_progress_say(p, line);
}

void ctl_scan_progress_end(const struct ctl_scan_progress *p)
{
        ctl_scan_progress_say(p, "");
}
