/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The longer jobs of actions.h.  They run in a child process, so that the agent
 * itself never waits for one, and may block, allocate and be killed at any time.
 */
#ifndef BALLAST_GUEST_JOB_H
#define BALLAST_GUEST_JOB_H

#include <ballast/wire.h>

struct guest_job {
        const char *root; /* put before /proc and /sys; "" */
        int out; /* takes whole frames */
        uint64_t bytes; /* how much the host asked for; BL_UNSET: it did not say */
        uint64_t scan; /* for hints: its number */
        usec_t until; /* CLOCK_MONOTONIC: what is not done then is left */
        uint64_t given; /* result: bytes given back, or hinted at */
};

/* Gives clean cache back by memory.reclaim of the cgroups at the top. */
enum bl_wire_status guest_job_trim(struct guest_job *j);
enum bl_wire_status guest_job_compact(struct guest_job *j);
/* Writes messages of hints. */
enum bl_wire_status guest_job_hints(struct guest_job *j);

/* Could they do anything here? */
bool guest_can_trim(const char *root);
bool guest_can_compact(const char *root);
bool guest_can_hint(const char *root);

/* All of it.  Negative errno. */
int guest_write_all(int fd, const void *data, size_t size);

#endif
