/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/virt/event_bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/util/clock.h"

enum watch_kind { WATCH_HANDLE, WATCH_TIMEOUT };

/*
 * A watch is changed by any thread under the mutex ("wanted"), and brought into
 * effect by the loop's thread, which alone owns `source`.
 */
struct watch {
        struct watch *next; /* all watches */
        struct watch *next_dirty;
        enum watch_kind kind;
        int id;

        /* under the mutex */
        int fd; /* libvirt's, passed back to it */
        int events; /* VIR_EVENT_HANDLE_* */
        int frequency; /* ms; negative: off */
        bool removed;
        bool dirty;

        /* the loop's own */
        int own_fd;
        sd_event_source *source;

        union {
                virEventHandleCallback handle;
                virEventTimeoutCallback timeout;
        } cb;
        void *opaque;
        virFreeCallback ff;
};

struct bl_event_bridge {
        sd_event *event;
        sd_event_source *wake_source;
        int wake_fd;
};

/* libvirt's functions take no context, so what they use is here. */
static struct {
        pthread_mutex_t lock;
        struct bl_event_bridge *bridge;
        struct watch *watches;
        struct watch *dirty_first, *dirty_last;
        int next_id;
        bool registered;
} g = {.lock = PTHREAD_MUTEX_INITIALIZER, .next_id = 1};

/* Of the loop's thread, while it calls libvirt back. */
static _Thread_local bool in_callback;

/* With the lock held, and a bridge.  Order matters: a removal must take effect before a
 * later addition that got the same descriptor. */
static void mark_dirty(struct watch *w)
{
        const uint64_t one = 1;
        bool first = !g.dirty_first;

        if (w->dirty)
                return;
        w->dirty = true;
        w->next_dirty = NULL;
        if (g.dirty_last)
                g.dirty_last->next_dirty = w;
        else
                g.dirty_first = w;
        g.dirty_last = w;
        /* the loop was told of the others already, or applies what its own callbacks change */
        if (!first || in_callback)
                return;
        /* fails only when the counter is full, and then the loop is awake anyway */
        if (write(g.bridge->wake_fd, &one, sizeof(one)) < 0)
                return;
}

static uint32_t events_to_epoll(int events)
{
        return (events & VIR_EVENT_HANDLE_READABLE ? EPOLLIN : 0U) |
               (events & VIR_EVENT_HANDLE_WRITABLE ? EPOLLOUT : 0U) |
               (events & VIR_EVENT_HANDLE_ERROR ? EPOLLERR : 0U) | (events & VIR_EVENT_HANDLE_HANGUP ? EPOLLHUP : 0U);
}

static int events_from_epoll(uint32_t revents)
{
        return (revents & EPOLLIN ? VIR_EVENT_HANDLE_READABLE : 0) |
               (revents & EPOLLOUT ? VIR_EVENT_HANDLE_WRITABLE : 0) |
               (revents & EPOLLERR ? VIR_EVENT_HANDLE_ERROR : 0) | (revents & EPOLLHUP ? VIR_EVENT_HANDLE_HANGUP : 0);
}

static void callback_over(void);

static int on_handle(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct watch *w = userdata;
        bool call;

        (void)s;
        (void)fd;
        pthread_mutex_lock(&g.lock);
        call = !w->removed && w->events != 0;
        pthread_mutex_unlock(&g.lock);
        if (!call)
                return 0;
        in_callback = true;
        w->cb.handle(w->id, w->fd, events_from_epoll(revents), w->opaque);
        callback_over();
        return 0;
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct watch *w = userdata;
        int frequency;
        bool call;

        (void)usec;
        pthread_mutex_lock(&g.lock);
        call = !w->removed && w->frequency >= 0;
        frequency = w->frequency;
        pthread_mutex_unlock(&g.lock);
        if (!call)
                return 0;
        /* before the callback, which may change it */
        (void)sd_event_source_set_time(s, bl_now() + (uint64_t)frequency * 1000);
        (void)sd_event_source_set_enabled(s, SD_EVENT_ON);
        in_callback = true;
        w->cb.timeout(w->id, w->opaque);
        callback_over();
        return 0;
}

