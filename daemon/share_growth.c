// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Has a VM grown, so that what was sampled says little of it?  On the host, or by its own statistics; the least since
 * the last burst is what it has grown from.
 */
#include "daemon/share_private.h"

/* So much more than before, and more than that part of it, is worth sampling it anew. */
#define GROWTH      (16 * BL_MIB)
#define GROWTH_PART 16U
#define GROWTH_PACE (2 * BL_SEC)
/* It uses more of what it has from the host already, as it says: that may go up and down all day, and is the guest's
 * word.  So not soon again, and all of them together for no more than so many times ScanCpu=. */
#define REUSE_PACE  (30 * BL_SEC)
#define REUSE_CPU   10U
#define PAGES_A_SEC UINT64_C(1000000) /* sampled, or so (measured: 0.8 us each) */

/* What the guest itself uses; 0: it does not say. */
static uint64_t in_use(const struct bl_guest *g, usec_t now)
{
        const struct bl_guest_stats *s = bl_guest_stats_best(g, now);

        if (!s || s->total == BL_UNSET || s->unused == BL_UNSET)
                return 0;
        return bl_sub_sat(s->total, s->unused);
}

static bool is_more(uint64_t now, uint64_t before)
{
        return now > bl_add_sat(before, bl_max(GROWTH, before / GROWTH_PART));
}

bool bl_share_has_grown(struct bl_guest *g, usec_t now)
{
        struct bl_guest_share *s = &g->share;
        struct bl_share *all = &g->m->share;
        uint64_t resident = bl_shadow_resident(g), used = in_use(g, now);
        usec_t cost;

        s->grown_from = bl_min(s->grown_from, resident);
        if (used > 0)
                s->used_from = s->used_from > 0 ? bl_min(s->used_from, used) : used;
        if (s->burst > 0 || !bl_share_can_sample(g))
                return false;
        if (is_more(resident, s->grown_from))
                return now >= s->burst_at + GROWTH_PACE;
        if (!is_more(used, s->used_from) || now < s->burst_at + REUSE_PACE || now < all->reuse_next)
                return false;
        cost = bl_share_burst_pages(s) * BL_SEC / PAGES_A_SEC;
        all->reuse_next =
                bl_add_sat(now, bl_mul_sat(cost, BL_WHOLE) / (bl_max(g->m->conf->share_scan_cpu, 1) * REUSE_CPU));
        return true;
}
