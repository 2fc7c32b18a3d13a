/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/clock.h"
#include "guestagent/hints.h"

#define FLAGS_AT_ONCE 8192U /* pages: 64 KiB of flags, 32 MiB of memory */

static void write_message(struct hint_sink *sink, const struct hint_stream *s, uint64_t flags)
{
        struct bl_wire_hints h = {
                .scan = sink->scan,
                .kind = s->kind,
                .flags = flags,
                .file = s->kind == BL_HINT_FILE ? s->file : BL_UNSET,
                .runs = s->runs,
                .runs_size = s->len,
        };
        uint8_t frame[BL_WIRE_FRAME_MAX];
        int n = bl_wire_encode_hints(&h, frame, sizeof frame);

        if (n >= 0)
                n = guest_write_all(sink->fd, frame, (size_t)n);
        if (n < 0 && sink->error == 0)
                sink->error = n;
}

void hint_flush(struct hint_sink *sink, struct hint_stream *s)
{
        if (s->cap == 0)
                return;
        sink->left += s->cap - s->len;
        if (sink->holds)
                write_message(sink, &sink->held, 0);
        sink->held = *s;
        sink->holds = true;
        s->cap = s->len = 0;
        s->pfn = 0;
}

/* Room for the message is taken when it begins, since several grow at a time. */
static bool begin(struct hint_sink *sink, struct hint_stream *s)
{
        if (sink->left < HINT_OVERHEAD + sizeof(uint64_t) * 4) {
                sink->cut = true;
                return false;
        }
        s->cap = bl_min(sizeof s->runs, sink->left - HINT_OVERHEAD);
        s->len = 0;
        s->pfn = 0;
        sink->left -= HINT_OVERHEAD + s->cap;
        return true;
}

int hint_add(struct hint_sink *sink, struct hint_stream *s, const struct bl_wire_run *run)
{
        int n;

        if (sink->error)
                return sink->error;
        if (s->cap == 0 && !begin(sink, s))
                return -ENOSPC;
        n = bl_wire_run_put(s->kind, run, &s->pfn, s->runs + s->len, s->cap - s->len);
        if (n == -ENOBUFS) {
                hint_flush(sink, s);
                if (!begin(sink, s))
                        return -ENOSPC;
                n = bl_wire_run_put(s->kind, run, &s->pfn, s->runs + s->len, s->cap - s->len);
        }
        if (n < 0)
                return n;
        s->len += (size_t)n;
        sink->given = bl_add_sat(sink->given, run->pages * HINT_PAGE);
        return 0;
}

/* Since Linux 4.6 each page of a free block says so, not only its first. */
uint64_t hint_kind(uint64_t flags)
{
        if (flags & (HINT_KPF_NOPAGE | HINT_KPF_HWPOISON))
                return 0;
        if (flags & HINT_KPF_BUDDY)
                return BL_HINT_FREE;
        if ((flags & (HINT_KPF_LRU | HINT_KPF_UPTODATE)) != (HINT_KPF_LRU | HINT_KPF_UPTODATE))
                return 0;
        if (flags & (HINT_KPF_ACTIVE | HINT_KPF_DIRTY | HINT_KPF_WRITEBACK | HINT_KPF_ANON | HINT_KPF_SWAPBACKED |
                     HINT_KPF_SWAPCACHE | HINT_KPF_UNEVICTABLE | HINT_KPF_LOCKED | HINT_KPF_ERROR))
                return 0;
        return BL_HINT_INACTIVE_FILE;
}

struct scan {
        struct hint_sink *sink;
        struct hint_stream stream[2]; /* free; inactive */
        uint64_t kind; /* of the run that is growing; 0: none */
        struct bl_wire_run run;
};

static void end_run(struct scan *s)
{
        if (s->kind)
                (void)hint_add(s->sink, &s->stream[s->kind == BL_HINT_INACTIVE_FILE], &s->run);
        s->kind = 0;
}

static void scan_page(struct scan *s, uint64_t pfn, uint64_t flags)
{
        uint64_t kind = hint_kind(flags);

        if (kind == s->kind) {
                s->run.pages++;
                return;
        }
        end_run(s);
        s->kind = kind;
        s->run = (struct bl_wire_run){.pfn = pfn, .pages = 1};
}

static int open_flags(const char *root)
{
        char path[PATH_MAX];
        int fd;

        if ((size_t)snprintf(path, sizeof path, "%s/proc/kpageflags", root) >= sizeof path)
                return -ENAMETOOLONG;
        fd = open(path, O_RDONLY | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

bool guest_can_hint(const char *root)
{
        _cleanup_close_ int fd = open_flags(root);
        uint64_t flags;

        return fd >= 0 && sysconf(_SC_PAGESIZE) == HINT_PAGE && pread(fd, &flags, sizeof flags, 0) == sizeof flags;
}

static int scan_memory(const struct guest_job *j, struct hint_sink *sink)
{
        _cleanup_close_ int fd = open_flags(j->root);
        _cleanup_free_ uint64_t *flags = malloc(FLAGS_AT_ONCE * sizeof *flags);
        _cleanup_free_ struct scan *s = calloc(1, sizeof *s);
        uint64_t pfn = 0;
        ssize_t n;

        if (fd < 0 || !flags || !s)
                return fd < 0 ? fd : -ENOMEM;
        s->sink = sink;
        s->stream[0].kind = BL_HINT_FREE;
        s->stream[1].kind = BL_HINT_INACTIVE_FILE;
        while ((n = pread(fd, flags, FLAGS_AT_ONCE * sizeof *flags, (off_t)(pfn * sizeof *flags))) >=
               (ssize_t)sizeof *flags) {
                for (size_t i = 0; i < (size_t)n / sizeof *flags; i++)
                        scan_page(s, pfn++, flags[i]);
                if (sink->error || guest_clock(CLOCK_MONOTONIC) >= j->until) {
                        sink->cut = true;
                        break;
                }
        }
        end_run(s);
        hint_flush(sink, &s->stream[0]);
        hint_flush(sink, &s->stream[1]);
        return n < 0 ? -errno : 0;
}

enum bl_wire_status guest_job_hints(struct guest_job *j)
{
        _cleanup_free_ struct hint_sink *sink = calloc(1, sizeof *sink);
        uint64_t most = j->bytes;
        int r;

        if (!sink)
                return BL_RESULT_FAILED;
        /* what may be taken must not leave no room for what may be shared */
        *sink = (struct hint_sink){.fd = j->out, .scan = j->scan, .left = most / 2};
        r = scan_memory(j, sink);
        if (r < 0)
                return r == -ENOENT || r == -EACCES || r == -EPERM ? BL_RESULT_UNKNOWN : BL_RESULT_FAILED;
        sink->left += most - most / 2;
        hint_files(j, sink);
        /* the last one says so, be it empty */
        if (!sink->holds)
                sink->held.kind = BL_HINT_FREE;
        write_message(sink, &sink->held, BL_HINTS_LAST | (sink->cut ? BL_HINTS_CUT : 0));
        j->given = sink->given;
        if (sink->error)
                return BL_RESULT_FAILED;
        return sink->cut ? BL_RESULT_PARTLY : BL_RESULT_DONE;
}
