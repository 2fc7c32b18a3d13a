/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The page-out engine (ballast/engine.h): has the host's kernel page a VM's memory
 * out into whatever swap the host has (zswap, zram, swap files), where no agent
 * gives its guest a better place for it.  pageout_walk.h has how; a decision is
 * carried out in paced jobs of a worker.
 *
 * It backs off at once when it hurts: when the VM reads back what was paged out, or
 * tasks on the host stall for memory more than before.  It then offers
 * nothing for 30 s, doubling to 10 min; the doubling ends after 10 min without.
 * (TMO, ASPLOS 2022, steers by stalls; zswap at Google, ASPLOS 2019, by what is
 * read back.)
 *
 * There is nothing to undo: what is paged out comes back by itself when it is used,
 * or with swapoff(8).
 */
#ifndef BALLAST_ACT_PAGEOUT_H
#define BALLAST_ACT_PAGEOUT_H

#include <ballast/cleanup.h>
#include <ballast/engine.h>

#include "daemon/act/pageout_walk.h"
#include "daemon/sense/kernel_tiers.h"
#include "daemon/sense/resident.h"
#include "daemon/virt/pool.h"

/* Reading back so much a second, on average over some seconds, hurts. */
#define BL_PAGEOUT_HURT BL_MIB
/* And so much of the time in which tasks stall, above what they did before. */
#define BL_PAGEOUT_STALL       1000U /* permyriad */
#define BL_PAGEOUT_BACKOFF     (30 * BL_SEC)
#define BL_PAGEOUT_BACKOFF_MAX (600 * BL_SEC)

struct bl_pageout_handler {
        /* So much of it was paged out since it was said last, for this reason: every 10 s at most. */
        void (*on_paged_out)(void *userdata, const uint8_t uuid[BL_UUID_LEN], enum bl_reason why, uint64_t bytes);
        /* It hurts: nothing more for `span`.  `uuid` NULL: of any VM.  `sentence` has no newline. */
        void (*on_backoff)(void *userdata, const uint8_t *uuid, usec_t span, const char *sentence);
        /* A job failed; `r` is a negative errno. */
        void (*on_error)(void *userdata, const uint8_t uuid[BL_UUID_LEN], int r);
};

struct bl_pageout_options {
        struct bl_walk_options walk; /* its root is that of /proc and /sys, too */
        struct bl_pageout_handler handler; /* any may be NULL */
        void *userdata;
};

/* `pool` must outlive the engine's jobs, which end with it. */
int bl_pageout_engine_new(struct bl_pool *pool, const struct bl_pageout_options *o, struct bl_engine **ret);
struct bl_engine *bl_pageout_engine_free(struct bl_engine *e);

/* May it do anything (KernelTiers= of ballast.conf)? */
void bl_pageout_enable(struct bl_engine *e, bool on);

/*
 * Told of each VM again and again, and of all of them before bl_pageout_looked: `r` is its
 * process, `mem` its memory as just read, `guest_ram` its configured memory.  A VM that was not
 * seen between two calls of bl_pageout_looked is forgotten.  -ENOMEM, -EMFILE.
 */
int bl_pageout_see(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN], const struct bl_resident *r,
                   const struct bl_proc_mem *mem, uint64_t guest_ram, usec_t now);
/* Looks at the host, and judges.  Costs nothing more often than once a second. */
void bl_pageout_looked(struct bl_engine *e, usec_t now);

/* bl_vm.idle_since */
usec_t bl_pageout_idle_since(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN]);

/* What is shown of a VM. */
struct bl_pageout_vm {
        uint64_t out; /* bytes paged out by us, in all */
        uint64_t back; /* bytes that were read back since it was first paged out */
        uint64_t back_rate; /* bytes a second, lately */
        usec_t backoff_until; /* 0: it does not back off */
        usec_t idle_since; /* 0: it is not idle */
        bool by_cgroup;
        const char *why_not; /* why nothing is offered, a sentence; NULL: something is */
};
/* false: not known. */
bool bl_pageout_vm(struct bl_engine *e, const struct bl_vm *vm, struct bl_pageout_vm *ret);

/* The host's tiers as last seen. */
const struct bl_kernel_tiers *bl_pageout_tiers(struct bl_engine *e);
/* Host memory that its compressed tiers take for what is swapped out of VMs: of all that they take, the VMs' part. */
uint64_t bl_pageout_ram(struct bl_engine *e);
/* CPU time of all jobs so far. */
usec_t bl_pageout_cpu(struct bl_engine *e);

BL_DEFINE_CLEANUP(struct bl_engine *, bl_pageout_engine_free)

#endif
