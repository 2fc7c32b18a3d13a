/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "daemon/pages/scan_private.h"

/* The table grows by a sixteenth: a remap moves page tables only, and what is not used must not weigh. */
#define GROW_MIN (256 * BL_KIB)

static size_t bytes_for(size_t entries)
{
        return (entries * sizeof(struct bl_scan_entry) + BL_PAGE_SIZE - 1) / BL_PAGE_SIZE * BL_PAGE_SIZE;
}

static int resize(struct bl_scan *s, size_t room)
{
        struct bl_scan_table *t = &s->table;
        const size_t from = bytes_for(t->room), to = bytes_for(room);
        struct bl_scan_entry *e = from == to ? t->e : bl_scan_remap(&s->memory, t->e, from, to);

        if (!e && to > 0)
                return -ENOMEM;
        t->e = e;
        t->room = to / sizeof(*e);
        return 0;
}

int bl_scan_table_reserve(struct bl_scan *s, size_t more)
{
        struct bl_scan_table *t = &s->table;
        size_t room = t->room + (size_t)bl_max(t->room / 16, GROW_MIN / sizeof(*t->e));

        if (t->n + more <= t->room)
                return 0;
        if (t->n + more > t->most)
                return -ENOSPC;
        room = (size_t)bl_min(bl_max(room, t->n + more), t->most);
        return resize(s, room);
}

void bl_scan_table_fit(struct bl_scan *s)
{
        (void)resize(s, s->table.n);
}
