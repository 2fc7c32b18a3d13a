/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/act/pageout.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/sense/activity.h"
#include "daemon/sense/psi.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

#define LOOK_EVERY (1 * BL_SEC)
/* One job: short enough that what it does is looked at between. */
#define JOB_BYTES (64 * BL_MIB)
#define JOB_TIME  (500 * BL_MSEC)
/* So much swap is left to the host itself: 1/16 of it. */
#define SWAP_LEFT 16U
/* Less is not worth a job. */
#define WORTH (4 * BL_MIB)
/* What came of it is said so often at most. */
#define SAY_EVERY (10 * BL_SEC)
/* All was looked at, and the rest had come back lately: not before. */
#define ROUND_REST (30 * BL_SEC)
/* What shrinks to no less than this gives next to nothing back to the host, and is left alone for a while. */
#define WORTH_RATIO 7700U /* permyriad */
#define STIFF_REST  (600 * BL_SEC)
/* How long stalls are put down to what was paged out last. */
#define BLAME (5 * BL_SEC)
/* The rate of reading back is an average over about so many looks. */
#define SMOOTH 4U
/* What the kernel of a guest and QEMU touch all the time comes back at once: that much is no sign. */
#define GRACE (8 * BL_MIB)

struct backoff {
        usec_t until; /* 0: never yet */
        usec_t span; /* the last one's */
};

struct vm {
        struct vm *next;
        struct pageout *p;
        uint8_t uuid[BL_UUID_LEN];
        pid_t pid;
        uint64_t start;
        struct bl_walk *walk;
        bool seen;
        bool gone; /* freed when no job is under way */

        bool busy; /* a job is under way */
        atomic_bool stop; /* and shall end */
        enum bl_reason why; /* of the last decision */
        int never; /* negative errno: why it cannot be paged out at all; 0 */
        usec_t round_until; /* nothing cold is left until then */
        usec_t stiff_until; /* what went last did not shrink */
        uint64_t swapped; /* of it now */

        struct bl_idle idle;
        usec_t looked_at;
        struct bl_activity activity;
        struct bl_proc_mem mem;
        uint64_t out, unsaid, back, back_rate, grace;
        usec_t said_at;
        struct backoff backoff;
};

struct pageout {
        struct bl_engine engine;
        struct bl_pool *pool;
        struct bl_pageout_options o;
        bool enabled;
        struct vm *vms;

        struct bl_kernel_tiers tiers;
        usec_t looked_at;
        struct bl_reader psi;
        uint64_t psi_some;
        permyriad_t stall, stall_before; /* part of the time, now and before we began */
        bool busy; /* a job is under way: one at a time, so that they take half a CPU at most and what they cost is
                      known */
        usec_t out_at; /* the last job that paged something out */
        struct backoff backoff;
        usec_t cpu;
};

static struct pageout *of(struct bl_engine *e)
{
        return (struct pageout *)e;
}

/* --- VMs -------------------------------------------------------------------- */

static struct vm *vm_find(const struct pageout *p, const uint8_t uuid[BL_UUID_LEN])
{
        for (struct vm *v = p->vms; v; v = v->next)
                if (!v->gone && memcmp(v->uuid, uuid, BL_UUID_LEN) == 0)
                        return v;
        return NULL;
}

static void vm_drop(struct vm *v)
{
        v->gone = true;
        atomic_store(&v->stop, true);
        if (v->busy)
                return;
        for (struct vm **q = &v->p->vms; *q; q = &(*q)->next)
                if (*q == v) {
                        *q = v->next;
                        break;
                }
        (void)bl_walk_free(v->walk);
        free(v);
}

static int vm_new(struct pageout *p, const uint8_t uuid[BL_UUID_LEN], const struct bl_resident *r, uint64_t guest_ram,
                  struct vm **ret)
{
        struct vm *v = calloc(1, sizeof *v);
        int k;

