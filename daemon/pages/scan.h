/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The exact scanner: what merging equal pages could save, in total, inside each source and between each two.
 *
 * Three passes over sources of pages (source.h):
 *   1. hash     every page that takes memory: seeded XXH3-64; zero pages are told apart
 *   2. look     pages whose hash is found more than once, and zero pages, are read again, not before `settle` after
 *               the first time: one that is not what it was, or is not there any more, is volatile, and no candidate
 *               (as KSM's checksum, mm/ksm.c).  Pages of still sources need it for their bytes only
 *   3. compare  equal hashes are compared byte by byte, within classes: a collision of hashes makes two classes
 * 2 and 3 read a page once between them.  A page whose hash is found once is unique by its first look.  A sample of the
 * distinct contents is compressed in the end.  Absent, swapped and kernel-zero pages are never read, nor what became
 * one of these between the looks.
 *
 * A merged page (KSM) is known by its frame: one page of each frame is read, the others are not.  Frames are given
 * back and taken for other contents, so a frame number is believed for as long as a look and the read after it take:
 * in both passes merged pages are looked at again in batches right before one of each frame is read.  One whose frame
 * changed between the passes counts by the content that it then has; in the second look that is the one it had, or it
 * is volatile.
 *
 * Memory: 16 bytes a page that takes memory (hash and number, sorted in place), a bit for each page, and buffers of
 * 0.4 MiB and more, at most `memory_max` together.  A set that is too large for that is sampled
 * by hash: only pages whose hash falls into 1/2^k of the hash space are kept, so all copies of a content are in or out
 * together and every figure is an unbiased estimate after multiplication by 2^k, whose standard error is stated
 * (adaptive sampling: Flajolet, Computing 43, 1990; the variance is that of Bernoulli sampling of contents).  What
 * needs no content (pages, zero, merged, absent, ...) is exact all the same; `unique` is what is left of `pages`.
 *
 * Definitions (ballastctl-json(7) repeats them); a content is what is not all zeros:
 *   pages             that take host memory: present and merged, whether zero or not
 *   zero              of those, full of zeros (not the kernel's own zero page, which costs nothing: kernel_zero)
 *   unique            distinct contents
 *   duplicate_intra   surplus copies inside one source: for each content and source, copies - 1
 *   duplicate_inter   surplus between sources: for each content, sources that have it - 1
 *   pages = zero + unique + duplicate_intra + duplicate_inter + volatile_pages + unreadable
 *   saved_pages       = zero + duplicate_intra + duplicate_inter: what perfect merging frees, of which
 *   merged_saved      what is freed already (pages that are merged less their frames)
 *   matrix[i][j]      contents that i and j both have: what merging just these two would free between them;
 *                     [i][i]: duplicate_intra of i
 * Of one source, a content is unique to the first source that has it, and duplicate_inter of those after that; so the
 * sums of the sources' figures are those of all, and all the equations hold for each.  with_copy_elsewhere does not
 * depend on the order.
 * A volatile page is counted in no class.  On still sources everything is exact.
 */
#ifndef BALLAST_PAGES_SCAN_H
#define BALLAST_PAGES_SCAN_H

#include <stdatomic.h>

#include "daemon/pages/source.h"

#define BL_SCAN_SOURCES_MAX 4096
#define BL_SCAN_RUNS        20 /* run lengths by powers of two: 1, 2-3, 4-7, ... */

enum bl_scan_phase { BL_SCAN_HASH, BL_SCAN_SORT, BL_SCAN_COMPARE, BL_SCAN_DONE };

struct bl_scan_progress {
        enum bl_scan_phase phase;
        uint64_t done, total; /* pages of this phase */
        permyriad_t part; /* of all the work, estimated */
};

struct bl_scan_options {
        uint64_t seed; /* of the hash; 0: random */
        size_t memory_max; /* bytes; 0: 0.5 % of what is scanned, at least 3 MiB: enough to keep all.  At least
                             0.6 MiB are taken, the report (with its matrix) included */
        permyriad_t cpu; /* of one core that it may use: it sleeps the rest; 0 or 10000: all */
        usec_t settle; /* between a page's two looks; 0: 100 ms.  Still sources do not wait */
        unsigned compress_sample; /* about so many pages are compressed by LZ4; 0: 1000 */
        /* tests: another hash, to force collisions; NULL: XXH3 */
        uint64_t (*hash)(const void *page, uint64_t seed);
        unsigned fail_alloc; /* tests: the so manieth allocation fails; 0: none */
};

struct bl_scan;

/* Takes no ownership of the sources, which must outlive it.  -E2BIG: too many, or 2^48 pages; -ENOMEM. */
int bl_scan_new(struct bl_source **sources, size_t n, const struct bl_scan_options *o, struct bl_scan **ret);
struct bl_scan *bl_scan_free(struct bl_scan *s);
BL_DEFINE_CLEANUP(struct bl_scan *, bl_scan_free)

/*
 * Goes on for about `time` (wall clock, its sleeps included; BL_UNSET: to the end), or until *stop.  1: it is done;
 * 0: call again.  A source that ends meanwhile (-ESRCH) or changes its size is left out of the rest and said in its
 * figures; what was counted of it is taken back, so the sums stay sums of what is there.  A piece of work is
 * some milliseconds, and one at least is done however short `time` is.  -ENOMEM, and nothing else: nothing is lost, and
 * it may be called again.
 */
int bl_scan_step(struct bl_scan *s, usec_t time, const atomic_bool *stop);
void bl_scan_progress(const struct bl_scan *s, struct bl_scan_progress *ret);

struct bl_scan_figures {
        uint64_t pages, zero, unique, duplicate_intra, duplicate_inter, volatile_pages, unreadable;
        uint64_t saved_pages;
        uint64_t merged; /* pages that share their physical page with others now: by KSM (or by fork(2), page.h) */
        uint64_t merged_frames; /* physical pages behind them; of a source: that it is the first to have */
        uint64_t merged_saved;
        uint64_t absent, swapped, kernel_zero; /* not in `pages` */
        /* of a source only: */
        uint64_t with_copy_elsewhere; /* its pages whose content another source has too */
        uint64_t run[BL_SCAN_RUNS]; /* pages (not runs) that lie in runs of neighbours that all have a copy somewhere;
                                        0 where the scan is a sample, which has no neighbours */
};

struct bl_scan_source {
        struct bl_scan_figures f;
        /* 0; -ESRCH: it ended; -ESTALE: its memory was laid out anew meanwhile; -EIO, -EPERM, -ENOMEM: it could not be
         * read.  Then `f` is all zeros: it is in no sum. */
        int error;
};

struct bl_scan_report {
        size_t n;
        struct bl_scan_source *source; /* in the order of the sources */
        struct bl_scan_figures all;
        uint64_t *matrix; /* n * n; NULL for more than 256 sources */
        unsigned sample_shift; /* k: 1/2^k of the hash space was kept; 0: everything, exact */
        double saved_error; /* standard error of all.saved_pages, pages; 0 without sampling */
        double compress_ratio; /* LZ4, uncompressed / compressed, of distinct non-zero contents; 0: none sampled */
        unsigned compressed; /* pages behind it */
        bool still; /* all sources were (of those without an error): exact */
        bool blind; /* merged and kernel-zero pages could not be told from others */
        uint64_t memory; /* bytes that the scan took at most */
        uint64_t bytes_read;
        usec_t took, cpu;
};

/* After bl_scan_step() said 1; lives as long as the scan. */
const struct bl_scan_report *bl_scan_report(const struct bl_scan *s);

#endif
