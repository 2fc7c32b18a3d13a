/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* show: everything about one virtual machine. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/events.h"
#include "daemon/util/size.h"

#define EVENTS_SHOWN 10

static void print_what(const struct ctl *c, const json_t *d)
{
        const char *hold = ctl_string(d, "hold"), *why = ctl_string(d, "hold_reason");

        ctl_field("Name:", "%s%s%s", ctl_color(c, CTL_BOLD), ctl_string(d, "name"), ctl_color_end(c));
        ctl_field("UUID:", "%s", ctl_string(d, "uuid"));
        ctl_field("State:", "%s, process %" PRIu64, ctl_string(d, "run"), ctl_number(d, "pid"));
        ctl_field("Managed:", "%s", ctl_true(d, "managed") ? "yes" : "no");
        if (strcmp(hold, "none") != 0)
                ctl_field("Held:", "%s%s%s%s%s ('ballastctl release %s' ends that)", ctl_color(c, CTL_YELLOW), hold,
                          ctl_color_end(c), *why ? ": " : "", why, ctl_string(d, "name"));
        if (!ctl_true(d, "reclaimable"))
                ctl_field("Reclaimable:", "%sno%s: %s", ctl_color(c, CTL_YELLOW), ctl_color_end(c),
                          ctl_string(d, "why_not"));
        if (*ctl_string(d, "settings_error"))
                ctl_field("Settings:", "%s%s%s", ctl_color(c, CTL_RED), ctl_string(d, "settings_error"),
                          ctl_color_end(c));
}

static void print_memory(const struct ctl *c, const json_t *d)
{
        ctl_field("Now:", "%s, target %s", CTL_SIZE(d, "actual"), CTL_SIZE(d, "target"));
        ctl_field("Bounds:", "reservation %s, limit %s, max %s", CTL_SIZE(d, "reservation"), CTL_SIZE(d, "limit"),
                  CTL_SIZE(d, "max"));
        ctl_field("Shares:", "%" PRIu64, ctl_number(d, "shares"));
        ctl_field("Needs:", "at least %s, would like %s", CTL_SIZE(d, "floor"), CTL_SIZE(d, "want"));
        ctl_field("On the host:", "%s, of it QEMU's own %s", CTL_SIZE(d, "resident"), CTL_SIZE(d, "overhead"));
        if (json_is_integer(json_object_get(d, "original")))
                ctl_field("Found at:", "%s ('ballastctl rollback' puts it back)", CTL_SIZE(d, "original"));
        if (ctl_number(d, "speed") > 0)
                ctl_field("Gives:", "%s a second", CTL_SIZE(d, "speed"));
        if (ctl_true(d, "stuck"))
                ctl_field("Stuck:", "%sit does not follow its target%s", ctl_color(c, CTL_RED), ctl_color_end(c));
        if (ctl_true(d, "lying"))
                ctl_field("Lying:", "%sit says that it gave, the host saw nothing of it%s", ctl_color(c, CTL_RED),
                          ctl_color_end(c));
        if (ctl_true(d, "hung"))
                ctl_field("Hung:", "%slibvirt does not get an answer from it%s", ctl_color(c, CTL_RED),
                          ctl_color_end(c));
        if (ctl_number(d, "oom_deflates") > 0)
                ctl_field("Took back:", "%" PRIu64 " times when it was out of memory", ctl_number(d, "oom_deflates"));
}

