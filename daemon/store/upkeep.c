/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/store/upkeep.h"

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "daemon/store/store.h"
#include "daemon/util/clock.h"

#define PERIOD  BL_SEC
#define BUDGET  (20 * BL_MSEC) /* of CPU time for each compaction */
#define PRESSED (50 * BL_MSEC) /* between two when the last one was worth it */
#define SLICE   (64 * BL_MIB) /* taken at a time, so that a new wish is not waited for */

struct bl_upkeep {
        struct bl_store *store;
        uint64_t least;
        pthread_t thread;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        uint64_t wanted; /* bytes ready */
        bool asked, stop;
};

/* False: `wanted` is reached, or cannot be. */
static bool reserve_step(struct bl_upkeep *u, uint64_t wanted)
{
        struct bl_store_figures f;
        uint64_t next;

        bl_store_figures(u->store, &f);
        next = bl_min(wanted, bl_add_sat(f.pool_ready, SLICE));
        return bl_store_reserve(u->store, next) >= 0 && next < wanted && next < f.pool_size;
}

/* Waits for `wait` or until somebody wants something; false: it is over. */
static bool wait_for_work(struct bl_upkeep *u, usec_t wait, bool *asked, uint64_t *wanted)
{
        const usec_t at = bl_now() + wait;
        const struct timespec t = {.tv_sec = (time_t)(at / BL_SEC), .tv_nsec = (long)(at % BL_SEC) * 1000};
        bool go_on;

        (void)pthread_mutex_lock(&u->lock);
        while (!u->stop && !u->asked && pthread_cond_timedwait(&u->wake, &u->lock, &t) == 0)
                ;
        *asked |= u->asked;
        u->asked = false;
        *wanted = u->wanted;
        go_on = !u->stop;
        (void)pthread_mutex_unlock(&u->lock);
        return go_on;
}

static void *run(void *userdata)
{
        struct bl_upkeep *u = userdata;
        uint64_t wanted;
        usec_t wait = 0;
        bool asked = false;

        while (wait_for_work(u, wait, &asked, &wanted)) {
                if (asked) {
                        asked = reserve_step(u, wanted);
                        wait = asked ? 0 : PERIOD;
                        continue;
                }
                wait = bl_store_compact(u->store, BUDGET) > 0 ? PRESSED : PERIOD;
        }
        return NULL;
}

int bl_upkeep_start(struct bl_store *s, uint64_t ready, struct bl_upkeep **ret)
{
        struct bl_upkeep *u = calloc(1, sizeof(*u));
        pthread_condattr_t attr;
        int r;

        if (!u)
                return -ENOMEM;
        u->store = s;
        u->least = u->wanted = ready;
        u->asked = true;
        (void)pthread_mutex_init(&u->lock, NULL);
        (void)pthread_condattr_init(&attr);
        (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        (void)pthread_cond_init(&u->wake, &attr);
        (void)pthread_condattr_destroy(&attr);
        r = -pthread_create(&u->thread, NULL, run, u);
        if (r < 0) {
                free(u);
                return r;
        }
        *ret = u;
        return 0;
}

struct bl_upkeep *bl_upkeep_stop(struct bl_upkeep *u)
{
        if (!u)
                return NULL;
        (void)pthread_mutex_lock(&u->lock);
        u->stop = true;
        (void)pthread_cond_signal(&u->wake);
        (void)pthread_mutex_unlock(&u->lock);
        (void)pthread_join(u->thread, NULL);
        (void)pthread_cond_destroy(&u->wake);
        (void)pthread_mutex_destroy(&u->lock);
        free(u);
        return NULL;
}

void bl_upkeep_reserve(struct bl_upkeep *u, uint64_t bytes)
{
        (void)pthread_mutex_lock(&u->lock);
        u->wanted = bl_max(bytes, u->least);
        u->asked = true;
        (void)pthread_cond_signal(&u->wake);
        (void)pthread_mutex_unlock(&u->lock);
}
