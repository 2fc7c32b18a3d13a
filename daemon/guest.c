// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/guest.h"

#include <string.h>

#include "daemon/act/balloon.h"
#include "daemon/act/pageout.h"
#include "daemon/manager-private.h"
#include "daemon/virt/pool.h"

/* QEMU's own memory beside the guest's, until it is measured: a KVM guest
 * without graphics has 25 to 60 MiB. */
#define OVERHEAD_GUESS (32 * BL_MIB)

int bl_guest_new(struct bl_manager *m, const uint8_t uuid[BL_UUID_LEN], const char *name, struct bl_guest **ret)
{
        struct bl_guest *g = calloc(1, sizeof *g);

        if (!g)
                return -ENOMEM;
        g->m = m;
        g->serial = ++m->n_met;
        memcpy(g->uuid, uuid, BL_UUID_LEN);
        bl_uuid_to_string(uuid, g->uuid_text);
        g->overhead = OVERHEAD_GUESS;
        g->attach.said = -1;
        g->told_why = _BL_WHY_MAX;
        bl_swap_forget(g);
        bl_share_forget(g);
        g->name = strdup(name);
        if (!g->name) {
                free(g);
                return -ENOMEM;
        }
        *ret = g;
        return 0;
}

struct bl_guest *bl_guest_free(struct bl_guest *g)
{
        if (!g)
                return NULL;
        bl_guests_drop(g);
        bl_share_drop(g);
        bl_resident_free(g->resident);
        bl_domain_desc_free(g->desc);
        free(g->name);
        free(g);
        return NULL;
}

bool bl_guest_managed(const struct bl_guest *g)
{
        int manage = g->desc ? g->desc->live.metadata.manage : -1;

        /* Metadata that is not understood might have said no. */
        if (g->desc && g->desc->live.metadata_error)
                return false;
        return manage < 0 ? g->m->conf->manage_default : manage;
}

uint64_t bl_guest_max(const struct bl_guest *g)
{
        return g->desc ? g->desc->live.memory : 0;
}

/* Default: the persistent currentMemory where it is below <memory>: that is
 * what the administrator lets it have. */
uint64_t bl_guest_limit(const struct bl_guest *g)
{
        uint64_t max = bl_guest_max(g);
        const struct bl_domain_info *config;

        if (!g->desc)
                return 0;
        if (g->desc->live.metadata.limit != BL_UNSET)
                return bl_min(g->desc->live.metadata.limit, max);
        config = &g->desc->config;
        if (g->desc->persistent && config->current > 0 && config->current < config->memory)
                return bl_min(config->current, max);
        return max;
}

uint64_t bl_guest_reservation(const struct bl_guest *g)
{
        uint64_t r = g->desc ? g->desc->live.metadata.reservation : BL_UNSET;

        if (r == BL_UNSET)
                r = g->m->conf->default_reservation;
        return bl_min(r, bl_guest_limit(g));
}

uint64_t bl_guest_shares(const struct bl_guest *g)
{
        uint64_t max = bl_guest_max(g);

        if (g->desc && g->desc->live.metadata.shares_kind != BL_SHARES_KIND_UNSET)
                return bl_vm_metadata_shares(&g->desc->live.metadata, max);
        return bl_mul_sat(max / BL_MIB, g->m->conf->shares_per_mib);
}

uint64_t bl_guest_actual(const struct bl_guest *g)
{
        return g->actual_at ? g->actual : BL_UNSET;
}

uint64_t bl_guest_target(const struct bl_guest *g)
{
        return g->target_at ? g->target : bl_guest_actual(g);
}

enum bl_vm_run bl_guest_run(const struct bl_guest *g)
{
        return g->desc && g->desc->migrating ? BL_RUN_MIGRATING : g->run;
}

bool bl_guest_hung(const struct bl_guest *g)
{
        return g->stopped || bl_pool_hung(g->m->pool, g->uuid);
}

const struct bl_guest_stats *bl_guest_stats_best(const struct bl_guest *g, usec_t now)
{
        const struct bl_guest_stats *a = &g->agent_stats, *b = &g->balloon_stats;

        if (a->source == BL_STATS_NONE)
                return b;
        if (b->source == BL_STATS_NONE)
                return a;
        /* The agent tells more; the balloon's only when the agent has gone quiet. */
        return bl_sub_sat(now, a->at) <= 3 * a->period || a->at >= b->at ? a : b;
}

bool bl_guest_to_vm(struct bl_guest *g, usec_t now, struct bl_vm *ret)
{
        struct bl_manager *m = g->m;
        const struct bl_ledger_vm *record = bl_ledger_find(m->ledger, g->uuid);
        struct bl_vm vm = {0};

        if (!g->desc)
                return false;
        memcpy(vm.uuid, g->uuid, BL_UUID_LEN);
        vm.name = g->name;
        vm.run = bl_guest_run(g);
        vm.no_reclaim = bl_domain_info_no_reclaim(&g->desc->live);
        vm.hold = record ? record->hold : BL_HOLD_NONE;
        vm.managed = bl_guest_managed(g);
        vm.hung = bl_guest_hung(g);
        /* what somebody else may just have set is judged first */
        vm.in_flight = bl_balloon_in_flight(m->balloon, g->uuid) || bl_watch_is_unexplained(&g->watch, now);
        vm.oom_deflate = g->oom_deflate;
        vm.booted_at = bl_min(g->booted_at, now);
        vm.max = bl_guest_max(g);
        vm.limit = bl_guest_limit(g);
        vm.reservation = bl_guest_reservation(g);
        vm.shares = bl_guest_shares(g);
        vm.actual = g->actual;
        vm.target = g->target_at ? g->target : g->actual;
        vm.target_at = g->target_at;
        vm.resident = bl_shadow_resident(g);
        vm.resident_at = g->mem_at;
        vm.overhead = g->overhead;
        vm.idle_since = bl_pageout_idle_since(m->engines[BL_ENGINE_PAGEOUT], g->uuid);
        vm.stats = *bl_guest_stats_best(g, now);
        vm.request = g->request;
        bl_swap_to_vm(g, &vm.store);
        bl_share_to_vm(g, &vm.share);
        for (int i = 0; i < _BL_ENGINE_MAX; i++)
                m->engines[i]->ops->propose(m->engines[i], &vm, &vm.offer[i]);
        *ret = vm;
        return g->actual_at > 0;
}