        if (!v)
                return -ENOMEM;
        k = bl_walk_new(&p->o.walk, bl_resident_pid(r), bl_resident_dirfd(r), guest_ram, &v->walk);
        if (k < 0) {
                free(v);
                return k;
        }
        v->p = p;
        memcpy(v->uuid, uuid, BL_UUID_LEN);
        v->pid = bl_resident_pid(r);
        v->start = bl_resident_start(r);
        v->next = p->vms;
        p->vms = v;
        *ret = v;
        return 0;
}

/* --- backing off ------------------------------------------------------------ */

static bool backs_off(const struct backoff *b, usec_t now)
{
        return b->until > now;
}

static void back_off(struct pageout *p, struct vm *v, usec_t now, const char *sentence)
{
        struct backoff *b = v ? &v->backoff : &p->backoff;
        bool calm = b->until == 0 || now - b->until > BL_PAGEOUT_BACKOFF_MAX;

        b->span = calm ? BL_PAGEOUT_BACKOFF : bl_min(2 * b->span, BL_PAGEOUT_BACKOFF_MAX);
        b->until = now + b->span;
        for (struct vm *x = p->vms; x; x = x->next)
                if (!v || x == v)
                        atomic_store(&x->stop, true);
        if (p->o.handler.on_backoff)
                p->o.handler.on_backoff(p->o.userdata, v ? v->uuid : NULL, b->span, sentence);
}

/* Read back in this look: by the faults of its threads, and, as KVM has some taken by the kernel's own threads, by
 * what left swap and became resident.  What a balloon or a guest discards leaves swap as well, and is no harm. */
static uint64_t read_back(const struct vm *v, const struct bl_activity *a, const struct bl_proc_mem *mem)
{
        uint64_t faults = bl_mul_sat(bl_sub_sat(a->major_faults, v->activity.major_faults), 4 * BL_KIB);
        uint64_t out_of_swap = bl_sub_sat(v->mem.swap, mem->swap);

        return bl_max(faults, bl_min(out_of_swap, bl_sub_sat(mem->anon, v->mem.anon)));
}

static void judge_vm(struct vm *v, const struct bl_activity *a, const struct bl_proc_mem *mem, usec_t now)
{
        uint64_t back = read_back(v, a, mem), rate, spared;
        char size[BL_SIZE_BUF], sentence[160];

        if (v->out == 0)
                return;
        v->back = bl_add_sat(v->back, back);
        spared = bl_min(v->grace, back);
        v->grace -= spared;
        rate = bl_mul_sat(back - spared, BL_SEC) / bl_max(now - v->looked_at, BL_MSEC);
        v->back_rate = (v->back_rate * (SMOOTH - 1) + rate) / SMOOTH;
        if (v->back_rate < BL_PAGEOUT_HURT || backs_off(&v->backoff, now))
                return;
        (void)snprintf(sentence, sizeof sentence, "it reads back %s a second of what was paged out",
                       bl_size_format(v->back_rate, size, sizeof size));
        back_off(v->p, v, now, sentence);
}

int bl_pageout_see(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN], const struct bl_resident *r,
                   const struct bl_proc_mem *mem, uint64_t guest_ram, usec_t now)
{
        struct vm *v = vm_find(of(e), uuid);
        struct bl_activity a;
        int k;

        if (v && (v->pid != bl_resident_pid(r) || v->start != bl_resident_start(r))) {
                vm_drop(v);
                v = NULL;
        }
        if (!v) {
                k = vm_new(of(e), uuid, r, guest_ram, &v);
                if (k < 0)
                        return k;
        }
        v->seen = true;
        v->swapped = mem->swap;
        if (v->looked_at && now - v->looked_at < LOOK_EVERY)
                return 0;
        k = bl_activity_read(bl_resident_dirfd(r), &a);
        if (k < 0)
                return k;
        bl_idle_note(&v->idle, a.cpu, now);
        if (v->looked_at)
                judge_vm(v, &a, mem, now);
        v->activity = a;
        v->mem = *mem;
        v->looked_at = now;
        return 0;
}

