/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The manager's parts, one file each; nobody else includes this.
 *
 *   manager.c    life, configuration, libvirt's comings and goings
 *   discover.c   which VMs there are and what they are
 *   poll.c       what each VM says: balloon size and statistics, who moved the balloon
 *   guests.c     the agents in the guests; attach.c: their vhost-user-vsock devices;
 *                actions.c: what is asked of them
 *   swap.c       their swap on ballast-store: plugged in, switched on, brought back
 *   shadow.c     what private memory files hold twice
 *   sample.c     the fast path: resident memory, budget, growth, PSI
 *   tick.c       snapshot -> policy -> plan -> act
 *   kernel_tiers.c  what the host's kernel may page out
 *   rollback.c   everything back as it was found
 *   control.c    what an administrator asks; documents.c, metrics.c: how it is shown
 */
#ifndef BALLAST_DAEMON_MANAGER_PRIVATE_H
#define BALLAST_DAEMON_MANAGER_PRIVATE_H

#include <systemd/sd-event.h>

#include <ballast/engine.h>
#include <ballast/policy.h>
#include <ballast/wire.h>

#include "daemon/bus/bus.h"
#include "daemon/conf.h"
#include "daemon/guest.h"
#include "daemon/history.h"
#include "daemon/ledger.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/sense/controllers.h"
#include "daemon/sense/growth.h"
#include "daemon/sense/host.h"
#include "daemon/virt/conn.h"
#include "daemon/virt/event_bridge.h"
#include "daemon/virt/pool.h"

/* Transports that there are (guests.c). */
#define BL_TRANSPORTS 3

/* One that guests call. */
struct bl_agent_listener {
        struct bl_manager *m;
        const struct bl_transport *via;
        sd_event_source *source; /* NULL: this kernel has no such thing */
};

struct bl_manager {
        sd_event *event;
        struct bl_manager_options options;
        struct bl_conf *conf;
        char **warnings; /* of the last configuration read; NULL-terminated */

        struct bl_event_bridge *bridge;
        struct bl_pool *pool;
        struct bl_conn *conn;
        bool connected;
        char *conn_error;
        struct bl_ledger *ledger;
        struct bl_engine *balloon; /* == engines[BL_ENGINE_BALLOON] */
        struct bl_engine *engines[_BL_ENGINE_MAX];
        struct bl_bus *bus;
        struct bl_history *history;

        struct bl_guest **guests; /* sorted by uuid */
        size_t n_guests;
        uint64_t n_met; /* all that there were */
        bool listing, list_again;
        bool listed; /* libvirt has said at least once which VMs there are */
        usec_t list_at; /* list again then, since it failed; 0: no need */

        /* sample.c */
        struct bl_host_sensor *host_sensor;
        struct bl_host host; /* last sample */
        sd_event_source *sample_timer;
        sd_event_source *psi_source;
        int psi_fd;
        usec_t psi_at; /* when it last fired; 0: never */
        bool calibrating; /* a worker measures a VM's pages */
        struct bl_controller conflicts[BL_CONTROLLERS_MAX];
        size_t n_conflicts;
        usec_t conflicts_at;

        /* poll.c */
        sd_event_source *poll_timer;

        /* guests.c, attach.c */
        struct bl_agent_listener listeners[BL_TRANSPORTS];
        sd_event_source *attach_timer;
        bool dropping; /* shadow.c: a worker frees what a VM holds twice */
        usec_t dropping_at; /* since then */

        /* swap.c */
        struct bl_storelink *storelink; /* NULL: there is no store */
        sd_event_source *swap_timer;
        bool store_deaf; /* said, and not taken back yet */

        /* tick.c */
        struct bl_policy *policy;
        struct bl_plan plan; /* the last one */
        bool planned;
        sd_event_source *tick_timer;
        usec_t tick_at; /* last */
        uint64_t free_at_tick; /* of the host */
        bool waiting; /* a VM is short of memory that was not free then */
        usec_t state_since; /* that plan.state is what it is */
        uint64_t taken_total, given_total; /* bytes commanded */
        uint64_t n_commands, n_failed;

        /* rollback.c */
        sd_event_source *rollback_timer; /* there while one runs; that one does is in the ledger */
};

/* A job's userdata: the VM may have gone when the answer comes, or have come
 * back, and then what is said of the one before is not true of it. */
struct bl_call {
        struct bl_manager *m;
        uint8_t uuid[BL_UUID_LEN];
        uint64_t serial;
};
struct bl_call *bl_call_new(struct bl_guest *g);
/* For one that is part of more. */
void bl_call_init(struct bl_call *c, struct bl_guest *g);
struct bl_guest *bl_call_guest(const struct bl_call *c);

/* manager.c */
bool bl_manager_acting(const struct bl_manager *m);
struct bl_guest *bl_manager_find(struct bl_manager *m, const uint8_t uuid[BL_UUID_LEN]);
/* By name or uuid text. */
struct bl_guest *bl_manager_find_named(struct bl_manager *m, const char *vm);
/* History and log at once. `g` may be NULL; sizes BL_UNSET when not about one. */
void bl_manager_note(struct bl_manager *m, struct bl_guest *g, int priority, enum bl_event ev, const char *reason,
                     const char *outcome, uint64_t from, uint64_t to, const char *format, ...)
        __attribute__((format(printf, 9, 10)));
/* Writes the ledger; says so when it cannot. */
int bl_manager_save(struct bl_manager *m, bool durable);
void bl_manager_not_saved(struct bl_manager *m, int r);
void bl_manager_notify_status(struct bl_manager *m);