static void apply_handle(struct bl_event_bridge *b, struct watch *w, int events)
{
        if (!w->source) {
                if (events != 0)
                        (void)sd_event_add_io(b->event, &w->source, w->own_fd, events_to_epoll(events), on_handle, w);
                return;
        }
        /* epoll reports errors and hangups even to those who ask for nothing;
         * a source that asks for nothing is therefore off */
        if (events != 0)
                (void)sd_event_source_set_io_events(w->source, events_to_epoll(events));
        (void)sd_event_source_set_enabled(w->source, events != 0 ? SD_EVENT_ON : SD_EVENT_OFF);
}

static void apply_timeout(struct bl_event_bridge *b, struct watch *w, int frequency)
{
        uint64_t at;

        if (frequency < 0) {
                if (w->source)
                        (void)sd_event_source_set_enabled(w->source, SD_EVENT_OFF);
                return;
        }
        at = bl_now() + (uint64_t)frequency * 1000;
        if (!w->source) {
                (void)sd_event_add_time(b->event, &w->source, CLOCK_MONOTONIC, at, 1000, on_timeout, w);
                return;
        }
        (void)sd_event_source_set_time(w->source, at);
        (void)sd_event_source_set_enabled(w->source, SD_EVENT_ON);
}

/* On the loop, without the lock.  The watch is no longer in any list. */
static void destroy(struct watch *w)
{
        if (w->source)
                (void)sd_event_source_disable_unref(w->source);
        if (w->own_fd >= 0)
                (void)close(w->own_fd);
        if (w->ff)
                w->ff(w->opaque);
        free(w);
}

/* With the lock held. */
static void unlink_watch(struct watch *w)
{
        for (struct watch **p = &g.watches; *p; p = &(*p)->next)
                if (*p == w) {
                        *p = w->next;
                        return;
                }
}

/* Takes one change from the queue and brings it into effect; false: none left. */
static bool apply_one(struct bl_event_bridge *b)
{
        struct watch *w;
        bool removed;
        int events, frequency;

        pthread_mutex_lock(&g.lock);
        w = g.dirty_first;
        if (w) {
                g.dirty_first = w->next_dirty;
                if (!g.dirty_first)
                        g.dirty_last = NULL;
                w->dirty = false;
                removed = w->removed;
                events = w->events;
                frequency = w->frequency;
                if (removed)
                        unlink_watch(w);
        }
        pthread_mutex_unlock(&g.lock);
        if (!w)
                return false;
        if (removed)
                destroy(w);
        else if (w->kind == WATCH_HANDLE)
                apply_handle(b, w, events);
        else
                apply_timeout(b, w, frequency);
        return true;
}

/* What libvirt changed in it takes effect without a wake-up.  The watch may be gone then. */
static void callback_over(void)
{
        struct bl_event_bridge *b;

        in_callback = false;
        pthread_mutex_lock(&g.lock);
        b = g.bridge;
        pthread_mutex_unlock(&g.lock);
        while (b && apply_one(b))
                ;
}

static int on_wake(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
        struct bl_event_bridge *b = userdata;
        uint64_t n;

        (void)s;
        (void)revents;
        /* read first: what is queued from here on wakes us again */
        if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
                return 0;
        while (apply_one(b))
                ;
        return 0;
}

/* --- what libvirt calls, from any thread ----------------------------------- */

static int add_watch(struct watch *w)
{
        int id = -1;

        pthread_mutex_lock(&g.lock);
        if (g.bridge) {
                id = w->id = g.next_id++;
                w->next = g.watches;
                g.watches = w;
                mark_dirty(w);
        }
        pthread_mutex_unlock(&g.lock);
        if (id < 0) {
                if (w->own_fd >= 0)
                        (void)close(w->own_fd);
                free(w);
        }
        return id;
}

static int add_handle(int fd, int events, virEventHandleCallback cb, void *opaque, virFreeCallback ff)
{
        struct watch *w = calloc(1, sizeof(*w));

        if (!w)
                return -1;
        w->own_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (w->own_fd < 0) {
                free(w);
                return -1;
        }
        w->kind = WATCH_HANDLE;
        w->fd = fd;
        w->events = events;
        w->frequency = -1;
        w->cb.handle = cb;
        w->opaque = opaque;
        w->ff = ff;
        return add_watch(w);
}

