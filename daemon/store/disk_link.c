// SPDX-License-Identifier: LGPL-2.1-or-later
#include "daemon/store/disk_link.h"

#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <time.h>

#include <ballast/cleanup.h>

#include "daemon/store/disk_times.h"
#include "daemon/store/disk_worker.h"
#include "daemon/util/clock.h"

/* A worker that dies before it has answered anything is followed by the next one after a pause, which doubles. */
#define PAUSE_MIN (2 * BL_MSEC)
#define PAUSE_MAX (1 * BL_SEC)

#define SETTLE_POLL  (50 * BL_MSEC) /* how often the thread looks for the answers that nobody waits for */
#define CLOSE_WAIT   (200 * BL_MSEC) /* a killed worker is reaped, if it is so quick */
#define THREAD_STACK (256 * BL_KIB)

enum { READ = BL_RING_READ, WRITE = BL_RING_WRITE };

/* What the store alone knows of a slot. */
struct place {
        bool used, given_up;
        uint32_t segment; /* of a write */
        usec_t since;
};

/* A worker and its ring.  Freed with the last who looks at it. */
struct life {
        struct bl_ring *ring;
        struct place reads[BL_RING_READS], writes[BL_RING_WRITES];
        pid_t pid;
        int pidfd;
        unsigned refs; /* one is the link's, as long as it is the worker that there is */
        bool dead, answered;
};

struct bl_link {
        struct bl_link_options o;
        char path[32]; /* of the disk, for its reopening */
        pthread_t thread;
        int wake; /* eventfd: the thread has something to do */
        pthread_mutex_t lock;
        pthread_cond_t changed; /* a slot is free, or there is another worker */
        struct life *life; /* NULL: there is none now */
        bool stop, tried; /* tried: to start the first worker; `error` is what came of it */
        int error;
        unsigned n_given_up, n_waiting;
        uint32_t order;
        usec_t pause, unlocked_since; /* the latter: since when nothing could be done for want of a worker that has
                                         the lock */
        struct bl_disk_times times;
};

static struct place *places(struct life *f, enum bl_ring_kind kind)
{
        return kind == BL_RING_READ ? f->reads : f->writes;
}

static void kick(struct bl_link *l)
{
        (void)eventfd_write(l->wake, 1);
}

/* --- a worker's life ------------------------------------------------------------ */

static struct life *life_free(struct life *f)
{
        if (f->ring)
                (void)munmap(f->ring, sizeof(*f->ring));
        bl_closep(&f->pidfd);
        free(f);
        return NULL;
}

static void unref(struct life *f)
{
        if (--f->refs == 0)
                (void)life_free(f);
}

