/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How fast free memory falls, from its last samples.  Pure.
 *
 * Theil-Sen: the median of the slopes between all pairs of samples in a short
 * window.  Up to 29 % of the samples may be wild without moving it; a single
 * jump (a VM started with pre-allocated memory) is over as soon as a few
 * samples after it stand still, while true growth shows in the second sample.
 * P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau",
 * JASA 63, 1968.
 */
#ifndef BALLAST_SENSE_GROWTH_H
#define BALLAST_SENSE_GROWTH_H

#include <stddef.h>

#include <ballast/units.h>

#define BL_GROWTH_SAMPLES 16
#define BL_GROWTH_WINDOW  (300 * BL_MSEC)

struct bl_growth {
        size_t n; /* samples held */
        size_t next; /* where the next goes */
        struct {
                usec_t at;
                uint64_t free;
        } sample[BL_GROWTH_SAMPLES];
        uint64_t noise; /* a fall by less than this over the window is rest */
};

/* `budget` sets what counts as noise: 1/8192 of it, 1 MiB at least. */
void bl_growth_init(struct bl_growth *g, uint64_t budget);

/* A sample; one that is not later than the last replaces it. */
void bl_growth_add(struct bl_growth *g, usec_t at, uint64_t free);

/* Bytes per second by which free has been falling lately; 0 at rest, when it
 * rises, and when nothing is known. */
uint64_t bl_growth_rate(const struct bl_growth *g);

#endif
