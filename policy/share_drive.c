/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When ksmd runs: in rounds.
 *
 * A round begins when VMs come, or when enough new duplicates have grown in those that are registered.  It lasts for
 * two passes at least: KSM notes a page's checksum in the first and merges in the second (mm/ksm.c).  ksmd keeps its
 * place when it rests, so what is counted first is the rest of a pass: where something has grown, which may be
 * anywhere, two whole ones come after it.  VMs that come are put behind the cursor (__ksm_enter): the rest of a pass
 * does not see them, or it is a whole one, which the figures do not tell.  Passes are counted from the last VM that
 * came, and a third one is waited for where what has not come of the promise is worth it.  It goes on for as long as
 * what ksmd merges pays for its time, and then ksmd rests (run=0, which keeps what is merged).
 *
 * Samples are older than the drive that has just ended, and what KSM cannot merge they may promise for ever.  So
 * after a round only what grows counts as gain, until the samples are new; a round that did not bring what was
 * promised puts off the next one, for longer each time.
 */
#include "internal.h"

/* ksmd's time after which what it merged is judged: some 50,000 pages, 200 MiB; less would take a stretch
 * of memory without copies for the end. */
#define WINDOW (200 * BL_MSEC)

/* A round that brings less than this part of its promise has failed. */
#define KEPT_PART 4

/* Samples live for ten minutes (daemon/pages/evidence.h): all of them are newer then. */
#define STALE_FOR (600 * BL_SEC)

#define BACK_OFF_FIRST (30 * BL_SEC)
#define BACK_OFF_MAX   (600 * BL_SEC)

/* ksmd that does nothing for so long finds nothing that it could go over, whatever QEMU says is registered. */
#define IDLE_FOR (10 * BL_SEC)

/* How long a pass counts as recent. */
#define RECENT (600 * BL_SEC)

usec_t bl_sharing_back_off(unsigned int n)
{
        usec_t wait = BACK_OFF_FIRST;

        for (unsigned int i = 0; i < n && wait < BACK_OFF_MAX; i++)
                wait *= 2;
        return bl_min(wait, BACK_OFF_MAX);
}

uint64_t bl_sharing_credible(const struct bl_tick *t, const struct bl_vm *vm, const struct bl_vm_sharing *h)
{
        if (vm->share.evidence_at == 0)
                return 0;
        if (t->now >= h->stale_until)
                return vm->share.gain_low;
        return bl_sub_sat(vm->share.gain_low, h->stale);
}

static void open_window(const struct bl_share_state *s, struct bl_sharing *p)
{
        p->window_cpu = s->ksmd_cpu;
        p->window_merged = s->merged;
        p->window_scans = s->full_scans;
}

/* ksmd's time in the window; where that cannot be read, what its passes are reckoned to cost. */
static usec_t window_time(const struct bl_share_state *s, const struct bl_sharing *p)
{
        if (s->ksmd_cpu == BL_UNSET || p->window_cpu == BL_UNSET)
                return bl_mul_sat(bl_sharing_cost(s, bl_sub_sat(s->registered, s->merged), 1, 0),
                                  bl_sub_sat(s->full_scans, p->window_scans));
        return bl_sub_sat(s->ksmd_cpu, p->window_cpu);
}

static void look_window(const struct bl_tick *t, struct bl_sharing *p)
{
        const struct bl_share_state *s = &t->s->share;
        usec_t time = window_time(s, p);

        if (time < WINDOW && s->full_scans <= p->window_scans)
                return;
        p->window_pays = bl_sharing_pays(t->c, bl_sub_sat(s->merged, p->window_merged), time);
        open_window(s, p);
}

/* Does it do nothing, though it is driven? */
static bool is_idle(const struct bl_tick *t, struct bl_sharing *p)
{
        const struct bl_share_state *s = &t->s->share;

        if (s->ksmd_cpu == BL_UNSET || s->ksmd_cpu != p->seen_cpu) {
                p->seen_cpu = s->ksmd_cpu;
                p->busy_at = t->now;
        }
        return bl_sub_sat(t->now, p->busy_at) > IDLE_FOR;
}

/* How many passes lie behind us lately, each counting for less as it grows old. */
static void look_passes(const struct bl_tick *t, struct bl_sharing *p)
{
        const struct bl_share_state *s = &t->s->share;
        uint64_t gone = bl_mul_sat(p->passes, bl_min(t->dt, RECENT)) / RECENT;

        p->passes = bl_sub_sat(p->passes, gone);
        if (p->scans_known && s->driven)
                p->passes += bl_min(bl_sub_sat(s->full_scans, p->scans), 1000) * BL_SHARING_PASS;
        p->passes = bl_min(p->passes, 1000 * BL_SHARING_PASS);
        p->scans = s->full_scans;
        p->scans_known = true;
}

/* What is copied on write; falls off within seconds. */
static void look_broken(const struct bl_tick *t, struct bl_sharing *p)
{
        const struct bl_share_state *s = &t->s->share;
        uint64_t rate = 0;

        if (p->broken_known && t->dt > 0)
                rate = bl_mul_sat(bl_sub_sat(s->broken, p->broken), BL_SEC) / t->dt;
        p->broken_rate = bl_max(rate, bl_sub_sat(p->broken_rate, bl_rate_times(p->broken_rate / 2, t->dt)));
        p->broken = s->broken;
        p->broken_known = true;
}

