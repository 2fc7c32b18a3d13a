/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <lz4.h>

#include "daemon/pages/scan_private.h"

/* Compressed bytes; no better than the page is the page (the store's rule). */
static uint64_t compress(const void *page)
{
        char out[LZ4_COMPRESSBOUND(BL_PAGE_SIZE)];
        const int n = LZ4_compress_default(page, out, BL_PAGE_SIZE, sizeof(out));

        return n > 0 ? bl_min((uint64_t)n, BL_PAGE_SIZE) : BL_PAGE_SIZE;
}

/* Of all contents `compress_sample` are taken, spread evenly: one whenever their sum has grown by the number of all. */
static bool is_chosen(struct bl_scan *s)
{
        s->chosen += s->compress_sample;
        if (s->chosen < s->classes)
                return false;
        s->chosen -= s->compress_sample < s->classes ? s->classes : s->chosen;
        return true;
}

int bl_scan_compress_go(struct bl_scan *s)
{
        const struct bl_scan_table *t = &s->table;
        struct bl_scan_batch *b = &s->batch;
        const size_t most = (size_t)bl_min(b->room, BL_SCAN_BATCH_MIN);
        const size_t stop = (size_t)bl_min(t->n, s->at + BL_SCAN_SLICE);

        b->n = 0;
        while (s->at < stop && b->n < most) {
                const uint64_t key = t->e[s->at].key;
                size_t first = t->n;

                for (; s->at < t->n && t->e[s->at].key == key; s->at++)
                        if (first == t->n && !(t->e[s->at].where & BL_SCAN_VOLATILE))
                                first = s->at;
                if (first < t->n && is_chosen(s))
                        bl_scan_batch_add(b, bl_scan_page(&t->e[first]));
        }
        bl_scan_batch_fetch(s);
        for (size_t i = 0; i < b->n; i++) {
                if (!b->at[i])
                        continue;
                s->compressed_bytes += compress(b->at[i]);
                s->report.compressed++;
        }
        return s->at == t->n;
}
