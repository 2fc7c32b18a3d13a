/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest needs itself, by its own figures.
 *
 * With MemTotal T, MemAvailable A and balloon size B of one instant, the guest
 * uses T - A, its kernel's own part (text, struct pages, what firmware keeps)
 * is B - T, and so its need is B - A.  That holds for a guest with
 * deflate-on-oom too, where Linux leaves MemTotal as it is and lets MemAvailable
 * fall (drivers/virtio/virtio_balloon.c, adjust_managed_page_count).
 */
#include "internal.h"

uint64_t bl_guest_available(const struct bl_guest_stats *s)
{
        uint64_t caches;

        if (s->available != BL_UNSET)
                return bl_min(s->available, s->total);

        /* An old guest without MemAvailable: half of the cache, as the kernel's own estimate keeps at
         * least half of what is on its file lists; never MemFree alone, or a cache looks like need. */
        caches = bl_sub_sat(bl_or_zero(s->caches), bl_or_zero(s->unevictable));
        return bl_min(bl_add_sat(bl_or_zero(s->unused), caches / 2), s->total);
}

void bl_guest_need(const struct bl_vm *vm, const struct bl_policy_config *c, uint64_t actual, uint64_t swap_room,
                   bool hard, struct bl_need *ret)
{
        const struct bl_guest_stats *s = &vm->stats;
        uint64_t need, within, pinned, margin, swapped = 0, room = 0;

        need = bl_sub_sat(actual, bl_guest_available(s));
        /* mlocked and huge pages, used or not, cannot move, whatever else is said */
        pinned = bl_add_sat(bl_add_sat(bl_or_zero(s->unevictable), bl_or_zero(s->hugetlb)),
                            bl_sub_sat(actual, s->total));
        pinned = bl_min(pinned, actual);
        need = bl_max(need, pinned);
        if (s->swap_total != BL_UNSET && s->swap_free != BL_UNSET) {
                /* it was squeezed out and would come back if it could; what came back keeps its slot for a
                 * while (the swap cache), and is in memory already */
                swapped = bl_sub_sat(bl_sub_sat(s->swap_total, s->swap_free), vm->store.twice);
                /* and no more can follow it than there is room for, and than can move */
                room = bl_min(swap_room, need - pinned);
        }
        within = need;
        need = bl_add_sat(need, swapped);

        margin = bl_max(c->guest_margin, bl_part(need, c->guest_margin_ratio));
        /* Without swap an error of ours is an OOM kill at once, so half more is left; swap stands in for that
         * as far as it has room, and not beyond: one that is full is none. */
        margin = bl_add_sat(margin, bl_sub_sat(margin, room) / 2);
        if (hard)
                margin /= 2;

        *ret = (struct bl_need){
                .need = need, .within = within, .pinned = pinned, .margin = margin, .floor = bl_add_sat(need, margin)};
}
