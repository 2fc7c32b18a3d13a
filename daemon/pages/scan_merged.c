/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that KSM merged.  Frame numbers are the kernel's to change: a frame may be given back and taken for another
 * content, or its content moved (compaction).  So pass 1 only collects such pages; here they are looked at again in
 * batches, right before the reading, and one of those that have the same frame then is read for all of them.
 */
#include "daemon/pages/scan_private.h"

/* Those not known yet go to the table's end. */
static size_t part(struct bl_scan_table *t)
{
        size_t i = 0, j = t->n;

        for (;;) {
                while (i < j && !(t->e[i].where & BL_SCAN_FRAME))
                        i++;
                while (i < j && t->e[j - 1].where & BL_SCAN_FRAME)
                        j--;
                if (i == j)
                        return i;
                const struct bl_scan_entry x = t->e[i];

                t->e[i++] = t->e[--j];
                t->e[j] = x;
        }
}

static void close_frame(struct bl_scan *s)
{
        bl_scan_frames_add(&s->frames, s->merged.frame, s->seed, s->merged.holders);
        s->merged.holders = 0;
}

/* Sorted by frame and page: the sources of a frame come in their order. */
static void fill(struct bl_scan *s)
{
        size_t source = 0;

        for (size_t i = s->merged.at; i < s->merged.end && s->batch.n < s->batch.room; i++) {
                const struct bl_scan_entry *e = &s->table.e[i];

                if (e->key != s->merged.frame || s->batch.n == 0)
                        source = 0;
                if (e->key != s->merged.frame)
                        close_frame(s);
                source = bl_scan_source_of(s, bl_scan_page(e), source);
                s->merged.frame = e->key;
                if (!bl_scan_lost(s, source))
                        s->merged.holders = bl_scan_holders_with(s->merged.holders, source);
                bl_scan_batch_add(&s->batch, bl_scan_page(e));
        }
}

static void read_batch(struct bl_scan *s)
{
        const uint8_t *last = NULL;
        uint64_t hash = 0;
        bool zero = false;

        bl_scan_batch_fetch(s);
        for (size_t i = 0; i < s->batch.n; i++) {
                const uint64_t page = bl_scan_page(&s->table.e[s->merged.at + i]);
                const size_t source = bl_scan_source_of(s, page, 0);
                const uint8_t *bytes = s->batch.at[i];

                if (bl_scan_lost(s, source))
                        continue;
                if (!bytes) {
                        s->pass[source].volatile_pages++;
                        continue;
                }
                if (bytes != last) {
                        zero = bl_page_is_zero(bytes);
                        hash = zero ? 0 : s->hash(bytes, s->seed);
                        last = bytes;
                }
                if (zero)
                        bl_scan_mark_zero(s, source, page);
                else if (bl_scan_kept(s, hash))
                        s->table.e[s->merged.begin++] = (struct bl_scan_entry){hash, page};
        }
        s->merged.at += s->batch.n;
        s->batch.n = 0;
}

int bl_scan_merged_go(struct bl_scan *s)
{
        int r;

        switch (s->merged.stage) {
        case BL_MERGED_PART:
                if (s->unresolved == 0)
                        return 1;
                r = bl_scan_frames_init(&s->frames, &s->memory, s->n_sources);
                if (r < 0)
                        return r;
                s->merged.begin = s->merged.at = part(&s->table);
                s->merged.end = s->table.n;
                bl_scan_sort_start(&s->sort, s->table.e + s->merged.begin, s->merged.end - s->merged.begin);
                s->merged.stage = BL_MERGED_SORT;
                return 0;
        case BL_MERGED_SORT:
                if (bl_scan_sort_go(&s->sort, BL_SCAN_SLICE))
                        s->merged.stage = BL_MERGED_READ;
                return 0;
        case BL_MERGED_READ:
                fill(s);
                read_batch(s);
                if (s->merged.at < s->merged.end)
                        return 0;
                close_frame(s);
                s->table.n = s->merged.begin;
                s->unresolved = 0;
                s->merged.stage = BL_MERGED_PART;
                break;
        }
        return 1;
}
