/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/util/clock.h"

#include <time.h>

/* These clocks exist on every Linux; clock_gettime cannot fail for them. */
static usec_t now(clockid_t clock)
{
        struct timespec ts = {0};

        (void)clock_gettime(clock, &ts);
        return (usec_t)ts.tv_sec * BL_SEC + (usec_t)ts.tv_nsec / 1000;
}

usec_t bl_now(void)
{
        return now(CLOCK_MONOTONIC);
}

usec_t bl_now_boot(void)
{
        return now(CLOCK_BOOTTIME);
}

usec_t bl_now_wall(void)
{
        return now(CLOCK_REALTIME);
}

usec_t bl_now_thread_cpu(void)
{
        return now(CLOCK_THREAD_CPUTIME_ID);
}

usec_t bl_mono_to_wall(usec_t mono)
{
        const usec_t wall = bl_now_wall(), here = bl_now();

        if (mono == BL_UNSET || mono == 0)
                return mono;
        return mono > here ? bl_add_sat(wall, mono - here) : bl_sub_sat(wall, here - mono);
}
