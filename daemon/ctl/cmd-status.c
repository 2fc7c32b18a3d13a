/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* status, config, metrics: the daemon and the host. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/ctl/ctl.h"
#include "daemon/ctl/table.h"

static void print_state(const struct ctl *c, const json_t *d)
{
        const char *state = ctl_string(d, "state");
        char since[32];

        if (ctl_number(d, "since_us") > 0)
                ctl_field("State:", "%s%s%s since %s", ctl_color(c, ctl_state_color(state)), state, ctl_color_end(c),
                          ctl_time(ctl_number(d, "since_us"), since, sizeof(since)));
        else
                ctl_field("State:", "%s%s%s", ctl_color(c, ctl_state_color(state)), state, ctl_color_end(c));
        if (!ctl_true(d, "acting"))
                ctl_field("Acting:", "%sno%s, only observing ('ballastctl act on' lets it act)",
                          ctl_color(c, CTL_YELLOW), ctl_color_end(c));
        else
                ctl_field("Acting:", "yes (by %s)", ctl_string(d, "acting_from"));
        if (ctl_true(d, "held"))
                ctl_field("Held:", "%sall automatic action is on hold%s ('ballastctl release' ends that)",
                          ctl_color(c, CTL_YELLOW), ctl_color_end(c));
}

static void print_host(const json_t *d)
{
        const json_t *budget = json_object_get(d, "budget"), *marks = json_object_get(d, "marks");
        const json_t *psi = json_object_get(d, "psi"), *swap = json_object_get(d, "swap");

        ctl_field("Budget:", "%s%s: %s used, %s free", CTL_SIZE(budget, "bytes"),
                  strcmp(ctl_string(budget, "kind"), "ram") == 0 ? " (the host's memory)" : "",
                  CTL_SIZE(budget, "used"), CTL_SIZE(budget, "free"));
        if (ctl_number(budget, "growth_per_s") > 0)
                ctl_field("Growth:", "%s a second", CTL_SIZE(budget, "growth_per_s"));
        ctl_field("Marks:", "high %s, clear %s, soft %s, hard %s, low %s", CTL_SIZE(marks, "high"),
                  CTL_SIZE(marks, "clear"), CTL_SIZE(marks, "soft"), CTL_SIZE(marks, "hard"), CTL_SIZE(marks, "low"));
        if (ctl_true(psi, "known"))
                ctl_field("Stalls:", "some %.1f s, full %.1f s since boot", (double)ctl_number(psi, "some_us") / 1e6,
                          (double)ctl_number(psi, "full_us") / 1e6);
        if (ctl_number(swap, "total") > 0)
                ctl_field("Swap:", "%s free of %s", CTL_SIZE(swap, "free"), CTL_SIZE(swap, "total"));
        else
                ctl_field("Swap:", "none");
}

static void print_store(const struct ctl *c, const json_t *d)
{
        const json_t *store = json_object_get(d, "store"), *pool = json_object_get(store, "pool");
        const char *state = ctl_string(store, "state");
        bool there = strcmp(state, "there") == 0;

        /* an older daemon does not say, and there is no store on most hosts */
        if (!*state || strcmp(state, "none") == 0)
                return;
        printf("%-14s%s%s%s", "Store:", ctl_color(c, there ? CTL_GREEN : CTL_RED), state, ctl_color_end(c));
        if (json_is_object(pool))
                printf(", %s of %s used", CTL_SIZE(pool, "used"), CTL_SIZE(pool, "size"));
        puts(there ? "" : "; guests that swap on it wait (systemctl status ballast-store)");
}

static void print_sharing(const struct ctl *c, const json_t *d)
{
        const json_t *s = json_object_get(d, "sharing");
        const char *state = ctl_string(s, "state"), *error = ctl_string(s, "error");
        bool bad = *error || strcmp(state, "yielded") == 0 || strcmp(state, "unavailable") == 0;

        /* an older daemon does not say, and it is off by default */
        if (!*state || strcmp(state, "off") == 0)
                return;
        ctl_field("Sharing:", "%s%s%s, %s saved%s%s", ctl_color(c, bad ? CTL_YELLOW : CTL_GREEN), state,
                  ctl_color_end(c), CTL_SIZE(s, "saved"), *error ? "; " : "", error);
}

