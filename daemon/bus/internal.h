/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of daemon/bus share with each other and with nobody else. */
#ifndef BALLAST_BUS_INTERNAL_H
#define BALLAST_BUS_INTERNAL_H

#include <systemd/sd-bus.h>

#include "daemon/bus/bus.h"
#include "daemon/bus/gate.h"
#include "daemon/bus/listen.h"
#include "daemon/bus/peer.h"

/* Behind everything that senses and acts, so that no client can hold it up. */
#define BL_BUS_PRIORITY 50

/* Messages that wait for a reader who does not read. */
#define BL_BUS_WQUEUE_MAX 16U

/* Calls that the manager has not answered yet. */
#define BL_BUS_REQUESTS_MAX 128U

#define BL_BUS_MAY_NOT_READ "only root and members of group '" BL_BUS_GROUP "' may ask; try with sudo"

/* A connection that D-Bus calls come from. */
struct bl_link {
        struct bl_bus *bus;
        sd_bus *conn; /* NULL: not connected */
        bool known; /* `access` holds for every caller; else each sender is asked about */
        enum bl_access access; /* with `known` */
};

/* One connection to the private socket. */
struct bl_client {
        struct bl_link link;
        uid_t uid;
        bool dead; /* waits for on_reap */
        struct bl_gate *gate;
        struct bl_client *next;
};

struct bl_request;

struct bl_bus {
        sd_event *event;
        struct bl_manager *manager;
        const struct bl_control_ops *ops;
        gid_t group;
        bl_bus_note_fn note;
        void *note_userdata;

        /* private.c */
        struct bl_listener *listener;
        sd_event_source *accept_source;
        sd_event_source *accept_again;
        sd_event_source *reap_source;
        struct bl_client *clients;
        size_t n_clients;
        bool full_said;

        /* system.c */
        struct bl_link system;
        sd_event_source *system_again;
        bool system_named; /* the name is ours */
        bool system_said; /* that there is no bus */

        /* request.c */
        struct bl_request *requests;
        size_t n_requests;

        /* properties.c */
        json_t *status;
        uint64_t status_iteration;
        sd_event_source *refresh_source;
        int acting_said; /* -1: never */
        int held_said;
};

__attribute__((format(printf, 3, 4))) void bl_bus_note(struct bl_bus *b, int r, const char *format, ...);

/* More than BL_BUS_WQUEUE_MAX wait for this one. */
bool bl_bus_reader_is_slow(sd_bus *conn);

/* Calls `f` for every connection that may be spoken to. */
void bl_bus_foreach(struct bl_bus *b, void (*f)(struct bl_link *l, void *userdata), void *userdata);

/* --- vtable.c: the interface ------------------------------------------------ */
int bl_vtable_add(struct bl_link *l);

/* --- request.c: one call ---------------------------------------------------- */
int bl_request_handle(sd_bus_message *m, void *userdata, sd_bus_error *e);
/* The bus goes away: answers that still come find nobody. */
void bl_request_abandon_all(struct bl_bus *b);

/* --- properties.c ----------------------------------------------------------- */
int bl_property_get(sd_bus *conn, const char *path, const char *interface, const char *property, sd_bus_message *reply,
                    void *userdata, sd_bus_error *e);
/* Soon, from the event loop: says what of Acting and Held has changed. */
void bl_property_refresh(struct bl_bus *b);
/* The next reader of a property asks the manager anew. */
void bl_property_forget(struct bl_bus *b);
void bl_property_free(struct bl_bus *b);

/* --- private.c -------------------------------------------------------------- */
int bl_private_start(struct bl_bus *b, const struct bl_bus_options *o);
void bl_private_stop(struct bl_bus *b);
/* This connection is to be closed, from the event loop. */
void bl_private_drop(struct bl_client *c);

/* --- system.c --------------------------------------------------------------- */
void bl_system_start(struct bl_bus *b);
void bl_system_stop(struct bl_bus *b);

#endif