/* What is swapped out of it, and where to. */
static void print_swapped(const struct ctl *c, const json_t *d)
{
        const json_t *store = json_object_get(d, "store"), *kernel = json_object_get(d, "kernel");
        const char *stage = ctl_string(store, "stage"), *why = ctl_string(store, "why");

        if (*stage && strcmp(stage, "none") != 0) {
                ctl_field("Swap:", "%s of %s in the store (%s%s%s%s%s)", CTL_SIZE(store, "swapped"),
                          CTL_SIZE(store, "size"), strcmp(stage, "on") == 0 ? "" : ctl_color(c, CTL_YELLOW), stage,
                          ctl_color_end(c), *why ? ": " : "", why);
                ctl_field("  held as:", "%s of memory, %s of disk; zeros %s, shared %s", CTL_SIZE(store, "stored"),
                          CTL_SIZE(store, "disk"), CTL_SIZE(store, "zero"), CTL_SIZE(store, "shared"));
                if (ctl_number(store, "stale") > 0 || ctl_number(store, "twice") > 0)
                        ctl_field("  in vain:", "%s that it has freed, %s that it has in memory too",
                                  CTL_SIZE(store, "stale"), CTL_SIZE(store, "twice"));
        }
        if (ctl_number(kernel, "swapped") > 0 || ctl_number(kernel, "paged_out") > 0)
                ctl_field("Host's swap:", "%s of it now; paged out by Ballast %s, read back %s",
                          CTL_SIZE(kernel, "swapped"), CTL_SIZE(kernel, "paged_out"), CTL_SIZE(kernel, "read_back"));
        if (ctl_number(kernel, "idle_us") > 0)
                ctl_field("Idle:", "for %" PRIu64 " s", ctl_number(kernel, "idle_us") / BL_SEC);
}

/* A count of pages of 4 KiB as a size. */
static const char *pages(const json_t *d, const char *key, char buf[BL_SIZE_BUF])
{
        return bl_size_format(bl_mul_sat(ctl_number(d, key), 4 * BL_KIB), buf, BL_SIZE_BUF);
}

static void print_guest(const json_t *d)
{
        const json_t *stats = json_object_get(d, "stats"), *agent = json_object_get(d, "agent"), *request, *hints;
        char a[BL_SIZE_BUF], b[BL_SIZE_BUF], f[BL_SIZE_BUF];
        const char *source = ctl_string(stats, "source");

        if (strcmp(source, "none") == 0)
                ctl_field("Guest says:", "nothing");
        else
                ctl_field("Guest says:", "%s available, %s unused, %s caches (%s, %.1f s ago)",
                          CTL_SIZE(stats, "available"), CTL_SIZE(stats, "unused"), CTL_SIZE(stats, "caches"), source,
                          (double)ctl_number(stats, "age_us") / 1e6);
        if (!json_is_object(agent)) {
                ctl_field("Agent:", "none");
                return;
        }
        ctl_field("Agent:", "%s on kernel %s, over %s", ctl_string(agent, "version"), ctl_string(agent, "kernel"),
                  ctl_string(agent, "channel"));
        request = json_object_get(agent, "request");
        if (json_is_object(request) && ctl_number(request, "bytes") > 0)
                ctl_field("Asked for:", "%s, %.1f s ago (%" PRIu64 " requests in all)", CTL_SIZE(request, "bytes"),
                          (double)ctl_number(request, "age_us") / 1e6, ctl_number(agent, "requests"));
        hints = json_object_get(agent, "hints");
        if (json_is_object(hints))
                ctl_field("Hints:",
                          "%s free, %s inactive page cache, %s page cache of known files, in %" PRIu64
                          " runs (%.0f s ago%s)",
                          pages(hints, "free_pages", a), pages(hints, "inactive_file_pages", b),
                          pages(hints, "file_pages", f), ctl_number(hints, "runs"),
                          (double)ctl_number(hints, "age_us") / 1e6,
                          ctl_true(hints, "cut")        ? ", there were more"
                          : ctl_true(hints, "complete") ? ""
                                                        : ", still coming");
}

enum ctl_exit ctl_cmd_show(struct ctl *c)
{
        const json_t *decision;
        json_t *d = NULL;
        enum ctl_exit x = ctl_read(c, "Show", c->args[0], &d);

        if (x != CTL_OK)
                return x;
        if (!ctl_print_json(c, d)) {
                print_what(c, d);
                print_memory(c, d);
                print_swapped(c, d);
                print_guest(d);
                decision = json_object_get(d, "decision");
                if (json_is_object(decision))
                        ctl_field("Decision:", "%s [%s]", ctl_string(decision, "sentence"),
                                  ctl_string(decision, "reason"));
                if (json_array_size(json_object_get(d, "history")) > 0)
                        puts("\nLately:");
                ctl_print_events(c, json_object_get(d, "history"), EVENTS_SHOWN);
        }
        json_decref(d);
        return CTL_OK;
}
