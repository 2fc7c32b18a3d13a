/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The disk tier: a file or block device as a log of compressed pages ("blobs").
 *
 * Which blob belongs to what, only the pool's entries know; they die with the
 * host, and so does the worth of what is on disk: nothing here has to be
 * recovered from the disk, ever.  Blobs carry no checksum of their own: the
 * entry's hash is checked by the reader.
 *
 * All I/O runs in a worker process of its own, over buffers in memory shared
 * with it.  A thread in D state survives kill -9 and would keep the pool's lock
 * and mapping; the worker has neither.  It holds a lock on the disk (flock), and
 * a new worker does nothing before it has that lock: so no write of a dead
 * store's worker ever lands on what its successor has written.  Until then the
 * disk hangs, and the RAM tier works on.  (A network filesystem may break this: its
 * server can be told of a write by a process that is gone.)
 *
 * The log: segments of BL_DISK_SEGMENT bytes, written whole, O_DIRECT where the
 * disk can; a segment with no live blob is free again; when free segments run
 * short the one with least alive is read and what lives in it appended anew
 * (Rosenblum and Ousterhout, "The Design and Implementation of a Log-Structured
 * File System", SOSP 1991).
 */
#ifndef BALLAST_STORE_DISK_H
#define BALLAST_STORE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

#define BL_DISK_SEGMENT (1 * BL_MIB)
#define BL_DISK_GRAIN   16U /* blobs start at multiples of this */
#define BL_DISK_BLOBS   8192U /* in a segment, at most */

struct bl_disk;

struct bl_disk_options {
        const char *path; /* a file (made, 0600, if it is not there) or a block device */
        uint64_t size; /* bytes of it; 0: all of a block device */
        usec_t hang_after; /* a request older than this: the disk hangs; 0: 10 s */
};

/* Starts the worker; what is on the disk counts for nothing yet (bl_disk_claim).  -EBUSY is never
 * returned for the worker's lock (see above); -EINVAL too small (4 segments at least), not a file or
 * block device, or mounted; others of open, fallocate, fork.  *ret_message as elsewhere. */
int bl_disk_open(const struct bl_disk_options *o, struct bl_disk **ret, char **ret_message);
/* Does not wait for a worker that hangs. */
struct bl_disk *bl_disk_close(struct bl_disk *d);
BL_DEFINE_CLEANUP(struct bl_disk *, bl_disk_close)

/* A blob's place: byte offset on the disk / BL_DISK_GRAIN; fits into 56 bits. */
typedef uint64_t bl_disk_place;

/* While the store rebuilds: this blob is alive.  -EINVAL: outside, or over another one. */
int bl_disk_claim(struct bl_disk *d, bl_disk_place place, uint32_t size, uint32_t entry);
/* It is not any more.  Never blocks. */
void bl_disk_free(struct bl_disk *d, bl_disk_place place, uint32_t size);

/* What surely fits, in bytes of blobs that are alive, as long as it is cleaned: the rest is for cleaning. */
uint64_t bl_disk_capacity(const struct bl_disk *d);

/* One segment's worth of blobs to append. */
struct bl_disk_blob {
        uint32_t entry; /* whose; given back by bl_disk_pick */
        uint32_t size; /* bytes, 65535 at most */
        const void *data;
        bl_disk_place place; /* filled in on success */
};
/*
 * Writes n blobs (together at most BL_DISK_SEGMENT, and BL_DISK_BLOBS of them) and
 * waits until they are there.  They are alive from then on.  One at a time; a second caller waits.
 * They follow what was appended before, so a small append costs no segment.
 * -ENOSPC: no free segment (clean first); the last one is kept for appends that begin with an entry of the
 * segment picked last, so that cleaning always goes on.
 * -EIO: the write failed, nothing is alive; -ETIMEDOUT: the disk hangs: what was under way may still be
 * written, so that segment is not used again before the worker has answered or been replaced.
 * -EINVAL: see the limits; -ENOMEM.
 */
int bl_disk_append(struct bl_disk *d, struct bl_disk_blob *blobs, size_t n);

/* Waits for the blob's bytes.  -EIO; -ETIMEDOUT: the disk hangs.  Any number of threads. */
int bl_disk_read(struct bl_disk *d, bl_disk_place place, uint32_t size, void *buf);

/* The segment that is best cleaned: fills entry and place and size of what was appended or claimed there
 * and not freed since.  Returns how many (0: nothing is worth it, or needed); at most `n`, which
 * bl_disk_most_blobs tells (with less, the rest comes another time).  The caller reads them, appends those that
 * still are where they were, and frees the old places.  One of which nothing was freed is not given twice
 * running. */
size_t bl_disk_pick(struct bl_disk *d, struct bl_disk_blob *ret, size_t n);
size_t bl_disk_most_blobs(const struct bl_disk *d);

struct bl_disk_figures {
        uint64_t size;
        uint64_t live; /* bytes of blobs alive */
        uint64_t free; /* bytes of free segments */
        uint64_t written, read; /* bytes, cumulative */
        uint64_t memory; /* of the process: tables and buffers */
        bool hangs; /* a request is older than hang_after, or the lock is another's */
        bool failed; /* the last write failed */
        usec_t read_p50, read_p99, oldest; /* of the last seconds; age of the oldest request */
        int worker; /* pid, and process group; 0: there is none now */
};
void bl_disk_figures(struct bl_disk *d, struct bl_disk_figures *ret);

#endif
