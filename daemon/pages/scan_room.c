/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table is full.  Merged pages, whose content is not known yet, are read first where they are many; then halves of
 * the hash space are given up until there is room again.
 */
#include "daemon/pages/scan_private.h"

static void thin(struct bl_scan *s)
{
        struct bl_scan_table *t = &s->table;
        size_t kept = 0;

        s->shift++;
        for (size_t i = 0; i < t->n; i++)
                if (t->e[i].where & BL_SCAN_FRAME || bl_scan_kept(s, t->e[i].key))
                        t->e[kept++] = t->e[i];
        t->n = kept;
}

int bl_scan_room_go(struct bl_scan *s)
{
        struct bl_scan_table *t = &s->table;

        if (s->unresolved > t->n / 8) {
                int r = bl_scan_frames_init_sample(&s->frames, &s->memory);

                if (r >= 0)
                        r = bl_scan_merged_go(s);
                if (r <= 0)
                        return r;
        }
        while (t->n + BL_SCAN_WINDOW > t->most && s->shift < BL_SCAN_SHIFT_MAX)
                thin(s);
        /* hashes that are no hashes, all alike: nothing is left to give up but the bound */
        if (t->n + BL_SCAN_WINDOW > t->most)
                t->most = t->n + t->n / 2 + BL_SCAN_WINDOW;
        return 1;
}
