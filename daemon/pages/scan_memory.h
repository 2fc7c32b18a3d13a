/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a scan allocates, counted: its own figure of memory, and the bound that it keeps. */
#ifndef BALLAST_PAGES_SCAN_MEMORY_H
#define BALLAST_PAGES_SCAN_MEMORY_H

#include <stddef.h>
#include <stdint.h>

struct bl_scan_memory {
        uint64_t now, most; /* bytes */
        unsigned fail_in; /* tests: the so manieth allocation from now on fails; 0: none */
};

/* `n` zeroed things of `size` bytes; NULL: no memory.  Freed by bl_scan_release with the same n and size. */
void *bl_scan_alloc(struct bl_scan_memory *m, size_t n, size_t size);
/* NULL-safe, returns NULL. */
void *bl_scan_release(struct bl_scan_memory *m, void *p, size_t n, size_t size);

/*
 * Whole mappings, which grow and shrink without a copy.  `p` NULL: new; `to` 0: unmapped, returns NULL.  Rounded up to
 * pages by the caller.  NULL: no memory, the old one is as it was.
 */
void *bl_scan_remap(struct bl_scan_memory *m, void *p, size_t from, size_t to);

#endif