static void say_what_was_done(struct vm *v, usec_t now)
{
        if (v->unsaid == 0 || now - v->said_at < SAY_EVERY)
                return;
        if (v->p->o.handler.on_paged_out)
                v->p->o.handler.on_paged_out(v->p->o.userdata, v->uuid, v->why, v->unsaid);
        v->unsaid = 0;
        v->said_at = now;
}

/* Stalls that were there before are no reason to stop what may end them. */
static void judge_host(struct pageout *p, usec_t now)
{
        struct bl_psi psi;
        usec_t span = now - p->looked_at;
        char sentence[160];

        if (bl_psi_read(&p->psi, &psi) < 0)
                return;
        if (p->looked_at)
                p->stall = (permyriad_t)bl_min(
                        bl_mul_sat(bl_sub_sat(psi.some, p->psi_some), BL_WHOLE) / bl_max(span, 1), BL_WHOLE);
        p->psi_some = psi.some;
        if (p->out_at == 0 || now - p->out_at > BLAME)
                p->stall_before = p->stall;
        else if (p->stall >= p->stall_before + BL_PAGEOUT_STALL && !backs_off(&p->backoff, now)) {
                (void)snprintf(sentence, sizeof sentence, "tasks on the host stall for memory for %u %% of the time",
                               p->stall / 100);
                back_off(p, NULL, now, sentence);
        }
}

void bl_pageout_looked(struct bl_engine *e, usec_t now)
{
        struct pageout *p = of(e);

        if (p->looked_at && now - p->looked_at < LOOK_EVERY)
                return;
        for (struct vm *v = p->vms, *next; v; v = next) {
                next = v->next;
                say_what_was_done(v, now);
                if (!v->seen && !v->gone)
                        vm_drop(v);
                else
                        v->seen = false;
        }
        judge_host(p, now);
        (void)bl_kernel_tiers_read(p->o.walk.root, &p->tiers);
        p->looked_at = now;
}

/* --- jobs ------------------------------------------------------------------- */

struct job {
        struct vm *vm;
        uint64_t bytes;
        const char *root;
        struct bl_walk_result res;
        uint64_t ram; /* by which compressed tiers grew meanwhile */
};

static uint64_t tiers_ram(const char *root)
{
        struct bl_kernel_tiers t;

        return bl_kernel_tiers_read(root, &t) < 0 ? 0 : bl_kernel_tiers_ram(&t);
}

static void job_run(void *arg)
{
        struct job *j = arg;
        uint64_t before = tiers_ram(j->root);

        bl_walk_run(j->vm->walk, j->bytes, JOB_TIME, &j->vm->stop, &j->res);
        j->ram = bl_sub_sat(tiers_ram(j->root), before);
}

static void take_result(struct vm *v, const struct bl_walk_result *res, uint64_t ram)
{
        struct pageout *p = v->p;
        usec_t now = bl_now();

        p->cpu = bl_add_sat(p->cpu, res->cpu);
        if (v->out == 0 && res->freed > 0)
                v->grace = GRACE;
        v->out = bl_add_sat(v->out, res->freed);
        v->unsaid = bl_add_sat(v->unsaid, res->freed);
        if (res->freed > 0)
                p->out_at = now;
        if (res->freed >= WORTH && ram > bl_part(res->freed, WORTH_RATIO))
                v->stiff_until = now + STIFF_REST;
        (void)bl_kernel_tiers_read(p->o.walk.root, &p->tiers);
        if (res->round)
                v->round_until = now + ROUND_REST;
        if (res->error == -EOPNOTSUPP || res->error == -ENODATA)
                v->never = res->error;
        if (res->error < 0 && res->error != -ESRCH && res->error != -EBUSY && p->o.handler.on_error)
                p->o.handler.on_error(p->o.userdata, v->uuid, res->error);
}

static void job_done(void *arg, int r)
{
        struct job *j = arg;
        struct vm *v = j->vm;

        v->busy = v->p->busy = false;
        if (v->gone)
                vm_drop(v);
        else if (r == 0)
                take_result(v, &j->res, j->ram);
        free(j);
}

