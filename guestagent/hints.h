/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Messages of hints (include/ballast/wire.h), made by the job guest_job_hints
 * and written into its pipe.  Its parts, for each other and for tests.
 */
#ifndef BALLAST_GUEST_HINTS_H
#define BALLAST_GUEST_HINTS_H

#include <ballast/wire.h>

#include "guestagent/job.h"

#define HINT_PAGE 4096U

/* Bits of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h, Documentation/admin-guide/mm/pagemap.rst). */
#define HINT_KPF(bit)        (UINT64_C(1) << (bit))
#define HINT_KPF_LOCKED      HINT_KPF(0)
#define HINT_KPF_ERROR       HINT_KPF(1)
#define HINT_KPF_UPTODATE    HINT_KPF(3)
#define HINT_KPF_DIRTY       HINT_KPF(4)
#define HINT_KPF_LRU         HINT_KPF(5)
#define HINT_KPF_ACTIVE      HINT_KPF(6)
#define HINT_KPF_WRITEBACK   HINT_KPF(8)
#define HINT_KPF_BUDDY       HINT_KPF(10)
#define HINT_KPF_ANON        HINT_KPF(12)
#define HINT_KPF_SWAPCACHE   HINT_KPF(13)
#define HINT_KPF_SWAPBACKED  HINT_KPF(14)
#define HINT_KPF_UNEVICTABLE HINT_KPF(18)
#define HINT_KPF_HWPOISON    HINT_KPF(19)
#define HINT_KPF_NOPAGE      HINT_KPF(20)

/* What the frame needs besides its runs. */
#define HINT_OVERHEAD 68U
#define HINT_RUNS     (BL_WIRE_FRAME_MAX - HINT_OVERHEAD)

/* One message that is being filled. */
struct hint_stream {
        uint64_t kind;
        uint64_t file; /* BL_HINT_FILE: which */
        uint64_t pfn; /* the end of the last run */
        size_t len, cap; /* of `runs`; cap 0: not begun */
        uint8_t runs[HINT_RUNS];
};

/* Where they go. */
struct hint_sink {
        int fd;
        int error; /* of writing; then nothing more is */
        uint64_t scan;
        uint64_t left; /* bytes of messages that may still be sent */
        uint64_t given; /* bytes of memory hinted at */
        bool cut; /* there was more */
        bool holds; /* the last message waits until it is known to be the last */
        struct hint_stream held;
};

/* Adds a run; those of a stream ascend until it is flushed.  Negative errno
 * where there is no room left, or it could not be written. */
int hint_add(struct hint_sink *sink, struct hint_stream *s, const struct bl_wire_run *run);
/* What has been added is a message. */
void hint_flush(struct hint_sink *sink, struct hint_stream *s);

/* Which hint a page is worth; 0: none. */
uint64_t hint_kind(uint64_t flags);

/* Clean page cache of the files that processes execute. */
void hint_files(const struct guest_job *j, struct hint_sink *sink);

/* One line of /proc/PID/maps. */
struct hint_mapping {
        unsigned major, minor;
        uint64_t inode;
        const char *path; /* in the line, which is cut behind it */
};
/* False: not the executable mapping of a file. */
bool hint_parse_mapping(char *line, struct hint_mapping *ret);

/* Who a file is, in every guest of its image; see wire.h. */
uint64_t hint_identity(const char *path, uint64_t size, uint64_t mtime_ns);

#endif
