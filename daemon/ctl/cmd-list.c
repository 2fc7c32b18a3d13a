/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* list, list --watch */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/table.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

#define WATCH_DEFAULT (2 * BL_SEC)
#define WATCH_MIN     (100 * BL_MSEC)
#define WATCH_MAX     (UINT64_C(86400) * BL_SEC)

static const struct ctl_column columns[] = {
        {"TIME"},
        {"VM", .trunc = true},
        {"STATE"},
        {"NOW", .right = true},
        {"TARGET", .right = true},
        {"MAX", .right = true},
        {"HOST", .right = true},
        {"CHANNEL"},
        {"WHY"}, /* whole: people search for it */
};

enum { TIME, VM, STATE, NOW, TARGET, MAX, HOST, CHANNEL, WHY, N_COLUMNS };

/* One word: what most deserves to be seen. */
static const char *vm_state(const json_t *vm, enum ctl_color *ret)
{
        const char *run = ctl_string(vm, "run");

        *ret = CTL_RED;
        if (ctl_true(vm, "hung"))
                return "hung";
        if (ctl_true(vm, "lying"))
                return "lying";
        if (ctl_true(vm, "stuck"))
                return "stuck";
        *ret = CTL_YELLOW;
        if (strcmp(run, "running") != 0)
                return run;
        if (strcmp(ctl_string(vm, "hold"), "none") != 0)
                return "held";
        if (!ctl_true(vm, "reclaimable"))
                return "pinned";
        *ret = CTL_PLAIN;
        return ctl_true(vm, "managed") ? "managed" : "unmanaged";
}

/* `stamp` NULL: no column for the time. */
static void print_list(const struct ctl *c, const json_t *d, const char *stamp, bool heading)
{
        size_t first = stamp ? TIME : VM, i;
        _cleanup_(ctl_table_unrefp) struct libscols_table *t = ctl_table_new(c, columns + first, N_COLUMNS - first);
        const json_t *vm;

        if (!heading && t)
                (void)scols_table_enable_noheadings(t, 1);
        json_array_foreach(json_object_get(d, "vms"), i, vm)
        {
                static const char *const sizes[] = {"actual", "target", "max", "resident"};
                const json_t *decision = json_object_get(vm, "decision"), *agent = json_object_get(vm, "agent");
                struct libscols_line *l = ctl_table_line(t);
                enum ctl_color color;
                const char *state = vm_state(vm, &color);
                char size[BL_SIZE_BUF];

                if (stamp)
                        ctl_table_set(c, l, TIME, CTL_PLAIN, stamp);
                ctl_table_set(c, l, VM - first, CTL_PLAIN, ctl_string(vm, "name"));
                ctl_table_set(c, l, STATE - first, color, state);
                for (size_t k = 0; k < 4; k++)
                        ctl_table_set(c, l, NOW - first + k, CTL_PLAIN, ctl_size(vm, sizes[k], size, sizeof(size)));
                ctl_table_set(c, l, CHANNEL - first, CTL_PLAIN,
                              json_is_object(agent) ? ctl_string(agent, "channel") : "-");
                ctl_table_set(c, l, WHY - first, ctl_true(decision, "act") ? CTL_BOLD : CTL_PLAIN,
                              ctl_string(decision, "reason"));
        }
        ctl_table_print(t);
        if (i == 0 && heading)
                puts("No virtual machine is running.");
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

/* One round: a screen on a terminal, lines or a document elsewhere. */
static void print_round(struct ctl *c, const json_t *d, usec_t every, bool first, bool tty)
{
        char now[32], span[BL_SIZE_BUF];

        (void)ctl_time(bl_now_wall(), now, sizeof(now));
        if (c->json) {
                (void)json_dumpf(d, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
                putchar('\n');
        } else if (tty) {
                look_at_width(c);
                printf("\033[H\033[J%s, every %s; Ctrl-C ends\n\n", now, bl_span_format(every, span, sizeof(span)));
                print_list(c, d, NULL, true);
        } else
                print_list(c, d, now, first);
}

static enum ctl_exit watch(struct ctl *c, usec_t every)
{
        const struct sigaction resize = {.sa_handler = on_resize};
        bool tty = isatty(STDOUT_FILENO);

        if (tty)
                (void)sigaction(SIGWINCH, &resize, NULL);
        for (bool first = true;; first = false) {
                json_t *d = NULL;
                enum ctl_exit x = ctl_read(c, "List", NULL, &d);

                if (x != CTL_OK)
                        return x;
                print_round(c, d, every, first, tty);
                json_decref(d);
                if (fflush(stdout) != 0)
                        return CTL_FAILED;
                pause_for(every);
        }
}

enum ctl_exit ctl_cmd_list(struct ctl *c)
{
        const char *every = ctl_value(c, "watch");
        usec_t t = WATCH_DEFAULT;
        json_t *d = NULL;
        enum ctl_exit x;

        if (every && *every && (bl_span_parse(every, &t) < 0 || t < WATCH_MIN || t > WATCH_MAX))
                return ctl_usage(c, "'%s' is no time for --watch: seconds, from 0.1", every);
        if (every)
                return watch(c, t);
        x = ctl_read(c, "List", NULL, &d);
        if (x != CTL_OK)
                return x;
        if (!ctl_print_json(c, d))
                print_list(c, d, NULL, true);
        json_decref(d);
        return CTL_OK;
}
