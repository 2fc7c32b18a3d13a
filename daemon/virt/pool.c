/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "daemon/util/clock.h"

/* libvirt's remote client needs some 30 KiB; XML parsing in our jobs less. */
#define STACK_SIZE ((size_t)256 * 1024)
/* Further threads, for overdue jobs. */
#define MAX_HUNG 256

struct job {
        struct job *next;
        bool has_key;
        uint8_t key[BL_UUID_LEN];
        int r; /* for `done`: why it never ran */
        usec_t started_at;
        bool overdue; /* with a key: the handler was told so */
        bl_job_run_fn run;
        bl_job_done_fn done;
        void *arg;
};

struct list {
        struct job *first, *last;
        size_t n;
};

struct bl_pool {
        sd_event_source *wake_source;
        sd_event_source *timer; /* looks for overdue jobs; off while there are none */
        struct bl_pool_options o;
        bl_pool_overdue_fn on_overdue;
        void *on_overdue_userdata;

        pthread_mutex_t lock;
        pthread_cond_t work;
        int wake_fd;
        bool stopping;
        unsigned refs; /* the pool's owner and each thread */
        unsigned threads; /* alive */
        unsigned idle;
        unsigned overdue; /* running and overdue */
        struct list waiting, running, done;
        uint64_t n_done;
};

static void list_append(struct list *l, struct job *j)
{
        j->next = NULL;
        if (l->last)
                l->last->next = j;
        else
                l->first = j;
        l->last = j;
        l->n++;
}

static void list_remove(struct list *l, struct job *j)
{
        struct job *prev = NULL;

        for (struct job *i = l->first; i; prev = i, i = i->next) {
                if (i != j)
                        continue;
                if (prev)
                        prev->next = j->next;
                else
                        l->first = j->next;
                if (l->last == j)
                        l->last = prev;
                l->n--;
                return;
        }
}

static bool same_key(const struct job *a, const uint8_t *key)
{
        return a->has_key && memcmp(a->key, key, BL_UUID_LEN) == 0;
}

static struct job *find_key(const struct list *l, const uint8_t *key)
{
        for (struct job *j = l->first; j; j = j->next)
                if (same_key(j, key))
                        return j;
        return NULL;
}

/* The first job whose key has no job running. */
static struct job *next_runnable(const struct bl_pool *p)
{
        for (struct job *j = p->waiting.first; j; j = j->next)
                if (!j->has_key || !find_key(&p->running, j->key))
                        return j;
        return NULL;
}

static void wake_loop(struct bl_pool *p)
{
        const uint64_t one = 1;

        if (p->wake_fd >= 0 && write(p->wake_fd, &one, sizeof(one)) < 0)
                return; /* the counter is full: the loop is awake */
}

/* With the lock held; gives it up. */
static void unref_unlock(struct bl_pool *p)
{
        bool last = --p->refs == 0;

        pthread_mutex_unlock(&p->lock);
        if (!last)
                return;
        (void)pthread_cond_destroy(&p->work);
        (void)pthread_mutex_destroy(&p->lock);
        free(p);
}

/* Waits for work; NULL: the thread shall end.  With the lock held. */
static struct job *take_job(struct bl_pool *p)
{
        struct timespec until;
        bool timed_out = false;
        usec_t at = bl_now() + p->o.idle;

        until.tv_sec = (time_t)(at / BL_SEC);
        until.tv_nsec = (long)(at % BL_SEC) * 1000;
        for (;;) {
                struct job *j;

                if (p->stopping && !p->waiting.first)
                        return NULL;
                /* after an overdue job came back there may be a thread too many */
                if (p->threads - p->overdue > p->o.max_threads)
                        return NULL;
                j = next_runnable(p);
                if (j)
                        return j;
                if (timed_out)
                        return NULL;
                p->idle++;
                timed_out = pthread_cond_timedwait(&p->work, &p->lock, &until) == ETIMEDOUT;
                p->idle--;
        }
}

static void *worker(void *arg)
{
        struct bl_pool *p = arg;
        struct job *j;

        pthread_mutex_lock(&p->lock);
        while ((j = take_job(p))) {
                list_remove(&p->waiting, j);
                j->started_at = bl_now();
                list_append(&p->running, j);
                pthread_mutex_unlock(&p->lock);

                j->run(j->arg);

                pthread_mutex_lock(&p->lock);
                list_remove(&p->running, j);
                if (j->overdue)
                        p->overdue--;
                list_append(&p->done, j);
                p->n_done++;
                wake_loop(p);
                /* one with the same key may have been waiting for this one */
                (void)pthread_cond_signal(&p->work);
        }
        p->threads--;
        (void)pthread_cond_broadcast(&p->work);
        unref_unlock(p);
        return NULL;
}

