/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The connection to libvirt: opened in a worker, watched by keepalive, opened
 * again when lost (after 0.2 s, doubling to 5 s), its events delivered on the
 * loop as small structs.
 *
 * Calls are made one at a time on each connection; while all are busy a further
 * one is opened, and closed when it has been idle for a minute.  For two
 * reasons.  libvirtd answers no more than 5 calls at once per connection
 * (max_client_requests), and a call to a hung QEMU never returns.  And
 * libvirt's client (GLib since 6.1, 9.0 tried) loses wakeups between threads
 * that share a connection: virNetClientIO calls g_main_loop_quit on a loop that
 * another thread is just about to run; the second call is then not sent before
 * the next keepalive, seconds later.  Events always come over the first.
 */
#ifndef BALLAST_VIRT_CONN_H
#define BALLAST_VIRT_CONN_H

#include <libvirt/libvirt.h>
#include <systemd/sd-event.h>

#include <ballast/cleanup.h>
#include <ballast/snapshot.h>
#include <ballast/units.h>

#include "daemon/virt/pool.h"
#include "daemon/virt/virt_error.h"

struct bl_conn;

enum bl_virt_event_kind {
        BL_VIRT_STARTED, /* detail: VIR_DOMAIN_EVENT_STARTED_* (booted, migrated, restored, ...) */
        BL_VIRT_STOPPED, /* detail: VIR_DOMAIN_EVENT_STOPPED_*; also for crashed */
        BL_VIRT_SUSPENDED, /* detail: VIR_DOMAIN_EVENT_SUSPENDED_* */
        BL_VIRT_RESUMED, /* detail: VIR_DOMAIN_EVENT_RESUMED_* */
        BL_VIRT_DEFINED, /* the persistent XML changed or is new */
        BL_VIRT_UNDEFINED,
        BL_VIRT_OTHER, /* any other lifecycle event; detail: its type */
        BL_VIRT_REBOOT, /* the guest was reset; QEMU lives on */
        BL_VIRT_BALLOON, /* `actual` is set; at most one a second, intermediate values come too */
        BL_VIRT_METADATA, /* our metadata element changed, or went (others' changes are filtered) */
        BL_VIRT_DEVICE_ADDED, /* describe the VM anew */
        BL_VIRT_DEVICE_REMOVED,
        BL_VIRT_TUNABLE,
        BL_VIRT_MIGRATION, /* an outgoing migration made a round; detail: the round */
        BL_VIRT_JOB_DONE, /* a migration or save ended; a lifecycle event tells if the VM went */
        _BL_VIRT_EVENT_MAX,
};

struct bl_virt_event {
        enum bl_virt_event_kind kind;
        uint8_t uuid[BL_UUID_LEN];
        const char *name; /* valid during the call */
        int detail;
        uint64_t actual; /* bytes; BL_UNSET except for BALLOON */
};

const char *bl_virt_event_to_string(enum bl_virt_event_kind k);

struct bl_conn_handler {
        /* Connected, or lost with the reason.  On every connect everything may
         * have changed: list the VMs anew.  A failing retry calls it again
         * only when the message differs. */
        void (*state)(void *userdata, bool connected, const char *message);
        void (*event)(void *userdata, const struct bl_virt_event *ev);
};

struct bl_conn_options {
        const char *uri; /* copied; qemu:///system, test:///default, ... */
        usec_t retry_first; /* 0: 200 ms */
        usec_t retry_max; /* 0: 5 s */
        struct bl_conn_handler handler;
        void *userdata;
};

/* Quiets libvirt's printing to standard error.  Does not connect yet.  Needs
 * an event bridge (-ENOTCONN without) and a pool.  All functions but those of
 * the lease belong to the loop's thread. */
int bl_conn_new(sd_event *e, struct bl_pool *pool, const struct bl_conn_options *o, struct bl_conn **ret);

/* Begins to connect; the result comes to handler.state. */
int bl_conn_start(struct bl_conn *c);

/* No handler call comes any more.  The end goes: bl_conn_stop (closing blocks,
 * so it is given to workers), bl_pool_stop with a second or so (VMs' jobs that
 * wait are dropped, closing is done), bl_conn_free, bl_pool_free,
 * bl_event_bridge_free.  When bl_pool_stop says that jobs still hang, skip
 * what follows and exit. */
void bl_conn_stop(struct bl_conn *c);
struct bl_conn *bl_conn_free(struct bl_conn *c);

bool bl_conn_connected(const struct bl_conn *c);
const char *bl_conn_uri(const struct bl_conn *c);
struct bl_pool *bl_conn_pool(struct bl_conn *c);
/* Connections open now, for status and tests. */
unsigned bl_conn_links(struct bl_conn *c);

/*
 * For jobs, in a worker: a connection of one's own, for one call after the
 * other.  May open one.  Give it back with bl_conn_release.  -ENOTCONN while
 * disconnected, -EBUSY when there are too many; message as bl_virt_error.
 */
struct bl_conn_lease;
int bl_conn_acquire(struct bl_conn *c, struct bl_conn_lease **ret, char **ret_message);
virConnectPtr bl_conn_lease_get(const struct bl_conn_lease *l);
/* The domain on this connection, a new reference (virDomainFree).  Kept, so
 * that asking again costs no call.  -ENOENT, and as bl_virt_error. */
int bl_conn_lease_domain(struct bl_conn_lease *l, const uint8_t uuid[BL_UUID_LEN], virDomainPtr *ret,
                         char **ret_message);
/* libvirt said that it is not there any more. */
void bl_conn_lease_forget(struct bl_conn_lease *l, const uint8_t uuid[BL_UUID_LEN]);
void bl_conn_release(struct bl_conn_lease *l);

BL_DEFINE_CLEANUP(struct bl_conn *, bl_conn_free)

#endif
