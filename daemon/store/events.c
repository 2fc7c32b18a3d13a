/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/store/events.h"

void bl_events_init(struct bl_events *e)
{
        *e = (struct bl_events){.lock = PTHREAD_MUTEX_INITIALIZER};
}

static uint64_t oldest(const struct bl_events *e)
{
        return bl_sub_sat(e->next, BL_EVENTS);
}

void bl_events_push(void *userdata, const struct bl_store_event *ev)
{
        struct bl_events *e = userdata;

        (void)pthread_mutex_lock(&e->lock);
        e->ring[e->next++ % BL_EVENTS] = *ev;
        if (e->fetched < oldest(e)) {
                e->lost += oldest(e) - e->fetched;
                e->fetched = oldest(e);
        }
        (void)pthread_mutex_unlock(&e->lock);
}

uint64_t bl_events_begin(struct bl_events *e)
{
        uint64_t ret;

        (void)pthread_mutex_lock(&e->lock);
        ret = e->fetched;
        (void)pthread_mutex_unlock(&e->lock);
        return ret;
}

size_t bl_events_fetch(struct bl_events *e, uint64_t *cursor, struct bl_store_event *ret, size_t n)
{
        size_t got = 0;

        (void)pthread_mutex_lock(&e->lock);
        *cursor = bl_max(*cursor, oldest(e));
        while (got < n && *cursor < e->next)
                ret[got++] = e->ring[(*cursor)++ % BL_EVENTS];
        e->fetched = bl_max(e->fetched, *cursor);
        (void)pthread_mutex_unlock(&e->lock);
        return got;
}

uint64_t bl_events_lost(struct bl_events *e)
{
        uint64_t ret;

        (void)pthread_mutex_lock(&e->lock);
        ret = e->lost;
        (void)pthread_mutex_unlock(&e->lock);
        return ret;
}