/* With the lock held. */
static int start_thread(struct bl_pool *p)
{
        pthread_attr_t attr;
        sigset_t all, old;
        pthread_t t;
        int r;

        r = pthread_attr_init(&attr);
        if (r)
                return -r;
        (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        (void)pthread_attr_setstacksize(&attr, STACK_SIZE);
        /* signals are the loop's */
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(&t, &attr, worker, p);
        (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
        (void)pthread_attr_destroy(&attr);
        if (r)
                return -r;
        p->threads++;
        p->refs++;
        return 0;
}

/* With the lock held: enough threads for what waits.  An error only matters
 * where there is no thread at all. */
static int want_threads(struct bl_pool *p)
{
        while (p->waiting.n > p->idle && p->threads - p->overdue < p->o.max_threads &&
               p->threads < p->o.max_threads + MAX_HUNG) {
                int r = start_thread(p);

                if (r < 0)
                        return p->threads > p->overdue ? 0 : -EAGAIN;
                /* it counts as busy until it has looked, so one is enough for now */
                break;
        }
        (void)pthread_cond_signal(&p->work);
        return 0;
}

/* --- the loop's side --------------------------------------------------------- */

static void report(struct bl_pool *p, const uint8_t key[BL_UUID_LEN], bool hung)
{
        if (p->on_overdue)
                p->on_overdue(p->on_overdue_userdata, key, hung);
}

/* Completes what is done, one after the other, without the lock. */
static void complete(struct bl_pool *p)
{
        for (;;) {
                struct job *j;

                pthread_mutex_lock(&p->lock);
                j = p->done.first;
                if (j)
                        list_remove(&p->done, j);
                pthread_mutex_unlock(&p->lock);
                if (!j)
                        return;
                if (j->overdue && j->has_key)
                        report(p, j->key, false);
                j->done(j->arg, j->r);
                free(j);
        }
}

/* With the lock held: completes jobs that wait: those of one key, of any, or
 * (not only_keyed) all. */
static void drop_waiting(struct bl_pool *p, bool only_keyed, const uint8_t *key, int r)
{
        struct job *next;

        for (struct job *j = p->waiting.first; j; j = next) {
                next = j->next;
                if ((key && !same_key(j, key)) || (only_keyed && !j->has_key))
                        continue;
                list_remove(&p->waiting, j);
                j->r = r;
                list_append(&p->done, j);
        }
}

static void look_at(const struct bl_pool *p, usec_t at)
{
        (void)sd_event_source_set_time(p->timer, at);
        (void)sd_event_source_set_enabled(p->timer, at == BL_UNSET ? SD_EVENT_OFF : SD_EVENT_ONESHOT);
}

/* Marks and reports what is overdue and sets the timer for what may become so. */
static void watch_overdue(struct bl_pool *p)
{
        usec_t now = bl_now(), next = BL_UNSET;

        for (;;) {
                uint8_t key[BL_UUID_LEN];
                bool found = false;

                pthread_mutex_lock(&p->lock);
                next = BL_UNSET;
                for (struct job *j = p->running.first; j && !found; j = j->next) {
                        if (j->overdue)
                                continue;
                        if (now < bl_add_sat(j->started_at, p->o.overdue)) {
                                next = bl_min(next, bl_add_sat(j->started_at, p->o.overdue));
                                continue;
                        }
                        j->overdue = true;
                        p->overdue++;
                        if (j->has_key) {
                                memcpy(key, j->key, sizeof(key));
                                drop_waiting(p, true, key, -EHOSTDOWN);
                                found = true;
                        }
                }
                if (p->waiting.n > 0) {
                        (void)want_threads(p);
                        /* what starts meanwhile wakes nobody */
                        next = bl_min(next, bl_add_sat(now, p->o.overdue));
                }
                pthread_mutex_unlock(&p->lock);
                if (!found)
                        break;
                report(p, key, true);
                complete(p);
        }
        look_at(p, next);
}

static int on_wake(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct bl_pool *p = userdata;
        uint64_t n;

        (void)s;
        (void)revents;
        if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
                return 0;
        /* first what is overdue, so that a job that is so and done is reported in order */
        complete(p);
        watch_overdue(p);
        return 0;
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
        (void)s;
        (void)usec;
        watch_overdue(userdata);
        return 0;
}

int bl_pool_new(sd_event *e, const struct bl_pool_options *o, struct bl_pool **ret)
{
        pthread_condattr_t attr;
        struct bl_pool *p;
        int r;

        p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        if (o)
                p->o = *o;
        p->o.max_threads = p->o.max_threads ?: 16;
        p->o.max_queue = p->o.max_queue ?: 1024;
        p->o.idle = p->o.idle ?: 10 * BL_SEC;
        p->o.overdue = p->o.overdue ?: 5 * BL_SEC;
        p->refs = 1;

        p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (p->wake_fd < 0) {
                r = -errno;
                goto fail_free;
        }
        r = sd_event_add_io(e, &p->wake_source, p->wake_fd, EPOLLIN, on_wake, p);
        if (r < 0)
                goto fail_close;
        r = sd_event_add_time(e, &p->timer, CLOCK_MONOTONIC, 0, 10 * BL_MSEC, on_timer, p);
        if (r < 0)
                goto fail_source;
        (void)sd_event_source_set_enabled(p->timer, SD_EVENT_OFF);

        (void)pthread_mutex_init(&p->lock, NULL);
        (void)pthread_condattr_init(&attr);
        (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        (void)pthread_cond_init(&p->work, &attr);
        (void)pthread_condattr_destroy(&attr);
        *ret = p;
        return 0;

fail_source:
        (void)sd_event_source_disable_unref(p->wake_source);
fail_close:
        (void)close(p->wake_fd);
fail_free:
        free(p);
        return r;
}

void bl_pool_set_overdue_handler(struct bl_pool *p, bl_pool_overdue_fn fn, void *userdata)
{
        p->on_overdue = fn;
        p->on_overdue_userdata = userdata;
}

unsigned bl_pool_stop(struct bl_pool *p, usec_t wait)
{
        usec_t at = bl_now() + wait;
        struct timespec until = {.tv_sec = (time_t)(at / BL_SEC), .tv_nsec = (long)(at % BL_SEC) * 1000};
        unsigned left;

        pthread_mutex_lock(&p->lock);
        p->stopping = true;
        drop_waiting(p, wait > 0, NULL, -ECANCELED);
        (void)pthread_cond_broadcast(&p->work);
        while (p->threads > 0)
                if (pthread_cond_timedwait(&p->work, &p->lock, &until) == ETIMEDOUT)
                        break;
        drop_waiting(p, false, NULL, -ECANCELED);
        left = p->threads;
        pthread_mutex_unlock(&p->lock);
        complete(p);
        return left;
}

struct bl_pool *bl_pool_free(struct bl_pool *p)
{
        if (!p)
                return NULL;
        (void)bl_pool_stop(p, 0);
        (void)sd_event_source_disable_unref(p->wake_source);
        (void)sd_event_source_disable_unref(p->timer);

        pthread_mutex_lock(&p->lock);
        (void)close(p->wake_fd);
        p->wake_fd = -1;
        unref_unlock(p);
        return NULL;
}

/* --- asking ------------------------------------------------------------------ */

/* From when it is asked for, so that its start need not wake the loop. */
static void watch(const struct bl_pool *p)
{
        int on = SD_EVENT_OFF;

        (void)sd_event_source_get_enabled(p->timer, &on);
        if (on == SD_EVENT_OFF)
                look_at(p, bl_add_sat(bl_now(), p->o.overdue));
}

int bl_pool_submit(struct bl_pool *p, const uint8_t *key, bl_job_run_fn run, bl_job_done_fn done, void *arg)
{
        const struct job *running;
        struct job *j;
        int r = 0;

        j = calloc(1, sizeof(*j));
        if (!j)
                return -ENOMEM;
        j->run = run;
        j->done = done;
        j->arg = arg;
        if (key) {
                j->has_key = true;
                memcpy(j->key, key, BL_UUID_LEN);
        }

        pthread_mutex_lock(&p->lock);
        running = key ? find_key(&p->running, key) : NULL;
        if (p->stopping)
                r = -ESHUTDOWN;
        else if (running && running->overdue)
                r = -EHOSTDOWN;
        else if (p->waiting.n >= p->o.max_queue)
                r = -ENOBUFS;
        if (r == 0) {
                list_append(&p->waiting, j);
                r = want_threads(p);
                if (r < 0)
                        list_remove(&p->waiting, j);
        }
        pthread_mutex_unlock(&p->lock);
        if (r < 0)
                free(j);
        else
                watch(p);
        return r;
}

unsigned bl_pool_busy(struct bl_pool *p, const uint8_t key[BL_UUID_LEN])
{
        unsigned n = 0;

        pthread_mutex_lock(&p->lock);
        for (const struct job *j = p->waiting.first; j; j = j->next)
                n += same_key(j, key);
        for (const struct job *j = p->running.first; j; j = j->next)
                n += same_key(j, key);
        pthread_mutex_unlock(&p->lock);
        return n;
}

bool bl_pool_hung(struct bl_pool *p, const uint8_t key[BL_UUID_LEN])
{
        const struct job *j;
        bool hung;

        pthread_mutex_lock(&p->lock);
        j = find_key(&p->running, key);
        hung = j && j->overdue;
        pthread_mutex_unlock(&p->lock);
        return hung;
}

int bl_pool_post(struct bl_pool *p, bl_job_done_fn fn, void *arg)
{
        struct job *j = calloc(1, sizeof(*j));
        int r = 0;

        if (!j)
                return -ENOMEM;
        j->done = fn;
        j->arg = arg;
        pthread_mutex_lock(&p->lock);
        if (p->stopping) {
                r = -ESHUTDOWN;
        } else {
                list_append(&p->done, j);
                wake_loop(p);
        }
        pthread_mutex_unlock(&p->lock);
        if (r < 0)
                free(j);
        return r;
}

void bl_pool_stats(struct bl_pool *p, struct bl_pool_stats *ret)
{
        pthread_mutex_lock(&p->lock);
        *ret = (struct bl_pool_stats){
                .threads = p->threads,
                .idle = p->idle,
                .running = (unsigned)p->running.n,
                .overdue = p->overdue,
                .waiting = p->waiting.n,
                .done = p->n_done,
        };
        pthread_mutex_unlock(&p->lock);
}
