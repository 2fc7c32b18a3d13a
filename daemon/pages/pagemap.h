/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the pages of a process are, by /proc/PID/pagemap and /proc/kpageflags
 * (Documentation/admin-guide/mm/pagemap.rst).  Nothing is touched.
 *
 * One way for all kernels: an entry of pagemap tells besides the frame whether the page is mapped just once (bit 56),
 * and such a page is neither a KSM page that shares nor the kernel's zero page, so that only the others are looked up
 * in kpageflags.  PAGEMAP_SCAN (Linux 6.7) would be 8 to 17 ns a page cheaper where a page costs 450 to 600 to read,
 * and tells neither; what is mapped once has to be known for reading anyway (below).
 *
 * A KSM page with a single mapping left (its copies were written to) takes memory of its own and is PRESENT; a read
 * makes an ordinary page of it, which costs and saves nothing.
 */
#ifndef BALLAST_PAGES_PAGEMAP_H
#define BALLAST_PAGES_PAGEMAP_H

#include <stdbool.h>

#include "daemon/pages/page.h"

struct bl_pagemap {
        int pagemap; /* belongs to the process's memory, not to its number: after exit or exec it reads empty */
        int flags; /* /proc/kpageflags; -1: blind */
        uint64_t zero_frame; /* of the kernel's zero page; 0: not known */
        bool blind; /* frames are hidden (CAP_SYS_ADMIN) */
};

#define BL_PAGEMAP_INIT                    \
        {                                  \
                .pagemap = -1, .flags = -1 \
        }

/* Of the process of /proc/PID that `proc_dirfd` is.  -ESRCH, -EACCES (ptrace(2): PTRACE_MODE_READ). */
int bl_pagemap_open(int proc_dirfd, struct bl_pagemap *ret);
void bl_pagemap_close(struct bl_pagemap *m);

/* Pages of a file that the mapping has not copied yet. */
enum bl_pagemap_files {
        BL_PAGEMAP_FILES_COUNT, /* are the process's own, whoever else maps them: guest RAM in a memfd */
        BL_PAGEMAP_FILES_SHARED, /* are known by their frame where they are mapped more than once: shared memory */
        BL_PAGEMAP_FILES_SKIP, /* are page cache of a file on disk: ABSENT */
};

/*
 * How pages may be read.  process_vm_readv(2) pins what it reads, and what is pinned is un-shared first: since Linux
 * 5.19 it makes a private copy of each KSM page, and of each page shared by fork(2) (mm/internal.h, gup_must_unshare).
 * /proc/PID/mem does not.
 */
enum bl_pagemap_way {
        BL_PAGEMAP_GONE, /* not present: a read would make it, or bring it back from swap */
        BL_PAGEMAP_PIN, /* mapped once, or of a file: process_vm_readv */
        BL_PAGEMAP_MEM, /* anonymous and mapped more than once: /proc/PID/mem */
};

/* `n` pages from the address `start` on (a multiple of BL_PAGE_SIZE), and the way of each; either may be NULL.
 * -ESRCH, -EIO. */
int bl_pagemap_look(const struct bl_pagemap *m, uint64_t start, size_t n, enum bl_pagemap_files files,
                    struct bl_page_look *ret, uint8_t *ret_ways);

#endif
