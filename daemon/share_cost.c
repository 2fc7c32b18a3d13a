/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/share_cost.h"

/* Before anything was seen: as measured in a nested machine of 2 vCPUs; larger machines are two to four times
 * faster, which is learned with the first passes. */
#define SCAN_FIRST  3800U
#define MERGE_FIRST 38000U

/* A stretch says something from so many pages on. */
#define SCANNED_LEAST 2000U
#define MERGED_LEAST  200U
/* Less than 1/64 of the scanned pages merged: scanning was what it cost. */
#define FEW 64U

/* What nobody has seen would only be a stretch that somebody else disturbed. */
#define COST_MIN  50U
#define COST_MAX  1000000U
#define SMOOTHING 2U

void bl_share_cost_init(struct bl_share_cost *c)
{
        *c = (struct bl_share_cost){.scan = SCAN_FIRST, .merge = MERGE_FIRST};
}

static uint32_t towards(uint32_t was, uint64_t now)
{
        uint64_t bounded = bl_clamp(now, COST_MIN, COST_MAX);

        return (uint32_t)((was * (uint64_t)(SMOOTHING - 1) + bounded) / SMOOTHING);
}

static void learn(struct bl_share_cost *c, uint64_t ns, uint64_t scanned, uint64_t merged)
{
        if (scanned >= SCANNED_LEAST && merged < scanned / FEW)
                c->scan = towards(c->scan, ns / scanned);
        else if (merged >= MERGED_LEAST)
                c->merge = towards(c->merge, bl_sub_sat(ns, bl_mul_sat(scanned, c->scan)) / merged);
}

void bl_share_cost_see(struct bl_share_cost *c, usec_t cpu, uint64_t scanned, uint64_t merged)
{
        uint64_t more = bl_sub_sat(scanned, c->scanned), new = bl_sub_sat(merged, c->merged);

        if (c->begun && more < SCANNED_LEAST && new < MERGED_LEAST)
                return;
        if (c->begun)
                learn(c, bl_mul_sat(bl_sub_sat(cpu, c->cpu), 1000), more, new);
        c->begun = true;
        c->cpu = cpu;
        c->scanned = scanned;
        c->merged = merged;
}

void bl_share_cost_rest(struct bl_share_cost *c)
{
        c->begun = false;
}
