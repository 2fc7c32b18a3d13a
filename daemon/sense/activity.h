/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a VMM does, from /proc/PID/stat (proc(5)): its CPU time and its major
 * faults, and since when it does next to nothing. */
#ifndef BALLAST_SENSE_ACTIVITY_H
#define BALLAST_SENSE_ACTIVITY_H

#include <ballast/units.h>

struct bl_activity {
        uint64_t cpu; /* utime + stime of all threads, usec; counts in clock ticks of 10 ms */
        uint64_t major_faults;
};

/* `stat` is the whole file.  -EBADMSG. */
int bl_activity_parse(const char *stat, struct bl_activity *ret);
/* Of the process of /proc/PID that `dirfd` is (resident.h).  -ESRCH, -EBADMSG. */
int bl_activity_read(int dirfd, struct bl_activity *ret);

/* Idle: below 1 % of a core over a minute.  A guest that only keeps its clock takes
 * 0.2 to 0.5 % here. */
#define BL_IDLE_WINDOW (60 * BL_SEC)
#define BL_IDLE_SHARE  100U /* permyriad */

/* Starts as {0}. */
struct bl_idle {
        usec_t from; /* of the window under way; 0: none yet */
        uint64_t cpu; /* then */
        usec_t since; /* it is idle; 0: it is not, or that is not known yet */
};

void bl_idle_note(struct bl_idle *i, uint64_t cpu, usec_t now);

#endif
