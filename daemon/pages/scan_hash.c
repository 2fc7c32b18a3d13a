/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "daemon/pages/scan_private.h"
#include "daemon/util/clock.h"

/* What is read at once: pages of the source at hand that take memory of their own. */
struct chunk {
        uint64_t page[BL_SCAN_CHUNK];
        bool ok[BL_SCAN_CHUNK];
        size_t n;
};

static int read_chunk(struct bl_scan *s, struct chunk *c)
{
        struct bl_source *source = s->sources[s->source];
        struct bl_scan_figures *f = &s->pass[s->source];
        const uint64_t base = s->base[s->source];
        uint8_t *bytes = s->batch.bytes;
        int r;

        if (c->n == 0)
                return 0;
        r = source->ops->read(source, c->page, c->n, bytes, c->ok);
        if (r < 0)
                return r;
        s->report.bytes_read += c->n * BL_PAGE_SIZE;
        for (size_t i = 0; i < c->n; i++) {
                const uint8_t *page = bytes + i * BL_PAGE_SIZE;
                uint64_t hash;

                if (!c->ok[i]) {
                        /* what nobody changes cannot have gone */
                        if (source->still)
                                f->unreadable++;
                        else
                                f->volatile_pages++;
                        continue;
                }
                if (bl_page_is_zero(page)) {
                        bl_scan_mark_zero(s, s->source, base + c->page[i]);
                        continue;
                }
                hash = s->hash(page, s->seed);
                if (bl_scan_kept(s, hash))
                        bl_scan_table_add(&s->table, hash, base + c->page[i]);
        }
        c->n = 0;
        return 0;
}

static int window(struct bl_scan *s, uint64_t first, size_t n)
{
        struct bl_source *source = s->sources[s->source];
        struct bl_scan_figures *f = &s->pass[s->source];
        struct chunk c = {.n = 0};
        int r = source->ops->look(source, first, n, s->look);

        for (size_t i = 0; r >= 0 && i < n; i++) {
                switch ((enum bl_page_state)s->look[i].state) {
                case BL_PAGE_ABSENT:
                case _BL_PAGE_STATE_MAX:
                        f->absent++;
                        break;
                case BL_PAGE_SWAPPED:
                        f->swapped++;
                        break;
                case BL_PAGE_KERNEL_ZERO:
                        f->kernel_zero++;
                        break;
                case BL_PAGE_UNREADABLE:
                        f->pages++;
                        f->unreadable++;
                        break;
                case BL_PAGE_MERGED:
                        f->pages++;
                        f->merged++;
                        bl_scan_table_add(&s->table, s->look[i].frame,
                                          (s->base[s->source] + first + i) | BL_SCAN_FRAME);
                        s->unresolved++;
                        break;
                case BL_PAGE_PRESENT:
                        f->pages++;
                        c.page[c.n++] = first + i;
                        if (c.n == BL_SCAN_CHUNK)
                                r = read_chunk(s, &c);
                        break;
                }
        }
        return r < 0 ? r : read_chunk(s, &c);
}

int bl_scan_hash_go(struct bl_scan *s)
{
        struct bl_source *source;
        uint64_t pages, first, n;
        int r;

        while (s->source < s->n_sources &&
               (bl_scan_lost(s, s->source) || s->window == s->base[s->source + 1] - s->base[s->source])) {
                s->source++;
                s->window = 0;
        }
        if (s->source == s->n_sources) {
                s->hashed = bl_now();
                return 1;
        }
        source = s->sources[s->source];
        pages = s->base[s->source + 1] - s->base[s->source];
        first = s->window;
        n = bl_min(pages - first, BL_SCAN_WINDOW);
        r = bl_scan_table_reserve(s, BL_SCAN_WINDOW);
        if (r == -ENOSPC) {
                s->state = BL_SCAN_AT_ROOM;
                return 0;
        }
        if (r >= 0 && !source->still)
                r = bl_scan_marks_reserve(&s->marks, &s->memory, s->base[s->source] + first, n);
        if (r < 0)
                return r;
        s->window += n;
        r = window(s, first, (size_t)n);
        if (r >= 0 && s->window == pages)
                r = source->ops->again(source);
        if (r != 0)
                bl_scan_lose(s, s->source, r > 0 ? -ESTALE : r);
        return 0;
}
