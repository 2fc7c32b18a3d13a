/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of what virtual machines share. */
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/table.h"

static const struct ctl_column columns[] = {
        {"TIME"},
        {"VM", .trunc = true},
        {"GROUP", .trunc = true},
        {"MODE"},
        {"HELD", .right = true},
        {"MERGED", .right = true},
        {"SAVED", .right = true},
        {"POSSIBLE", .right = true},
        {"ZERO", .right = true},
        {"BREAKS", .right = true},
        {"CPU", .right = true},
        {"WHY"},
};
enum { TIME, VM, GROUP, MODE, HELD, MERGED, SAVED, POSSIBLE, ZERO, BREAKS, CPU, WHY, N_COLUMNS };

/* What a narrow terminal does without; the document has it. */
#define WIDE 110
static const size_t wide_only[] = {GROUP, ZERO, BREAKS, CPU};

/* Nothing is shown as such, what is not known as "-". */
static const char *size_or_dot(const json_t *o, const char *field, char buf[BL_SIZE_BUF])
{
        if (json_is_integer(json_object_get(o, field)) && ctl_number(o, field) == 0)
                return ".";
        return ctl_size(o, field, buf, BL_SIZE_BUF);
}

/* Its mode, and what it asks for where that is more. */
static const char *mode(const json_t *vm, char *buf, size_t size)
{
        const char *is = ctl_string(vm, "mode"), *asked = ctl_string(vm, "asked");

        if (strcmp(is, asked) == 0)
                return is;
        (void)snprintf(buf, size, "%s (%s)", is, asked);
        return buf;
}

static void set_sizes(const struct ctl *c, struct libscols_line *l, size_t first, const json_t *o)
{
        static const char *const fields[] = {"present", "merged", "saved", "gain", "zero", "breaks"};
        char size[BL_SIZE_BUF];

        for (size_t k = 0; k < sizeof fields / sizeof fields[0]; k++)
                ctl_table_set(c, l, HELD - first + k, CTL_PLAIN, size_or_dot(o, fields[k], size));
}

static const char *cpu(const json_t *vm, char buf[BL_SIZE_BUF])
{
        (void)snprintf(buf, BL_SIZE_BUF, "%.1f s", (double)ctl_number(vm, "cpu_us") / (double)BL_SEC);
        return buf;
}

/* What a line is too narrow for: why a VM does not get what it asks for. */
static void print_reasons(const struct ctl *c, const json_t *vms)
{
        const json_t *vm;
        size_t i;

        json_array_foreach(vms, i, vm)
        {
                if (*ctl_string(vm, "why_not"))
                        printf("%s%s%s: %s\n", ctl_color(c, CTL_YELLOW), ctl_string(vm, "name"), ctl_color_end(c),
                               ctl_string(vm, "why_not"));
        }
}

void ctl_print_sharing(const struct ctl *c, const json_t *doc, const char *stamp, bool heading)
{
        const json_t *vms = json_object_get(doc, "vms"), *vm;
        size_t first = stamp ? TIME : VM, n = json_array_size(vms), i;
        _cleanup_(ctl_table_unrefp) struct libscols_table *t = ctl_table_new(c, columns + first, N_COLUMNS - first);
        char buf[BL_SIZE_BUF], both[32];

        if (n == 0) {
                if (heading)
                        puts("No virtual machine is running.");
                return;
        }
        for (size_t k = 0; t && c->width > 0 && c->width < WIDE && k < sizeof wide_only / sizeof wide_only[0]; k++)
                (void)scols_column_set_flags(scols_table_get_column(t, wide_only[k] - first), SCOLS_FL_HIDDEN);
        if (!heading && t)
                (void)scols_table_enable_noheadings(t, 1);
        json_array_foreach(vms, i, vm)
        {
                struct libscols_line *l = ctl_table_line(t);
                const char *group = ctl_string(vm, "group");

                if (stamp)
                        ctl_table_set(c, l, TIME, CTL_PLAIN, stamp);
                ctl_table_set(c, l, VM - first, CTL_PLAIN, ctl_string(vm, "name"));
                ctl_table_set(c, l, GROUP - first, CTL_PLAIN, *group ? group : "-");
                ctl_table_set(c, l, MODE - first, CTL_PLAIN, mode(vm, both, sizeof both));
                set_sizes(c, l, first, vm);
                ctl_table_set(c, l, CPU - first, CTL_PLAIN, cpu(vm, buf));
                ctl_table_set(c, l, WHY - first, CTL_PLAIN, ctl_string(vm, "reason"));
        }
        if (n > 1) {
                struct libscols_line *l = ctl_table_line(t);

                (void)snprintf(both, sizeof both, "%zu VMs", n);
                ctl_table_set(c, l, VM - first, CTL_BOLD, both);
                set_sizes(c, l, first, json_object_get(doc, "all"));
        }
        ctl_table_print(t);
        print_reasons(c, vms);
}
