/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ESX's ladder of host states, with its hysteresis. */
#include <ballast/policy.h>

/* The state whose own mark `free` is below; the marks fall from state to state. */
static enum bl_host_state by_own_mark(uint64_t free, const struct bl_marks *m)
{
        enum bl_host_state s = BL_STATE_HIGH;

        /* high has no mark to fall below: 4x is where it is entered, 1x where it is left */
        while (s < BL_STATE_LOW && free < m->mark[s + 1])
                s++;
        return s;
}

enum bl_host_state bl_state_next(enum bl_host_state before, uint64_t free, const struct bl_marks *m, bool hysteresis)
{
        enum bl_host_state own = by_own_mark(free, m), s = before;

        if (!hysteresis || own > before)
                return own;

        while (s > BL_STATE_HIGH && free >= m->mark[s - 1])
                s--;
        return s;
}
