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

void bl_guest_need(const struct bl_vm *vm, const struct bl_policy_config *c, uint64_t actual, bool hard,
                   struct bl_need *ret)
{
        const struct bl_guest_stats *s = &vm->stats;
        uint64_t need, pinned, margin, swap_free;

        need = bl_sub_sat(actual, bl_guest_available(s));
        /* mlocked and huge pages cannot move, whatever else is said */
        pinned = bl_add_sat(bl_add_sat(bl_or_zero(s->unevictable), bl_or_zero(s->hugetlb)),
                            bl_sub_sat(actual, s->total));
        need = bl_max(need, bl_min(pinned, actual));
        /* it was squeezed out and would come back if it could */
        need = bl_add_sat(need, bl_sub_sat(bl_or_zero(s->swap_total), bl_or_zero(s->swap_free)));

        margin = bl_max(c->guest_margin, bl_part(need, c->guest_margin_ratio));
        swap_free = s->swap_total == BL_UNSET ? 0 : bl_or_zero(s->swap_free);
        /* without swap an error of ours is an OOM kill at once */
        if (swap_free < margin)
                margin = bl_add_sat(margin, margin / 2);
        if (hard)
                margin /= 2;

        *ret = (struct bl_need){.need = need, .margin = margin, .floor = bl_add_sat(need, margin)};
}
