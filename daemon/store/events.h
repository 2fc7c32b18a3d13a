/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the store had to say, kept until somebody asks.  Thread-safe. */
#ifndef BALLAST_STORE_EVENTS_H
#define BALLAST_STORE_EVENTS_H

#include <pthread.h>

#include "daemon/store/store.h"

#define BL_EVENTS 64U

struct bl_events {
        pthread_mutex_t lock;
        struct bl_store_event ring[BL_EVENTS];
        uint64_t next; /* number of the next; number i is at i % BL_EVENTS */
        uint64_t fetched; /* those below were had by somebody, or are lost */
        uint64_t lost; /* overwritten before anybody had them */
};

void bl_events_init(struct bl_events *e);
/* For bl_store_options.on_event; `userdata` is the ring. */
void bl_events_push(void *userdata, const struct bl_store_event *ev);

/* Where somebody begins who has just come: at what nobody has had. */
uint64_t bl_events_begin(struct bl_events *e);
/* At most n from *cursor on, which moves; those that are gone are skipped.  Returns how many. */
size_t bl_events_fetch(struct bl_events *e, uint64_t *cursor, struct bl_store_event *ret, size_t n);
uint64_t bl_events_lost(struct bl_events *e);

#endif
