/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* share, share --watch, share resume */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/watch.h"
#include "daemon/util/clock.h"

static enum ctl_color state_color(const char *state)
{
        if (strcmp(state, "driven") == 0 || strcmp(state, "rest") == 0)
                return CTL_GREEN;
        return strcmp(state, "off") == 0 ? CTL_PLAIN : CTL_YELLOW;
}

static double seconds(const json_t *o, const char *field)
{
        return (double)ctl_number(o, field) / (double)BL_SEC;
}

static void print_head(const struct ctl *c, const json_t *d)
{
        const json_t *all = json_object_get(d, "all"), *cpu = json_object_get(d, "cpu_us"), *w;
        const char *state = ctl_string(d, "state"), *group = ctl_string(d, "group");
        uint64_t per_mib = ctl_number(d, "cpu_us_per_mib");
        size_t i;

        ctl_field("Sharing:", "%s%s%s%s%s", ctl_color(c, state_color(state)), state, ctl_color_end(c),
                  *ctl_string(d, "sentence") ? ": " : "", ctl_string(d, "sentence"));
        ctl_field("Mode:", "%s%s%s", ctl_string(d, "mode"), *group ? ", for trust group " : "", group);
        if (*ctl_string(d, "error"))
                ctl_field("Error:", "%s%s%s", ctl_color(c, CTL_RED), ctl_string(d, "error"), ctl_color_end(c));
        json_array_foreach(json_object_get(d, "warnings"), i, w)
        {
                ctl_field("Warning:", "%s%s%s", ctl_color(c, CTL_YELLOW), json_string_value(w), ctl_color_end(c));
        }
        if (strcmp(state, "off") == 0)
                return;
        ctl_field("Saved:", "%s of %s present; %s mapped to merged pages", CTL_SIZE(all, "saved"),
                  CTL_SIZE(all, "present"), CTL_SIZE(all, "merged"));
        ctl_field("Possible:", "%s more, estimated", CTL_SIZE(all, "gain"));
        ctl_field("Reserve:", "%s kept free for pages that break apart; all of them would take %s",
                  CTL_SIZE(d, "reserve"), CTL_SIZE(all, "breaks"));
        ctl_field("CPU:", "ksmd %.1f s, khugepaged %.1f s, looking %.1f s", seconds(cpu, "ksmd"),
                  seconds(cpu, "khugepaged"), seconds(cpu, "scan"));
        if (per_mib > 0)
                ctl_field("Cost:", "%.1f ms of CPU for each MiB that is saved", (double)per_mib / (double)BL_MSEC);
}

static void print_share(struct ctl *c, json_t *d, usec_t at, void *userdata)
{
        char now[32];

        (void)at;
        (void)userdata;
        if (!ctl_watch_redraws() && ctl_value(c, "watch"))
                printf("%s\n", ctl_time(bl_now_wall(), now, sizeof(now)));
        print_head(c, d);
        if (json_array_size(json_object_get(d, "vms")) > 0)
                putchar('\n');
        ctl_print_sharing(c, d, NULL, true);
}

enum ctl_exit ctl_cmd_share(struct ctl *c)
{
        json_t *d = NULL;
        enum ctl_exit x;
        usec_t every;

        if (c->n_args > 0 && strcmp(c->args[0], "resume") != 0)
                return ctl_usage(c, "'%s' is nothing that share knows; 'share resume' is", c->args[0]);
        if (c->n_args > 0 && ctl_value(c, "watch"))
                return ctl_usage(c, "--watch goes with 'share' alone");
        if (c->n_args > 0)
                return ctl_change(c, "ResumeSharing", NULL, "");
        x = ctl_watch_every(c, &every);
        if (x != CTL_OK)
                return x;
        if (every > 0)
                return ctl_watch(c, "Sharing", every, print_share, NULL);
        x = ctl_read(c, "Sharing", NULL, &d);
        if (x != CTL_OK)
                return x;
        if (!ctl_print_json(c, d))
                print_share(c, d, 0, NULL);
        json_decref(d);
        return CTL_OK;
}
