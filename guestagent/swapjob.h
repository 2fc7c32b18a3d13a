/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What swap.h lets a child do.  The child is the first that the guest's OOM killer
 * takes; swapoff(2) is then undone by the kernel.
 *
 * swapoff(2) ends with EINTR when a signal comes, and the area is in use again with the
 * priority that it had; what was brought back until then stays back.  It looks for
 * signals between two processes' memory only (mm/swapfile.c, try_to_unuse), so that a
 * slice of it is at least all that one process has in swap.
 */
#ifndef BALLAST_GUEST_SWAPJOB_H
#define BALLAST_GUEST_SWAPJOB_H

#include <ballast/wire.h>

#define SWAP_DISK_NAME 32U

enum swap_job_kind {
        SWAP_JOB_FIND, /* only say which disk it is */
        SWAP_JOB_ON, /* format it and swap on it */
        SWAP_JOB_OFF, /* bring everything back, and discard all of it */
        SWAP_JOB_GIVE, /* the same, and on again */
};

/* What needs a real disk. */
struct swap_system {
        int (*on)(const char *path, int flags); /* swapon(2) */
        int (*off)(const char *path); /* swapoff(2) */
        int (*discard)(int fd, uint64_t size); /* BLKDISCARD of all; -1 and errno */
};

struct swap_job {
        enum swap_job_kind kind;
        const char *root;
        const struct swap_system *system;
        int out; /* takes the name of the disk as soon as it is known, SWAP_DISK_NAME bytes */
};

/* 0, or a positive errno: for exit(2). */
int swap_job_run(const struct swap_job *j);

/* What has to stay available while slots are brought back: a guest of `total` bytes. */
uint64_t swap_job_margin(uint64_t total);

#endif