static int add_timeout(int frequency, virEventTimeoutCallback cb, void *opaque, virFreeCallback ff)
{
        struct watch *w = calloc(1, sizeof(*w));

        if (!w)
                return -1;
        w->own_fd = w->fd = -1;
        w->kind = WATCH_TIMEOUT;
        w->frequency = frequency;
        w->cb.timeout = cb;
        w->opaque = opaque;
        w->ff = ff;
        return add_watch(w);
}

/* With the lock held. */
static struct watch *find(enum watch_kind kind, int id)
{
        for (struct watch *w = g.watches; w; w = w->next)
                if (w->id == id && w->kind == kind && !w->removed)
                        return w;
        return NULL;
}

static void update_handle(int id, int events)
{
        struct watch *w;

        pthread_mutex_lock(&g.lock);
        w = find(WATCH_HANDLE, id);
        if (w && g.bridge && w->events != events) {
                w->events = events;
                mark_dirty(w);
        }
        pthread_mutex_unlock(&g.lock);
}

static void update_timeout(int id, int frequency)
{
        struct watch *w;

        pthread_mutex_lock(&g.lock);
        w = find(WATCH_TIMEOUT, id);
        /* also when it is the same: the time counts from now */
        if (w && g.bridge) {
                w->frequency = frequency;
                mark_dirty(w);
        }
        pthread_mutex_unlock(&g.lock);
}

static int remove_watch(enum watch_kind kind, int id)
{
        struct watch *w;

        pthread_mutex_lock(&g.lock);
        w = find(kind, id);
        if (w) {
                w->removed = true;
                if (g.bridge)
                        mark_dirty(w);
        }
        pthread_mutex_unlock(&g.lock);
        return w ? 0 : -1;
}

static int remove_handle(int id)
{
        return remove_watch(WATCH_HANDLE, id);
}

static int remove_timeout(int id)
{
        return remove_watch(WATCH_TIMEOUT, id);
}

/* --- life ------------------------------------------------------------------- */

int bl_event_bridge_new(sd_event *e, struct bl_event_bridge **ret)
{
        struct bl_event_bridge *b;
        int r;

        /* libvirt's functions use a thread-local error that is not there before */
        if (virInitialize() < 0)
                return -EIO;
        b = calloc(1, sizeof(*b));
        if (!b)
                return -ENOMEM;
        b->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (b->wake_fd < 0) {
                r = -errno;
                goto fail_free;
        }
        r = sd_event_add_io(e, &b->wake_source, b->wake_fd, EPOLLIN, on_wake, b);
        if (r < 0)
                goto fail_close;
        /* before everything of ours: a removal should take effect early */
        (void)sd_event_source_set_priority(b->wake_source, SD_EVENT_PRIORITY_IMPORTANT);
        b->event = sd_event_ref(e);

        pthread_mutex_lock(&g.lock);
        if (g.bridge) {
                pthread_mutex_unlock(&g.lock);
                r = -EBUSY;
                goto fail_source;
        }
        g.bridge = b;
        if (!g.registered) {
                g.registered = true;
                virEventRegisterImpl(add_handle, update_handle, remove_handle, add_timeout, update_timeout,
                                     remove_timeout);
        }
        pthread_mutex_unlock(&g.lock);
        *ret = b;
        return 0;

fail_source:
        (void)sd_event_source_disable_unref(b->wake_source);
        (void)sd_event_unref(b->event);
fail_close:
        (void)close(b->wake_fd);
fail_free:
        free(b);
        return r;
}

struct bl_event_bridge *bl_event_bridge_free(struct bl_event_bridge *b)
{
        struct watch *w, *next;

        if (!b)
                return NULL;
        while (apply_one(b))
                ;
        pthread_mutex_lock(&g.lock);
        g.bridge = NULL;
        w = g.watches;
        g.watches = NULL;
        g.dirty_first = g.dirty_last = NULL;
        pthread_mutex_unlock(&g.lock);
        /* what libvirt never removed: nobody calls it any more */
        for (; w; w = next) {
                next = w->next;
                destroy(w);
        }
        (void)sd_event_source_disable_unref(b->wake_source);
        (void)close(b->wake_fd);
        (void)sd_event_unref(b->event);
        free(b);
        return NULL;
}

bool bl_event_bridge_active(void)
{
        bool active;

        pthread_mutex_lock(&g.lock);
        active = g.bridge != NULL;
        pthread_mutex_unlock(&g.lock);
        return active;
}
