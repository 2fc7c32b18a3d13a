/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The frames behind merged pages: how many there are, and whose.  What counts is the first source that has a frame and
 * is still there at the end, so of each frame its first four sources are kept, as a set with a count: there are few
 * different ones.
 *
 * Where the table is sampled a frame may come by more than once.  Then a sample of the frames themselves is kept
 * (Flajolet, "On adaptive sampling", Computing 43, 1990): exact up to BL_SCAN_FRAMES_SAMPLE, about 2 % off beyond.
 */
#ifndef BALLAST_PAGES_SCAN_FRAMES_H
#define BALLAST_PAGES_SCAN_FRAMES_H

#include "daemon/pages/scan.h"
#include "daemon/pages/scan_memory.h"

#define BL_SCAN_FRAMES_SAMPLE 2048U
#define BL_SCAN_FRAMES_SETS   1024U /* of more than one source; others count for their first source only */

struct bl_scan_frames_pair {
        uint64_t key, value;
};

struct bl_scan_frames {
        struct bl_scan_frames_pair *set; /* by holders: count */
        size_t set_slots, sets;
        struct bl_scan_frames_pair *sample; /* by mixed frame, in its order: holders */
        size_t samples;
        unsigned shift;
};

/* Holders: up to four sources, first ones first. */
uint64_t bl_scan_holders_with(uint64_t holders, size_t source);

/* For frames that come once each; -ENOMEM. */
int bl_scan_frames_init(struct bl_scan_frames *f, struct bl_scan_memory *m, size_t n_sources);
/* For frames that may come again, before the first one comes; -ENOMEM. */
int bl_scan_frames_init_sample(struct bl_scan_frames *f, struct bl_scan_memory *m);
void bl_scan_frames_free(struct bl_scan_frames *f, struct bl_scan_memory *m);
void bl_scan_frames_add(struct bl_scan_frames *f, uint64_t frame, uint64_t seed, uint64_t holders);
/* Adds to each source's merged_frames those that it is the first to have, of the sources without an error. */
void bl_scan_frames_count(const struct bl_scan_frames *f, struct bl_scan_source *source);

#endif
