/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pages, as the scanner and the sampler count them: 4 KiB, KSM's unit whatever the mapping's own size is. */
#ifndef BALLAST_PAGES_PAGE_H
#define BALLAST_PAGES_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BL_PAGE_SIZE  4096U
#define BL_PAGE_SHIFT 12

/* What is known of a page before it is read. */
enum bl_page_state {
        BL_PAGE_ABSENT, /* (0) never touched, or not in a dump: reading would make it */
        BL_PAGE_SWAPPED, /* in swap, or on its way: reading would bring it back */
        BL_PAGE_KERNEL_ZERO, /* maps the kernel's zero page, and costs nothing */
        BL_PAGE_MERGED, /* one physical page, mapped more than once: a KSM page, or `relative`; `frame` tells which */
        BL_PAGE_PRESENT, /* takes memory of its own */
        BL_PAGE_UNREADABLE, /* in the source by its own account, and cannot be read: a hole of a truncated core */
        _BL_PAGE_STATE_MAX,
};

struct bl_page_look {
        uint64_t frame; /* MERGED: the same number is the same physical page; else 0 */
        uint8_t state; /* enum bl_page_state */
        bool relative; /* MERGED: not by KSM, but since fork(2), or in shared memory.  Never in a VM's RAM */
};

/* 8 words at a time; most pages differ in the first. */
static inline int bl_page_is_zero(const void *page)
{
        const uint64_t *w = page;

        for (size_t i = 0; i < BL_PAGE_SIZE / sizeof(*w); i += 8)
                if ((w[i] | w[i + 1] | w[i + 2] | w[i + 3] | w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7]) != 0)
                        return 0;
        return 1;
}

#endif
