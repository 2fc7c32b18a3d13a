/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/pages/scan_sort.h"

#include <string.h>

#define WAYS     BL_SCAN_SORT_WAYS
#define WAY_BITS 8U
/* Below it, insertion is cheaper than counting 256 ways. */
#define SMALL 40U

static unsigned digit(const struct bl_scan_entry *e, bool by_page, unsigned shift)
{
        return (unsigned)((by_page ? e->where & BL_SCAN_PAGE_MASK : e->key) >> shift) % WAYS;
}

static bool before(const struct bl_scan_entry *a, const struct bl_scan_entry *b)
{
        return a->key != b->key ? a->key < b->key : (a->where & BL_SCAN_PAGE_MASK) < (b->where & BL_SCAN_PAGE_MASK);
}

static void insertion(struct bl_scan_entry *e, size_t n)
{
        for (size_t i = 1; i < n; i++) {
                const struct bl_scan_entry x = e[i];
                size_t j = i;

                for (; j > 0 && before(&x, &e[j - 1]); j--)
                        e[j] = e[j - 1];
                e[j] = x;
        }
}

/* Counts in end[] become the buckets' ends, and head[] their starts. */
static void places(size_t *head, size_t *end)
{
        size_t sum = 0;

        for (unsigned w = 0; w < WAYS; w++) {
                head[w] = sum;
                sum += end[w];
                end[w] = sum;
        }
}

/* Puts entries into bucket `*way` and those after it, by swapping, until `most` were moved.  True: all are. */
static bool deal(struct bl_scan_entry *e, bool by_page, unsigned shift, size_t *head, const size_t *end, unsigned *way,
                 size_t most)
{
        size_t moved = 0;

        for (; *way < WAYS; (*way)++) {
                while (head[*way] < end[*way]) {
                        struct bl_scan_entry x = e[head[*way]];

                        if (moved >= most)
                                return false;
                        for (unsigned d = digit(&x, by_page, shift); d != *way; d = digit(&x, by_page, shift)) {
                                const struct bl_scan_entry y = e[head[d]];

                                e[head[d]++] = x;
                                x = y;
                                moved++;
                        }
                        e[head[*way]++] = x;
                        moved++;
                }
        }
        return true;
}

/* `bits` of the key, or of the page, are not in order yet: at most 14 calls deep. */
static void sort(struct bl_scan_entry *e, size_t n, bool by_page, unsigned bits)
{
        size_t head[WAYS], end[WAYS] = {0};
        unsigned shift, way = 0;

        if (n <= SMALL) {
                insertion(e, n);
                return;
        }
        if (bits == 0) {
                if (!by_page)
                        sort(e, n, true, BL_SCAN_PAGE_BITS);
                return;
        }
        shift = bits > WAY_BITS ? bits - WAY_BITS : 0;
        for (size_t i = 0; i < n; i++)
                end[digit(&e[i], by_page, shift)]++;
        if (end[digit(&e[0], by_page, shift)] == n) {
                sort(e, n, by_page, shift);
                return;
        }
        places(head, end);
        (void)deal(e, by_page, shift, head, end, &way, SIZE_MAX);
        for (size_t w = 0, from = 0; w < WAYS; from = end[w++])
                if (end[w] - from > 1)
                        sort(e + from, end[w] - from, by_page, shift);
}

void bl_scan_sort_all(struct bl_scan_entry *e, size_t n)
{
        sort(e, n, false, 64);
}

void bl_scan_sort_start(struct bl_scan_sort *s, struct bl_scan_entry *e, size_t n)
{
        memset(s, 0, sizeof(*s));
        s->e = e;
        s->n = n;
        s->stage = n <= SMALL ? BL_SORT_BUCKETS : BL_SORT_RANGE;
        s->end[0] = n;
        for (unsigned w = 1; w < WAYS; w++)
                s->end[w] = n;
        s->shift = 64;
}

static size_t slice_end(const struct bl_scan_sort *s, size_t entries)
{
        return entries < s->n - s->at ? s->at + entries : s->n;
}

bool bl_scan_sort_go(struct bl_scan_sort *s, size_t entries)
{
        size_t to;

        switch (s->stage) {
        case BL_SORT_RANGE:
                to = slice_end(s, entries);
                for (; s->at < to; s->at++)
                        s->differ |= s->e[s->at].key ^ s->e[0].key;
                if (s->at < s->n)
                        return false;
                s->at = 0;
                /* the leading digit ends with the highest bit that differs: all 256 ways are of use */
                if (s->differ == 0) {
                        s->shift = 0;
                        s->stage = BL_SORT_BUCKETS;
                        return false;
                }
                s->shift = 64 - (unsigned)__builtin_clzll(s->differ);
                s->shift = s->shift > WAY_BITS ? s->shift - WAY_BITS : 0;
                memset(s->end, 0, sizeof(s->end));
                s->stage = BL_SORT_COUNT;
                return false;
        case BL_SORT_COUNT:
                to = slice_end(s, entries);
                for (; s->at < to; s->at++)
                        s->end[digit(&s->e[s->at], false, s->shift)]++;
                if (s->at < s->n)
                        return false;
                s->at = 0;
                places(s->head, s->end);
                s->stage = BL_SORT_DEAL;
                return false;
        case BL_SORT_DEAL:
                if (!deal(s->e, false, s->shift, s->head, s->end, &s->way, entries))
                        return false;
                s->way = 0;
                s->stage = BL_SORT_BUCKETS;
                return false;
        case BL_SORT_BUCKETS:
                to = slice_end(s, entries);
                for (; s->way < WAYS && s->at < to; s->at = s->end[s->way++])
                        sort(s->e + s->at, s->end[s->way] - s->at, false, s->shift);
                if (s->way < WAYS && s->at < s->n)
                        return false;
                s->stage = BL_SORT_DONE;
                return true;
        case BL_SORT_DONE:
                break;
        }
        return true;
}

size_t bl_scan_sort_progress(const struct bl_scan_sort *s)
{
        switch (s->stage) {
        case BL_SORT_RANGE:
                return s->at / 4;
        case BL_SORT_COUNT:
                return (s->n + s->at) / 4;
        case BL_SORT_DEAL:
                return s->n / 2 + (s->way == 0 ? 0 : s->end[s->way - 1] / 2);
        case BL_SORT_BUCKETS:
                return s->n + s->at;
        case BL_SORT_DONE:
                break;
        }
        return 2 * s->n;
}
