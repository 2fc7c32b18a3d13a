/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Worker threads for calls that may block, libvirt's above all.
 *
 * A job runs in a worker and is then completed on the loop.  Jobs with the
 * same key (a VM's UUID) run one at a time, in order.  A job is never
 * cancelled, since a libvirt call cannot be; but one that runs for longer than
 * `overdue` is reported once, its key takes no further jobs until it is back
 * (-EHOSTDOWN, also for those that wait), and its thread no longer counts against max_threads, so that
 * nobody else waits for it.  Threads start when needed and end when idle.
 *
 * All functions belong to the loop's thread except where noted.
 */
#ifndef BALLAST_VIRT_POOL_H
#define BALLAST_VIRT_POOL_H

#include <systemd/sd-event.h>

#include <ballast/cleanup.h>
#include <ballast/snapshot.h>
#include <ballast/units.h>

struct bl_pool;

struct bl_pool_options {
        unsigned max_threads; /* working threads that are not overdue; 0: 16 */
        size_t max_queue; /* jobs that wait; 0: 1024 */
        usec_t idle; /* an idle thread ends after this; 0: 10 s */
        usec_t overdue; /* 0: 5 s */
};

/* In a worker. */
typedef void (*bl_job_run_fn)(void *arg);
/* On the loop, exactly once per accepted job; owns `arg` and frees it.  r: 0,
 * or when the job never began: -ECANCELED the pool ended, -EHOSTDOWN it waited
 * for a job of its key that became overdue. */
typedef void (*bl_job_done_fn)(void *arg, int r);
/* On the loop: the key's running job became overdue, or (hung false) came back after all. */
typedef void (*bl_pool_overdue_fn)(void *userdata, const uint8_t key[BL_UUID_LEN], bool hung);

/* `o` may be NULL.  Keeps `e` referenced. */
int bl_pool_new(sd_event *e, const struct bl_pool_options *o, struct bl_pool **ret);

/* Jobs that wait are completed with -ECANCELED; without a key only if `wait`
 * is 0 or over.  Waits up to `wait` for those that run and completes them;
 * returns how many threads are still there.  They keep
 * what they use, and their memory is lost: only for the end of the process.
 * No job is accepted afterwards (-ESHUTDOWN). */
unsigned bl_pool_stop(struct bl_pool *p, usec_t wait);

/* Stops with 0 wait if that was not done. */
struct bl_pool *bl_pool_free(struct bl_pool *p);

void bl_pool_set_overdue_handler(struct bl_pool *p, bl_pool_overdue_fn fn, void *userdata);

/* key NULL: runs beside anything.  On error `arg` stays the caller's and no
 * callback comes: -EHOSTDOWN the key has an overdue job, -ENOBUFS the queue is
 * full, -ESHUTDOWN, -ENOMEM, -EAGAIN no thread could be started. */
int bl_pool_submit(struct bl_pool *p, const uint8_t *key, bl_job_run_fn run, bl_job_done_fn done, void *arg);

/* Jobs of this key that wait or run. */
unsigned bl_pool_busy(struct bl_pool *p, const uint8_t key[BL_UUID_LEN]);

/* Its running job is overdue. */
bool bl_pool_hung(struct bl_pool *p, const uint8_t key[BL_UUID_LEN]);

/* Any thread: runs `fn(arg, 0)` on the loop (or with -ECANCELED when the pool
 * ends before).  -ENOMEM, -ESHUTDOWN. */
int bl_pool_post(struct bl_pool *p, bl_job_done_fn fn, void *arg);

struct bl_pool_stats {
        unsigned threads, idle, running, overdue;
        size_t waiting;
        uint64_t done;
};
void bl_pool_stats(struct bl_pool *p, struct bl_pool_stats *ret);

BL_DEFINE_CLEANUP(struct bl_pool *, bl_pool_free)

#endif
