/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * This guest's swap on the host's store: a virtio disk that the host plugs in, with
 * the serial number BL_WIRE_STORE_SERIAL (include/ballast/wire.h).
 *
 * All that may block is done by a child, one at a time: finding the disk (reading its
 * serial number is a request to it), discarding, formatting, swapon(2) and
 * swapoff(2).  How it stands is read from /proc/swaps each time, not remembered, so
 * that an agent that was started anew knows it too.
 */
#ifndef BALLAST_GUEST_SWAP_H
#define BALLAST_GUEST_SWAP_H

#include <poll.h>
#include <sys/types.h>

#include <ballast/wire.h>

#include "guestagent/swapjob.h"

struct guest_swap {
        const char *root; /* put before /proc, /sys and /dev; "" */
        const struct swap_system *system; /* NULL: the real one; tests have their own */
        int swaps; /* /proc/swaps; -1: there is none, this kernel has no swap */
        char disk[SWAP_DISK_NAME]; /* below /sys/block; "": none is known */
        uint64_t disk_inode; /* of its directory there: another one, another disk */

        pid_t child; /* 0: none */
        int pipe; /* the child's; -1: none */
        enum swap_job_kind kind; /* what the child does */
        int error; /* errno of what the last one failed with */
        bool known; /* which disk it is, or that there is none */
        bool off; /* it ended with a disk that is free of content */
        bool changed; /* a child has begun or ended: worth a report at once */
};

/* Looks at once, by a child, whether there is such a disk. */
void guest_swap_init(struct guest_swap *s, const char *root);
/* Interrupts what is under way; it ends by itself. */
void guest_swap_end(struct guest_swap *s);

/* BL_WIRE_FEATURE_SWAP or 0. */
uint64_t guest_swap_features(const struct guest_swap *s);

static inline bool guest_swap_is_action(uint64_t kind)
{
        return kind == BL_ACTION_SWAP_ON || kind == BL_ACTION_SWAP_OFF || kind == BL_ACTION_SWAP_GIVE;
}

/* Begins it, or says why not: never waits.  `memory` are statistics of now. */
void guest_swap_begin(struct guest_swap *s, const struct bl_wire_action *action, const struct bl_wire_stats *memory,
                      struct bl_wire_result *ret);

/* What to poll for (fd -1: nothing) and, returned, for how long at most. */
usec_t guest_swap_poll(const struct guest_swap *s, struct pollfd *ret);
/* Reaps the child. */
void guest_swap_step(struct guest_swap *s);

/* Fills in BL_STAT_STORE_... and BL_STAT_SWAP_AHEAD. */
void guest_swap_report(struct guest_swap *s, struct bl_wire_stats *stats);

#endif
