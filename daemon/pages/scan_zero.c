/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/pages/scan_private.h"

/* Zero pages of sources that are not still are read again, like any other candidate. */
int bl_scan_zero_go(struct bl_scan *s)
{
        struct bl_scan_batch *b = &s->batch;
        size_t source = 0;

        b->n = 0;
        for (; b->n < b->room; s->mark++) {
                s->mark = bl_scan_marks_next(&s->marks, s->mark);
                if (s->mark == UINT64_MAX)
                        break;
                bl_scan_batch_add(b, s->mark);
        }
        bl_scan_batch_fetch(s);
        /* in the order of their numbers already: items are where they were added */
        for (size_t i = 0; i < b->n; i++) {
                source = bl_scan_source_of(s, b->item[i].key, source);
                if (bl_scan_lost(s, source) || (b->at[i] && bl_page_is_zero(b->at[i])))
                        continue;
                s->pass[source].zero--;
                s->pass[source].volatile_pages++;
        }
        s->zeros_done += b->n;
        return s->mark == UINT64_MAX;
}
