/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sense/growth.h"

/* Two samples further apart than this say nothing about now. */
#define STALE (2 * BL_SEC)

/* A slope over less time than this is jitter of the clock and of the kernel's
 * per-CPU counters. */
#define SHORTEST (2 * BL_MSEC)

void bl_growth_init(struct bl_growth *g, uint64_t budget)
{
        *g = (struct bl_growth){.noise = bl_max(budget / 8192, BL_MIB)};
}

static size_t nth_last(const struct bl_growth *g, size_t i)
{
        return (g->next + BL_GROWTH_SAMPLES - 1 - i) % BL_GROWTH_SAMPLES;
}

void bl_growth_add(struct bl_growth *g, usec_t at, uint64_t free)
{
        if (g->n && at <= g->sample[nth_last(g, 0)].at) {
                g->sample[nth_last(g, 0)].free = free;
                return;
        }
        g->sample[g->next].at = at;
        g->sample[g->next].free = free;
        g->next = (g->next + 1) % BL_GROWTH_SAMPLES;
        if (g->n < BL_GROWTH_SAMPLES)
                g->n++;
}

static void insert_sorted(int64_t *v, size_t n, int64_t x)
{
        size_t i = n;

        for (; i > 0 && v[i - 1] > x; i--)
                v[i] = v[i - 1];
        v[i] = x;
}

/* (from - to) per second; saturates */
static int64_t fall(uint64_t from, uint64_t to, usec_t over)
{
        const bool down = from >= to;
        const uint64_t bytes = down ? from - to : to - from;
        const uint64_t rate =
                bl_min(bl_add_sat(bl_mul_sat(bytes / over, BL_SEC), bytes % over * BL_SEC / over), INT64_MAX);

        return down ? (int64_t)rate : -(int64_t)rate;
}

uint64_t bl_growth_rate(const struct bl_growth *g)
{
        int64_t slopes[BL_GROWTH_SAMPLES * (BL_GROWTH_SAMPLES - 1) / 2];
        usec_t last, span;
        size_t n_slopes = 0, n = 0;
        int64_t median;

        if (g->n < 2)
                return 0;
        last = g->sample[nth_last(g, 0)].at;

        /* The samples in the window, and two at least if they are not too old:
         * at rest they come every second. */
        while (n < g->n) {
                const usec_t age = last - g->sample[nth_last(g, n)].at;

                if (age > STALE || (age > BL_GROWTH_WINDOW && n >= 2))
                        break;
                n++;
        }
        if (n < 2)
                return 0;
        span = last - g->sample[nth_last(g, n - 1)].at;

        for (size_t i = 0; i < n; i++)
                for (size_t j = i + 1; j < n; j++) {
                        const size_t later = nth_last(g, i), earlier = nth_last(g, j);
                        const usec_t over = g->sample[later].at - g->sample[earlier].at;

                        if (over < SHORTEST)
                                continue;
                        insert_sorted(slopes, n_slopes, fall(g->sample[earlier].free, g->sample[later].free, over));
                        n_slopes++;
                }
        if (n_slopes == 0)
                return 0;

        median = slopes[n_slopes / 2];
        if (n_slopes % 2 == 0)
                median = slopes[n_slopes / 2 - 1] / 2 + median / 2;
        if (median <= 0)
                return 0;
        return bl_rate_times((uint64_t)median, span) < g->noise ? 0 : (uint64_t)median;
}