/* In the link's thread, where all signals are blocked, as they stay in the worker. */
static int life_new(const struct bl_link *l, struct life **ret)
{
        const pid_t self = getpid();
        struct life *f = calloc(1, sizeof(*f));
        int r;

        if (!f)
                return -ENOMEM;
        f->pidfd = -1;
        f->refs = 1;
        f->ring = mmap(NULL, sizeof(*f->ring), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (f->ring == MAP_FAILED) {
                r = -errno;
                f->ring = NULL;
                (void)life_free(f);
                return r;
        }
        /* what goes to the disk for want of memory must not need memory for it; without the right it has to do */
        (void)mlock2(f->ring, sizeof(*f->ring), MLOCK_ONFAULT);
        f->pid = fork();
        if (f->pid == 0)
                bl_worker_main(f->ring, l->o.fd, l->path, self);
        if (f->pid < 0) {
                r = -errno;
                (void)life_free(f);
                return r;
        }
        (void)madvise(f->ring, sizeof(*f->ring), MADV_DONTFORK);
        f->pidfd = pidfd_open(f->pid, 0);
        if (f->pidfd < 0) {
                r = -errno;
                (void)kill(f->pid, SIGKILL);
                (void)waitpid(f->pid, NULL, 0);
                (void)life_free(f);
                return r;
        }
        *ret = f;
        return 0;
}

static bool is_locked(const struct life *f)
{
        return atomic_load_explicit(&f->ring->locked, memory_order_acquire) != 0;
}

/* Does the store wait for it, or the worker work on it? */
static bool is_open(struct life *f, enum bl_ring_kind kind, uint32_t i)
{
        const struct place *p = &places(f, kind)[i];

        return p->used && !(p->given_up && atomic_load_explicit(&bl_ring_slots(f->ring, kind)[i].state,
                                                                memory_order_relaxed) == BL_RING_DONE);
}

static usec_t oldest_of(struct life *f, usec_t now)
{
        usec_t oldest = now;

        for (uint32_t kind = 0; kind < _BL_RING_KIND_MAX; kind++)
                for (uint32_t i = 0; i < bl_ring_count(kind); i++)
                        if (is_open(f, kind, i))
                                oldest = bl_min(oldest, places(f, kind)[i].since);
        return oldest;
}

/* Locked; there is no worker now.  What was given up is over: the next worker does nothing before the lock is free. */
static void died(struct bl_link *l, uint32_t settled[static 2 * BL_RING_WRITES], uint32_t *n_settled)
{
        struct life *f = l->life;
        const usec_t now = bl_now(), oldest = oldest_of(f, now);

        if (is_locked(f))
                l->unlocked_since = now - oldest > l->o.hang_after ? oldest : now;
        l->life = NULL;
        l->pause = f->answered ? 0 : bl_clamp(l->pause * 2, PAUSE_MIN, PAUSE_MAX);
        f->dead = true;
        for (uint32_t kind = 0; kind < _BL_RING_KIND_MAX; kind++)
                for (uint32_t i = 0; i < bl_ring_count(kind); i++) {
                        struct place *p = &places(f, kind)[i];
                        struct bl_ring_slot *s = &bl_ring_slots(f->ring, kind)[i];

                        if (p->given_up && kind == WRITE)
                                settled[(*n_settled)++] = p->segment;
                        if (p->used && !p->given_up && atomic_load(&s->state) != BL_RING_DONE) {
                                atomic_store(&s->state, BL_RING_LOST);
                                bl_ring_wake(&s->state, INT_MAX);
                        }
                }
        l->n_given_up = 0;
        unref(f);
}

/* Locked: takes back the slots that were answered after they had been given up. */
static void settle(struct bl_link *l, uint32_t settled[static 2 * BL_RING_WRITES], uint32_t *n_settled)
{
        struct life *f = l->life;

        for (uint32_t kind = 0; kind < _BL_RING_KIND_MAX; kind++)
                for (uint32_t i = 0; i < bl_ring_count(kind); i++) {
                        struct place *p = &places(f, kind)[i];
                        struct bl_ring_slot *s = &bl_ring_slots(f->ring, kind)[i];

                        if (!p->given_up || atomic_load_explicit(&s->state, memory_order_acquire) != BL_RING_DONE)
                                continue;
                        if (kind == WRITE)
                                settled[(*n_settled)++] = p->segment;
                        *p = (struct place){0};
                        f->answered = true;
                        l->n_given_up--;
                        (void)pthread_cond_broadcast(&l->changed);
                }
}

/* Unlocked.  The thread is the only one to change `life`. */
static void start(struct bl_link *l)
{
        struct life *f = NULL;
        const int r = life_new(l, &f);

        (void)pthread_mutex_lock(&l->lock);
        l->life = f;
        l->error = r;
        l->tried = true;
        if (r < 0)
                l->pause = bl_clamp(l->pause * 2, PAUSE_MIN, PAUSE_MAX);
        (void)pthread_cond_broadcast(&l->changed);
        (void)pthread_mutex_unlock(&l->lock);
}

/* Waits until there is something to do. */
static void sleep_until_news(struct bl_link *l, const struct life *f, usec_t limit)
{
        const struct timespec t = {.tv_sec = (time_t)(limit / BL_SEC), .tv_nsec = (long)(limit % BL_SEC * 1000)};
        struct pollfd fds[] = {
                {.fd = l->wake, .events = POLLIN},
                {.fd = f ? f->pidfd : -1, .events = POLLIN},
        };
        eventfd_t n;

        (void)ppoll(fds, 2, limit == BL_UNSET ? NULL : &t, NULL);
        if (fds[0].revents)
                (void)eventfd_read(l->wake, &n);
}

static bool is_dead(const struct life *f)
{
        struct pollfd p = {.fd = f->pidfd, .events = POLLIN};

        if (poll(&p, 1, 0) <= 0)
                return false;
        (void)waitpid(f->pid, NULL, WNOHANG); /* that it is no zombie; others may have done so */
        return true;
}

static void *run(void *userdata)
{
        struct bl_link *l = userdata;

        (void)pthread_mutex_lock(&l->lock);
        while (!l->stop) {
                uint32_t settled[2 * BL_RING_WRITES], n_settled = 0;
                struct life *f = l->life;
                usec_t limit = BL_UNSET;

                if (f && l->n_given_up > 0)
                        settle(l, settled, &n_settled);
                if (f && is_dead(f)) {
                        died(l, settled, &n_settled);
                        f = NULL;
                }
                if (!f)
                        limit = l->pause;
                else if (l->n_given_up > 0)
                        limit = SETTLE_POLL;
                (void)pthread_mutex_unlock(&l->lock);
                for (uint32_t i = 0; i < n_settled; i++)
                        l->o.settled(l->o.userdata, settled[i]);
                sleep_until_news(l, f, limit);
                if (!f)
                        start(l);
                (void)pthread_mutex_lock(&l->lock);
        }
        (void)pthread_mutex_unlock(&l->lock);
        return NULL;
}

/* --- opening and closing ------------------------------------------------------------ */

static int start_thread(struct bl_link *l)
{
        sigset_t all, before;
        pthread_attr_t attr;
        int r;

        r = pthread_attr_init(&attr);
        if (r != 0)
                return -r;
        (void)pthread_attr_setstacksize(&attr, THREAD_STACK);
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_BLOCK, &all, &before);
        r = pthread_create(&l->thread, &attr, run, l);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        (void)pthread_attr_destroy(&attr);
        return -r;
}

