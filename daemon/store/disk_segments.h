/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which part of the disk is whose: the log's segments, the blobs alive in each,
 * where the next ones go, and which segment is best cleaned.  Pure bookkeeping:
 * no I/O, no lock (disk.c holds one).  8 bytes a blob, 32 a segment.
 *
 * Blobs are laid one behind the other, across segments: what an append leaves of
 * a segment the next one goes on with, from the next multiple of 4 KiB.  Nothing is
 * written over before all of its segment is dead.
 *
 * A segment is free when no blob in it is alive and nobody holds it: a write that may
 * still land is a hold.
 */
#ifndef BALLAST_STORE_DISK_SEGMENTS_H
#define BALLAST_STORE_DISK_SEGMENTS_H

#include "daemon/store/disk.h"

/* Only what is moved out of the segment picked last may use these. */
#define BL_SEGMENTS_RESERVE 1U

struct bl_segment;

struct bl_segments {
        struct bl_segment *all;
        uint32_t n, n_free;
        uint32_t head, tail; /* queue of free ones */
        uint32_t open, fill; /* the segment that is not full yet, and from which byte on */
        uint32_t stamp; /* how many segments were begun */
        uint32_t picked, picked_blobs; /* the last one, and how many blobs it had then */
        uint64_t live; /* bytes of blobs alive */
        uint64_t memory; /* bytes of tables */
};

/* Blobs of one append that lie in one segment. */
struct bl_segments_part {
        uint32_t segment, start, size; /* bytes in it; start and size are multiples of 4 KiB */
        uint32_t first, n; /* of the blobs */
};

/* One append has this many parts at most: the rest of the open segment, and two more since places are rounded up. */
#define BL_SEGMENTS_PARTS 3U

/* -ENOMEM. */
int bl_segments_init(struct bl_segments *s, uint32_t n);
void bl_segments_done(struct bl_segments *s);

/* As bl_disk_claim and bl_disk_free; what is not there is not freed. */
int bl_segments_claim(struct bl_segments *s, bl_disk_place place, uint32_t size, uint32_t entry);
void bl_segments_free(struct bl_segments *s, bl_disk_place place, uint32_t size);

/*
 * Finds room for the blobs and holds it (one hold a part).  How many parts; -ENOSPC; -EINVAL: too much, or a
 * blob of an impossible size; -ENOMEM.  One append at a time: until each part was added or given up.
 */
int bl_segments_plan(struct bl_segments *s, const struct bl_disk_blob *blobs, size_t n,
                     struct bl_segments_part ret[static BL_SEGMENTS_PARTS]);
/* The part is written: its blobs are alive, and know their places. */
void bl_segments_add(struct bl_segments *s, const struct bl_segments_part *p, struct bl_disk_blob *blobs);
/* It is not, or not surely: nothing more is written to this segment before it has been free. */
void bl_segments_give_up(struct bl_segments *s, const struct bl_segments_part *p);

void bl_segments_hold(struct bl_segments *s, uint32_t segment, uint32_t n);
void bl_segments_release(struct bl_segments *s, uint32_t segment, uint32_t n);

/* As bl_disk_pick. */
size_t bl_segments_pick(struct bl_segments *s, struct bl_disk_blob *ret, size_t n);

#endif
