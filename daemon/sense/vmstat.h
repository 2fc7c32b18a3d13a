/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /proc/vmstat: the counters that tell whether the host reclaims or swaps.
 * All are cumulative since boot, in the kernel's unit (mostly pages); take
 * differences.  About 17 us with parsing: once a second or so, not on the fast path.
 */
#ifndef BALLAST_SENSE_VMSTAT_H
#define BALLAST_SENSE_VMSTAT_H

#include "daemon/util/fs.h"

/* A counter that this kernel does not have is BL_UNSET. */
struct bl_vmstat {
        uint64_t pswpin; /* pages */
        uint64_t pswpout; /* pages */
        uint64_t pgmajfault;
        uint64_t pgscan_kswapd;
        uint64_t pgscan_direct;
        uint64_t pgsteal_kswapd;
        uint64_t pgsteal_direct;
        uint64_t allocstall; /* sum over the zones: a task had to reclaim by itself */
        uint64_t oom_kill;
        uint64_t refault_anon;
        uint64_t refault_file;
        uint64_t zswpin;
        uint64_t zswpout;
        uint64_t cow_ksm; /* merged pages that were written to and are copies again */
        uint64_t thp_collapsed; /* khugepaged at work */
};

/* -EBADMSG: none of the counters is there, or one is not a number. */
int bl_vmstat_parse(const char *text, struct bl_vmstat *ret);

int bl_vmstat_open(struct bl_reader *r, const char *root);
int bl_vmstat_read(const struct bl_reader *r, struct bl_vmstat *ret);

#endif
