/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What page sharing saves for one VM, from /proc/PID/smaps_rollup.
 *
 * Resident sizes count a page that KSM merged once for each mapping; Pss
 * divides it among them.  So savings = Anonymous - Pss_Anon.  (Only anonymous
 * memory: shared memory that virtiofsd or a vhost-user backend maps too halves
 * its Pss without saving a byte.)  The kernel walks every page table for it,
 * with the process's mmap lock held for reading: 0.4 us per MiB of huge pages,
 * 2.7 us per MiB of small ones were measured here, 20 us elsewhere with many
 * merged pages.  So it is done off the event loop and seldom.
 *
 *     loop:    bl_pss_due() -> queue pid, start
 *     worker:  bl_pss_measure()
 *     loop:    bl_pss_note(); bl_pss_savings() from then on
 */
#ifndef BALLAST_SENSE_PSS_H
#define BALLAST_SENSE_PSS_H

#include <sys/types.h>

#include <ballast/units.h>

struct bl_pss {
        uint64_t rss;
        uint64_t pss;
        uint64_t anon; /* Anonymous */
        uint64_t pss_anon; /* BL_UNSET before kernel 5.3: then savings are 0 */
        uint64_t ksm; /* KSM: pages that are merged; BL_UNSET before 6.4 */
        usec_t cost; /* CPU time of this measurement */
};

/* -EBADMSG. */
int bl_pss_parse(const char *text, struct bl_pss *ret);

/* Slow (0.1 s for a VM of some GiB); call it from a worker thread.  `start` as
 * in resident.h.  -ESRCH, -EACCES (needs CAP_SYS_PTRACE for another user's). */
int bl_pss_measure(const char *root, pid_t pid, uint64_t start, struct bl_pss *ret);

static inline uint64_t bl_pss_saved(const struct bl_pss *p)
{
        return p->pss_anon == BL_UNSET ? 0 : bl_sub_sat(p->anon, p->pss_anon);
}

/* One VM's share of the pacing; starts as {0}. */
struct bl_pss_pace {
        uint64_t savings; /* at the last measurement */
        uint64_t anon; /* RssAnon then */
        uint64_t merged; /* what bl_pss_bound said then; BL_UNSET: nothing */
        usec_t at; /* 0: never measured */
        usec_t cost; /* CPU time of that */
        usec_t next; /* not before */
        bool doubted; /* something happened that neither `anon` nor `merged` shows */
        bool busy; /* a worker is at it */
};

/* Is it time?  At most one VM may be busy at a time: the caller sees to that.  A VM whose RssAnon and bl_pss_bound
 * (BL_UNSET: not known) are what they were, within 2 %, is measured every 5 minutes only, unless that is doubted: pages
 * that are copied on write, or that khugepaged took apart, show in neither of the two. */
bool bl_pss_due(const struct bl_pss_pace *p, uint64_t anon, uint64_t bound, usec_t now);

/* Takes a measurement; the next follows so late that all `n_vms` together
 * stay below 0.2 % of one CPU, and not before 10 s.  `bound` as at bl_pss_due. */
void bl_pss_note(struct bl_pss_pace *p, const struct bl_pss *m, uint64_t bound, size_t n_vms, usec_t now);

/* It failed: again in 10 s at the earliest. */
void bl_pss_failed(struct bl_pss_pace *p, usec_t now);

/*
 * Savings to assume now, given RssAnon now: those measured, in proportion when
 * memory was taken from the VM since, never more when it grew.  `bound` is
 * the most that they can be, e.g. what bl_pss_bound said; BL_UNSET: not known.
 */
uint64_t bl_pss_savings(const struct bl_pss_pace *p, uint64_t anon, uint64_t bound);

/*
 * A cheap upper bound of the savings in bytes (2 us): ksm_merging_pages of the
 * process, kernel 5.19+.  It falls at once when memory is freed; a merged page
 * that the guest wrote to, or that was un-merged, stays in it until ksmd passes
 * there again (measured); the former is counted meanwhile by bl_vmstat.cow_ksm,
 * for the whole host.  `dirfd` is bl_resident_dirfd's.  -ENOENT: this kernel does not
 * have it; -EBADMSG; -EACCES.
 */
int bl_pss_bound(int dirfd, uint64_t *ret);

#endif
