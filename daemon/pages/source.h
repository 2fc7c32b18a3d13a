/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where pages come from: the guest RAM of a VM, any process, an ELF core, a raw file.
 *
 * A source is `n_pages` pages numbered from 0 without gaps (ranges of addresses are laid end to end); bytes
 * after the last whole page of a range are not a page, and counted in `tail_bytes`.  A source is used by one
 * thread at a time.  look() and read() may block for as long as the kernel lets them (a page under migration,
 * a held mmap lock): they belong into a worker.
 */
#ifndef BALLAST_PAGES_SOURCE_H
#define BALLAST_PAGES_SOURCE_H

#include <stdbool.h>
#include <sys/types.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#include "daemon/pages/page.h"

struct bl_source;

struct bl_source_ops {
        /*
         * What pages first .. first + n are, without touching one: nothing is faulted in, split or un-merged
         * (/proc/PID/pagemap, and /proc/kpageflags for what is mapped more than once; pagemap.h).
         * Without the right to see frames (CAP_SYS_ADMIN) merged pages and the kernel's zero page are PRESENT,
         * and bl_source.blind is set.
         * -ESRCH: the process ended, or its pid is another's now; -EIO: the file cannot be read.
         */
        int (*look)(struct bl_source *s, uint64_t first, size_t n, struct bl_page_look *ret);

        /*
         * The bytes of `n` pages, in the order of `pages` (ascending), to `buf` (n * BL_PAGE_SIZE); ret_ok[i]:
         * that one was read whole.  Neighbours are read by one range of process_vm_readv(2), merged pages by
         * /proc/PID/mem (the former would un-merge them; pagemap.h).  Only pages that look() said were PRESENT or
         * MERGED should be asked for.  A page that went meanwhile is not ok (or, at worst, when it goes between a
         * last look and the read, is faulted in as zeros).  -ESRCH; -EPERM; -EIO; -ENOMEM.  0 also when no page
         * was ok.
         */
        int (*read)(struct bl_source *s, const uint64_t *pages, size_t n, void *buf, bool *ret_ok);

        /* The ranges of addresses may have changed (a DIMM plugged in, a file that grew).  1: they did, and
         * n_pages and the numbers of pages with them; 0: no; -ESRCH.  A process that is no VMM keeps the ranges that it
         * was found with: what it maps later is not seen, what it unmaps is absent. */
        int (*again)(struct bl_source *s);

        struct bl_source *(*free)(struct bl_source *s);
};

struct bl_source {
        const struct bl_source_ops *ops;
        char *name; /* of the VM, "pid 4711 (redis-server)", or the file's: for people */
        uint64_t n_pages;
        uint64_t tail_bytes; /* of no whole page */
        uint64_t shared_bytes; /* in mappings that KSM cannot merge (shared memory, hugetlbfs); its pages count, too */
        bool still; /* nothing changes it: a dump, or a process that was stopped (state T) when the source was made.
                       The caller sets it for a paused VM, whose process runs on */
        bool blind; /* frames cannot be seen */
        char *warning; /* what of it is missing, a whole sentence; NULL: nothing */
};

static inline struct bl_source *bl_source_free(struct bl_source *s)
{
        return s ? s->ops->free(s) : NULL;
}
BL_DEFINE_CLEANUP(struct bl_source *, bl_source_free)

/*
 * A process.  `start` as in /proc/PID/stat (daemon/util/procstat.h), 0: whatever runs as `pid` now; checked at each
 * look and read (a pidfd is held).  guest_ram > 0: a VMM, and only the mappings that hold its guest's memory count
 * (daemon/sense/guest_ram.h); 0: all private writable memory (heap, stacks, anonymous mappings, private copies of
 * files, private memfds), and shared anonymous memory, which is counted in shared_bytes too (regions.h).
 *
 * *ret_message (allocated; set on error, NULL without memory for it): a sentence that says what is wrong with which pid
 * and what mends it.  -ESRCH, -EACCES / -EPERM (root is needed), -ENODATA: no memory, -ENOMEM, -EOPNOTSUPP: pages
 * of this host are not of 4 KiB.
 */
int bl_source_process(pid_t pid, uint64_t start, uint64_t guest_ram, const char *name, struct bl_source **ret,
                      char **ret_message);

/* Where page `page` lies in the process; BL_UNSET: the source is no process.  And its pidfd (the source's), or -1. */
uint64_t bl_source_process_address(const struct bl_source *s, uint64_t page);
int bl_source_process_pidfd(const struct bl_source *s);

/*
 * A file: an ELF core (`virsh dump --memory-only`, gcore; ELF64 little endian, its PT_LOAD segments; a core of
 * libvirt's kdump-compressed or of another architecture's byte order is refused by name), or anything else as raw
 * memory.  `name` NULL: the file's.  Zero pages that are holes of the file are zero pages, not absent: a dump says
 * what memory held.  A core that ends before its segments do: what is there counts, the rest is UNREADABLE, and
 * `warning` says so with the numbers.  Headers that contradict themselves (overlaps, sizes beyond 2^52, a table
 * beyond the file) are -EBADMSG.  Whole pages of a core that were not dumped (p_filesz < p_memsz: filtered, core(5))
 * are ABSENT.  *ret_message (allocated, on error): a sentence naming file, place and mend.
 * -ENOENT, -EACCES, -EISDIR, -EBADMSG, -ENODATA: empty, or shorter than a page; -EIO; -ENOMEM.
 */
int bl_source_file(const char *path, const char *name, struct bl_source **ret, char **ret_message);

/* Pages in memory, which stay the caller's and are not copied: for tests, and for the oracle's copies. */
int bl_source_memory(const char *name, const void *pages, uint64_t n_pages, struct bl_source **ret);

#endif
