// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/store/disk_times.h"

#include <string.h>

static void turn(struct bl_disk_times *t, usec_t now)
{
        const uint64_t windows = bl_sub_sat(now, t->begun) / BL_TIMES_WINDOW;

        if (windows == 0)
                return;
        if (windows > 1)
                memset(t->count, 0, sizeof(t->count));
        t->newer ^= 1;
        memset(t->count[t->newer], 0, sizeof(t->count[0]));
        t->begun = now;
}

static unsigned step_of(usec_t v)
{
        const unsigned power = 63U - (unsigned)__builtin_clzll(v | 4);

        return (unsigned)bl_min(v < 4 ? v : (power - 1) * 4 + ((v >> (power - 2)) & 3), BL_TIMES_STEPS - 1);
}

static usec_t middle_of(unsigned step)
{
        const unsigned power = step / 4 + 1;

        return step < 4 ? step : ((4 + (usec_t)(step % 4)) << (power - 2)) + ((usec_t)1 << (power - 2)) / 2;
}

void bl_disk_times_add(struct bl_disk_times *t, usec_t took, usec_t now)
{
        turn(t, now);
        t->count[t->newer][step_of(took)]++;
}

usec_t bl_disk_times_part(struct bl_disk_times *t, permyriad_t part, usec_t now)
{
        uint64_t sum = 0, below = 0;

        turn(t, now);
        for (unsigned i = 0; i < BL_TIMES_STEPS; i++)
                sum += (uint64_t)t->count[0][i] + t->count[1][i];
        for (unsigned i = 0; i < BL_TIMES_STEPS; i++) {
                below += (uint64_t)t->count[0][i] + t->count[1][i];
                if (below > 0 && below * BL_WHOLE >= sum * part)
                        return middle_of(i);
        }
        return 0;
}
