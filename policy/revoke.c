/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who gives: min-funding revocation (Waldspurger, OSDI 2002, section 5).
 *
 * Memory is taken from whoever pays least per byte, that is from the highest
 * level, which lowers it, until all that gave are at one level and enough has
 * been given.  That level is found by bisection, each try in linear time.
 *
 * A VM that is due memory takes part in the same market from the other side:
 * it gets memory from others only up to the level that they are left at.  So
 * a guest that always claims to be starving is bounded by its shares.
 *
 * A VM whose pages are merged holds less of the host than its size says: it pays for what it really holds, as if
 * it had so many more shares, and what it gives frees so much less.
 */
#include "internal.h"

struct market {
        uint64_t fixed;
        uint64_t coming;
        bool for_due;
        bool merged; /* somebody's pages are */
        permyriad_t tax;
};

static uint64_t gives_at(const struct bl_work *w, bl_level level, permyriad_t tax)
{
        if (w->room == 0)
                return 0;
        return bl_min(
                bl_sub_sat(bl_pays_for(w, w->base), bl_level_size(level, w->paying, bl_pays_for(w, w->active), tax)),
                w->room);
}

static uint64_t gets_at(const struct bl_work *w, bl_level level)
{
        if (w->due == 0 || w->due_reserved)
                return w->due;
        return bl_min(bl_sub_sat(bl_level_size(level, w->shares, UINT64_MAX, 0), bl_pays_for(w, w->base_up)), w->due);
}

/* Is enough given at this level?  The higher it is the less is given, and the more others are due. */
static bool enough(const struct bl_work *w, size_t n, bl_level level, const void *arg)
{
        const struct market *m = arg;
        uint64_t given = m->coming, wanted = m->fixed;

        for (size_t i = 0; i < n; i++) {
                uint64_t gives = gives_at(&w[i], level, m->tax);

                given = bl_add_sat(given, m->merged ? bl_comes_back(&w[i], gives) : gives);
                if (m->for_due)
                        wanted = bl_add_sat(wanted, gets_at(&w[i], level));
        }
        return given >= wanted;
}

uint64_t bl_revoke(struct bl_work *w, size_t n, uint64_t fixed, uint64_t coming, bool for_due,
                   const struct bl_policy_config *c, struct bl_pick *picks)
{
        struct market m = {.fixed = fixed, .coming = coming, .for_due = for_due, .tax = c->idle_tax};
        bl_level high = 0, level;
        uint64_t taken = 0;

        for (size_t i = 0; i < n; i++) {
                if (w[i].room == 0)
                        continue;
                m.merged |= w[i].merged_part > 0;
                w[i].paying = bl_paying_shares(&w[i]);
                w[i].order = bl_level_of(bl_pays_for(&w[i], w[i].base), w[i].paying, bl_pays_for(&w[i], w[i].active),
                                         c->idle_tax);
                high = bl_max(high, w[i].order);
        }
        /* nobody has anything to give */
        if (high == 0)
                return 0;

        level = bl_level_find(w, n, high, enough, &m);
        for (size_t i = 0; i < n; i++) {
                w[i].part = gives_at(&w[i], level, c->idle_tax);
                w[i].part_max = w[i].room;
                /* the highest level gives first */
                w[i].order = UINT64_MAX - w[i].order;
        }
        bl_in_steps(w, n, c->dead_band, picks);

        for (size_t i = 0; i < n; i++) {
                w[i].take += w[i].part;
                w[i].room -= w[i].part;
                w[i].base = bl_sub_sat(w[i].base, w[i].part);
                taken += bl_comes_back(&w[i], w[i].part);
        }
        return taken;
}
