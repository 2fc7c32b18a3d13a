/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* /proc/meminfo (proc(5)), in bytes.  About 3 us with parsing. */
#ifndef BALLAST_SENSE_MEMINFO_H
#define BALLAST_SENSE_MEMINFO_H

#include "daemon/util/fs.h"

/* BL_UNSET where the kernel does not say. */
struct bl_meminfo {
        uint64_t mem_total; /* always there */
        uint64_t mem_free; /* always there */
        uint64_t mem_available; /* always there; estimated as proc(5) says where the kernel (or a container) hides it */
        uint64_t buffers;
        uint64_t cached;
        uint64_t swap_cached;
        uint64_t swap_total;
        uint64_t swap_free;
        uint64_t anon_pages;
        uint64_t shmem;
        uint64_t mlocked;
        uint64_t s_reclaimable;
        uint64_t zswap; /* bytes of compressed pool */
        uint64_t zswapped; /* bytes that are in it */
        uint64_t hugetlb; /* all huge page pools together */
};

/* -EBADMSG: not a meminfo, or MemTotal or MemFree is missing or 0, or a value is absurd. */
int bl_meminfo_parse(const char *text, struct bl_meminfo *ret);

int bl_meminfo_open(struct bl_reader *r, const char *root);
/* -EBADMSG, -EFBIG, errors of pread(2). */
int bl_meminfo_read(const struct bl_reader *r, struct bl_meminfo *ret);

#endif
