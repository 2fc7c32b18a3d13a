// SPDX-License-Identifier: LGPL-2.1-or-later
/* A random order without repetition. */
#include "daemon/pages/evidence_walk.h"

#define ROUNDS 4U

void bl_ev_walk_start(struct bl_ev_walk *w, uint32_t n, uint64_t key)
{
        *w = (struct bl_ev_walk){.key = key, .n = n, .half = 1};
        while ((UINT64_C(1) << (2 * w->half)) < n)
                w->half++;
}

static uint64_t permute(const struct bl_ev_walk *w, uint64_t x)
{
        uint64_t mask = (UINT64_C(1) << w->half) - 1, left = x >> w->half, right = x & mask;

        for (uint64_t i = 0; i < ROUNDS; i++) {
                uint64_t t = left ^ (bl_ev_mix(w->key + (right << 8 | i)) & mask);

                left = right;
                right = t;
        }
        return left << w->half | right;
}

bool bl_ev_walk_next(struct bl_ev_walk *w, uint32_t *ret)
{
        uint64_t x;

        if (w->pos >= w->n)
                return false;
        x = permute(w, w->pos++);
        while (x >= w->n)
                x = permute(w, x);
        *ret = (uint32_t)x;
        return true;
}
