/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A set of pages, one bit each, which takes memory only where there are some. */
#ifndef BALLAST_PAGES_SCAN_MARKS_H
#define BALLAST_PAGES_SCAN_MARKS_H

#include "daemon/pages/scan_memory.h"

struct bl_scan_marks {
        uint64_t **chunk;
        size_t n;
};

/* For pages below `pages`.  -ENOMEM */
int bl_scan_marks_init(struct bl_scan_marks *k, struct bl_scan_memory *m, uint64_t pages);
void bl_scan_marks_free(struct bl_scan_marks *k, struct bl_scan_memory *m);
/* Makes sure that pages from..from + n can be set.  -ENOMEM */
int bl_scan_marks_reserve(struct bl_scan_marks *k, struct bl_scan_memory *m, uint64_t from, uint64_t n);
void bl_scan_marks_set(struct bl_scan_marks *k, uint64_t page);
/* The first one at or after `page`; UINT64_MAX: none. */
uint64_t bl_scan_marks_next(const struct bl_scan_marks *k, uint64_t page);
/* The first one at or after `page` that is not in it. */
uint64_t bl_scan_marks_end(const struct bl_scan_marks *k, uint64_t page);

#endif
