/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scanner's entries, 16 bytes a page, and their order: by key, then by page.  Sorted in place by the leading bits
 * (McIlroy, Bostic, McIlroy: "Engineering Radix Sort", 1993, the American flag sort), a slice at a time so that a
 * large set never keeps a step busy for long.
 */
#ifndef BALLAST_PAGES_SCAN_SORT_H
#define BALLAST_PAGES_SCAN_SORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bl_scan_entry {
        uint64_t key;
        uint64_t where; /* the page, numbered through all sources, and flags above */
};

#define BL_SCAN_PAGE_BITS 48
#define BL_SCAN_PAGE_MASK ((UINT64_C(1) << BL_SCAN_PAGE_BITS) - 1)

#define BL_SCAN_SORT_WAYS 256

struct bl_scan_sort {
        struct bl_scan_entry *e;
        size_t n;
        enum { BL_SORT_RANGE, BL_SORT_COUNT, BL_SORT_DEAL, BL_SORT_BUCKETS, BL_SORT_DONE } stage;
        size_t at; /* of the stage */
        uint64_t differ; /* bits in which keys differ */
        unsigned shift; /* of the leading digit */
        unsigned way; /* that is being filled, or sorted */
        size_t head[BL_SCAN_SORT_WAYS], end[BL_SCAN_SORT_WAYS];
};

void bl_scan_sort_start(struct bl_scan_sort *s, struct bl_scan_entry *e, size_t n);
/* Goes on with about `entries` entries; true: sorted.  The array must not change in between. */
bool bl_scan_sort_go(struct bl_scan_sort *s, size_t entries);
/* How far it is, of 2 * n. */
size_t bl_scan_sort_progress(const struct bl_scan_sort *s);

/* All at once; bits of `where` above the page do not count. */
void bl_scan_sort_all(struct bl_scan_entry *e, size_t n);

#endif
