/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the host is judged against, and how much of it is in use.  Pure. */
#ifndef BALLAST_SENSE_BUDGET_H
#define BALLAST_SENSE_BUDGET_H

#include "daemon/conf.h"
#include "daemon/sense/meminfo.h"

/* Sums over all guests, managed or not, and what is our own. */
struct bl_usage {
        uint64_t resident; /* bl_vm.resident, and huge pages */
        uint64_t savings; /* of it, what page sharing saves (pss.h) */
        uint64_t own; /* our stores and caches */
};

struct bl_budget {
        bool is_ram;
        uint64_t total;
        uint64_t used;
        uint64_t free;
};

/*
 * ram: total = MemTotal, free = MemAvailable.
 * size, percent: used = resident - savings + own, and free is what is left of
 * the budget, but never more than MemAvailable: a budget that somebody else
 * has eaten into is not free.  A size above MemTotal counts as MemTotal.
 * All saturate.
 */
void bl_budget_compute(const struct bl_budget_conf *conf, const struct bl_meminfo *mem, const struct bl_usage *usage,
                       struct bl_budget *ret);

/* Does the budget need bl_usage?  Then every sample must read the guests. */
static inline bool bl_budget_needs_usage(const struct bl_budget_conf *conf)
{
        return conf->kind != BL_BUDGET_RAM;
}

#endif
