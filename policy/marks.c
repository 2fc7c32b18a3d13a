/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* minFree and the marks of the host states. */
#include "internal.h"

/* ESXi's sliding scale (VMware vSphere Resource Management, "Mem.MinFreePct"). */
static const struct {
        uint64_t bytes;
        permyriad_t ratio;
} scale[] = {
        {4 * BL_GIB, 600},
        {8 * BL_GIB, 400},
        {16 * BL_GIB, 200},
        {UINT64_MAX, 100},
};

/* Parts of minFree, by state. */
static const permyriad_t parts[_BL_STATE_MAX] = {
        [BL_STATE_HIGH] = 40000, [BL_STATE_CLEAR] = 10000, [BL_STATE_SOFT] = 6400,
        [BL_STATE_HARD] = 3200,  [BL_STATE_LOW] = 1600,
};

void bl_marks_compute(uint64_t budget, uint64_t min_free, struct bl_marks *ret)
{
        struct bl_marks m = {.min_free = min_free};

        if (min_free == BL_UNSET) {
                uint64_t left = budget;

                m.min_free = 0;
                for (size_t i = 0; i < sizeof(scale) / sizeof(scale[0]); i++) {
                        uint64_t slice = bl_min(left, scale[i].bytes);

                        m.min_free += bl_part(slice, scale[i].ratio);
                        left -= slice;
                }
        }

        for (int s = 0; s < _BL_STATE_MAX; s++)
                m.mark[s] = bl_part(m.min_free, parts[s]);

        *ret = m;
}

void bl_marks_raise(struct bl_marks *m, uint64_t reserve)
{
        for (int s = 0; s < _BL_STATE_MAX; s++)
                m->mark[s] = bl_add_sat(m->mark[s], reserve);
}
