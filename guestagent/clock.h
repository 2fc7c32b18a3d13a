/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef BALLAST_GUEST_CLOCK_H
#define BALLAST_GUEST_CLOCK_H

#include <time.h>

#include <ballast/units.h>

static inline usec_t guest_clock(clockid_t id)
{
        struct timespec t;

        (void)clock_gettime(id, &t);
        return (usec_t)t.tv_sec * BL_SEC + (usec_t)t.tv_nsec / 1000;
}

#endif
