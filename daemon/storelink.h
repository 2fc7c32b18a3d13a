/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ballastd's line to ballast-store: what it holds, asked for again and again, and
 * the few things that it is told.  Never blocks; a store that is not there, dies or hangs
 * is found out and called again.
 */
#ifndef BALLAST_DAEMON_STORELINK_H
#define BALLAST_DAEMON_STORELINK_H

#include <systemd/sd-event.h>

#include "daemon/store/control.h"

struct bl_storelink;

enum bl_storelink_state {
        BL_STORELINK_NONE, /* not configured */
        BL_STORELINK_AWAY, /* nobody answers at its socket */
        BL_STORELINK_DEAF, /* it is there and has not answered for BL_STORELINK_DEAF_AFTER: hung, or stopped */
        BL_STORELINK_THERE,
        _BL_STORELINK_MAX,
};
#define BL_STORELINK_DEAF_AFTER (3 * BL_SEC)

struct bl_storelink_handler {
        /* state changed; or fresh figures came (state THERE) */
        void (*state)(void *userdata, enum bl_storelink_state s);
        void (*figures)(void *userdata, const struct bl_store_reply *r, const struct bl_store_vm *vms, size_t n);
        void (*event)(void *userdata, const struct bl_store_event *ev);
};

/* r: 0 or negative errno: the store's, or -ENOTCONN: it went away before it answered; `f` is what it said with it, or
 * NULL. */
typedef void (*bl_storelink_fn)(void *userdata, int r, const struct bl_store_figures *f);

/* `path` is copied; "": none. */
int bl_storelink_new(sd_event *event, const char *path, const struct bl_storelink_handler *h, void *userdata,
                     struct bl_storelink **ret);
struct bl_storelink *bl_storelink_free(struct bl_storelink *l);

enum bl_storelink_state bl_storelink_state(const struct bl_storelink *l);
/* The last that it said; NULL: nothing yet. */
const struct bl_store_reply *bl_storelink_figures(const struct bl_storelink *l, usec_t *ret_at);
/* How often to ask, from now on: 1 s at rest, 100 ms while guests are pressed into it. */
void bl_storelink_set_period(struct bl_storelink *l, usec_t period);

/* Queued; `fn` is called exactly once unless these fail.  -ENOTCONN: it is not there; -ENOMEM. */
int bl_storelink_register(struct bl_storelink *l, const struct bl_store_registration *r, bl_storelink_fn fn,
                          void *userdata);
int bl_storelink_forget(struct bl_storelink *l, const uint8_t uuid[BL_UUID_LEN], bl_storelink_fn fn, void *userdata);
/* The pool is to have so much ready.  Said again by itself when the store comes back. */
int bl_storelink_reserve(struct bl_storelink *l, uint64_t bytes);

#endif
