/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The balloon engine (ballast/engine.h): moves memory by virtio-balloon
 * through libvirt.  Every command goes: record in the ledger, with a mark that
 * it is in flight -> in a worker, one more look at the VM -> command -> back on
 * the loop, its outcome into the ledger -> handler.
 */
#ifndef BALLAST_ACT_BALLOON_H
#define BALLAST_ACT_BALLOON_H

#include <ballast/cleanup.h>
#include <ballast/engine.h>

#include "daemon/ledger.h"
#include "daemon/virt/domain.h"

enum bl_outcome {
        BL_OUTCOME_DONE, /* the target is set; the guest follows in its own time */
        BL_OUTCOME_REFUSED, /* one more look did not let it through; nothing was done */
        BL_OUTCOME_FAILED, /* libvirt refused; nothing was done */
        BL_OUTCOME_UNKNOWN, /* the connection broke: it may have been done */
};

const char *bl_outcome_to_string(enum bl_outcome o);

struct bl_balloon_result {
        uint8_t uuid[BL_UUID_LEN];
        uint64_t from;
        uint64_t to;
        enum bl_outcome outcome;
        int error; /* negative errno, 0 when done */
        enum bl_look look; /* when refused */
        uint64_t found; /* balloon size at the look; BL_UNSET */
        const char *message; /* sentence or NULL; valid during the call */
        usec_t t_command; /* how long libvirt took */
        bool undo; /* a step of undo */
        bool by_hand; /* bl_balloon_set_by_hand */
};

struct bl_balloon_handler {
        /* A command is about to be given: tell the VM's watch (balloon_watch.h). */
        void (*on_command)(void *userdata, const uint8_t uuid[BL_UUID_LEN], uint64_t from, uint64_t to);
        /* It was answered.  For the watch, history and log. */
        void (*on_result)(void *userdata, const struct bl_balloon_result *r);
        /* The ledger could not be written after an action; what it says is behind. */
        void (*on_ledger_error)(void *userdata, int r);
};

struct bl_balloon_options {
        struct bl_balloon_handler handler;
        void *userdata;
};

/* conn and ledger must outlive the engine's jobs, which end with the pool. */
int bl_balloon_engine_new(struct bl_conn *conn, struct bl_ledger *ledger, const struct bl_balloon_options *o,
                          struct bl_engine **ret);
struct bl_engine *bl_balloon_engine_free(struct bl_engine *e);

/* Which QEMU process a VM is, so that a command cannot reach another; NULL
 * forgets the VM.  To be called whenever it is described. */
int bl_balloon_set_instance(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN], const struct bl_instance *i);

/* A command of this engine to the VM has not been answered. */
bool bl_balloon_in_flight(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN]);

/* An administrator's own command (ballastctl balloon): recorded like any other;
 * only a VM that does not run is refused.  Errors as apply. */
int bl_balloon_set_by_hand(struct bl_engine *e, const struct bl_vm *vm, uint64_t to);

/*
 * Sets the statistics period, live, after recording the one it had
 * (`now`, from bl_domain_info.stats_period; not recorded when equal).
 * `fn` as in domain.h; may be NULL.
 */
int bl_balloon_set_period(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN], const char *name, unsigned now,
                          unsigned seconds, bl_domain_done_fn fn, void *userdata);

/* Puts the period back that was recorded, for a VM that is not ours to ask any
 * more.  0 also when there is none.  Errors as bl_domain_set_period; when
 * libvirt refuses later, the record stays. */
int bl_balloon_undo_period(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN]);

BL_DEFINE_CLEANUP(struct bl_engine *, bl_balloon_engine_free)

#endif
