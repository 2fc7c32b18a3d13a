/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How far a scan is, on standard error where that is a terminal; gone when it is over. */
#ifndef BALLAST_CTL_SCAN_PROGRESS_H
#define BALLAST_CTL_SCAN_PROGRESS_H

#include "daemon/pages/scan.h"

struct ctl_scan_progress {
        char what[64]; /* "8 VMs" */
        usec_t began;
        int width; /* 0: no terminal */
};

void ctl_scan_progress_begin(struct ctl_scan_progress *p, const char *what);
void ctl_scan_progress_show(const struct ctl_scan_progress *p, const struct bl_scan_progress *now);
void ctl_scan_progress_end(const struct ctl_scan_progress *p);
/* A line in its place: what takes its time besides. */
void ctl_scan_progress_say(const struct ctl_scan_progress *p, const char *text);

/* "about 12 s left" from how long `part` of the work took; "" while that cannot be told.  Returns buf. */
const char *ctl_scan_time_left(usec_t elapsed, permyriad_t part, char *buf, size_t size);

#endif
