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
 *   share.c      equal pages: life, figures, snapshot; share_groups.c: who may share with whom;
 *                share_evidence.c: what merging would gain, with the files named in share_private.h;
 *                share_act.c: plan.share carried out; share_cost.c: what ksmd costs;
 *                share_hints.c: what agents say of their page cache
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

#include "daemon/act/ksm.h"
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
#include "daemon/share_cost.h"
#include "daemon/share_groups.h"
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

/* Page sharing as a whole. */
struct bl_share {
        struct bl_ksm *ksm; /* NULL: never needed yet */
        bool there; /* the kernel has KSM */
        struct bl_ksm_figures figures; /* at the last look */
        usec_t vms_at; /* when the VMs' own were last read */
        struct bl_share_groups groups;
        bool groups_due; /* something that they follow from has changed */
        bool groups_said; /* the error in them was logged */
        bool swap; /* the host had some when they were worked out */
        struct bl_share_cost cost;
        uint64_t worked_on; /* pages that ksmd scanned and that were not merged before */
        uint64_t pass_scanned, pass_merged; /* when this pass began: pages scanned ever, bytes merged */
        usec_t ksmd_cpu; /* that ksmd and khugepaged took while we drove it */
        usec_t khugepaged_cpu;
        usec_t scan_cpu; /* of our own looking */
        uint64_t drives; /* begun */
        usec_t driven_at; /* since; 0: at rest */
        usec_t start_at; /* it is to be driven since then, and waits for VMs that are being registered; 0: no */
        char gate[160]; /* why ksmd may not run now; "": it may */
        usec_t gate_at; /* since; 0: it is not */
        bool gate_said;
        struct {
                usec_t until; /* VMs are measured one after the other; 0: never were */
                uint64_t merged, copied, collapsed; /* when that began: bytes, and figures.cow and .collapsed */
        } measured;
        bool told_drive; /* "would drive" is in the history */
        char sentence[200]; /* about plan.share */
        int failed; /* the error of the last write to sysfs that was logged; 0 */

        /* share_evidence.c */
        struct bl_evidence *evidence; /* of all VMs that share; NULL: none do */
        sd_event_source *timer;
        uint64_t last_id;
        unsigned jobs; /* under way */
        bool confirming; /* one of them has all sources */
        usec_t unmet_at; /* bursts are over, and what they found is being confirmed since then; 0: no */
        usec_t next_at; /* at rest: the next job, not before */
        size_t turn; /* of the VMs, who is next */
        usec_t loop_cpu; /* that the loop had with it since the last job */
        bool fresh; /* figures are older than the samples: */
        usec_t figures_at; /* of then */
        usec_t burst_at; /* the last one began */
        usec_t hints_next; /* no agent is asked for hints before */
        usec_t reuse_next; /* no VM is sampled anew before, because its guest says that it uses more */
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

