/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Named fault points, for test builds only (make FAULTS=1).
 *
 * In other builds bl_fault() is a constant 0 and costs nothing.  In a test
 * build BALLAST_FAULT says what happens; several rules are split by commas:
 *
 *      kill@NAME[:N]   the process kills itself (SIGKILL) at the Nth passing (default 1)
 *      fail@NAME[:N]   bl_fault() returns -EIO at the Nth passing
 *      delay@NAME:MS   every passing takes MS milliseconds longer
 *
 * The names are listed in daemon/fault-points.h, so that a test can loop over
 * all of them (bl_fault_names).
 */
#ifndef BALLAST_DAEMON_FAULT_H
#define BALLAST_DAEMON_FAULT_H

#include <stddef.h>

enum bl_fault_point {
#define BL_FAULT_POINT(id, name) BL_FAULT_##id,
#include "fault-points.h"
#undef BL_FAULT_POINT
        _BL_FAULT_MAX,
};

#ifdef BALLAST_FAULTS
/* 0, or a negative errno that the caller treats like a failure of the step
 * that follows.  Any thread. */
int bl_fault(enum bl_fault_point p);
#else
#define bl_fault(p) ((void)(p), 0)
#endif

/* All names, in both builds. */
const char *const *bl_fault_names(size_t *ret_n);

/* 1 in a test build, 0 otherwise. */
int bl_fault_enabled(void);

/* Reads a rule string as BALLAST_FAULT would have it, in place of the
 * environment; counters start anew.  NULL: no rules.  -EINVAL for a rule that
 * does not parse or an unknown name, -EOPNOTSUPP when not a test build. */
int bl_fault_set(const char *rules);

#endif
