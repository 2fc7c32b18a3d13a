/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Other programs that would fight with us over the same memory.  Found by
 * name in /proc; milliseconds on a host with thousands of processes: call it
 * at the start and every few minutes, not in the loop's fast path.
 */
#ifndef BALLAST_SENSE_CONTROLLERS_H
#define BALLAST_SENSE_CONTROLLERS_H

#include <stddef.h>
#include <sys/types.h>

#define BL_CONTROLLERS_MAX 16

struct bl_controller {
        const char *name; /* "MOM", "ksmtuned"; static */
        const char *what; /* a sentence: what it does that conflicts, and what to do; static */
        pid_t pid; /* 0: no process (a kernel setting) */
};

/* Each kind once, in a fixed order; `self` is left out.  Returns how many were
 * stored, at most `max`; errors of opening /proc. */
int bl_controllers_find(const char *root, pid_t self, struct bl_controller *ret, size_t max);

#endif