        struct bl_share share;

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
/* The host has begun to be short: what was sensed at rest is asked for anew. */
void bl_poll_pressed(struct bl_manager *m);
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

/* share.c */
int bl_share_start(struct bl_manager *m);
/* The host's knobs are as they were found: before anything that may hang at the end. */
void bl_share_release(struct bl_manager *m);
/* Frees everything; behind the workers' end. */
void bl_share_stop(struct bl_manager *m);
/* The configuration was read again. */
void bl_share_reconfigure(struct bl_manager *m);
/* It was described (anew). */
void bl_share_check(struct bl_guest *g);
/* Its process is another: what is known was the one before's. */
void bl_share_forget(struct bl_guest *g);
/* It is about to be freed: as above, but for good. */
void bl_share_drop(struct bl_guest *g);
/* A VM has begun to run, of which nothing is known yet: KSM rests until it is. */
void bl_share_newcomer(struct bl_manager *m);
/* What merging saves is measured anew, one VM after the other. */
void bl_share_measure_soon(struct bl_manager *m);
/* Before each tick: reads what KSM does, and works out who may share with whom. */
void bl_share_look(struct bl_manager *m, usec_t now);
/* By what is known of the VMs now, where something has changed. */
void bl_share_groups_now(struct bl_manager *m);
/* For the snapshot. */
void bl_share_to_vm(const struct bl_guest *g, struct bl_vm_share *ret);
void bl_share_state(const struct bl_manager *m, struct bl_share_state *ret);
/* What un-merging would take of the host at once.  Un-merging copies each of its `merged` bytes; a frame whose other
 * mappings are its own too comes free.  Pss says that frames worth merged - saved are behind it at most; how many of
 * those are nobody else's is taken to be its part of all that is merged.  `saved` for the only one, next to `merged`
 * for one of many. */
uint64_t bl_share_breaks(uint64_t merged, uint64_t saved, uint64_t merged_of_all);
/* An administrator says that KSM is Ballast's again.  -EALREADY: it is; -ENODEV: no KSM; -ESRCH: Mode is not group. */
int bl_share_resume(struct bl_manager *m);

/* Everything about sharing in one piece, for documents and metrics; VMs: bl_guest.share and bl_share_to_vm(). */
struct bl_share_status {
        enum bl_share_mode mode; /* of the host */
        const char *group; /* that KSM serves; "": none, or not known */
        const char *error; /* why nobody is served, a sentence; NULL: nothing is wrong */
        bool there; /* the kernel has KSM */
        bool acting, yielded, driven;
        const char *yield_reason; /* a sentence; NULL */
        const char *gate; /* why ksmd may not run though it should, a sentence; NULL */
        const char *thp_warning; /* what khugepaged may undo, a sentence; NULL */
        enum bl_reason why; /* of plan.share */
        const char *sentence; /* about it; "": there is no plan yet */
        const struct bl_ksm_figures *ksm; /* NULL: not read */
        uint32_t scan_cost, merge_cost; /* ns a page of ksmd */
        usec_t ksmd_cpu, khugepaged_cpu; /* while we drove it */
        usec_t scan_cpu; /* of our own scanning */
        uint64_t drives;
        uint64_t gain; /* sum over VMs in the group, beyond what is merged */
        uint64_t merged, saved, present, zero, breaks; /* sums over all VMs */
        uint64_t reserve; /* of plan.share */
        usec_t cpu_per_mib; /* all of the above CPU over what is saved; BL_UNSET: nothing is */
        size_t evidence_memory; /* bytes */
};
void bl_share_status(const struct bl_manager *m, struct bl_share_status *ret);
/* CPU that went into one VM: its part of ksmd, and scanning. */
static inline usec_t bl_share_cpu(const struct bl_guest *g)
{
        return g->share.ksmd_cpu + g->share.scan_cpu;
}

/* share_evidence.c */
int bl_share_evidence_start(struct bl_manager *m);
void bl_share_evidence_stop(struct bl_manager *m);
/* Who is to be looked at, and how much of it: after the groups changed, and with each tick. */
void bl_share_evidence_check(struct bl_manager *m, usec_t now);
/* Its process is gone, or another. */
void bl_share_evidence_forget(struct bl_guest *g);
/* Figures of all VMs from the samples. */
void bl_share_evidence_figures(struct bl_manager *m);
/* ksmd has run: what it merged is no gain any more.  Until that was looked at the figures count for nothing. */
void bl_share_evidence_renew(struct bl_manager *m);
/* Mode zero: up to `bytes` of zero pages of it go out. */
void bl_share_zero(struct bl_guest *g, uint64_t bytes, usec_t now);

/* share_act.c */
void bl_share_carry_out(struct bl_manager *m, const struct bl_snapshot *s);
/* The tick has to be fast. */
bool bl_share_busy(const struct bl_manager *m);
/* May ksmd run now?  No VM outside the group may be registered.  False: m->share.gate says why. */
bool bl_share_may_drive(struct bl_manager *m);
/* Its `merge` property is asked for, where that is needed and not known. */
void bl_share_look_merge(struct bl_guest *g);
/* Puts its `merge` property back to what it was, where the host has `room`; takes off what that uses.  -EAGAIN: it
 * has not; other errors.  Done when the ledger has nothing of it any more. */
int bl_share_undo(struct bl_guest *g, uint64_t *room);
/* The knobs go back now. */
void bl_share_let_go(struct bl_manager *m);

/* share_hints.c */
/* Pages by the guest's numbers -> by their place in its memory, sorted, without overlaps; `ret` has room for 2 * n.
 * How many came of it; what does not lie in memory is left out. */
struct bl_share_run {
        uint64_t first, n; /* pages */
};
size_t bl_share_translate(enum bl_machine machine, uint64_t ram, const struct bl_share_run *runs, size_t n,
                          struct bl_share_run *ret);
void bl_share_hints(struct bl_guest *g, const struct bl_wire_hints *w);
struct bl_share_hints *bl_share_hints_free(struct bl_share_hints *h);
/* Asks its agent for some, when it has come or grown; seldom. */
void bl_share_hints_ask(struct bl_guest *g, usec_t now);
/* What was hinted is given to the sampler, where there is news and a source to name pages of; not more often than is
 * good for us. */
void bl_share_hints_apply(struct bl_guest *g, usec_t now);
/* It has another source: that knows nothing yet. */
void bl_share_hints_again(struct bl_guest *g);

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
