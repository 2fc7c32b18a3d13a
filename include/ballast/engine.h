/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An engine moves memory in one way (balloon; later sharing, store, kernel
 * tiers).  Engines are peers behind this vtable, never include each other,
 * and are chosen by the policy.  None of the calls blocks: what may block is
 * queued to a worker, and its outcome shows in the next snapshot.
 */
#ifndef BALLAST_ENGINE_H
#define BALLAST_ENGINE_H

#include <ballast/engine-id.h>
#include <ballast/plan.h>
#include <ballast/snapshot.h>

struct bl_engine;

struct bl_engine_ops {
        enum bl_engine_id id;
        const char *name;

        /* Can this engine ever act on the VM?  Why not otherwise. */
        enum bl_no_reclaim (*probe)(struct bl_engine *e, const struct bl_vm *vm);

        /* What it could do for the VM now, for the snapshot. */
        void (*propose)(struct bl_engine *e, const struct bl_vm *vm, struct bl_offer *ret);

        /* Starts one decision.  The record that undo needs is on disk before
         * anything is done (daemon/ledger.h).  -EBUSY: one is under way for
         * this VM; -ESTALE: the VM is not what the decision saw; other errors
         * from writing the record: then nothing was done. */
        int (*apply)(struct bl_engine *e, const struct bl_vm *vm, const struct bl_decision *d);

        /* One paced step of putting the VM back as it was found; `room` is
         * what the host can spare now, in bytes.  Returns 1 when the VM is as
         * it was, 0 when more steps are needed, negative errno. */
        int (*undo)(struct bl_engine *e, const struct bl_vm *vm, uint64_t room);
};

struct bl_engine {
        const struct bl_engine_ops *ops;
};

#endif
