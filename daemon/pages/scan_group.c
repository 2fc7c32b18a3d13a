/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Equal hashes become groups.  Sorted by hash, pages of one group lie side by side, but groups in no order of place;
 * duplicates come in runs (a file in the page caches of two guests), so in the order of their first pages groups read
 * neighbours: a third of the cost of reading single pages here and there.
 */
#include "daemon/pages/scan_private.h"

/* Groups go to the table's front, pages that are alone behind them, where their order does not matter. */
int bl_scan_group_go(struct bl_scan *s)
{
        struct bl_scan_table *t = &s->table;
        const size_t stop = (size_t)bl_min(t->n, s->at + BL_SCAN_SLICE);

        while (s->at < stop) {
                const uint64_t hash = t->e[s->at].key, page = bl_scan_page(&t->e[s->at]);
                const uint64_t key = bl_scan_group_key(s, page, hash);
                size_t end = s->at + 1;

                while (end < t->n && t->e[end].key == hash)
                        end++;
                for (size_t i = s->at; i < end; i++) {
                        t->e[i].key = key;
                        if (end - s->at > 1) {
                                const struct bl_scan_entry x = t->e[s->grouped];

                                t->e[s->grouped++] = t->e[i];
                                t->e[i] = x;
                        }
                }
                s->at = end;
        }
        return s->at == t->n;
}
