/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/ctl/watch.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "daemon/util/clock.h"
#include "daemon/util/size.h"

#define WATCH_DEFAULT (2 * BL_SEC)
#define WATCH_MIN     (100 * BL_MSEC)
#define WATCH_MAX     (UINT64_C(86400) * BL_SEC)

enum ctl_exit ctl_watch_every(const struct ctl *c, usec_t *ret)
{
        const char *every = ctl_value(c, "watch");
        usec_t t = every ? WATCH_DEFAULT : 0;

        if (every && *every && (bl_span_parse(every, &t) < 0 || t < WATCH_MIN || t > WATCH_MAX))
                return ctl_usage(c, "'%s' is no time for --watch: seconds, from 0.1", every);
        *ret = t;
        return CTL_OK;
}

static void on_resize(int signo)
{
        (void)signo; /* ends the sleep */
}

static void pause_for(usec_t t)
{
        struct timespec ts = {(time_t)(t / BL_SEC), (long)(t % BL_SEC * 1000)};

        (void)nanosleep(&ts, NULL);
}

static void look_at_width(struct ctl *c)
{
        int width = getenv("COLUMNS") ? 0 : ctl_terminal_width();

        if (width > 0)
                c->width = width;
}

bool ctl_watch_redraws(void)
{
        return isatty(STDOUT_FILENO);
}

static void print_round(struct ctl *c, json_t *d, usec_t every, ctl_watch_fn print, void *userdata)
{
        char now[32], span[BL_SIZE_BUF];

        if (c->json) {
                (void)json_dumpf(d, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
                putchar('\n');
                return;
        }
        if (ctl_watch_redraws()) {
                look_at_width(c);
                printf("\033[H\033[J%s, every %s; Ctrl-C ends\n\n", ctl_time(bl_now_wall(), now, sizeof(now)),
                       bl_span_format(every, span, sizeof(span)));
        }
        print(c, d, bl_now(), userdata);
}

enum ctl_exit ctl_watch(struct ctl *c, const char *method, usec_t every, ctl_watch_fn print, void *userdata)
{
        const struct sigaction resize = {.sa_handler = on_resize};

        if (ctl_watch_redraws())
                (void)sigaction(SIGWINCH, &resize, NULL);
        for (;;) {
                json_t *d = NULL;
                enum ctl_exit x = ctl_read(c, method, NULL, &d);

                if (x != CTL_OK)
                        return x;
                print_round(c, d, every, print, userdata);
                json_decref(d);
                if (fflush(stdout) != 0)
                        return CTL_FAILED;
                pause_for(every);
        }
}
