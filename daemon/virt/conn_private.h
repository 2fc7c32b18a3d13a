/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What conn.c (connecting, loss, life) and conn_links.c (the connections that
 * calls are made on) share.  Private to those two. */
#ifndef BALLAST_VIRT_CONN_PRIVATE_H
#define BALLAST_VIRT_CONN_PRIVATE_H

#include <pthread.h>

#include "daemon/virt/conn.h"
#include "daemon/virt/conn_events.h"

/* A domain as one connection knows it. */
struct known {
        struct known *next;
        uint8_t uuid[BL_UUID_LEN];
        virDomainPtr dom;
};

/* One connection of libvirt's. */
struct link {
        struct link *next;
        struct bl_conn *c;
        virConnectPtr conn;
        bool first; /* carries the events */
        bool retired; /* no further calls; closed when those under way are back */
        bool closing;
        bool busy; /* a lease is out: one call at a time, see conn.h */
        usec_t idle_since;
        struct known *known; /* whoever has the lease, or closes it, alone uses it */
        int event_ids[BL_CONN_EVENTS_MAX];
        size_t n_event_ids;
};

struct bl_conn_lease {
        struct bl_conn *c;
        struct link *link;
};

struct bl_conn {
        sd_event_source *retry_timer;
        sd_event_source *sweep_timer;
        struct bl_pool *pool;
        struct bl_conn_options o;
        char *uri;
        char *last_message; /* of a failed attempt */
        usec_t retry;
        bool connecting;
        bool connected;
        bool stopped;

        pthread_mutex_t lock; /* what follows */
        struct link *links;
        unsigned n_links;
        unsigned opening; /* further links that workers are opening */
        bool usable; /* connected, as the workers see it */
        bool ending; /* stopped, as the workers see it: no job for closing is taken any more */
};

/* --- conn_links.c --- */

struct link *bl_link_new(struct bl_conn *c, virConnectPtr conn);
/* With the lock held. */
void bl_link_add(struct bl_conn *c, struct link *l);
struct link *bl_link_first(const struct bl_conn *c);
/* In a worker. */
virConnectPtr bl_link_open(const struct bl_conn *c, bool first);
/* In a worker.  Does not free it. */
void bl_link_close(struct link *l);
/* On the loop: closes what has no further use; true while there is something
 * that a later look may close. */
bool bl_links_sweep(struct bl_conn *c);
/* The same, and again while there is need; for bl_pool_post and the timer. */
void bl_links_sweep_soon(void *arg, int r);
int bl_links_on_sweep(sd_event_source *s, uint64_t usec, void *userdata);

/* --- conn.c --- */

/* Any thread: this link was found broken. */
void bl_conn_post_loss(struct bl_conn *c, const struct link *l, int reason);

#endif
