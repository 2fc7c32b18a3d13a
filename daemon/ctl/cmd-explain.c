/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* explain, plan: why. */
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/events.h"
#include "daemon/ctl/table.h"

static enum ctl_color outcome_color(const char *outcome)
{
        return strcmp(outcome, "failed") == 0 ? CTL_RED : strcmp(outcome, "done") == 0 ? CTL_GREEN : CTL_PLAIN;
}

void ctl_print_events(const struct ctl *c, const json_t *events, size_t max)
{
        size_t n = json_array_size(events);

        for (size_t i = max && n > max ? n - max : 0; i < n; i++) {
                const json_t *e = json_array_get(events, i);
                const char *vm = ctl_string(e, "vm"), *outcome = ctl_string(e, "outcome");
                char when[32];

                printf("%s  %s%s%s [%s, %s%s%s]\n", ctl_time(ctl_number(e, "at_us"), when, sizeof(when)), vm,
                       *vm ? ": " : "", ctl_string(e, "sentence"), ctl_string(e, "reason"),
                       ctl_color(c, outcome_color(outcome)), outcome, ctl_color_end(c));
        }
}

/* What holds for the VM at this moment, before what was. */
static enum ctl_exit print_present(struct ctl *c, const char *vm)
{
        const json_t *decision;
        json_t *d = NULL;
        enum ctl_exit x = ctl_read(c, "Show", vm, &d);

        if (x != CTL_OK)
                return x;
        decision = json_object_get(d, "decision");
        if (json_is_object(decision))
                printf("%sNow%s: %s [%s]\n", ctl_color(c, CTL_BOLD), ctl_color_end(c), ctl_string(decision, "sentence"),
                       ctl_string(decision, "reason"));
        json_decref(d);
        return CTL_OK;
}

enum ctl_exit ctl_cmd_explain(struct ctl *c)
{
        const char *vm = c->n_args > 0 ? c->args[0] : "";
        const json_t *events;
        json_t *d = NULL;
        enum ctl_exit x;

        x = ctl_read(c, "Explain", vm, &d);
        if (x != CTL_OK)
                return x;
        if (!ctl_print_json(c, d)) {
                if (*vm)
                        x = print_present(c, vm);
                events = json_object_get(d, "events");
                if (json_array_size(events) == 0)
                        puts("Nothing has happened yet that is remembered.");
                ctl_print_events(c, events, 0);
        }
        json_decref(d);
        return x;
}

/* What is left of the line beside the name and two sizes; 0: no bound. */
static size_t sentence_width(const struct ctl *c, const json_t *decisions)
{
        size_t name = 2, others = 2 * 9 + 1, i;
        const json_t *x;

        json_array_foreach(decisions, i, x)
        {
                name = bl_max(name, strlen(ctl_string(x, "vm")));
        }
        if (c->width == 0)
                return 0;
        return bl_max(30, bl_sub_sat((size_t)c->width, bl_min(name, 20) + others));
}

static void print_decisions(const struct ctl *c, const json_t *d)
{
        static const struct ctl_column columns[] = {
                {"VM", .trunc = true}, {"NOW", .right = true}, {"TO", .right = true}, {"WHY", .wrap = true}};
        _cleanup_(ctl_table_unrefp) struct libscols_table *t = ctl_table_new(c, columns, 4);
        const json_t *list = json_object_get(d, "decisions"), *x;
        size_t i, width = sentence_width(c, list);

        json_array_foreach(list, i, x)
        {
                _cleanup_free_ char *sentence = ctl_table_fold(ctl_string(x, "sentence"), width);
                struct libscols_line *l = ctl_table_line(t);
                enum ctl_color color = ctl_true(x, "act") ? CTL_BOLD : CTL_PLAIN;
                char size[BL_SIZE_BUF];

                ctl_table_set(c, l, 0, color, ctl_string(x, "vm"));
                ctl_table_set(c, l, 1, color, ctl_size(x, "from", size, sizeof(size)));
                ctl_table_set(c, l, 2, color, ctl_true(x, "act") ? ctl_size(x, "to", size, sizeof(size)) : "-");
                ctl_table_set(c, l, 3, color, sentence);
        }
        if (i > 0)
                ctl_table_print(t);
        else
                puts("No virtual machine is running.");
}

enum ctl_exit ctl_cmd_plan(struct ctl *c)
{
        const char *state;
        json_t *d = NULL;
        enum ctl_exit x;

        x = ctl_read(c, "Plan", NULL, &d);
        if (x != CTL_OK)
                return x;
        if (!ctl_print_json(c, d)) {
                state = ctl_string(d, "state");
                ctl_field("Host state:", "%s%s%s", ctl_color(c, ctl_state_color(state)), state, ctl_color_end(c));
                ctl_field("To be freed:", "%s; on its way: %s; beyond the guests: %s", CTL_SIZE(d, "shortfall"),
                          CTL_SIZE(d, "coming"), CTL_SIZE(d, "unmet"));
                if (!ctl_true(d, "acting"))
                        puts("Ballast only observes: none of this is done before 'ballastctl act on'.");
                putchar('\n');
                print_decisions(c, d);
        }
        json_decref(d);
        return CTL_OK;
}