static int job_start(struct vm *v, uint64_t bytes)
{
        struct job *j = calloc(1, sizeof *j);
        int r;

        if (!j)
                return -ENOMEM;
        j->vm = v;
        j->bytes = bytes;
        j->root = v->p->o.walk.root;
        /* no key: a call to libvirt for this VM need not wait for it */
        r = bl_pool_submit(v->p->pool, NULL, job_run, job_done, j);
        if (r < 0) {
                free(j);
                return r;
        }
        v->busy = v->p->busy = true;
        return 0;
}

/* --- the vtable ------------------------------------------------------------- */

static enum bl_no_reclaim pageout_probe(struct bl_engine *e, const struct bl_vm *vm)
{
        (void)e;
        /* no balloon is needed for this */
        return vm->no_reclaim == BL_RECLAIM_NO_BALLOON ? BL_RECLAIM_OK : vm->no_reclaim;
}

static uint64_t swap_room(const struct pageout *p)
{
        const struct bl_kernel_tiers *t = &p->tiers;

        return bl_sub_sat(bl_sub_sat(t->swap_size, t->swap_used), t->swap_size / SWAP_LEFT);
}

/* What of it could go: guest memory above its reservation. */
static uint64_t guest_part(const struct bl_vm *vm)
{
        return bl_sub_sat(bl_sub_sat(vm->resident, vm->overhead), vm->reservation);
}

/* A sentence, or NULL when something can be offered. */
static const char *why_not(struct bl_engine *e, const struct bl_vm *vm, const struct vm *v, usec_t now)
{
        const struct pageout *p = of(e);

        if (!p->enabled)
                return "paging out is switched off (KernelTiers= of ballast.conf)";
        if (p->tiers.swap_size == 0)
                return "this host has no swap ('ballastctl tiers setup' prepares some)";
        if (swap_room(p) < WORTH)
                return "the host's swap is full";
        if (pageout_probe(e, vm) != BL_RECLAIM_OK)
                return bl_no_reclaim_explain(vm->no_reclaim);
        if (!v)
                return "its process is not known";
        if (vm->run == BL_RUN_MIGRATING)
                return "it is being migrated";
        if (vm->hung)
                return "it does not answer";
        if (v->never == -EOPNOTSUPP)
                return "its memory is shared with other processes, or locked";
        if (v->never < 0)
                return "no mapping of its process looks like guest memory";
        if (backs_off(&p->backoff, now))
                return "tasks on the host stall for memory";
        if (backs_off(&v->backoff, now))
                return "it read back what was paged out";
        if (v->round_until > now)
                return "what is left of it was read back lately";
        if (v->stiff_until > now)
                return "what was paged out of it last did not shrink";
        if (guest_part(vm) < WORTH)
                return "it holds no more than its reservation";
        return NULL;
}

/* One job's worth, and nothing while one is under way.  What could be given back is told only of a VM that takes it
 * back already: that is how the policy knows it. */
static void pageout_propose(struct bl_engine *e, const struct bl_vm *vm, struct bl_offer *ret)
{
        struct bl_offer offer = {.grain = BL_WALK_SLICE};
        const struct vm *v = vm_find(of(e), vm->uuid);
        usec_t now = bl_now();

        if (v && backs_off(&v->backoff, now))
                offer.gives = v->mem.swap;
        else if (!of(e)->busy && !why_not(e, vm, v, now))
                offer.takes = bl_min(bl_min(guest_part(vm), swap_room(of(e))), JOB_BYTES);
        *ret = offer;
}

static int pageout_apply(struct bl_engine *e, const struct bl_vm *vm, const struct bl_decision *d)
{
        struct vm *v = vm_find(of(e), vm->uuid);

        if (!d->act || d->engine != BL_ENGINE_PAGEOUT || d->to >= d->from)
                return -EINVAL;
        if (of(e)->busy)
                return -EBUSY;
        if (why_not(e, vm, v, bl_now()))
                return -ESTALE;
        v->why = d->why;
        atomic_store(&v->stop, false);
        return job_start(v, bl_min(d->from - d->to, bl_min(swap_room(of(e)), JOB_BYTES)));
}

