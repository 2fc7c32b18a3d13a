/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the kernel says of KSM: of the host, of its threads, of one process. */
#ifndef BALLAST_SENSE_KSM_H
#define BALLAST_SENSE_KSM_H

#include <sys/types.h>

#include <ballast/units.h>

struct bl_ksm_figures {
        bool there; /* CONFIG_KSM */
        unsigned run; /* 0, 1, 2 */
        uint64_t full_scans;
        uint64_t pages_shared; /* frames */
        uint64_t
                pages_sharing; /* further mappings of them.  Stale where khugepaged collapsed merged pages (measured) */
        uint64_t pages_unshared, pages_volatile;
        uint64_t zero_pages; /* merged with the kernel's zero page */
        uint64_t pages_scanned, pages_skipped; /* BL_UNSET before 6.6, 6.7 */
        uint64_t cow; /* vmstat cow_ksm: merged pages that were copied on write */
        usec_t ksmd_cpu, khugepaged_cpu; /* of the threads, ever (/proc/PID/schedstat); BL_UNSET: not found */
        uint64_t collapsed; /* khugepaged/pages_collapsed */
};

/* Finds ksmd and khugepaged once; `root` as elsewhere.  What this kernel does not have, or does not show here, is
 * BL_UNSET in each reading.  -ENOMEM. */
struct bl_ksm_sensor;
int bl_ksm_sensor_new(const char *root, struct bl_ksm_sensor **ret);
struct bl_ksm_sensor *bl_ksm_sensor_free(struct bl_ksm_sensor *s);
/* -ENODEV: `there` is false. */
int bl_ksm_sensor_read(struct bl_ksm_sensor *s, struct bl_ksm_figures *ret);

/* Of one process, by /proc/PID/ksm_stat and ksm_merging_pages (6.1 has only the latter).  2 us. */
struct bl_ksm_process {
        /* pages mapped to KSM pages; of what was un-merged (MADV_UNMERGEABLE), written to or collapsed by khugepaged
         * it has the old number until ksmd passes there again (measured): Pss tells */
        uint64_t merging;
        uint64_t zero; /* merged with the zero page; BL_UNSET before 6.6 */
        uint64_t rmap_items; /* pages that ksmd keeps 64 bytes for; BL_UNSET */
        int mergeable; /* the process has registered memory: 1, 0; -1: this kernel does not say (6.15) */
};
/* `dirfd` as bl_resident_dirfd's.  -ESRCH, -EACCES, -EBADMSG; -ENOENT: no KSM, or before 5.19. */
int bl_ksm_process_read(int dirfd, struct bl_ksm_process *ret);

#endif
