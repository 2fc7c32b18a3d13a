/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The daemon's model of one VM: everything that was sensed or told about it.
 * The snapshot is made from it; only the loop's thread touches it.
 */
#ifndef BALLAST_DAEMON_GUEST_H
#define BALLAST_DAEMON_GUEST_H

#include <stdatomic.h>

#include <ballast/plan.h>
#include <ballast/snapshot.h>

#include "daemon/control.h"
#include "daemon/ledger.h"
#include "daemon/pages/evidence.h"
#include "daemon/sense/balloon_watch.h"
#include "daemon/sense/pss.h"
#include "daemon/sense/resident.h"
#include "daemon/store/store.h"
#include "daemon/virt/domain.h"

struct bl_agent;
struct bl_manager;
struct bl_transport;

/* One connection to its agent. */
struct bl_guest_link {
        struct bl_agent *agent; /* NULL: none */
        const struct bl_transport *via;
        usec_t at; /* since when */
};

/* What its agent said of its pages in the last scan: counts of 4 KiB pages. */
struct bl_guest_hints {
        usec_t at; /* 0: never */
        uint64_t scan;
        uint64_t free, inactive_file, file;
        uint64_t runs;
        bool complete, cut;
};

/* Who asked for the action under way by hand; `done` NULL: nobody. */
struct bl_guest_ask {
        bl_done_fn done;
        void *userdata;
        usec_t at;
};

/* Its agent: daemon/guests.c. */
struct bl_guest_agent {
        struct bl_guest_link link; /* the one that counts */
        struct bl_guest_link trial; /* a newcomer: it takes over when it says hello */
        bool hello; /* the agent at `link` did */
        bool refused; /* said already */
        uint64_t features; /* BL_WIRE_FEATURE_ */
        struct bl_guest_ask ask;
        char version[32];
        char kernel[64];
        usec_t heard_at;
        usec_t call_at; /* it called last */
        usec_t retry_at; /* connect not before */
        usec_t say_at; /* `say_left` lines about its coming and going may be logged until then */
        unsigned say_left;
        const struct bl_transport *said; /* the way that was logged last */
        struct bl_guest_hints hints;
};

/* Its swap on the store: daemon/swap.c.  Each step is asked for again until its outcome is seen. */
enum bl_swap_stage {
        BL_SWAP_STAGE_NONE, /* it has none, and wants none */
        BL_SWAP_STAGE_WAITING, /* for the store, the guest's agent, or for room (`swap.why`) */
        BL_SWAP_STAGE_REGISTERED, /* the store knows it; its disk is plugged in */
        BL_SWAP_STAGE_PLUGGED, /* its agent is to switch swap on it on */
        BL_SWAP_STAGE_ON,
        BL_SWAP_STAGE_DRAINING, /* its agent brings everything back */
        BL_SWAP_STAGE_UNPLUGGING, /* its agent has said that it is off; the disk goes */
        _BL_SWAP_STAGE_MAX,
};

struct bl_guest_swap {
        enum bl_swap_stage stage;
        bool busy; /* a call to libvirt or the store is under way */
        uint64_t generation; /* changes with its process: what was asked of the one before says nothing of this */
        bool looked; /* the monitor said whether its disk is plugged in: */
        bool there;
        bool registered; /* the store has taken its registration */
        usec_t met_at; /* this process was first described */
        usec_t due_at; /* look at it then; 0: no need */
        usec_t stage_at; /* since when */
        uint64_t size; /* in force */
        char why[160]; /* it does not go on, for people; "": it does */
        int said; /* what was logged last */
        bool seen; /* the store's figures below are of this process of the VM */
        struct bl_store_vm held; /* as the store said last */
        usec_t held_at;
        /* of the agent's statistics */
        uint64_t state, used, cached, ahead, zswap, error; /* BL_UNSET: not known */
        usec_t told_at; /* when they came */
        usec_t asked_at; /* its agent was last asked for something, or answered it; what it said before is old */
        bool said_ahead, said_zswap;
        usec_t give_at; /* it was last asked to give slots back */
};

/* What its memory file holds twice: daemon/shadow.c. */
struct bl_guest_shadow {
        usec_t at; /* last looked at */
        uint64_t freed; /* in all */
        bool never; /* there is somebody's data in it */
};

/* Its vhost-user-vsock device: daemon/attach.c. */
struct bl_guest_attach {
        usec_t due_at; /* look at it then; 0: no need */
        bool busy; /* a call is under way */
        bool ours; /* it has one of us, or will have */
        int said; /* what was logged last */
};

/* Its memory as the scanner reads it.  A job holds it too, and may outlast the VM. */
struct bl_share_source {
        struct bl_source *source;
        struct bl_evidence *alone; /* mode zero: its samples are compared with nobody's; NULL: the group's are used */
        unsigned users; /* the VM, and each job */
        unsigned jobs; /* under way */
        atomic_bool stop; /* those of zero pages are to end */
};

/* Its equal pages: daemon/share*.c.  Bytes where nothing else is said. */
struct bl_guest_share {
        uint64_t id; /* of this process of it */

        /* share_groups.c: what may be done */
        enum bl_share_mode asked; /* by its metadata, or what follows from them */
        enum bl_share_mode mode; /* in force */
        enum bl_no_share no_share;
        bool zero_possible; /* pages of zeros may be paged out of it, and can be */
        enum bl_no_share said; /* logged last */
        char group[BL_METADATA_GROUP]; /* its trust group; "": none */

