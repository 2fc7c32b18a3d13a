/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/budget.h"

static uint64_t used_by(const struct bl_usage *u)
{
        return bl_add_sat(bl_sub_sat(u->resident, u->savings), u->own);
}

static void within(uint64_t total, const struct bl_meminfo *mem, const struct bl_usage *usage, struct bl_budget *ret)
{
        ret->is_ram = false;
        ret->total = bl_min(total, mem->mem_total);
        ret->used = used_by(usage);
        ret->free = bl_min(bl_sub_sat(ret->total, ret->used), mem->mem_available);
}

void bl_budget_compute(const struct bl_budget_conf *conf, const struct bl_meminfo *mem, const struct bl_usage *usage,
                       struct bl_budget *ret)
{
        switch (conf->kind) {
        case BL_BUDGET_RAM:
                ret->is_ram = true;
                ret->total = mem->mem_total;
                ret->free = bl_min(mem->mem_available, mem->mem_total);
                ret->used = ret->total - ret->free;
                return;
        case BL_BUDGET_SIZE:
                within(conf->bytes, mem, usage, ret);
                return;
        case BL_BUDGET_PERCENT:
                within(bl_part(mem->mem_total, conf->ratio), mem, usage, ret);
                return;
        }
}
