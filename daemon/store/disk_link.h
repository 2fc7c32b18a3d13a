/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The store's end of the disk's I/O: keeps a worker process running, sends it
 * requests, and never waits for it longer than it is told to.
 *
 * A thread of its own forks the workers (PR_SET_PDEATHSIG is bound to the forking
 * thread) and watches the one there is (pidfd_open(2)).  What a dead worker
 * had under way: reads are sent again to the next one; a write is told to its
 * caller.  A request that nobody waits for any more keeps its slot, and so its memory,
 * until it is answered or its worker is dead.
 */
#ifndef BALLAST_STORE_DISK_LINK_H
#define BALLAST_STORE_DISK_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <ballast/units.h>

struct bl_link;

struct bl_link_options {
        int fd; /* of the disk; the link's only if opening it succeeded */
        usec_t hang_after;
        /* One piece of a write to `segment`, given up before, will not land any more.  From the link's thread, no
         * lock held. */
        void (*settled)(void *userdata, uint32_t segment);
        void *userdata;
};

/* -EAGAIN, -ENOMEM and others: of fork(2) and pthread_create(3). */
int bl_link_open(const struct bl_link_options *o, struct bl_link **ret);
/* Nobody is in any other call.  Kills the worker and does not wait for what it has under way. */
struct bl_link *bl_link_close(struct bl_link *l);

/* Any offset; -EIO; -ETIMEDOUT. */
int bl_link_read(struct bl_link *l, uint64_t offset, size_t size, void *buf);

struct bl_link_write {
        uint64_t offset; /* a multiple of 4 KiB, as `size` */
        size_t size;
        uint32_t segment;
        usec_t deadline;
        /* Makes bytes [from, from + size) of the write. */
        void (*fill)(const void *userdata, uint8_t *dst, size_t from, size_t size);
        const void *userdata;
};

/* Pieces that a write of this size is sent in. */
uint32_t bl_link_pieces(size_t size);

/*
 * One at a time.  -EIO; -ETIMEDOUT; -EPIPE: the worker died.  With -EPIPE nothing of it lands any more by the time
 * anything else is written; else, on failure, *ret_open pieces may still land: each is settled once (see above),
 * perhaps before this returns.
 */
int bl_link_write(struct bl_link *l, const struct bl_link_write *w, uint32_t *ret_open);

struct bl_link_figures {
        bool hangs;
        usec_t oldest, read_p50, read_p99;
        pid_t worker;
        uint64_t memory;
};
void bl_link_figures(struct bl_link *l, struct bl_link_figures *ret);

#endif