        /* share_act.c: QEMU's `merge` property */
        bool merge_looked; /* QEMU has said how it is: */
        bool merge_on; /* registered, at least in part */
        bool merge_stale; /* that was a while ago: it is to be asked again */
        unsigned backends; /* with the property */
        bool merge_busy; /* a question or a command is under way: */
        bool merge_setting; /* a command */
        bool merge_refused; /* QEMU would not, or does not answer: not before */
        usec_t merge_again_at;
        usec_t merging_at; /* registered, or found so, since; 0: it is not */
        struct bl_share_decision decision; /* the last one */
        bool decided;
        char sentence[200]; /* about it */
        enum bl_reason told_why; /* last in the history, where nothing is done */

        /* share_evidence.c */
        struct bl_share_source *source; /* NULL: not opened (yet) */
        uint64_t scan_id; /* of what was sampled through it; never 0 */
        bool opening; /* a worker does */
        usec_t open_at; /* it could not be read: not before */
        int open_said; /* the error that was logged; 0: none */
        bool again; /* its memory may have been laid out anew */
        uint64_t burst; /* pages that are to be looked at as soon as possible */
        bool renew; /* ksmd has run: what was sampled is to be looked at again */
        bool met; /* the last burst is over, and what it found confirmed: its figures count */
        uint64_t grown_from; /* the least that was resident since the last burst began */
        uint64_t used_from; /* and the least that the guest used, by itself; 0: it has not said since */
        usec_t burst_at;
        struct bl_evidence_figures figures;
        usec_t scan_cpu; /* of evidence and of zero pages, ever */

        /* share_hints.c */
        struct bl_share_hints *hints; /* NULL: none */
        usec_t hints_at; /* its agent was asked for them; 0: not yet */

        /* accounting */
        uint64_t merged; /* mapped to KSM pages now */
        uint64_t saved; /* its part of what that saves, by Pss */
        uint64_t breaks; /* what un-merging it would take at once, estimated: bl_share_breaks() */
        usec_t ksmd_cpu; /* its part of what ksmd took while we drove it, by registered memory */

        /* mode zero */
        bool zero_busy;
        uint64_t zero_next; /* page */
        uint64_t zero_out; /* that went out, ever */
        usec_t zero_at; /* the last job */
};

struct bl_guest {
        struct bl_manager *m;
        uint8_t uuid[BL_UUID_LEN];
        char uuid_text[37];
        char *name;
        uint64_t serial; /* tells it from one of the same UUID that went before */

        struct bl_domain_desc *desc; /* NULL until libvirt described it */
        bool describing;
        bool describe_again; /* something changed while it was being described */
        bool describe_due; /* what is known is old: poll.c asks again */
        bool describe_failed; /* said already */
        usec_t not_there_at; /* libvirt first said that it is off, and no event came yet; 0: it is there */
        unsigned looked_for_process; /* times in vain */
        enum bl_ledger_birth birth; /* how its process began */
        bool seen; /* since the listing under way began */

        struct bl_resident *resident;
        struct bl_proc_mem mem;
        usec_t mem_at;
        struct bl_pss_pace pss;
        uint64_t overhead; /* of mem: the VMM's own */
        usec_t overhead_at; /* measured; 0: never */
        uint64_t overhead_anon; /* RssAnon then */

        struct bl_watch watch;
        bool watching; /* the watch has its traits */
        enum bl_vm_run run;
        usec_t booted_at;
        uint64_t actual;
        usec_t actual_at;
        uint64_t target;
        usec_t target_at; /* 0: never told */
        uint64_t target_before; /* before the command under way: in force again if that is refused */
        usec_t target_before_at;
        bool oom_deflate;
        uint64_t oom_deflates;

        struct bl_guest_stats balloon_stats;
        struct bl_guest_stats agent_stats;
        struct bl_guest_request request; /* its agent's last */
        bool sensing;
        bool stopped; /* its QEMU process is in state T */
        usec_t sense_at; /* ask again then */

        struct bl_guest_agent agent;
        struct bl_guest_attach attach;
        struct bl_guest_shadow shadow;
        struct bl_guest_swap swap;
        struct bl_guest_share share;

        /* The last decision, and the one that a command under way carries out. */
        struct bl_decision decision;
        bool decided;
        char sentence[200];
        struct {
                enum bl_reason why;
                char sentence[200];
        } under_way;
        enum bl_reason told_why; /* last in the history, so that it is not said each tick */
        uint64_t told_to;
        int failure; /* the last kind of failure in the history, likewise; 0: none */
        usec_t failure_at;

        /* rollback.c */
        bool restoring;
        int restore_said; /* why it is not put back yet, as far as that was said */
};

/* -ENOMEM */
int bl_guest_new(struct bl_manager *m, const uint8_t uuid[BL_UUID_LEN], const char *name, struct bl_guest **ret);
struct bl_guest *bl_guest_free(struct bl_guest *g);

/* Settings in force: its metadata over the defaults. */
bool bl_guest_managed(const struct bl_guest *g);
uint64_t bl_guest_max(const struct bl_guest *g);
uint64_t bl_guest_limit(const struct bl_guest *g);
uint64_t bl_guest_reservation(const struct bl_guest *g);
uint64_t bl_guest_shares(const struct bl_guest *g);

/* Balloon size, and what it was last told to be; BL_UNSET: not known yet. */
uint64_t bl_guest_actual(const struct bl_guest *g);
uint64_t bl_guest_target(const struct bl_guest *g);
enum bl_vm_run bl_guest_run(const struct bl_guest *g);
/* It does not answer: a call has not come back, or its process is stopped. */
bool bl_guest_hung(const struct bl_guest *g);

/* The fresher and better of its two statistics. */
const struct bl_guest_stats *bl_guest_stats_best(const struct bl_guest *g, usec_t now);

/* Fills everything but `name` by reference to the model and the offers; false:
 * not enough is known yet to show it to the policy (what libvirt described is
 * filled in nevertheless). */
bool bl_guest_to_vm(struct bl_guest *g, usec_t now, struct bl_vm *ret);

#endif
