/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The second look, and classes of equal bytes.  Whole groups go into one batch, where each page is compared with the
 * first of each class of its group.  A group larger than a batch (one content with many copies, or a hash that
 * collides) comes by in several; the first pages of its classes are kept over them, as many as there is room for.
 * Pages of further classes wait for another time through the group: bounded memory, whatever the hash is worth.
 */
#include <errno.h>
#include <string.h>

#include "daemon/pages/scan_private.h"

/*
 * Is the page what it was, by its hash?  Not asked where nothing can change, nor of a page that is equal to one whose
 * hash held.
 */
static bool held(const struct bl_scan *s, const struct bl_scan_entry *e, const uint8_t *bytes)
{
        return !s->live || bl_scan_key_fits(s, e->key, s->hash(bytes, s->seed));
}

static bool same(const uint8_t *a, const uint8_t *b)
{
        return a == b || memcmp(a, b, BL_PAGE_SIZE) == 0;
}

static size_t group_end(const struct bl_scan *s, size_t begin)
{
        const struct bl_scan_table *t = &s->table;
        size_t end = begin + 1;

        while (end < s->grouped && t->e[end].key == t->e[begin].key)
                end++;
        return end;
}

/* The group's pages have the batch's positions from `position` on. */
static void judge_group(struct bl_scan *s, size_t begin, size_t end, size_t position)
{
        struct bl_scan_entry *e = s->table.e + begin;
        const struct bl_scan_batch *b = &s->batch;
        const uint8_t *const *at = b->at + position;
        size_t classes = 0;

        for (size_t i = 0; i < end - begin; i++) {
                size_t c = 0;

                while (at[i] && c < classes && !same(at[i], at[b->first[c]]))
                        c++;
                if (!at[i] || (c == classes && !held(s, &e[i], at[i]))) {
                        e[i].where |= BL_SCAN_VOLATILE;
                        continue;
                }
                if (c == classes)
                        b->first[classes++] = (uint32_t)i;
                e[i].key = bl_scan_group_key(s, bl_scan_page(&e[b->first[c]]), e[i].key);
        }
        s->classes += classes;
        /* a class lies in one piece: its key is the group's only where the group's first page is its first */
        if (classes > 1 || e[0].where & BL_SCAN_VOLATILE)
                bl_scan_sort_all(e, end - begin);
}

static int open_large(struct bl_scan *s, size_t begin, size_t end)
{
        struct bl_scan_large *l = &s->large;

        if (!l->key) {
                l->room = s->batch.room / BL_SCAN_CLASS_PART;
                l->key = bl_scan_alloc(&s->memory, l->room, sizeof(*l->key));
                l->bytes = bl_scan_alloc(&s->memory, l->room, BL_PAGE_SIZE);
        }
        if (!l->key || !l->bytes) {
                bl_scan_large_free(s);
                return -ENOMEM;
        }
        l->begin = begin;
        l->end = end;
        l->again = false;
        l->n = l->pending = 0;
        return 0;
}

void bl_scan_large_free(struct bl_scan *s)
{
        struct bl_scan_large *l = &s->large;

        l->key = bl_scan_release(&s->memory, l->key, l->room, sizeof(*l->key));
        l->bytes = bl_scan_release(&s->memory, l->bytes, l->room, BL_PAGE_SIZE);
}

static void judge_large(struct bl_scan *s, struct bl_scan_entry *e, const uint8_t *bytes)
{
        struct bl_scan_large *l = &s->large;
        size_t c = 0;

        e->where &= ~BL_SCAN_PENDING;
        while (bytes && c < l->n && !same(bytes, l->bytes + c * BL_PAGE_SIZE))
                c++;
        if (!bytes || (c == l->n && !held(s, e, bytes))) {
                e->where |= BL_SCAN_VOLATILE;
                return;
        }
        if (c == l->room) {
                e->where |= BL_SCAN_PENDING;
                l->pending++;
                return;
        }
        if (c == l->n) {
                memcpy(l->bytes + c * BL_PAGE_SIZE, bytes, BL_PAGE_SIZE);
                l->key[l->n++] = bl_scan_group_key(s, bl_scan_page(e), e->key);
                s->classes++;
        }
        e->key = l->key[c];
}

static bool is_due(const struct bl_scan_large *l, const struct bl_scan_entry *e)
{
        return !l->again || e->where & BL_SCAN_PENDING;
}

/* A batch of the large group. */
static void go_large(struct bl_scan *s)
{
        struct bl_scan_large *l = &s->large;
        struct bl_scan_batch *b = &s->batch;
        struct bl_scan_entry *e = s->table.e;
        const size_t from = s->at;

        for (; s->at < l->end && b->n < b->room; s->at++)
                if (is_due(l, &e[s->at]))
                        bl_scan_batch_add(b, bl_scan_page(&e[s->at]));
        bl_scan_batch_fetch(s);
        for (size_t i = from, position = 0; i < s->at; i++)
                if (is_due(l, &e[i]))
                        judge_large(s, &e[i], b->at[position++]);
        if (s->at < l->end)
                return;
        if (l->pending > 0) {
                s->at = l->begin;
                l->again = true;
                l->n = l->pending = 0;
                return;
        }
        bl_scan_sort_all(e + l->begin, l->end - l->begin);
        l->end = 0;
}

int bl_scan_compare_go(struct bl_scan *s)
{
        struct bl_scan_table *t = &s->table;
        struct bl_scan_batch *b = &s->batch;
        const size_t from = s->at;

        b->n = 0;
        if (s->large.end > 0) {
                go_large(s);
                return 0;
        }
        while (s->at < s->grouped) {
                const size_t end = group_end(s, s->at);

                if (end - s->at > b->room && b->n == 0) {
                        int r = open_large(s, s->at, end);

                        if (r < 0)
                                return r;
                        break;
                }
                if (end - s->at > b->room - b->n)
                        break;
                for (; s->at < end; s->at++)
                        bl_scan_batch_add(b, bl_scan_page(&t->e[s->at]));
        }
        bl_scan_batch_fetch(s);
        for (size_t i = from, end; i < s->at; i = end) {
                end = group_end(s, i);
                judge_group(s, i, end, i - from);
        }
        if (s->at < s->grouped || s->large.end > 0)
                return 0;
        /* and a class for each page that is alone */
        s->classes += t->n - s->grouped;
        return 1;
}