/* discover.c */
void bl_discover_all(struct bl_manager *m);
void bl_discover_event(struct bl_manager *m, const struct bl_virt_event *ev);
void bl_discover_describe(struct bl_guest *g);
enum bl_departure {
        BL_DEPARTURE_OFF, /* it is off and may come back */
        BL_DEPARTURE_SAVED, /* its state, balloon included, is in a file */
};
/* Frees `g`. */
void bl_discover_forget(struct bl_guest *g, enum bl_departure how);
/* libvirt answers that it is off, or not there.  The event that says how it ended,
 * and so what becomes of its record, may be on its way; when none has come, `g`
 * is freed. */
void bl_discover_not_there(struct bl_guest *g);

/* It runs, or is paused. */
void bl_discover_run(struct bl_guest *g, enum bl_vm_run run);
/* The statistics period that it is to have now. */
void bl_discover_period(struct bl_guest *g);

/* poll.c */
int bl_poll_start(struct bl_manager *m);
void bl_poll_rearm(struct bl_manager *m);
void bl_poll_soon(struct bl_guest *g, usec_t at);
void bl_poll_balloon_seen(struct bl_guest *g, uint64_t actual, usec_t at);

/* guests.c */
int bl_guests_start(struct bl_manager *m);
void bl_guests_stop(struct bl_manager *m);
/* By the ways that we have to make ourselves, where there is need. */
void bl_guests_connect(struct bl_guest *g);
/* Its process is another, or it is gone: forgets what the agent said. */
void bl_guests_drop(struct bl_guest *g);
/* What it is granted, told to its agent where that is news. */
void bl_guests_tell(struct bl_guest *g);
/* The name of the transport that its agent uses; NULL: none is heard. */
const char *bl_guests_channel(const struct bl_guest *g);
/* Its agent is heard over a way that it called us by: its vsock device works. */
bool bl_guests_called(const struct bl_guest *g);

/* attach.c */
int bl_attach_start(struct bl_manager *m);
/* It was described (anew): it may want a device, or none any more. */
void bl_attach_check(struct bl_guest *g);
/* Its agent's connection is lost: the backend may be. */
void bl_attach_lost(struct bl_guest *g);

/* swap.c */
int bl_swap_start(struct bl_manager *m);
void bl_swap_stop(struct bl_manager *m);
/* It was described (anew), or its agent came: it may want swap, or none any more. */
void bl_swap_check(struct bl_guest *g);
/* Its process is another: what is known of its swap was the one before's. */
void bl_swap_forget(struct bl_guest *g);
/* What its agent's last statistics say. */
void bl_swap_stats(struct bl_guest *g, const struct bl_wire_stats *w);
void bl_swap_result(struct bl_guest *g, enum bl_wire_action_kind kind, const struct bl_wire_result *r);
/* After each tick: slots that nobody needs are given back, the pool grows, the store is asked more often. */
void bl_swap_tick(struct bl_manager *m, usec_t now);
/* For the snapshot. */
void bl_swap_to_vm(const struct bl_guest *g, struct bl_vm_store *ret);
void bl_swap_store_state(const struct bl_manager *m, usec_t now, struct bl_store_state *ret);
/* Host memory that the store has taken, its process included. */
uint64_t bl_swap_host_memory(const struct bl_manager *m);
/* Uncompressed bytes that the store has room for at all, and for this VM; 0: none, or not known. */
uint64_t bl_swap_room_left(const struct bl_guest *g);

/* shadow.c */
/* Where Ballast acts: gives back to the host what some VM holds twice. */
void bl_shadow_drop(struct bl_manager *m, usec_t now);
/* Host memory behind a VM without what will be given back in a moment: what it
 * needs, and what the budget is judged by. */
uint64_t bl_shadow_resident(const struct bl_guest *g);

/* actions.c */
/* Its balloon is about to shrink: what makes that easier for the guest. */
void bl_actions_before_taking(struct bl_guest *g, uint64_t from, uint64_t to);
void bl_actions_result(struct bl_guest *g, enum bl_wire_action_kind kind, const struct bl_wire_result *r);
/* The connection that it was asked over is gone. */
void bl_actions_lost(struct bl_guest *g);

/* sample.c */
int bl_sample_start(struct bl_manager *m);
void bl_sample_now(struct bl_manager *m);
void bl_sample_reconfigure(struct bl_manager *m);
void bl_sample_host_mem(struct bl_guest *g, usec_t now);

/* tick.c */
int bl_tick_start(struct bl_manager *m);
void bl_tick_now(struct bl_manager *m);
void bl_tick_soon(struct bl_manager *m, usec_t in);
int bl_snapshot_build(struct bl_manager *m, usec_t now, struct bl_snapshot *ret);
extern const struct bl_balloon_handler bl_tick_balloon_handler;

/* kernel_tiers.c */
int bl_kernel_tiers_start(struct bl_manager *m);
/* What the VMs and the host do, for what may be paged out; each tick. */
void bl_kernel_tiers_look(struct bl_manager *m, usec_t now);

/* rollback.c */
bool bl_rollback_running(const struct bl_manager *m);
/* A rollback that an earlier daemon did not finish goes on. */
int bl_rollback_resume(struct bl_manager *m);
/* "act on": whatever there was of one is over. */
void bl_rollback_end(struct bl_manager *m);
int bl_rollback_begin(struct bl_manager *m);
size_t bl_rollback_left(struct bl_manager *m);

/* documents.c */
json_t *bl_document_vm(struct bl_guest *g);

#endif
