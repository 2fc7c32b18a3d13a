/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* list, list --sharing, --watch */
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/table.h"
#include "daemon/ctl/watch.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

static const struct ctl_column columns[] = {
        {"TIME"},
        {"VM", .trunc = true},
        {"STATE"},
        {"NOW", .right = true},
        {"TARGET", .right = true},
        {"MAX", .right = true},
        {"HOST", .right = true},
        {"HELD", .right = true}, /* not where it is narrow */
        {"CHANNEL"},
        {"WHY"}, /* whole: people search for it */
};

enum { TIME, VM, STATE, NOW, TARGET, MAX, HOST, HELD, CHANNEL, WHY, N_COLUMNS };

/* With all columns a line has room for names of some length. */
#define WIDE 100

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

/* What is swapped out of it, by itself into the store and by the host's kernel. */
static uint64_t held(const json_t *vm)
{
        return bl_add_sat(ctl_number(json_object_get(vm, "store"), "swapped"),
                          ctl_number(json_object_get(vm, "kernel"), "swapped"));
}

/* `stamp` NULL: no column for the time. */
static void print_list(const struct ctl *c, const json_t *d, const char *stamp, bool heading)
{
        size_t first = stamp ? TIME : VM, i;
        _cleanup_(ctl_table_unrefp) struct libscols_table *t = ctl_table_new(c, columns + first, N_COLUMNS - first);
        const json_t *vm;

        if (t && c->width > 0 && c->width < WIDE)
                (void)scols_column_set_flags(scols_table_get_column(t, HELD - first), SCOLS_FL_HIDDEN);
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
                ctl_table_set(c, l, HELD - first, CTL_PLAIN,
                              held(vm) ? bl_size_format(held(vm), size, sizeof(size)) : "-");
                ctl_table_set(c, l, CHANNEL - first, CTL_PLAIN,
                              json_is_object(agent) ? ctl_string(agent, "channel") : "-");
                ctl_table_set(c, l, WHY - first, ctl_true(decision, "act") ? CTL_BOLD : CTL_PLAIN,
                              ctl_string(decision, "reason"));
        }
        ctl_table_print(t);
        if (i == 0 && heading)
                puts("No virtual machine is running.");
}

/* One round: lines with the time in each where it is no terminal. */
static void print_round(struct ctl *c, json_t *d, usec_t at, void *userdata)
{
        bool *heading = userdata;
        char now[32];

        (void)at;
        print_list(c, d, ctl_watch_redraws() ? NULL : ctl_time(bl_now_wall(), now, sizeof(now)), *heading);
        *heading = ctl_watch_redraws();
}

static void print_sharing_round(struct ctl *c, json_t *d, usec_t at, void *userdata)
{
        bool *heading = userdata;
        char now[32];

        (void)at;
        ctl_print_sharing(c, d, ctl_watch_redraws() ? NULL : ctl_time(bl_now_wall(), now, sizeof(now)), *heading);
        *heading = ctl_watch_redraws();
}

enum ctl_exit ctl_cmd_list(struct ctl *c)
{
        bool heading = true, sharing = ctl_value(c, "sharing") != NULL;
        const char *method = sharing ? "Sharing" : "List";
        json_t *d = NULL;
        enum ctl_exit x;
        usec_t every;

        x = ctl_watch_every(c, &every);
        if (x != CTL_OK)
                return x;
        if (every > 0)
                return ctl_watch(c, method, every, sharing ? print_sharing_round : print_round, &heading);
        x = ctl_read(c, method, NULL, &d);
        if (x != CTL_OK)
                return x;
        if (ctl_print_json(c, d)) {
                /* it is the document */
        } else if (sharing) {
                ctl_print_sharing(c, d, NULL, true);
        } else {
                print_list(c, d, NULL, true);
        }
        json_decref(d);
        return CTL_OK;
}
