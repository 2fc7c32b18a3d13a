/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the engine decides on: how much merging a VM would gain, by sampling, for a few thousandths of the cost of a
 * pass of ksmd.
 *
 * A rolling sample of pages of each VM (pieces of BL_EVIDENCE_PIECE neighbours at random places, each VM's RAM being
 * gone through without repetition) is hashed into one table.  Two equal hashes are a candidate pair; such pages are
 * read again not before `settle` later: the hash must have held (a second look), and their bytes must be equal.  What
 * is confirmed counts.  Pages that KSM merged already are known by their frame; one of each frame is read, so that new
 * copies of what is merged are found.
 *
 * Estimating from a sample: a page with c copies elsewhere, each sampled with probability f, is seen to have one with
 * probability 1 - (1 - f)^c, so the share of matched pages is a lower bound of the density of duplicates; c follows
 * from how many copies matched pages have (the mean of a zero-truncated binomial), which corrects it.  The bound and
 * the estimate are both given, with the number of matches behind them.
 *
 * Threads: a job (bl_evidence_job_*) reads and hashes in a worker and touches nothing else; everything else belongs
 * to the loop's thread.
 */
#ifndef BALLAST_PAGES_EVIDENCE_H
#define BALLAST_PAGES_EVIDENCE_H

#include "daemon/pages/source.h"

#define BL_EVIDENCE_PIECE 16U /* pages: 64 KiB, where a read costs little more a page than a large one */

struct bl_evidence;
struct bl_evidence_job;

struct bl_evidence_options {
        uint64_t seed; /* 0: random */
        usec_t settle; /* 0: 100 ms */
        size_t memory_max; /* bytes; 0: 64 MiB.  Where it is full, the oldest samples go */
        usec_t life; /* a sample is forgotten when its page was not looked at for so long; 0: 10 min */
        /* tests: another hash, to force collisions; NULL: XXH3 */
        uint64_t (*hash)(const void *page, uint64_t seed);
};

/* `o` may be NULL.  -ENOMEM. */
int bl_evidence_new(const struct bl_evidence_options *o, struct bl_evidence **ret);
struct bl_evidence *bl_evidence_free(struct bl_evidence *e);
BL_DEFINE_CLEANUP(struct bl_evidence *, bl_evidence_free)

/* A VM: `id` is the caller's, unique, never 0.  bl_evidence_forget drops all samples of it (it ended, or reboots). */
void bl_evidence_forget(struct bl_evidence *e, uint64_t id);

/*
 * Two kinds of job.  FRESH samples `pages` more pages of a VM (rounded up to pieces, never past the end of a round;
 * hinted ranges first, see below).  CONFIRM has the second look at what matched and is due, and the first at merged
 * frames that are new (up to `pages`, about); it reads several VMs' pages, so it takes all their sources.
 * bl_evidence_*_new takes what the job needs along; run() blocks and belongs into a worker; take() brings the result
 * in, on the loop, and frees the job.  Sources must live until then and be used by nothing else meanwhile.  Whatever
 * failed in run() is 0 pages and `error`.  A source that was laid out anew (again() said 1, or n_pages is another than
 * the last time) loses its samples; in take() that is -ESTALE: ask for another job.
 *
 * -ENODATA: the source has no page; -ENOMEM.
 */
struct bl_evidence_vm {
        uint64_t id;
        struct bl_source *source;
};
int bl_evidence_fresh_new(struct bl_evidence *e, struct bl_evidence_vm vm, size_t pages, struct bl_evidence_job **ret);
/* 0 and *ret NULL: nothing is due. */
int bl_evidence_confirm_new(struct bl_evidence *e, const struct bl_evidence_vm *vms, size_t n, usec_t now, size_t pages,
                            struct bl_evidence_job **ret);
/* REFRESH looks again at what all sampled pages of a VM are by now, and reads none (0.1 us a page): after ksmd has run,
 * so that what it merged does not count as still to be gained.  0 and *ret NULL: there are no samples. */
int bl_evidence_refresh_new(struct bl_evidence *e, struct bl_evidence_vm vm, struct bl_evidence_job **ret);
void bl_evidence_job_run(struct bl_evidence_job *j);

struct bl_evidence_done {
        uint64_t looked, read; /* pages */
        uint64_t confirmed, refuted; /* second looks */
        usec_t cpu; /* of the worker */
        bool round; /* FRESH: the VM's RAM has been gone through once */
        int error; /* of the source, the first that failed: -ESRCH, ...; the VM's samples are then as they were */
};
/* `ret` may be NULL.  Its time is bounded by the size of the job. */
void bl_evidence_job_take(struct bl_evidence *e, struct bl_evidence_job *j, usec_t now, struct bl_evidence_done *ret);
struct bl_evidence_job *bl_evidence_job_free(struct bl_evidence_job *j);

/* When the next CONFIRM is due (perhaps long ago: at once); BL_UNSET: nothing waits for one. */
usec_t bl_evidence_confirm_at(const struct bl_evidence *e);

/* Pages that are likely to have copies (a guest's clean page cache of a shared image): FRESH takes three pieces of four
 * from there, as long as it has some that this round did not look at.  Page numbers of the source, in any order; what
 * is beyond its end is cut.  Replaces what was hinted before; a hint is a hint: wrong ones cost time only.  Estimates
 * stay unbiased: hinted pieces count apart (a stratum of their own, weighted by its size).  -ENOMEM. */
int bl_evidence_hint(struct bl_evidence *e, uint64_t id, const uint64_t *first, const uint64_t *n, size_t n_runs);

struct bl_evidence_figures {
        uint64_t pages; /* of the source */
        uint64_t present; /* estimated, with merged ones */
        uint64_t merged; /* of those, merged by KSM */
        uint64_t zero; /* full of zeros, not merged, not the kernel's: estimated */
        uint64_t sampled; /* pages behind the estimates */
        uint64_t matched; /* sampled pages, not merged, that were confirmed to have a copy (merged or not) */
        /* Pages: what merging would free of it beyond what is merged, zero pages included, estimated.  A content with k
         * unmerged copies and none merged counts (k - 1) / k for each of them, else 1. */
        uint64_t gain;
        uint64_t gain_low; /* a 95 % interval of that (evidence_estimate.h) */
        uint64_t gain_high;
        uint64_t swapped;
        uint64_t volatile_pages; /* matched, and had changed at the second look: estimated */
        usec_t at; /* newest sample */
        usec_t oldest;
};
/* Only VMs of `ids` count as partners of each other: a trust group.  ret[i] for ids[i]; zeros where nothing is known.
 * The last answer is kept until something changed. */
void bl_evidence_figures(const struct bl_evidence *e, const uint64_t *ids, size_t n, struct bl_evidence_figures *ret);

size_t bl_evidence_memory(const struct bl_evidence *e); /* bytes of the table; never more than memory_max */

#endif
