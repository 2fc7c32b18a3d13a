// SPDX-License-Identifier: LGPL-2.1-or-later
/* OpenMetrics text (https://openmetrics.io, version 1.0.0), for a scraper. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/utf8.h"

/* A label's value: backslash, quote and newline are escaped.  All of it is
 * UTF-8, or the whole text would be refused. */
static void label(FILE *f, const char *name)
{
        _cleanup_free_ char *clean = strdup(name);
        const char *s = clean ? clean : "";

        if (clean)
                bl_utf8_clean(clean);
        for (; *s; s++) {
                if (*s == '\n') {
                        fputs("\\n", f);
                        continue;
                }
                if (*s == '\\' || *s == '"')
                        fputc('\\', f);
                fputc(*s, f);
        }
}

static void family(FILE *f, const char *name, const char *type, const char *unit, const char *help)
{
        fprintf(f, "# TYPE %s %s\n", name, type);
        if (unit)
                fprintf(f, "# UNIT %s %s\n", name, unit);
        fprintf(f, "# HELP %s %s\n", name, help);
}

static void gauge(FILE *f, const char *name, const char *unit, const char *help, uint64_t v)
{
        family(f, name, "gauge", unit, help);
        fprintf(f, "%s %" PRIu64 "\n", name, v);
}

static void counter(FILE *f, const char *name, const char *unit, const char *help, uint64_t v)
{
        family(f, name, "counter", unit, help);
        fprintf(f, "%s_total %" PRIu64 "\n", name, v);
}

static uint64_t vm_resident(const struct bl_guest *g)
{
        return bl_proc_mem_resident(&g->mem);
}

static uint64_t vm_floor(const struct bl_guest *g)
{
        return g->decided ? g->decision.floor : 0;
}

static uint64_t vm_available(const struct bl_guest *g)
{
        const struct bl_guest_stats *s = bl_guest_stats_best(g, bl_now());

        return s->source == BL_STATS_NONE ? BL_UNSET : s->available;
}

static uint64_t vm_stuck(const struct bl_guest *g)
{
        return g->decided && g->decision.stuck;
}

static uint64_t vm_oom_deflates(const struct bl_guest *g)
{
        return g->oom_deflates;
}

static const struct {
        const char *name, *type, *unit, *help;
        uint64_t (*get)(const struct bl_guest *g);
} per_vm[] = {
        {"ballast_vm_limit_bytes", "gauge", "bytes", "Most that the VM is given.", bl_guest_limit},
        {"ballast_vm_reservation_bytes", "gauge", "bytes", "Least that the VM is left.", bl_guest_reservation},
        {"ballast_vm_balloon_bytes", "gauge", "bytes", "Memory the balloon leaves to the VM.", bl_guest_actual},
        {"ballast_vm_target_bytes", "gauge", "bytes", "Balloon target.", bl_guest_target},
        {"ballast_vm_resident_bytes", "gauge", "bytes", "Host memory behind the VM.", vm_resident},
        {"ballast_vm_floor_bytes", "gauge", "bytes", "What the VM needs by its own figures.", vm_floor},
        {"ballast_vm_available_bytes", "gauge", "bytes", "MemAvailable in the guest.", vm_available},
        {"ballast_vm_stuck", "gauge", NULL, "1 while the VM does not follow its target.", vm_stuck},
        {"ballast_vm_oom_deflates", "counter", NULL, "Times the guest took memory back by itself.", vm_oom_deflates},
};

static void write_vms(struct bl_manager *m, FILE *f)
{
        for (size_t k = 0; k < sizeof per_vm / sizeof *per_vm; k++) {
                family(f, per_vm[k].name, per_vm[k].type, per_vm[k].unit, per_vm[k].help);
                for (size_t i = 0; i < m->n_guests; i++) {
                        const struct bl_guest *g = m->guests[i];
                        uint64_t v = g->desc ? per_vm[k].get(g) : BL_UNSET;

                        if (v == BL_UNSET)
                                continue;
                        fprintf(f, "%s%s{vm=\"", per_vm[k].name,
                                strcmp(per_vm[k].type, "counter") == 0 ? "_total" : "");
                        label(f, g->name);
                        fprintf(f, "\",uuid=\"%s\"} %" PRIu64 "\n", g->uuid_text, v);
                }
        }
}

int bl_control_metrics(struct bl_manager *m, char **ret)
{
        char *text = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);

        if (!f)
                return -ENOMEM;
        family(f, "ballast_build", "info", NULL, "The daemon.");
        fprintf(f, "ballast_build_info{version=\"%s\"} 1\n", BALLAST_VERSION);
        gauge(f, "ballast_acting", NULL, "1 when automatic action is on.", bl_manager_acting(m));
        family(f, "ballast_host_state", "stateset", NULL, "State of the host.");
        for (int i = 0; i < _BL_STATE_MAX; i++)
                fprintf(f, "ballast_host_state{ballast_host_state=\"%s\"} %d\n",
                        bl_state_to_string((enum bl_host_state)i), m->plan.state == (enum bl_host_state)i);
        gauge(f, "ballast_budget_bytes", "bytes", "What pressure is judged against.", m->host.budget);
        gauge(f, "ballast_budget_used_bytes", "bytes", "Used of the budget.", m->host.used);
        gauge(f, "ballast_budget_free_bytes", "bytes", "Free of the budget.", m->host.free);
        gauge(f, "ballast_min_free_bytes", "bytes", "minFree by the sliding scale or as configured.",
              m->plan.marks.min_free);
        gauge(f, "ballast_libvirt_connected", NULL, "1 while connected.", m->connected);
        counter(f, "ballast_balloon_commands", NULL, "Balloon targets set.", m->n_commands);
        counter(f, "ballast_balloon_failures", NULL, "Balloon commands refused or failed.", m->n_failed);
        counter(f, "ballast_taken_bytes", "bytes", "Memory that guests were told to give.", m->taken_total);
        counter(f, "ballast_given_bytes", "bytes", "Memory that guests were allowed back.", m->given_total);
        write_vms(m, f);
        fputs("# EOF\n", f);
        if (fclose(f) != 0) {
                free(text);
                return -ENOMEM;
        }
        *ret = text;
        return 0;
}
