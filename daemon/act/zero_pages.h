/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The executor of mode `zero`: a VM's pages that are full of zeros go out of host memory, and nothing is merged with
 * anybody.  KSM cannot do that: whatever is registered with it merges with everything else.  So zero pages that were
 * zero at two looks are found by reading (daemon/pages/source.h) and paged out by process_madvise(MADV_PAGEOUT): the
 * kernel decides again under its own lock, so content is never at risk.  What then happens to them (measured on 6.18;
 * 1.2 to 2.0 us a page, beside 1.1 us for finding it):
 *
 *   small pages    go to swap.  From 6.12 on without I/O and without taking room in zram or on disk, but each keeps a
 *                  slot (swap zeromap, mm/page_io.c); before that zswap and zram keep it as a word.  Read or written
 *                  again it is a page of memory again (1.9 us).  Without swap nothing goes.
 *   a huge page    is broken up by the first of its pages that is asked for, and from 6.12 on all of its zero pages map
 *                  the kernel's own zero page at once (mm/huge_memory.c): no swap is needed, and reading them again
 * takes no memory.  Before that they are small pages.
 *
 * khugepaged makes huge pages of them again: of pages in swap where there are no more than its max_ptes_swap (64) in
 * 2 MiB, of the kernel's zero pages wherever its max_ptes_none (511) allows, both measured.  So 2 MiB with no more than
 * 64 zero pages (BL_ZERO_WORTH) are left as they are: that would be undone, and breaking up a huge page costs the guest
 * more than it gives.  max_ptes_none=0 (ksm.h, host knobs) keeps the others.
 *
 * Needs CAP_SYS_NICE and CAP_SYS_PTRACE (process_madvise(2)).
 */
#ifndef BALLAST_ACT_ZERO_PAGES_H
#define BALLAST_ACT_ZERO_PAGES_H

#include <stdatomic.h>

#include "daemon/pages/source.h"

#define BL_ZERO_WORTH 64U /* pages of 2 MiB */

struct bl_zero_result {
        uint64_t looked; /* pages */
        uint64_t zero; /* found at both looks, where it is worth it */
        uint64_t out; /* of those, gone from the process's memory afterwards */
        usec_t cpu;
        uint64_t next; /* page to go on with; 0 after the last */
        bool round; /* it went past the last page */
        /* 0; -EOPNOTSUPP: nothing of what was asked for went: no swap, or the memory is locked or shared; -EPERM;
         * -EINVAL: no process; -ENOMEM; errors of the source (-ESRCH: it ended) */
        int error;
};

/*
 * In a worker: goes through up to `pages` pages of `s` from `first` on, for at most `time` on a share `cpu` of a core,
 * until `bytes` are out.  `settle` between a page's two looks (0: 100 ms), in which the thread sleeps; so `time` is to
 * be several times that.  Ends soon after *stop is set.  Whole runs of 2 MiB are best: of such that are cut by `first`
 * or the end only the part is judged.  `s` is a process (source.h).
 */
void bl_zero_pages_out(struct bl_source *s, uint64_t first, uint64_t pages, uint64_t bytes, usec_t time,
                       permyriad_t cpu, usec_t settle, const atomic_bool *stop, struct bl_zero_result *ret);

#endif
