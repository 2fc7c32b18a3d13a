/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* When to look again.  Pure; the reasoning is in sampler.c. */
#ifndef BALLAST_SENSE_SAMPLER_H
#define BALLAST_SENSE_SAMPLER_H

#include <ballast/units.h>

/*
 * Time until the next sample: the nearer `free` is to `mark` (below which the
 * policy would act; add the lead if there is one) and the faster it falls
 * (`growth`, bytes/s), the sooner; within [min, max].
 */
usec_t bl_sample_interval(uint64_t free, uint64_t mark, uint64_t growth, usec_t min, usec_t max);

#endif
