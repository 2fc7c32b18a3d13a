/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* hold, release, act, rollback, reload: whether Ballast acts. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/ctl/ctl.h"
#include "daemon/util/size.h"

#define POLL_EVERY (500 * BL_MSEC)

enum ctl_exit ctl_cmd_hold(struct ctl *c)
{
        const char *vm = c->n_args > 0 ? c->args[0] : "";

        return ctl_change(c, "Hold", *vm ? "Held." : "All automatic action is on hold.", "sb", vm, 1);
}

enum ctl_exit ctl_cmd_release(struct ctl *c)
{
        const char *vm = c->n_args > 0 ? c->args[0] : "";

        return ctl_change(c, "Hold", *vm ? "Released." : "Automatic action goes on; VMs that are held stay so.", "sb",
                          vm, 0);
}

enum ctl_exit ctl_cmd_act(struct ctl *c)
{
        bool on;

        if (bl_bool_parse(c->args[0], &on) < 0)
                return ctl_usage(c, "'%s' is neither on nor off", c->args[0]);
        return ctl_change(c, "Act", on ? "Ballast acts from now on." : "Ballast only observes from now on.", "b", on);
}

enum ctl_exit ctl_cmd_reload(struct ctl *c)
{
        return ctl_change(c, "Reload", "The configuration was read again.", NULL);
}

/* Until the daemon says that it is over.  How far it is goes to a terminal only. */
static enum ctl_exit wait_for_rollback(struct ctl *c)
{
        const struct timespec every = {0, POLL_EVERY * 1000};
        bool tty = isatty(STDERR_FILENO), running = true;
        const json_t *rollback;
        json_t *d;
        enum ctl_exit x;

        while (running) {
                d = NULL;
                x = ctl_read(c, "Status", NULL, &d);
                if (x != CTL_OK)
                        return x;
                rollback = json_object_get(d, "rollback");
                running = ctl_true(rollback, "running");
                if (tty)
                        fprintf(stderr, "\r\033[K");
                if (tty && running)
                        fprintf(stderr, "%" PRIu64 " virtual machines left", ctl_number(rollback, "vms_left"));
                json_decref(d);
                if (running)
                        (void)nanosleep(&every, NULL);
        }
        return CTL_OK;
}

enum ctl_exit ctl_cmd_rollback(struct ctl *c)
{
        bool wait = ctl_value(c, "wait") != NULL;
        enum ctl_exit x;

        x = ctl_change(c, "Rollback", "The rollback has begun; 'ballastctl status' shows how far it is.", NULL);
        if (x != CTL_OK || !wait)
                return x;
        x = wait_for_rollback(c);
        if (x == CTL_OK && !c->json)
                puts("Every virtual machine is as it was.");
        return x;
}