static int pageout_undo(struct bl_engine *e, const struct bl_vm *vm, uint64_t room)
{
        struct vm *v = vm_find(of(e), vm->uuid);

        (void)room;
        if (v)
                atomic_store(&v->stop, true);
        return 1;
}

/* --- what is shown ---------------------------------------------------------- */

usec_t bl_pageout_idle_since(struct bl_engine *e, const uint8_t uuid[BL_UUID_LEN])
{
        const struct vm *v = vm_find(of(e), uuid);

        return v ? v->idle.since : 0;
}

bool bl_pageout_vm(struct bl_engine *e, const struct bl_vm *vm, struct bl_pageout_vm *ret)
{
        const struct pageout *p = of(e);
        const struct vm *v = vm_find(p, vm->uuid);
        usec_t now = bl_now();

        if (!v)
                return false;
        *ret = (struct bl_pageout_vm){
                .out = v->out,
                .back = v->back,
                .back_rate = v->back_rate,
                .backoff_until = backs_off(&v->backoff, now)   ? v->backoff.until
                                 : backs_off(&p->backoff, now) ? p->backoff.until
                                                               : 0,
                .idle_since = v->idle.since,
                .by_cgroup = bl_walk_by_cgroup(v->walk),
                .why_not = why_not(e, vm, v, now),
        };
        return true;
}

const struct bl_kernel_tiers *bl_pageout_tiers(struct bl_engine *e)
{
        return &of(e)->tiers;
}

uint64_t bl_pageout_ram(struct bl_engine *e)
{
        const struct pageout *p = of(e);
        uint64_t swapped = 0, ram = bl_kernel_tiers_ram(&p->tiers);

        for (const struct vm *v = p->vms; v; v = v->next)
                swapped = bl_add_sat(swapped, v->gone ? 0 : v->swapped);
        if (swapped >= p->tiers.swap_used)
                return swapped > 0 ? ram : 0;
        return bl_part(ram, (permyriad_t)(bl_mul_sat(swapped, BL_WHOLE) / p->tiers.swap_used));
}

usec_t bl_pageout_cpu(struct bl_engine *e)
{
        return of(e)->cpu;
}

/* --- life ------------------------------------------------------------------- */

void bl_pageout_enable(struct bl_engine *e, bool on)
{
        of(e)->enabled = on;
        for (struct vm *v = of(e)->vms; v && !on; v = v->next)
                atomic_store(&v->stop, true);
}

int bl_pageout_engine_new(struct bl_pool *pool, const struct bl_pageout_options *o, struct bl_engine **ret)
{
        static const struct bl_engine_ops ops = {
                .id = BL_ENGINE_PAGEOUT,
                .name = "pageout",
                .probe = pageout_probe,
                .propose = pageout_propose,
                .apply = pageout_apply,
                .undo = pageout_undo,
        };
        struct pageout *p = calloc(1, sizeof *p);

        if (!p)
                return -ENOMEM;
        p->engine.ops = &ops;
        p->pool = pool;
        p->o = *o;
        p->psi = (struct bl_reader)BL_READER_INIT;
        /* a host without it is judged by what is read back alone */
        if (bl_psi_open(&p->psi, o->walk.root) < 0)
                p->psi = (struct bl_reader)BL_READER_INIT;
        *ret = &p->engine;
        return 0;
}

struct bl_engine *bl_pageout_engine_free(struct bl_engine *e)
{
        struct vm *next;

        if (!e)
                return NULL;
        for (struct vm *v = of(e)->vms; v; v = next) {
                next = v->next;
                (void)bl_walk_free(v->walk);
                free(v);
        }
        bl_reader_close(&of(e)->psi);
        free(of(e));
        return NULL;
}
