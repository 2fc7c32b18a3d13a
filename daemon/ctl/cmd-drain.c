/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* drain: brings back what virtual machines have swapped on the store. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/ctl/ctl.h"
#include "daemon/util/size.h"

#define POLL_EVERY (500 * BL_MSEC)

/* Has it nothing on the store (any more)? */
static bool is_off(const char *stage)
{
        return strcmp(stage, "none") == 0 || strcmp(stage, "waiting") == 0;
}

static bool is_meant(const struct ctl *c, const json_t *vm)
{
        return ctl_value(c, "all") || strcmp(ctl_string(vm, "name"), c->args[0]) == 0 ||
               strcmp(ctl_string(vm, "uuid"), c->args[0]) == 0;
}

/* How many are not drained yet, and of one of them why it does not go on. */
static enum ctl_exit look(struct ctl *c, size_t *ret_left, char *why, size_t size)
{
        const json_t *vm;
        json_t *d = NULL;
        enum ctl_exit x = ctl_read(c, "Tiers", NULL, &d);
        size_t i;

        if (x != CTL_OK)
                return x;
        *ret_left = 0;
        *why = '\0';
        json_array_foreach(json_object_get(d, "vms"), i, vm)
        {
                const char *reason = ctl_string(vm, "why");

                if (!is_meant(c, vm) || is_off(ctl_string(vm, "stage")))
                        continue;
                ++*ret_left;
                if (*reason)
                        (void)snprintf(why, size, "%s: %s", ctl_string(vm, "name"), reason);
        }
        json_decref(d);
        return CTL_OK;
}

/* One that stands still, which may be for a moment, is said where it stays so. */
static enum ctl_exit wait_for_it(struct ctl *c)
{
        const struct timespec every = {0, POLL_EVERY * 1000};
        char why[300], said[300] = "";
        size_t left = 1;
        enum ctl_exit x;

        for (;;) {
                x = look(c, &left, why, sizeof(why));
                if (x != CTL_OK || left == 0)
                        break;
                if (*why && strcmp(why, said) != 0)
                        fprintf(stderr, "%s\n", why);
                (void)snprintf(said, sizeof(said), "%s", why);
                (void)nanosleep(&every, NULL);
        }
        if (x == CTL_OK && !c->json)
                puts("Nothing is on the store any more.");
        return x;
}

static enum ctl_exit drain_all(struct ctl *c, bool undo)
{
        const json_t *vm;
        json_t *d = NULL;
        enum ctl_exit x = ctl_read(c, "Tiers", NULL, &d), worst = CTL_OK;
        size_t i;

        if (x != CTL_OK)
                return x;
        json_array_foreach(json_object_get(d, "vms"), i, vm)
        {
                if (!undo && strcmp(ctl_string(vm, "stage"), "none") == 0)
                        continue;
                x = ctl_change(c, "Drain", "Draining.", "sb", ctl_string(vm, "name"), undo);
                worst = x > worst ? x : worst;
        }
        json_decref(d);
        return worst;
}

enum ctl_exit ctl_cmd_drain(struct ctl *c)
{
        bool all = ctl_value(c, "all") != NULL, undo = ctl_value(c, "undo") != NULL;
        enum ctl_exit x;

        if (all == (c->n_args > 0))
                return ctl_usage(c, "either a virtual machine or --all is needed");
        if (undo && ctl_value(c, "wait"))
                return ctl_usage(c, "--wait does not go with --undo");
        if (all)
                x = drain_all(c, undo);
        else
                x = ctl_change(c, "Drain", undo ? "It may swap on the store again." : "Draining.", "sb", c->args[0],
                               undo);
        return x == CTL_OK && ctl_value(c, "wait") ? wait_for_it(c) : x;
}
