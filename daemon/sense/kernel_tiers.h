/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where the host's kernel puts what is paged out: swap areas (/proc/swaps,
 * proc(5)), zram (/sys/block/zramN, Documentation/admin-guide/blockdev/zram.rst)
 * and zswap (Documentation/admin-guide/mm/zswap.rst).  About 30 us with a zram
 * device: once a second, not on the fast path.
 */
#ifndef BALLAST_SENSE_KERNEL_TIERS_H
#define BALLAST_SENSE_KERNEL_TIERS_H

#include <stddef.h>

#include <ballast/units.h>

#define BL_SWAPS_MAX 16
#define BL_ZRAMS_MAX 16

struct bl_swap_area {
        char path[256]; /* as the kernel says it, with its escapes undone */
        bool file; /* else a partition or device */
        uint64_t size; /* bytes */
        uint64_t used; /* bytes */
        int priority; /* the highest fills first */
};

struct bl_zram {
        char name[16]; /* "zram0" */
        char algorithm[32]; /* "": not known */
        uint64_t disksize; /* bytes; 0: it is not set up */
        uint64_t held; /* uncompressed bytes in it, without those that are all the same */
        uint64_t compressed;
        uint64_t used; /* host memory that it takes, fragmentation included; its table is not counted by the kernel */
        uint64_t same; /* uncompressed bytes of pages of one repeated word, which cost nothing */
};

struct bl_zswap {
        bool there; /* this kernel has it */
        bool enabled;
        char compressor[32];
        uint64_t max_pool_percent; /* of the host's memory */
        uint64_t used; /* host memory that it takes; BL_UNSET: before Linux 5.19 */
        uint64_t held; /* uncompressed bytes in it; likewise */
};

struct bl_kernel_tiers {
        size_t n_swaps;
        struct bl_swap_area swaps[BL_SWAPS_MAX];
        size_t n_zrams; /* those that are set up */
        struct bl_zram zrams[BL_ZRAMS_MAX];
        struct bl_zswap zswap;
        uint64_t swap_size; /* of all areas, also of those beyond BL_SWAPS_MAX */
        uint64_t swap_used;
};

/* -EBADMSG: no /proc/swaps. */
int bl_swaps_parse(const char *text, struct bl_kernel_tiers *ret);

/* mm_stat of a zram device.  -EBADMSG. */
int bl_zram_parse(const char *mm_stat, struct bl_zram *ret);

/* The word in brackets of "lzo [lz4] zstd".  "" where there is none. */
void bl_zram_algorithm(const char *text, char *ret, size_t size);

/* What cannot be read is not there: a kernel without zswap, or without swap.  Only an unreadable /proc/swaps that is
 * there is an error.  `root` as in fs.h. */
int bl_kernel_tiers_read(const char *root, struct bl_kernel_tiers *ret);

/* Host memory that compressed tiers take for what is in them. */
uint64_t bl_kernel_tiers_ram(const struct bl_kernel_tiers *t);

#endif
