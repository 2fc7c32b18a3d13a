// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Compaction: the emptiest spans are marked, then a walk over all entries moves
 * out what lies in them.  No span needs to know whose its objects are.
 */
#include "daemon/store/internal.h"

#include <string.h>

#include "daemon/util/clock.h"

/* Of one entry; it is copied under the lock: 4 KiB at most. */
static void move(struct bl_store *s, uint32_t n, const struct bl_entry *e)
{
        uint64_t place = e->location & BL_PLACE_MASK, to;

        to = bl_spans_take(s, e->size);
        if (to == 0)
                return;
        memcpy(s->arena->base + to * 16, s->arena->base + place * 16, e->size);
        bl_entry_flip(s, n, to, false);
}

static void move_page(struct bl_store *s, uint32_t i)
{
        for (uint32_t j = 0; j < BL_ENTRIES; j++) {
                uint32_t n = i * BL_ENTRIES + j;
                struct bl_meta *m;
                const struct bl_entry *e = bl_entry_at(s, n, &m);

                if (!e)
                        return;
                if (m->refs == 0 || m->pins > 0 || e->location & BL_LOCATION_DISK || !bl_location_ok(e->location, n, e))
                        continue;
                if (bl_spans_leaving(s, e->location & BL_PLACE_MASK))
                        move(s, n, e);
        }
}

uint64_t bl_store_compact(struct bl_store *s, usec_t budget)
{
        usec_t start = bl_now_thread_cpu();
        uint64_t before, freed = 0;
        uint32_t marked, keep;

        pthread_mutex_lock(&s->clean);
        pthread_mutex_lock(&s->lock);
        before = s->span_pages;
        marked = bl_spans_evacuate(s, s->n_pages);
        for (uint32_t i = 0; marked > 0 && i < s->n_entry_pages; i++) {
                move_page(s, i);
                bl_lock_breathe(s);
                if (bl_now_thread_cpu() - start > budget)
                        marked = 0;
        }
        bl_spans_settle(s);
        if (before > s->span_pages)
                freed = (before - s->span_pages) * BL_STORE_PAGE;
        keep = s->reserved;
        pthread_mutex_unlock(&s->lock);
        pthread_mutex_unlock(&s->clean);
        (void)bl_pages_shrink(s, keep);
        return freed;
}

int bl_store_reserve(struct bl_store *s, uint64_t bytes)
{
        uint32_t want = (uint32_t)bl_min((bytes + BL_ARENA_CHUNK - 1) / BL_ARENA_CHUNK, s->n_chunks);
        int r = 0;

        pthread_mutex_lock(&s->lock);
        s->reserved = want;
        pthread_mutex_unlock(&s->lock);
        for (;;) {
                uint32_t ready;

                pthread_mutex_lock(&s->lock);
                ready = s->ready_pages / BL_CHUNK_PAGES;
                pthread_mutex_unlock(&s->lock);
                if (ready >= want)
                        break;
                r = bl_pages_grow(s);
                if (r < 0)
                        return r == -ENOSPC ? -ENOMEM : r;
        }
        (void)bl_pages_shrink(s, want);
        return 0;
}
