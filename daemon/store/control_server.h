/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The store's end of control.h: one thread that answers ballastd, and tells the
 * watchdog that the store is alive, which is to say that its lock can be had.
 */
#ifndef BALLAST_STORE_CONTROL_SERVER_H
#define BALLAST_STORE_CONTROL_SERVER_H

#include "daemon/store/control.h"
#include "daemon/store/events.h"

struct bl_control_server;

struct bl_control_server_options {
        int fd; /* a listening SOCK_SEQPACKET socket; becomes the server's, also on failure */
        struct bl_store *store; /* must outlive it, as must `events` */
        struct bl_events *events;
        usec_t watchdog; /* how often it is told; 0: never */
        /* From its thread; each may be NULL. */
        void (*registered)(void *userdata); /* who is registered has changed */
        void (*reserve)(void *userdata, uint64_t bytes); /* must not block */
        uint64_t (*fixed)(void *userdata, const struct bl_store_figures *f); /* for bl_store_reply */
        void *userdata;
};

/* Begins to serve.  -ENOMEM; others of fcntl, eventfd, pthread_create. */
int bl_control_server_start(const struct bl_control_server_options *o, struct bl_control_server **ret);
/* Ends it and closes all its connections. */
struct bl_control_server *bl_control_server_stop(struct bl_control_server *s);
BL_DEFINE_CLEANUP(struct bl_control_server *, bl_control_server_stop)

#endif
