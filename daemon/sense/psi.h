/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory pressure stall information (Documentation/accounting/psi.rst).
 *
 * Where PSI is off (no CONFIG_PSI, or psi=0) the file is missing or cannot be
 * read: -ENOENT or -EOPNOTSUPP, to be said once and then lived without.  Where
 * only triggers are refused (-EPERM, -EINVAL, -EBUSY: no CAP_SYS_RESOURCE and a
 * window that is no multiple of 2 s), reading the totals still works.
 */
#ifndef BALLAST_SENSE_PSI_H
#define BALLAST_SENSE_PSI_H

#include "daemon/util/fs.h"

struct bl_psi {
        uint64_t some; /* cumulative stall, usec: at least one task waits */
        uint64_t full; /* all tasks wait */
        permyriad_t some_avg10;
        permyriad_t full_avg10;
};

/* -EBADMSG. */
int bl_psi_parse(const char *text, struct bl_psi *ret);

/* Reads it once, too, so that a file that cannot be read is found here.
 * -ENOENT, -EOPNOTSUPP, -EBADMSG. */
int bl_psi_open(struct bl_reader *r, const char *root);
int bl_psi_read(const struct bl_reader *r, struct bl_psi *ret);

/*
 * A descriptor that polls EPOLLPRI when tasks stalled for `stall` within
 * `window` (the kernel takes windows of 500 ms to 10 s, and reports once per
 * window at most); EPOLLERR when the source has gone.  Close it to end.
 * `kind`: "some" or "full".
 */
int bl_psi_trigger_open(const char *root, const char *kind, usec_t stall, usec_t window);

/* A sentence why PSI cannot be had, for the log. */
const char *bl_psi_why_not(int error);

#endif
