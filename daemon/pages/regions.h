/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which mappings of a process hold memory that counts, by /proc/PID/maps (proc(5)).
 *
 * Of a VMM: those that hold its guest's memory (daemon/sense/guest_ram.h), less what is executable (TCG's translated
 * code), the heap, and device memory.  All that is present in them counts: also the page of a private memfd that the
 * guest only read.  It is a page of the file and no matter for KSM, but it takes memory, which daemon/sense/memfd.h can
 * give back, and holds zeros.
 *
 * Of any other process: what is writable and memory.  Private mappings of files on disk count as far as they were
 * copied; shared ones of such files are page cache and do not.  Of shared memory only what this process has mapped
 * itself is seen.
 */
#ifndef BALLAST_PAGES_REGIONS_H
#define BALLAST_PAGES_REGIONS_H

#include <stddef.h>
#include <stdio.h>

#include <ballast/cleanup.h>

#include "daemon/pages/pagemap.h"

struct bl_region {
        uint64_t start; /* address */
        uint64_t first; /* number of its first page, over all regions */
        uint64_t n; /* pages */
        enum bl_pagemap_files files;
};

struct bl_regions {
        struct bl_region *r; /* in the order of their addresses; at least one */
        size_t n;
        uint64_t pages; /* of all */
        uint64_t shared_bytes; /* in mappings that KSM cannot merge: shared memory, hugetlbfs */
        uint64_t bytes; /* of all, for comparing with guest_ram */
};

/*
 * Of the process of /proc/PID that `proc_dirfd` is; guest_ram 0: all its memory.  What a mapping is mapped from is
 * asked of /proc/PID/map_files, and guessed by its name where that is not allowed. -ESRCH, -EACCES, -ENODATA: no
 * mapping counts; -ENOMEM.
 */
int bl_regions_find(int proc_dirfd, uint64_t guest_ram, struct bl_regions *ret);
/* The same of a text like /proc/PID/maps; `proc_dirfd` -1: by the names alone. */
int bl_regions_parse(FILE *maps, int proc_dirfd, uint64_t guest_ram, struct bl_regions *ret);
void bl_regions_done(struct bl_regions *r);

bool bl_regions_equal(const struct bl_regions *a, const struct bl_regions *b);

/* The region that page `page` (< pages) is in, starting the search at *hint, which becomes its index. */
const struct bl_region *bl_regions_at(const struct bl_regions *r, uint64_t page, size_t *hint);

#endif
