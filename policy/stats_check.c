/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* May a guest's figures be used?  Any value may come: from a broken driver, a bug or an attacker. */
#include <ballast/policy.h>

/* The figures of one report are not read at one instant in the guest, and firmware may add a little. */
#define SLACK (16 * BL_MIB)

/* Above any machine, below any sum that could wrap: what a negative number looks like. */
#define WRAPPED (UINT64_C(1) << 52)

/* A source that gives no period is asked every few seconds by everyone's defaults. */
#define PERIOD_UNKNOWN (5 * BL_SEC)

static bool set(uint64_t v)
{
        return v != BL_UNSET;
}

static bool over(uint64_t v, uint64_t bound)
{
        return set(v) && v > bl_add_sat(bound, SLACK);
}

enum bl_stats_verdict bl_stats_check(const struct bl_guest_stats *s, uint64_t max, usec_t now)
{
        usec_t period;

        if (s->source == BL_STATS_NONE || s->at == 0 || !set(s->at) || !set(s->total))
                return BL_STATS_MISSING;
        /* MemAvailable, or at least what it can be estimated from */
        if (!set(s->available) && !set(s->unused))
                return BL_STATS_MISSING;

        if (s->total == 0 || s->total > bl_add_sat(max, SLACK))
                return BL_STATS_ABSURD;
        if (set(s->available) && s->available > s->total)
                return BL_STATS_ABSURD;
        if (set(s->unused) && s->unused > s->total)
                return BL_STATS_ABSURD;
        if (over(s->caches, s->total) || over(s->unevictable, s->total) || over(s->hugetlb, s->total))
                return BL_STATS_ABSURD;
        if (set(s->swap_total) && s->swap_total > WRAPPED)
                return BL_STATS_ABSURD;
        if (set(s->swap_free) && (!set(s->swap_total) || s->swap_free > s->swap_total))
                return BL_STATS_ABSURD;

        period = s->period == 0 || !set(s->period) ? PERIOD_UNKNOWN : s->period;
        /* a report from the future has an unknown age */
        if (s->at > now || now - s->at > bl_mul_sat(period, 3))
                return BL_STATS_STALE;

        return BL_STATS_GOOD;
}
