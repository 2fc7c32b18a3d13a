// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/store/disk_ring.h"

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void bl_ring_wait(_Atomic uint32_t *word, uint32_t seen, usec_t deadline)
{
        struct timespec t = {
                .tv_sec = (time_t)(deadline / BL_SEC),
                .tv_nsec = (long)(deadline % BL_SEC * 1000),
        };

        /* FUTEX_WAIT's timeout is relative, FUTEX_WAIT_BITSET's a point in time */
        (void)syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, deadline == BL_UNSET ? NULL : &t, NULL,
                      FUTEX_BITSET_MATCH_ANY);
}

void bl_ring_wake(_Atomic uint32_t *word, int n)
{
        (void)syscall(SYS_futex, word, FUTEX_WAKE, n, NULL, NULL, 0);
}
