/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A guest that reads back what was pressed out of it.
 *
 * What a guest needs by its figures says nothing about how much of it is in use
 * at any time; that shows only when too much is gone: pages come back from swap
 * while there is no memory for them, and push others out.  Memory that comes back
 * into room that was just given is no such sign.
 */
#include "internal.h"

/* So many bytes/s are a thousand pages that were missed: at what a read from the store takes, some percent
 * of a CPU's time.  Seen at a quarter of this its tasks have to stall as well. */
#define THRASH_SWAP_IN (4 * BL_MIB)
#define THRASH_STALL   1000 /* permyriad */

/* What it showed to need is left to it for so long, and then fades by a part of 256 a second, to half within
 * three minutes: who was pressed too far is tried again, but seldom. */
#define THRASH_KEPT (60 * BL_SEC)
#define THRASH_FADE 256

void bl_learn_thrash(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c, uint64_t swap_in,
                     uint64_t stall)
{
        const struct bl_guest_stats *s = &vm->stats;
        bool quick = swap_in >= THRASH_SWAP_IN || (swap_in >= THRASH_SWAP_IN / 4 && stall >= THRASH_STALL);
        struct bl_need n;

        st->thrashes = false;
        st->thrash_due = 0;
        if (!quick || c->test.no_thrash_check || bl_stats_check(s, vm->max, s->at) != BL_STATS_GOOD)
                return;
        bl_guest_need(vm, c, st->report_low, st->swap_room, false, &n);
        /* it has room for what comes back, or nothing is out */
        if (bl_guest_available(s) >= n.margin / 4 * 3 || n.need == n.within)
                return;

        st->thrashes = true;
        st->thrash_at = s->at;
        /* what it reads in a second, within an eighth of it and what is out */
        st->thrash_due = bl_clamp(swap_in, n.margin / 2, bl_max(n.need / 8, n.margin / 2));
        st->thrash_due = bl_min(st->thrash_due, bl_add_sat(n.need - n.within, n.margin));
        st->thrash_to = bl_max(st->thrash_to, bl_add_sat(vm->actual, st->thrash_due));
}

void bl_thrash_fade(struct bl_vm_state *st, usec_t at)
{
        if (bl_sub_sat(at, st->thrash_at) < THRASH_KEPT)
                return;
        st->thrash_to =
                bl_sub_sat(st->thrash_to, bl_rate_times(st->thrash_to / THRASH_FADE, bl_sub_sat(at, st->seen_at)));
}
