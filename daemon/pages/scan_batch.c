/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pages that are read again.  A source that may change is looked at first: what left memory meanwhile must not be
 * brought back by a read, and merged pages of one frame are read once.  That two pages have one frame holds for the
 * microseconds between this look and the read only, and is used for no longer.
 */
#include <errno.h>
#include <string.h>

#include "daemon/pages/scan_private.h"

/* A look at one page costs as much as one at 32 neighbours (0.6 us the call, 0.02 a page). */
#define LOOK_GAP 32U
/* pages a read() */
#define READ_MAX 256U
#define NOWHERE  UINT32_MAX

int bl_scan_batch_resize(struct bl_scan *s, size_t room)
{
        struct bl_scan_batch *b = &s->batch;
        struct bl_scan_memory *m = &s->memory;

        bl_scan_batch_free(s);
        b->room = room;
        b->item = bl_scan_alloc(m, room, sizeof(*b->item));
        b->at = bl_scan_alloc(m, room, sizeof(*b->at));
        b->bytes = bl_scan_remap(m, NULL, 0, room * BL_PAGE_SIZE);
        b->list = bl_scan_alloc(m, room, sizeof(*b->list));
        b->ok = bl_scan_alloc(m, room, sizeof(*b->ok));
        b->frame = bl_scan_alloc(m, 2 * room, sizeof(*b->frame));
        b->first = bl_scan_alloc(m, room, sizeof(*b->first));
        if (b->item && b->at && b->bytes && b->list && b->ok && b->frame && b->first)
                return 0;
        bl_scan_batch_free(s);
        return -ENOMEM;
}

void bl_scan_batch_free(struct bl_scan *s)
{
        struct bl_scan_batch *b = &s->batch;
        struct bl_scan_memory *m = &s->memory;

        b->item = bl_scan_release(m, b->item, b->room, sizeof(*b->item));
        b->at = bl_scan_release(m, b->at, b->room, sizeof(*b->at));
        if (b->bytes)
                b->bytes = bl_scan_remap(m, b->bytes, b->room * BL_PAGE_SIZE, 0);
        b->list = bl_scan_release(m, b->list, b->room, sizeof(*b->list));
        b->ok = bl_scan_release(m, b->ok, b->room, sizeof(*b->ok));
        b->frame = bl_scan_release(m, b->frame, 2 * b->room, sizeof(*b->frame));
        b->first = bl_scan_release(m, b->first, b->room, sizeof(*b->first));
        b->room = b->n = 0;
}

void bl_scan_batch_add(struct bl_scan_batch *b, uint64_t page)
{
        b->item[b->n] = (struct bl_scan_entry){page, b->n};
        b->n++;
}

/* After the sort an item's `where` is its position and, above it, its place in `bytes`. */
static uint32_t place_of(const struct bl_scan_entry *item)
{
        return (uint32_t)(item->where >> 32);
}

static void set_place(struct bl_scan_entry *item, uint32_t place)
{
        item->where = (item->where & UINT32_MAX) | (uint64_t)place << 32;
}

/* The place of the page of this frame that is read; `place`, and remembered, if there is none yet. */
static uint32_t frame_place(struct bl_scan_batch *b, uint64_t frame, uint32_t place)
{
        size_t i = (size_t)(frame * UINT64_C(0x9e3779b97f4a7c15) >> 16) % (2 * b->room);

        while (b->frame[i].frame != 0 && b->frame[i].frame != frame + 1)
                i = (i + 1) % (2 * b->room);
        if (b->frame[i].frame == 0)
                b->frame[i] = (struct bl_scan_batch_frame){.frame = frame + 1, .place = place};
        return b->frame[i].place;
}

/* Is the page to be read at all? */
static bool is_there(const struct bl_source *source, enum bl_page_state state)
{
        switch (state) {
        case BL_PAGE_PRESENT:
        case BL_PAGE_MERGED:
                return true;
        case BL_PAGE_ABSENT:
        case BL_PAGE_SWAPPED:
        case BL_PAGE_KERNEL_ZERO:
                /* the content of a still one is what it was, wherever the kernel keeps it */
                return source->still;
        case BL_PAGE_UNREADABLE:
        case _BL_PAGE_STATE_MAX:
                break;
        }
        return false;
}

/* Looks at items from..to, and lists what is to be read; *place: the next one that is free. */
static int look(struct bl_scan *s, size_t k, size_t from, size_t to, size_t *ret_listed, uint32_t *place)
{
        struct bl_source *source = s->sources[k];
        struct bl_scan_batch *b = &s->batch;
        const bool blindly = source->still && s->pass[k].merged == 0;
        size_t listed = 0;

        for (size_t i = from, j = from; i < to; i = j) {
                const uint64_t first = b->item[i].key - s->base[k];

                for (j = i + 1; j < to && b->item[j].key - b->item[j - 1].key <= LOOK_GAP &&
                                b->item[j].key - b->item[i].key < BL_SCAN_WINDOW;
                     j++)
                        ;
                if (!blindly) {
                        int r = source->ops->look(source, first, (size_t)(b->item[j - 1].key - b->item[i].key) + 1,
                                                  s->look);

                        if (r < 0)
                                return r;
                }
                for (size_t x = i; x < j; x++) {
                        const struct bl_page_look *l = &s->look[b->item[x].key - b->item[i].key];
                        uint32_t here = *place;

                        if (!blindly && !is_there(source, l->state))
                                continue;
                        if (!blindly && l->state == BL_PAGE_MERGED)
                                here = frame_place(b, l->frame, here);
                        set_place(&b->item[x], here);
                        if (here == *place) {
                                b->list[listed++] = b->item[x].key - s->base[k];
                                (*place)++;
                        }
                }
        }
        *ret_listed = listed;
        return 0;
}

/* Items from..to are of source k. */
static void fetch_source(struct bl_scan *s, size_t k, size_t from, size_t to, uint32_t *place)
{
        struct bl_source *source = s->sources[k];
        struct bl_scan_batch *b = &s->batch;
        uint32_t at = *place;
        size_t listed = 0, n;
        int r = look(s, k, from, to, &listed, place);

        for (size_t i = 0; r >= 0 && i < listed; i += n, at += (uint32_t)n) {
                n = (size_t)bl_min(listed - i, READ_MAX);
                r = source->ops->read(source, b->list + i, n, b->bytes + (size_t)at * BL_PAGE_SIZE, b->ok + at);
                s->report.bytes_read += n * BL_PAGE_SIZE;
        }
        if (r < 0)
                bl_scan_lose(s, k, r);
}

void bl_scan_batch_fetch(struct bl_scan *s)
{
        struct bl_scan_batch *b = &s->batch;
        uint32_t place = 0;

        bl_scan_sort_all(b->item, b->n);
        memset(b->ok, 0, b->n * sizeof(*b->ok));
        memset(b->frame, 0, 2 * b->room * sizeof(*b->frame));
        for (size_t i = 0; i < b->n; i++)
                set_place(&b->item[i], NOWHERE);
        for (size_t i = 0, j = 0, k = 0; i < b->n; i = j) {
                k = bl_scan_source_of(s, b->item[i].key, k);
                for (j = i + 1; j < b->n && b->item[j].key < s->base[k + 1]; j++)
                        ;
                if (!bl_scan_lost(s, k))
                        fetch_source(s, k, i, j, &place);
        }
        for (size_t i = 0; i < b->n; i++) {
                const uint32_t p = place_of(&b->item[i]);

                b->at[(uint32_t)b->item[i].where] =
                        p != NOWHERE && b->ok[p] ? b->bytes + (size_t)p * BL_PAGE_SIZE : NULL;
        }
}
