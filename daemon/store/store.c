// SPDX-License-Identifier: LGPL-2.1-or-later
/* Opening and closing the whole. */
#include "daemon/store/internal.h"

#include <lz4.h>
#include <string.h>
#include <time.h>

void bl_lock(struct bl_store *s)
{
        if (pthread_mutex_trylock(&s->lock) == 0)
                return;
        __atomic_add_fetch(&s->wanted, 1, __ATOMIC_RELAXED);
        pthread_mutex_lock(&s->lock);
        __atomic_sub_fetch(&s->wanted, 1, __ATOMIC_RELAXED);
}

/* A mutex goes to whoever asks first, which is who has just let it go, long before one who sleeps wakes up. */
void bl_lock_breathe(struct bl_store *s)
{
        static const struct timespec moment = {.tv_nsec = 10000};

        pthread_mutex_unlock(&s->lock);
        if (__atomic_load_n(&s->wanted, __ATOMIC_RELAXED) > 0)
                nanosleep(&moment, NULL);
        pthread_mutex_lock(&s->lock);
}

static void init_locks(struct bl_store *s)
{
        pthread_mutexattr_t spins;
        pthread_condattr_t attr;

        /* it is held for less than waking up takes */
        pthread_mutexattr_init(&spins);
        pthread_mutexattr_settype(&spins, PTHREAD_MUTEX_ADAPTIVE_NP);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_mutex_init(&s->lock, &spins);
        pthread_mutexattr_destroy(&spins);
        pthread_mutex_init(&s->grow, NULL);
        pthread_mutex_init(&s->clean, NULL);
        pthread_cond_init(&s->room, &attr);
        pthread_cond_init(&s->closed, &attr);
        pthread_cond_init(&s->spare, &attr);
        pthread_cond_init(&s->work, &attr);
        pthread_condattr_destroy(&attr);
}

static struct bl_store *store_free(struct bl_store *s)
{
        bl_tier_stop(s);
        bl_exports_free(s);
        bl_entries_free(s);
        bl_pages_free(s);
        bl_work_free(s);
        pthread_cond_destroy(&s->work);
        pthread_cond_destroy(&s->spare);
        pthread_cond_destroy(&s->closed);
        pthread_cond_destroy(&s->room);
        pthread_mutex_destroy(&s->clean);
        pthread_mutex_destroy(&s->grow);
        pthread_mutex_destroy(&s->lock);
        (void)bl_disk_close(s->disk);
        (void)bl_arena_close(s->arena);
        free(s);
        return NULL;
}

static int set_up(struct bl_store *s)
{
        struct bl_disk_figures f;
        int r;

        if (LZ4_sizeofState() > (int)sizeof(((struct bl_work *)NULL)->lz4))
                return -EINVAL;
        if (s->disk) {
                bl_disk_figures(s->disk, &f);
                s->disk_size = f.size;
        }
        bl_spans_init(s);
        r = bl_pages_init(s);
        if (r >= 0)
                r = bl_entries_init(s);
        if (r >= 0)
                r = bl_work_init(s);
        if (r >= 0)
                r = bl_recover(s);
        if (r >= 0)
                r = bl_tier_start(s);
        return r;
}

int bl_store_open(const struct bl_store_options *o, struct bl_store **ret, char **ret_message)
{
        struct bl_store *s = calloc(1, sizeof(*s));
        int r;

        if (!s) {
                (void)bl_disk_close(o->disk);
                (void)bl_arena_close(o->arena);
                return -ENOMEM;
        }
        s->arena = o->arena;
        s->disk = o->disk;
        s->on_event = o->on_event;
        s->userdata = o->userdata;
        s->n_pages = (uint32_t)bl_min(o->arena->size / BL_STORE_PAGE, UINT32_MAX / 2);
        s->n_chunks = s->n_pages / BL_CHUNK_PAGES;
        s->n_pages = s->n_chunks * BL_CHUNK_PAGES;
        init_locks(s);
        r = set_up(s);
        if (r < 0) {
                if (ret_message &&
                    asprintf(ret_message, r == -EBADMSG ? "the memory holds no pool of this version, or a damaged one"
                                                        : "the pool cannot be opened") < 0)
                        *ret_message = NULL;
                (void)store_free(s);
                return r;
        }
        *ret = s;
        return 0;
}

struct bl_store *bl_store_close(struct bl_store *s)
{
        return s ? store_free(s) : NULL;
}
