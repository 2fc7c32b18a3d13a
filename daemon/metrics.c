// SPDX-License-Identifier: LGPL-2.1-or-later
/* OpenMetrics text (https://openmetrics.io, version 1.0.0), for a scraper. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "daemon/act/pageout.h"
#include "daemon/control.h"
#include "daemon/manager-private.h"
#include "daemon/storelink.h"
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

/* BL_UNSET, so that there is no sample, where the store holds nothing of it. */
static uint64_t of_store(const struct bl_guest *g, uint64_t v)
{
        return g->swap.seen ? v : BL_UNSET;
}

static uint64_t vm_swapped(const struct bl_guest *g)
{
        return of_store(g, bl_add_sat(g->swap.held.held, g->swap.held.zero));
}

static uint64_t vm_zero(const struct bl_guest *g)
{
        return of_store(g, g->swap.held.zero);
}

static uint64_t vm_shared(const struct bl_guest *g)
{
        return of_store(g, g->swap.held.shared);
}

static uint64_t vm_stored(const struct bl_guest *g)
{
        return of_store(g, g->swap.held.stored);
}

static uint64_t vm_disk(const struct bl_guest *g)
{
        return of_store(g, g->swap.held.disk);
}

static uint64_t vm_stale(const struct bl_guest *g)
{
        return g->swap.used == BL_UNSET || g->swap.stage != BL_SWAP_STAGE_ON
                       ? BL_UNSET
                       : of_store(g, bl_sub_sat(vm_swapped(g), g->swap.used));
}

static uint64_t vm_twice(const struct bl_guest *g)
{
        return of_store(g, g->swap.stage == BL_SWAP_STAGE_ON ? g->swap.cached : BL_UNSET);
}

static uint64_t vm_pages_in(const struct bl_guest *g)
{
        return of_store(g, g->swap.held.read_pages);
}

static uint64_t vm_pages_out(const struct bl_guest *g)
{
        return of_store(g, g->swap.held.write_pages);
}

static uint64_t vm_pages_lost(const struct bl_guest *g)
{
        return of_store(g, g->swap.held.errors);
}

static uint64_t vm_host_swapped(const struct bl_guest *g)
{
        return g->mem.swap;
}

/* BL_UNSET, so that there is no sample, where nothing is shared on this host. */
static uint64_t of_sharing(const struct bl_guest *g, uint64_t v)
{
        return g->m->conf->share_mode == BL_SHARE_OFF ? BL_UNSET : v;
}

static uint64_t vm_merged(const struct bl_guest *g)
{
        return of_sharing(g, g->share.merged);
}

static uint64_t vm_merge_saved(const struct bl_guest *g)
{
        return of_sharing(g, g->share.saved);
}

static uint64_t vm_possible(const struct bl_guest *g)
{
        struct bl_vm_share v = {0};

        bl_share_to_vm(g, &v);
        return of_sharing(g, v.gain);
}

