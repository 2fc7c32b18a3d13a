/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The process that does the disk's I/O: one that holds the lock and waits, and
 * below it one process for each request that can be under way at a time.  Processes, not
 * threads: it is forked off a program with threads, and may start none of its own.
 * When one of them dies all do, and when the store dies too (PR_SET_PDEATHSIG).
 */
#ifndef BALLAST_STORE_DISK_WORKER_H
#define BALLAST_STORE_DISK_WORKER_H

#include <sys/types.h>

#include "daemon/store/disk_ring.h"

#define BL_WORKER_READERS 6U
#define BL_WORKER_WRITERS 2U

/* What the worker does its I/O with.  Tests put others here before they open a disk, to have
 * it fail, hang or lie. */
struct bl_worker_io {
        ssize_t (*pread)(int fd, void *buf, size_t size, off_t offset);
        ssize_t (*pwrite)(int fd, const void *buf, size_t size, off_t offset);
};
extern struct bl_worker_io bl_worker_io;

/*
 * In a child just forked by `parent`, all signals blocked: never returns.  Closes every descriptor, reopens
 * `disk` (a lock belongs to what was opened, not to the descriptor: flock(2)) by `path`, which is
 * "/proc/self/fd/" and its number, waits for its lock, and serves.  Only async-signal-safe calls.
 */
_Noreturn void bl_worker_main(struct bl_ring *ring, int disk, const char *path, pid_t parent);

#endif
