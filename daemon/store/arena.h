/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory that the pool lives in: never swapped, and there when the process
 * that made it is not.
 *
 * Two kinds, chosen at creation: a file on a tmpfs mounted noswap (Linux 6.4,
 * tmpfs(5)), or a System V segment under SHM_LOCK (shmctl(2): the lock is the
 * segment's, not the process's, and ends neither with exec nor with kill -9;
 * mlock(2) would).  Memory is taken ahead of use by bl_arena_populate, chunk by
 * chunk, so that no store to it ever faults for want of memory (SIGBUS).
 *
 * One process at a time: an exclusive lock (flock on a file beside it) is held
 * from before the mapping is made until the process is gone with all its
 * threads.  An arena of another boot of the host is gone.  One that is there, of
 * this boot, is never thrown away unasked: VMs may live by what is in it.
 */
#ifndef BALLAST_STORE_ARENA_H
#define BALLAST_STORE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ballast/cleanup.h>
#include <ballast/units.h>

/* Populated and given back in these. */
#define BL_ARENA_CHUNK (2 * BL_MIB)

enum bl_arena_kind {
        BL_ARENA_AUTO, /* tmpfs where `dir` is one that is never swapped, or can be mounted so; else System V */
        BL_ARENA_TMPFS,
        BL_ARENA_SYSV,
        BL_ARENA_PRIVATE, /* tests and benchmarks: an anonymous mapping, shared with children; no lock, no name */
};

struct bl_arena_options {
        enum bl_arena_kind kind;
        const char *dir; /* runtime directory: the lock file, the tmpfs mount point "pool", what is recorded of the
                            segment */
        uint64_t size; /* rounded up to chunks */
        uint32_t version; /* of the layout in it */
        usec_t lock_wait; /* for the process before us to be gone; it may hang in the kernel */
};

struct bl_arena {
        uint8_t *base;
        size_t size;
        enum bl_arena_kind kind;
        bool fresh; /* it was made now: all zeros */
        /* private from here */
        int lock_fd, fd;
        int shmid;
        uint8_t *populated; /* one byte a chunk: known to be there */
};

/*
 * Attaches to the arena that is there, or makes one.  *ret_message (NULL before; allocated) says
 * what failed and how to mend it; after success it may say that the arena keeps
 * another size than was asked for (`size` is what it has).  -EBUSY: another process
 * has it; -EBADMSG: it is of another layout version; -EEXIST: of another kind; -ENOMEM; -EPERM:
 * it may not lock memory (CAP_IPC_LOCK) and there is no noswap tmpfs; others of mount, open, shmget.
 */
int bl_arena_open(const struct bl_arena_options *o, struct bl_arena **ret, char **ret_message);
/* Unmaps and unlocks; the memory stays.  NULL-safe; returns NULL. */
struct bl_arena *bl_arena_close(struct bl_arena *a);
BL_DEFINE_CLEANUP(struct bl_arena *, bl_arena_close)

/* Removes what bl_arena_open made, memory and all, whoever made it: "off for good".
 * -EBUSY: a process has it. 0 when there is nothing. */
int bl_arena_remove(const char *dir, char **ret_message);

/* Makes sure of chunk `i`: allocated, zeroed if it is new.  -ENOMEM: the host has none, or the tmpfs is full. */
int bl_arena_populate(struct bl_arena *a, size_t i);
/* Gives chunk `i` back to the host; its content is gone. */
int bl_arena_release(struct bl_arena *a, size_t i);
bool bl_arena_is_populated(const struct bl_arena *a, size_t i);
/* After a restart: which chunks are there (mincore(2), lseek SEEK_DATA), so that is_populated is right. */
int bl_arena_survey(struct bl_arena *a);

#endif