static uint64_t vm_breaks(const struct bl_guest *g)
{
        return of_sharing(g, g->share.breaks);
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
        {"ballast_vm_store_swapped_bytes", "gauge", "bytes", "Swapped pages of the VM in the store.", vm_swapped},
        {"ballast_vm_store_zero_bytes", "gauge", "bytes", "Of them pages of zeros.", vm_zero},
        {"ballast_vm_store_shared_bytes", "gauge", "bytes", "Of them pages that are kept once for several.", vm_shared},
        {"ballast_vm_store_stored_bytes", "gauge", "bytes", "Host memory behind them, the VM's part.", vm_stored},
        {"ballast_vm_store_disk_bytes", "gauge", "bytes", "Disk behind them, the VM's part.", vm_disk},
        {"ballast_vm_store_stale_bytes", "gauge", "bytes", "Of them what the guest has freed.", vm_stale},
        {"ballast_vm_store_twice_bytes", "gauge", "bytes", "Of them what the guest has in memory too.", vm_twice},
        {"ballast_vm_store_pages_in", "counter", NULL, "Pages that the VM read from the store.", vm_pages_in},
        {"ballast_vm_store_pages_out", "counter", NULL, "Pages that the VM wrote to the store.", vm_pages_out},
        {"ballast_vm_store_pages_lost", "counter", NULL, "Pages of the VM found damaged or lost.", vm_pages_lost},
        {"ballast_vm_merged_bytes", "gauge", "bytes", "Of the VM, mapped to merged pages.", vm_merged},
        {"ballast_vm_merge_saved_bytes", "gauge", "bytes", "The VM's part of what merging saves.", vm_merge_saved},
        {"ballast_vm_merge_possible_bytes", "gauge", "bytes", "What merging would free beyond, estimated.",
         vm_possible},
        {"ballast_vm_merge_breaks_bytes", "gauge", "bytes", "What un-merging it would take at once.", vm_breaks},
        {"ballast_vm_host_swapped_bytes", "gauge", "bytes", "Swapped out by the host's kernel.", vm_host_swapped},
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

static const struct {
        const char *name, *type, *unit, *help;
        size_t offset; /* of the uint64_t in struct bl_store_figures */
} of_the_store[] = {
#define FIGURE(member) offsetof(struct bl_store_figures, member)
        {"ballast_store_pool_size_bytes", "gauge", "bytes", "Memory that the pool may take.", FIGURE(pool_size)},
        {"ballast_store_pool_ready_bytes", "gauge", "bytes", "Memory that it has taken.", FIGURE(pool_ready)},
        {"ballast_store_pool_used_bytes", "gauge", "bytes", "Of it in use.", FIGURE(pool_used)},
        {"ballast_store_payload_bytes", "gauge", "bytes", "Compressed pages in memory.", FIGURE(payload)},
        {"ballast_store_slack_bytes", "gauge", "bytes", "Lost to size classes and holes.", FIGURE(slack)},
        {"ballast_store_tables_bytes", "gauge", "bytes", "Entries and slot words.", FIGURE(tables)},
        {"ballast_store_index_bytes", "gauge", "bytes", "Index outside the pool.", FIGURE(index)},
        {"ballast_store_held_bytes", "gauge", "bytes", "Uncompressed pages, without zeros.", FIGURE(held)},
        {"ballast_store_zero_bytes", "gauge", "bytes", "Uncompressed pages of zeros.", FIGURE(zero)},
        {"ballast_store_unique_bytes", "gauge", "bytes", "Uncompressed distinct pages.", FIGURE(unique)},
        {"ballast_store_disk_size_bytes", "gauge", "bytes", "Size of the disk tier.", FIGURE(disk_size)},
        {"ballast_store_disk_used_bytes", "gauge", "bytes", "Of it in use.", FIGURE(disk_used)},
        {"ballast_store_headroom_bytes", "gauge", "bytes", "Takes so much without its disk.", FIGURE(headroom)},
        {"ballast_store_promised_bytes", "gauge", "bytes", "Sizes of all swap areas.", FIGURE(promised)},
        {"ballast_store_backing_bytes", "gauge", "bytes", "What it can hold uncompressed.", FIGURE(backing)},
        {"ballast_store_written_pages", "counter", NULL, "Pages written.", FIGURE(writes)},
        {"ballast_store_read_pages", "counter", NULL, "Pages read.", FIGURE(reads)},
        {"ballast_store_trimmed_pages", "counter", NULL, "Pages trimmed.", FIGURE(trims)},
        {"ballast_store_duplicate_pages", "counter", NULL, "Pages that were there already.", FIGURE(dedup_hits)},
        {"ballast_store_demoted_bytes", "counter", "bytes", "Moved down to the disk.", FIGURE(demoted)},
        {"ballast_store_disk_read_pages", "counter", NULL, "Pages read from the disk.", FIGURE(disk_reads)},
        {"ballast_store_lost_pages", "counter", NULL, "Pages found damaged or lost.", FIGURE(errors)},
        {"ballast_store_waiting_requests", "gauge", NULL, "Requests that wait for room.", FIGURE(waiting)},
#undef FIGURE
};

static void write_store(const struct bl_manager *m, FILE *f)
{
        const struct bl_store_reply *r = m->storelink ? bl_storelink_figures(m->storelink, NULL) : NULL;
        usec_t v;

        gauge(f, "ballast_store_there", NULL, "1 while ballast-store answers.",
              m->storelink && bl_storelink_state(m->storelink) == BL_STORELINK_THERE);
        for (size_t i = 0; r && i < sizeof of_the_store / sizeof *of_the_store; i++) {
                bool counts = strcmp(of_the_store[i].type, "counter") == 0;

                memcpy(&v, (const char *)&r->figures + of_the_store[i].offset, sizeof v);
                (counts ? counter : gauge)(f, of_the_store[i].name, of_the_store[i].unit, of_the_store[i].help, v);
        }
        if (!r)
                return;
        family(f, "ballast_store_request_seconds", "summary", "seconds", "Time of a request, of the last seconds.");
        v = r->figures.write_p50;
        fprintf(f, "ballast_store_request_seconds{op=\"write\",quantile=\"0.5\"} %.6f\n", (double)v / 1e6);
        v = r->figures.write_p99;
        fprintf(f, "ballast_store_request_seconds{op=\"write\",quantile=\"0.99\"} %.6f\n", (double)v / 1e6);
        v = r->figures.read_p50;
        fprintf(f, "ballast_store_request_seconds{op=\"read\",quantile=\"0.5\"} %.6f\n", (double)v / 1e6);
        v = r->figures.read_p99;
        fprintf(f, "ballast_store_request_seconds{op=\"read\",quantile=\"0.99\"} %.6f\n", (double)v / 1e6);
}

static void write_sharing(const struct bl_manager *m, FILE *f)
{
        struct bl_share_status s = {0};

        bl_share_status(m, &s);
        if (s.mode == BL_SHARE_OFF)
                return;
        gauge(f, "ballast_sharing_driven", NULL, "1 while ksmd runs at our word.", s.driven);
        gauge(f, "ballast_sharing_yielded", NULL, "1 while somebody else drives KSM.", s.yielded);
        gauge(f, "ballast_sharing_saved_bytes", "bytes", "Host memory that merging saves.", s.saved);
        gauge(f, "ballast_sharing_possible_bytes", "bytes", "What it could save beyond, estimated.", s.gain);
        gauge(f, "ballast_sharing_reserve_bytes", "bytes", "Kept free for pages that break apart.", s.reserve);
        counter(f, "ballast_sharing_drives", NULL, "Times that ksmd was started.", s.drives);
        family(f, "ballast_sharing_cpu_seconds", "counter", "seconds", "CPU time, by who took it.");
        fprintf(f, "ballast_sharing_cpu_seconds_total{by=\"ksmd\"} %.6f\n", (double)s.ksmd_cpu / 1e6);
        fprintf(f, "ballast_sharing_cpu_seconds_total{by=\"khugepaged\"} %.6f\n", (double)s.khugepaged_cpu / 1e6);
        fprintf(f, "ballast_sharing_cpu_seconds_total{by=\"scan\"} %.6f\n", (double)s.scan_cpu / 1e6);
}

/* Uncompressed and compressed bytes of the kernel's compressed tiers, all of the host's. */
static void write_kernel_tiers(struct bl_manager *m, FILE *f)
{
        const struct bl_kernel_tiers *t = bl_pageout_tiers(m->engines[BL_ENGINE_PAGEOUT]);
        uint64_t zram = 0, zram_used = 0;

        for (size_t i = 0; i < t->n_zrams; i++) {
                zram = bl_add_sat(zram, bl_add_sat(t->zrams[i].held, t->zrams[i].same));
                zram_used = bl_add_sat(zram_used, t->zrams[i].used);
        }
        gauge(f, "ballast_host_swap_size_bytes", "bytes", "The host's swap areas.", t->swap_size);
        gauge(f, "ballast_host_swap_used_bytes", "bytes", "Of them in use.", t->swap_used);
        gauge(f, "ballast_host_zram_held_bytes", "bytes", "Uncompressed pages in zram.", zram);
        gauge(f, "ballast_host_zram_used_bytes", "bytes", "Memory behind them.", zram_used);
        gauge(f, "ballast_host_zswap_held_bytes", "bytes", "Uncompressed pages in zswap.", bl_or_zero(t->zswap.held));
        gauge(f, "ballast_host_zswap_used_bytes", "bytes", "Memory behind them.", bl_or_zero(t->zswap.used));
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
        write_store(m, f);
        write_sharing(m, f);
        write_kernel_tiers(m, f);
        write_vms(m, f);
        fputs("# EOF\n", f);
        if (fclose(f) != 0) {
                free(text);
                return -ENOMEM;
        }
        *ret = text;
        return 0;
}