static void link_free(struct bl_link *l)
{
        bl_closep(&l->wake);
        (void)pthread_cond_destroy(&l->changed);
        (void)pthread_mutex_destroy(&l->lock);
        free(l);
}

static void stop_thread(struct bl_link *l)
{
        (void)pthread_mutex_lock(&l->lock);
        l->stop = true;
        (void)pthread_mutex_unlock(&l->lock);
        kick(l);
        (void)pthread_join(l->thread, NULL);
}

int bl_link_open(const struct bl_link_options *o, struct bl_link **ret)
{
        struct bl_link *l = calloc(1, sizeof(*l));
        pthread_condattr_t attr;
        int r;

        if (!l)
                return -ENOMEM;
        l->o = *o;
        l->unlocked_since = bl_now();
        (void)snprintf(l->path, sizeof(l->path), "/proc/self/fd/%d", o->fd);
        (void)pthread_mutex_init(&l->lock, NULL);
        (void)pthread_condattr_init(&attr);
        (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        (void)pthread_cond_init(&l->changed, &attr);
        (void)pthread_condattr_destroy(&attr);
        l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        r = l->wake < 0 ? -errno : start_thread(l);
        if (r < 0) {
                link_free(l);
                return r;
        }
        (void)pthread_mutex_lock(&l->lock);
        while (!l->tried)
                (void)pthread_cond_wait(&l->changed, &l->lock);
        r = l->error;
        (void)pthread_mutex_unlock(&l->lock);
        if (r < 0) {
                stop_thread(l);
                l->o.fd = -1;
                (void)bl_link_close(l);
                return r;
        }
        *ret = l;
        return 0;
}

/* The worker's first process does no I/O once it works, so it dies at once; those that do I/O follow when they can. */
static void end_worker(struct life *f)
{
        struct pollfd p = {.fd = f->pidfd, .events = POLLIN};

        (void)pidfd_send_signal(f->pidfd, SIGKILL, NULL, 0);
        if (poll(&p, 1, (int)(CLOSE_WAIT / BL_MSEC)) > 0)
                (void)waitpid(f->pid, NULL, WNOHANG);
        unref(f);
}

struct bl_link *bl_link_close(struct bl_link *l)
{
        if (!l)
                return NULL;
        if (!l->stop)
                stop_thread(l);
        if (l->life)
                end_worker(l->life);
        bl_closep(&l->o.fd);
        link_free(l);
        return NULL;
}

/* --- requests ------------------------------------------------------------------------- */

/* A slot of a living worker, and a reference to the latter.  -ETIMEDOUT. */
static int acquire(struct bl_link *l, enum bl_ring_kind kind, usec_t deadline, struct life **ret, uint32_t *ret_i)
{
        const struct timespec t = {.tv_sec = (time_t)(deadline / BL_SEC), .tv_nsec = (long)(deadline % BL_SEC * 1000)};
        int r = 0;

        (void)pthread_mutex_lock(&l->lock);
        for (;;) {
                struct life *f = l->life;

                for (uint32_t i = 0; f && i < bl_ring_count(kind); i++) {
                        if (places(f, kind)[i].used)
                                continue;
                        places(f, kind)[i] = (struct place){.used = true, .since = bl_now()};
                        f->refs++;
                        *ret = f;
                        *ret_i = i;
                        (void)pthread_mutex_unlock(&l->lock);
                        return 0;
                }
                if (r != 0)
                        break;
                l->n_waiting++;
                r = pthread_cond_timedwait(&l->changed, &l->lock, &t);
                l->n_waiting--;
        }
        (void)pthread_mutex_unlock(&l->lock);
        return -ETIMEDOUT;
}

static void submit(struct bl_link *l, struct life *f, enum bl_ring_kind kind, uint32_t i, uint64_t offset,
                   uint32_t size)
{
        struct bl_ring_slot *s = &bl_ring_slots(f->ring, kind)[i];

        (void)pthread_mutex_lock(&l->lock);
        s->offset = offset;
        s->size = size;
        atomic_store_explicit(&s->order, l->order++, memory_order_relaxed);
        atomic_store_explicit(&s->state, f->dead ? BL_RING_LOST : BL_RING_QUEUED, memory_order_release);
        (void)pthread_mutex_unlock(&l->lock);
        atomic_fetch_add_explicit(&f->ring->bell[kind], 1, memory_order_release);
        bl_ring_wake(&f->ring->bell[kind], 1);
}

/* 0: answered; -EPIPE: the worker died; -ETIMEDOUT. */
static int wait_answer(struct life *f, enum bl_ring_kind kind, uint32_t i, usec_t deadline)
{
        struct bl_ring_slot *s = &bl_ring_slots(f->ring, kind)[i];

        for (;;) {
                const uint32_t state = atomic_load_explicit(&s->state, memory_order_acquire);

                if (state == BL_RING_DONE)
                        return 0;
                if (state == BL_RING_LOST)
                        return -EPIPE;
                if (bl_now() >= deadline)
                        return -ETIMEDOUT;
                bl_ring_wait(&s->state, state, deadline);
        }
}

/* The slot is free, or (r: what wait_answer said) stays taken until the answer comes.  True: given up so. */
static bool release(struct bl_link *l, struct life *f, enum bl_ring_kind kind, uint32_t i, int r)
{
        struct place *p = &places(f, kind)[i];
        bool given_up = false;

        (void)pthread_mutex_lock(&l->lock);
        if (r == -ETIMEDOUT && !f->dead) {
                p->given_up = given_up = true;
                if (l->n_given_up++ == 0)
                        kick(l);
        } else {
                p->used = false;
        }
        f->answered = f->answered || r == 0;
        if (l->n_waiting > 0)
                (void)pthread_cond_broadcast(&l->changed);
        unref(f);
        (void)pthread_mutex_unlock(&l->lock);
        return given_up;
}

/* One request: what lies in at most BL_RING_READ_SIZE of blocks. */
static int read_piece(struct bl_link *l, uint64_t offset, size_t size, uint8_t *buf, usec_t deadline)
{
        const uint64_t begin = offset / BL_RING_ALIGN * BL_RING_ALIGN,
                       end = (offset + size + BL_RING_ALIGN - 1) / BL_RING_ALIGN * BL_RING_ALIGN;
        int r;

        do {
                struct life *f;
                uint32_t i;
                int result = 0;

                r = acquire(l, BL_RING_READ, deadline, &f, &i);
                if (r < 0)
                        return r;
                submit(l, f, BL_RING_READ, i, begin, (uint32_t)(end - begin));
                r = wait_answer(f, BL_RING_READ, i, deadline);
                if (r == 0) {
                        result = f->ring->reads[i].result;
                        memcpy(buf, f->ring->read_bytes[i] + (offset - begin), size);
                }
                (void)release(l, f, BL_RING_READ, i, r);
                if (r == 0)
                        return result;
        } while (r == -EPIPE);
        return r;
}

int bl_link_read(struct bl_link *l, uint64_t offset, size_t size, void *buf)
{
        const usec_t begun = bl_now();
        uint8_t *to = buf;
        usec_t now;
        int r = 0;

        while (size > 0 && r == 0) {
                const size_t n = bl_min(size, BL_RING_READ_SIZE - offset % BL_RING_ALIGN);

                r = read_piece(l, offset, n, to, begun + l->o.hang_after);
                offset += n;
                size -= n;
                to += n;
        }
        now = bl_now();
        (void)pthread_mutex_lock(&l->lock);
        bl_disk_times_add(&l->times, now - begun, now);
        (void)pthread_mutex_unlock(&l->lock);
        return r;
}

uint32_t bl_link_pieces(size_t size)
{
        return (uint32_t)((size + BL_RING_WRITE_SIZE - 1) / BL_RING_WRITE_SIZE);
}

/* Pieces of a write under way, oldest first. */
struct flight {
        struct life *life[BL_RING_WRITES];
        uint32_t slot[BL_RING_WRITES];
        uint32_t first, n;
};

/* Waits for the oldest. */
static int land(struct bl_link *l, struct flight *t, usec_t deadline, uint32_t *open)
{
        const uint32_t at = t->first++ % BL_RING_WRITES, i = t->slot[at];
        struct life *f = t->life[at];
        int r, result = 0;

        t->n--;
        r = wait_answer(f, BL_RING_WRITE, i, deadline);
        if (r == 0)
                result = f->ring->writes[i].result;
        if (release(l, f, BL_RING_WRITE, i, r))
                ++*open;
        return r < 0 ? r : result;
}

static int launch(struct bl_link *l, struct flight *t, const struct bl_link_write *w, size_t from)
{
        const uint32_t size = (uint32_t)bl_min(w->size - from, BL_RING_WRITE_SIZE),
                       at = (t->first + t->n) % BL_RING_WRITES;
        struct life *f;
        uint32_t i;
        int r;

        r = acquire(l, BL_RING_WRITE, w->deadline, &f, &i);
        if (r < 0)
                return r;
        w->fill(w->userdata, f->ring->write_bytes[i], from, size);
        f->writes[i].segment = w->segment; /* the slot is ours alone: it is given up by ourselves */
        submit(l, f, BL_RING_WRITE, i, w->offset + from, size);
        t->life[at] = f;
        t->slot[at] = i;
        t->n++;
        return 0;
}

int bl_link_write(struct bl_link *l, const struct bl_link_write *w, uint32_t *ret_open)
{
        struct flight t = {0};
        uint32_t open = 0;
        size_t sent = 0;
        int r = 0;

        while (t.n > 0 || (r == 0 && sent < w->size)) {
                int q;

                if (r == 0 && sent < w->size && t.n < BL_RING_WRITES) {
                        r = launch(l, &t, w, sent);
                        sent += BL_RING_WRITE_SIZE;
                        continue;
                }
                q = land(l, &t, w->deadline, &open);
                if (r == 0 || q == -ETIMEDOUT)
                        r = q;
        }
        *ret_open = open;
        return r;
}

void bl_link_figures(struct bl_link *l, struct bl_link_figures *ret)
{
        const usec_t now = bl_now();
        usec_t unlocked;

        (void)pthread_mutex_lock(&l->lock);
        unlocked = l->life && is_locked(l->life) ? 0 : now - l->unlocked_since;
        *ret = (struct bl_link_figures){
                .oldest = l->life ? now - oldest_of(l->life, now) : 0,
                .read_p50 = bl_disk_times_part(&l->times, BL_WHOLE / 2, now),
                .read_p99 = bl_disk_times_part(&l->times, BL_WHOLE / 100 * 99, now),
                .worker = l->life ? l->life->pid : 0,
                .memory = sizeof(*l) + (l->life ? sizeof(*l->life) + sizeof(*l->life->ring) : 0),
        };
        (void)pthread_mutex_unlock(&l->lock);
        ret->hangs = ret->oldest > l->o.hang_after || unlocked > l->o.hang_after;
}