static void print_vms(const json_t *d)
{
        const json_t *vms = json_object_get(d, "vms"), *totals = json_object_get(d, "totals");

        ctl_field("VMs:",
                  "%" PRIu64 " known, %" PRIu64 " managed, %" PRIu64 " held, %" PRIu64 " stuck, %" PRIu64
                  " not reclaimable",
                  ctl_number(vms, "known"), ctl_number(vms, "managed"), ctl_number(vms, "held"),
                  ctl_number(vms, "stuck"), ctl_number(vms, "not_reclaimable"));
        ctl_field("Memory:", "%s promised, %s given, %s in use on the host, %s taken", CTL_SIZE(totals, "max"),
                  CTL_SIZE(totals, "actual"), CTL_SIZE(totals, "resident"), CTL_SIZE(totals, "taken"));
}

static void print_troubles(const struct ctl *c, const json_t *d)
{
        const json_t *libvirt = json_object_get(d, "libvirt"), *rollback = json_object_get(d, "rollback"), *x;
        size_t i;

        if (ctl_true(libvirt, "connected"))
                ctl_field("Libvirt:", "connected to %s", ctl_string(libvirt, "uri"));
        else
                ctl_field("Libvirt:", "%snot connected%s to %s: %s", ctl_color(c, CTL_RED), ctl_color_end(c),
                          ctl_string(libvirt, "uri"), ctl_string(libvirt, "error"));
        if (ctl_true(rollback, "running"))
                ctl_field("Rollback:", "running, %" PRIu64 " VMs left", ctl_number(rollback, "vms_left"));
        else if (ctl_true(rollback, "done"))
                ctl_field("Rollback:", "done; nothing is touched until 'ballastctl act on'");
        json_array_foreach(json_object_get(d, "conflicts"), i, x)
        {
                ctl_field("Conflict:", "%s%s%s: %s", ctl_color(c, CTL_YELLOW), ctl_string(x, "name"), ctl_color_end(c),
                          ctl_string(x, "what"));
        }
        json_array_foreach(json_object_get(d, "warnings"), i, x)
        {
                ctl_field("Warning:", "%s%s%s", ctl_color(c, CTL_YELLOW), json_string_value(x), ctl_color_end(c));
        }
}

enum ctl_exit ctl_cmd_status(struct ctl *c)
{
        json_t *d = NULL;
        enum ctl_exit x = ctl_read(c, "Status", NULL, &d);

        if (x != CTL_OK)
                return x;
        if (!ctl_print_json(c, d)) {
                ctl_field("Ballast:", "%s, answering at %s", ctl_string(d, "version"), c->where);
                print_state(c, d);
                print_host(d);
                print_store(c, d);
                print_sharing(c, d);
                print_vms(d);
                print_troubles(c, d);
        }
        json_decref(d);
        return CTL_OK;
}

enum ctl_exit ctl_cmd_config(struct ctl *c)
{
        static const struct ctl_column columns[] = {{"SECTION"}, {"KEY"}, {"VALUE"}, {"SOURCE", .trunc = true}};
        static const char *const fields[] = {"section", "key", "value", "source"};
        _cleanup_(ctl_table_unrefp) struct libscols_table *t = NULL;
        struct libscols_line *l;
        json_t *d = NULL, *s;
        enum ctl_exit x;
        size_t i;

        x = ctl_read(c, "Config", NULL, &d);
        if (x != CTL_OK)
                return x;
        if (!ctl_print_json(c, d)) {
                t = ctl_table_new(c, columns, 4);
                json_array_foreach(json_object_get(d, "settings"), i, s)
                {
                        bool is_default = strcmp(ctl_string(s, "source"), "default") == 0;

                        l = ctl_table_line(t);
                        for (size_t k = 0; k < 4; k++)
                                ctl_table_set(c, l, k, is_default ? CTL_PLAIN : CTL_BOLD, ctl_string(s, fields[k]));
                }
                ctl_table_print(t);
        }
        json_decref(d);
        return CTL_OK;
}

enum ctl_exit ctl_cmd_metrics(struct ctl *c)
{
        _cleanup_free_ char *text = NULL;
        json_t *d;
        enum ctl_exit x = ctl_read_text(c, "Metrics", &text);

        if (x != CTL_OK)
                return x;
        ctl_make_text_safe(text, true);
        if (!c->json) {
                fputs(text, stdout);
                return CTL_OK;
        }
        d = json_pack("{s:i, s:s}", "schema", BL_SCHEMA_VERSION, "metrics", text);
        (void)ctl_print_json(c, d);
        json_decref(d);
        return CTL_OK;
}