/* Is what VMs promised that have come, and is not to be seen yet, worth another pass?  (What has copies in them only
 * they promise half of, at least, and it counts as merged in each: so it is no less.) */
static bool lags(const struct bl_tick *t)
{
        const struct bl_share_state *s = &t->s->share;
        uint64_t missing = 0, effort = 0;

        for (size_t i = 0; i < t->n; i++) {
                const struct bl_vm *vm = &t->s->vms[i];
                const struct bl_vm_sharing *h = &t->w[i].st->sharing;

                if (vm->share.merging == 1)
                        effort = bl_add_sat(effort, bl_sharing_effort(vm));
                if (h->chosen && h->entered)
                        missing = bl_add_sat(missing,
                                             bl_sub_sat(h->gain_then, bl_sub_sat(vm->share.merged, h->merged_then)));
        }
        return bl_sharing_pays(t->c, missing, bl_sharing_cost(s, effort, 1, missing));
}

static bool waits_for_vms(const struct bl_tick *t)
{
        for (size_t i = 0; i < t->n; i++) {
                if (t->w[i].st->sharing.chosen && !t->w[i].st->sharing.entered)
                        return true;
        }
        return false;
}

static bool anything_registered(const struct bl_tick *t)
{
        for (size_t i = 0; i < t->n; i++) {
                const struct bl_vm *vm = &t->s->vms[i];

                if (vm->share.merging == 1 && !bl_sharing_must_not(t->s, vm))
                        return true;
        }
        return false;
}

static void finish(struct bl_tick *t, struct bl_sharing *p)
{
        bool failed = bl_sub_sat(t->s->share.merged, p->merged_then) < p->promise / KEPT_PART;
        usec_t again;

        if (failed && p->failures < 64)
                p->failures++;
        if (!failed)
                p->failures = 0;
        again = bl_add_sat(t->now, failed ? bl_sharing_back_off(p->failures - 1) : STALE_FOR);
        p->retry_at = failed ? again : 0;

        for (size_t i = 0; i < t->n; i++) {
                const struct bl_vm_share *v = &t->s->vms[i].share;
                struct bl_vm_sharing *h = &t->w[i].st->sharing;

                if (v->merging != 1) {
                        h->chosen = h->entered = false;
                        continue;
                }
                if (h->chosen && bl_sub_sat(v->merged, h->merged_then) < h->gain_then / KEPT_PART) {
                        h->retry_at = bl_add_sat(t->now, bl_sharing_back_off(h->failures));
                        h->failures += h->failures < 64;
                } else if (h->chosen) {
                        h->failures = 0;
                }
                h->merged |= h->chosen;
                h->chosen = h->entered = false;
                h->stale = v->gain_low;
                h->stale_until = again;
        }
        p->driving = false;
        p->ended = true;
        p->ended_at = t->now;
}

void bl_sharing_stop(struct bl_tick *t)
{
        for (size_t i = 0; i < t->n; i++)
                t->w[i].st->sharing.chosen = t->w[i].st->sharing.entered = false;
        t->p->sharing.driving = false;
}

bool bl_sharing_may_drive(const struct bl_tick *t)
{
        const struct bl_share_state *s = &t->s->share;

        return s->mode == BL_SHARE_GROUP && s->usable && !s->yielded && !t->share_blocked;
}

void bl_sharing_look(struct bl_tick *t)
{
        const struct bl_share_state *s = &t->s->share;
        struct bl_sharing *p = &t->p->sharing;
        bool waits;

        look_passes(t, p);
        look_broken(t, p);
        if (!p->driving)
                return;
        waits = waits_for_vms(t);
        if (!bl_sharing_may_drive(t) || (!waits && !anything_registered(t))) {
                bl_sharing_stop(t);
                return;
        }
        /* our word has not reached it yet */
        if (!s->driven) {
                p->since = bl_max(p->since, s->full_scans);
                p->busy_at = t->now;
                open_window(s, p);
                return;
        }
        look_window(t, p);
        if (is_idle(t, p)) {
                finish(t, p);
                return;
        }
        if (waits || p->window_pays || bl_sub_sat(s->full_scans, p->since) < BL_SHARING_PASSES)
                return;
        if (bl_sub_sat(s->full_scans, p->since) < BL_SHARING_PASSES_GROWN && (!p->new_vms || lags(t)))
                return;
        finish(t, p);
}

void bl_sharing_begin(struct bl_tick *t, uint64_t promise, uint64_t best, bool new_vms)
{
        const struct bl_share_state *s = &t->s->share;
        struct bl_sharing *p = &t->p->sharing;

        if (!p->driving) {
                p->driving = true;
                p->new_vms = false;
                p->merged_then = s->merged;
                p->promise = p->best = 0;
                p->window_pays = false;
                p->seen_cpu = s->ksmd_cpu;
                p->busy_at = t->now;
                open_window(s, p);
        }
        p->since = s->full_scans;
        p->promise = bl_add_sat(p->promise, promise);
        p->best = bl_max(p->best, best);
        p->new_vms |= new_vms;
}

uint64_t bl_sharing_left(const struct bl_tick *t)
{
        const struct bl_sharing *p = &t->p->sharing;

        return p->driving ? bl_sub_sat(p->promise, bl_sub_sat(t->s->share.merged, p->merged_then)) : 0;
}
