/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Page sharing: which VMs are merged, and when ksmd is driven.
 *
 * QEMU cannot register a part of a VM, so the choice is VMs and their order: densest first.  A batch is those that
 * bring at least half as much for a CPU-second of ksmd as the best one, and so many more that most of what there is
 * comes at once; the next batch comes when that is merged.  A pass goes over all that is registered, though what is
 * merged costs it next to nothing: what comes later has to pay for the rest of that, too, and what would be a good part
 * of the whole is not left for later.
 */
#include "internal.h"

/* A batch are those that bring at least this part of what the best one brings; or a smaller one, until they are so
 * much of all that could be merged: to go over them twice and then over all of them twice would cost more. */
#define BATCH_PART   2
#define BATCH_COVERS 9000 /* permyriad */

/* What evidence leaves open for so long is decided by the estimate: a few further samples of each VM. */
#define UNSURE_FOR (5 * BL_SEC)

/* A VM whose balloon is to take so much is not merged before it has: a second or so of a slow guest. */
#define AWAY (16 * BL_MIB)

/* Figures of what is merged may be some seconds old. */
#define SETTLED (10 * BL_SEC)

/* And what that saves is measured seldom; where it cannot be, it is estimated after so long. */
#define MEASURED (150 * BL_SEC)

/* What has grown is not worth a pass below this part of what is registered, where that is less than share_wake. */
#define WAKE_PART 200 /* permyriad */
#define WAKE_MIN  (4 * BL_MIB)

/* Zero pages below this are not worth looking for: finding them costs reading the VM. */
#define ZERO_WORTH (4 * BL_MIB)

/* Merged pages are copied on write this fast: free memory falls by a gigabyte a minute, and merging them again at
 * 40 us each would take a sixth of a core for it. */
#define BREAKS_FAST (16 * BL_MIB)

/* The group as it stands in this tick. */
struct group {
        uint64_t registered; /* present bytes of those that are registered, and stay */
        uint64_t effort; /* of those, what a pass has to go over */
        uint64_t credible; /* gain of those */
        uint64_t best; /* of those that could come: bytes per CPU-second */
        uint64_t all; /* gain of all those */
        uint64_t least; /* those come that bring so much */
        uint64_t gain; /* of those */
        uint64_t present;
        size_t coming;
};

/* Bytes of it that are about to go, by its balloon or the host's paging. */
static uint64_t going(const struct bl_work *w, const struct bl_decision *d)
{
        uint64_t to = w->vm->actual, bytes = 0;

        if (w->moving)
                to = bl_min(to, w->st->cmd_target);
        if (d->act && d->engine == BL_ENGINE_BALLOON)
                to = bl_min(to, d->to);
        if (d->act && d->engine == BL_ENGINE_PAGEOUT)
                bytes = bl_sub_sat(d->from, d->to);
        return bl_add_sat(bytes, bl_sub_sat(w->holds, to));
}

static bool breaking(const struct bl_tick *t)
{
        return t->state >= BL_STATE_SOFT && t->p->sharing.broken_rate >= BREAKS_FAST;
}

/* --- those that must not be merged ------------------------------------------------------------------ */

static enum bl_reason why_not(const struct bl_vm *vm)
{
        switch (vm->share.no_share) {
        case BL_NO_SHARE_OK:
        case BL_NO_SHARE_HOST:
                return BL_WHY_SHARE_OFF;
        case BL_NO_SHARE_NO_GROUP:
        case BL_NO_SHARE_OTHER_GROUP:
        case BL_NO_SHARE_TWO_GROUPS:
        case BL_NO_SHARE_XML:
        case BL_NO_SHARE_SHARED:
        case BL_NO_SHARE_HUGEPAGES:
        case BL_NO_SHARE_PINNED:
        case BL_NO_SHARE_BACKEND:
        case BL_NO_SHARE_NO_SWAP:
        case _BL_NO_SHARE_MAX:
                break;
        }
        return BL_WHY_SHARE_NOT_POSSIBLE;
}

static void decide_outsider(const struct bl_tick *t, size_t i, struct bl_share_decision *d)
{
        const struct bl_vm *vm = &t->s->vms[i];

        d->why = why_not(vm);
        if (vm->share.merging != 1 || !bl_sharing_takes_out(&t->s->share))
                return;
        d->why = BL_WHY_SHARE_LEAVE;
        if (!bl_sharing_can_tell(vm))
                return;
        if (i == t->leaver || bl_sharing_breaks(vm) < BL_STEP || t->c->test.no_share_room)
                d->act = true;
        else if (t->unmerging || t->leaver < t->n)
                d->why = BL_WHY_SHARE_WAIT_TURN;
        else
                d->why = BL_WHY_SHARE_WAIT_ROOM;
}

/* --- those of the group ----------------------------------------------------------------------------- */

/* What it is, before it is known who comes: BL_WHY_SHARE_MERGE of one that is not chosen says that it could. */
static enum bl_reason judge(const struct bl_tick *t, size_t i, uint64_t away, uint64_t *ret_value)
{
        const struct bl_vm *vm = &t->s->vms[i];
        const struct bl_vm_share *v = &vm->share;
        struct bl_vm_sharing *h = &t->w[i].st->sharing;
        enum bl_sharing_verdict worth;

        if (t->s->share.yielded)
                return BL_WHY_SHARE_YIELDED;
        if (!t->s->share.usable)
                return BL_WHY_SHARE_NOT_POSSIBLE;
        if (v->merging == 1 && h->merged)
                return BL_WHY_SHARE_KEEP;
        if (h->chosen && (h->entered || away < AWAY))
                return BL_WHY_SHARE_MERGE;
        h->chosen = false;
        if (vm->hung)
                return BL_WHY_SKIP_HUNG;
        if (vm->run == BL_RUN_MIGRATING)
                return BL_WHY_SKIP_MIGRATING;
        if (v->merging < 0)
                return BL_WHY_SHARE_WAIT_EVIDENCE;
        if (v->refused)
                return BL_WHY_SHARE_NOT_POSSIBLE;
        /* those that promised in vain come together, or each would have its own drive */
        if (t->now < h->retry_at || (h->failures > 0 && t->now < t->p->sharing.retry_at))
                return BL_WHY_SHARE_NO_GAIN;
        if (v->evidence_at == 0)
                return BL_WHY_SHARE_WAIT_EVIDENCE;
        if (away >= AWAY)
                return BL_WHY_SHARE_WAIT_BALLOON;

        worth = bl_sharing_worth(&t->s->share, t->c, vm, away, ret_value);
        if (worth != BL_WORTH_UNSURE) {
                h->unsure_at = 0;
        } else {
                if (h->unsure_at == 0)
                        h->unsure_at = t->now;
                if (t->now - h->unsure_at < UNSURE_FOR)
                        return BL_WHY_SHARE_WAIT_EVIDENCE;
                worth = bl_sharing_estimate_pays(&t->s->share, t->c, vm, away) ? BL_WORTH_YES : BL_WORTH_NO;
        }
        if (worth != BL_WORTH_YES)
                return BL_WHY_SHARE_NO_GAIN;
        if (t->share_blocked)
                return BL_WHY_SHARE_BLOCKED;
        return breaking(t) ? BL_WHY_SHARE_BREAKING : BL_WHY_SHARE_MERGE;
}

static void survey(struct bl_tick *t, const struct bl_plan *plan, struct group *g)
{
        for (size_t i = 0; i < t->n; i++) {
                const struct bl_vm *vm = &t->s->vms[i];
                const struct bl_vm_sharing *h = &t->w[i].st->sharing;
                struct bl_share_decision *d = &plan->share.d[i];
                uint64_t away, value = 0;

                if (bl_sharing_must_not(t->s, vm))
                        continue;
                away = going(&t->w[i], &plan->d[i]);
                d->why = judge(t, i, away, &value);
                if (d->why == BL_WHY_SHARE_KEEP)
                        g->credible = bl_add_sat(g->credible, bl_sub_sat(bl_sharing_credible(t, vm, h), away));
                if (d->why == BL_WHY_SHARE_KEEP || h->chosen) {
                        g->registered = bl_add_sat(g->registered, bl_sharing_present(vm));
                        g->effort = bl_add_sat(g->effort, bl_sharing_effort(vm));
                } else if (d->why == BL_WHY_SHARE_MERGE) {
                        g->best = bl_max(g->best, bl_max(value, 1));
                        g->all = bl_add_sat(g->all, bl_sub_sat(vm->share.gain, away));
                }
        }
}

/* Could it come, and does it belong to the batch? */
static bool is_next(const struct bl_tick *t, const struct bl_plan *plan, const struct group *g, size_t i,
                    uint64_t *ret_gain)
{
        uint64_t away, value;

        if (plan->share.d[i].why != BL_WHY_SHARE_MERGE || t->w[i].st->sharing.chosen)
                return false;
        away = going(&t->w[i], &plan->d[i]);
        (void)bl_sharing_worth(&t->s->share, t->c, &t->s->vms[i], away, &value);
        *ret_gain = bl_sub_sat(t->s->vms[i].share.gain, away);
        return value >= g->least;
}

static void add_up(const struct bl_tick *t, const struct bl_plan *plan, struct group *g)
{
        uint64_t gain = 0;

        g->coming = 0;
        g->gain = g->present = 0;
        for (size_t i = 0; i < t->n; i++) {
                if (!is_next(t, plan, g, i, &gain))
                        continue;
                g->coming++;
                g->gain = bl_add_sat(g->gain, gain);
                g->present = bl_add_sat(g->present, bl_sharing_present(&t->s->vms[i]));
        }
}

/* Who comes now?  All others wait for their turn. */
static void choose(struct bl_tick *t, const struct bl_plan *plan, struct group *g)
{
        const struct bl_share_state *s = &t->s->share;
        struct bl_sharing *p = &t->p->sharing;
        uint64_t gain = 0, net;
        bool pays;

        if (g->best == 0)
                return;
        g->least = bl_max(g->best, p->driving ? p->best : 0) / BATCH_PART;
        add_up(t, plan, g);
        while (!p->driving && g->least > 0 && g->gain < bl_part(g->all, BATCH_COVERS)) {
                g->least /= 2;
                add_up(t, plan, g);
        }
        /* what else a pass would bring pays for it, too */
        net = bl_add_sat(g->gain, p->driving ? bl_sharing_left(t) : g->credible);
        pays = bl_sharing_pays(t->c, bl_sub_sat(net, bl_sharing_metadata(g->present)),
                               bl_sharing_cost(s, bl_add_sat(g->effort, g->present), BL_SHARING_PASSES, net));

        for (size_t i = 0; i < t->n; i++) {
                struct bl_share_decision *d = &plan->share.d[i];
                struct bl_vm_sharing *h = &t->w[i].st->sharing;

                if (d->why != BL_WHY_SHARE_MERGE || h->chosen)
                        continue;
                if (!pays || !is_next(t, plan, g, i, &gain)) {
                        d->why = BL_WHY_SHARE_WAIT_TURN;
                        continue;
                }
                h->chosen = true;
                h->entered = false;
                h->chosen_at = t->now;
                h->gain_then = gain;
        }
        if (pays && g->coming > 0)
                bl_sharing_begin(t, bl_add_sat(g->gain, p->driving ? 0 : g->credible), g->best, true);
        else
                g->coming = 0;
}

/* Has enough grown in those that are registered? */
static void wake(struct bl_tick *t, const struct group *g)
{
        struct bl_sharing *p = &t->p->sharing;
        uint64_t enough = bl_max(bl_min(t->c->share_wake, bl_part(g->registered, WAKE_PART)), WAKE_MIN);

        if (p->driving || t->now < p->retry_at || !bl_sharing_may_drive(t) || breaking(t) || g->credible < enough)
                return;
        if (bl_sharing_pays(t->c, g->credible,
                            bl_sharing_cost(&t->s->share, g->effort, BL_SHARING_PASSES_GROWN, g->credible)))
                bl_sharing_begin(t, g->credible, 0, false);
}

/* Registered, and no part of the round: a pass over it would be for nothing, and nothing of it is merged.  One of which
 * nothing is known yet will be known in a moment. */
static bool is_in_the_way(const struct bl_vm *vm, const struct bl_vm_sharing *h, enum bl_reason why, bool drive)
{
        if (vm->share.merging != 1 || vm->share.merged >= BL_STEP || !bl_sharing_can_tell(vm))
                return false;
        if (why == BL_WHY_SHARE_NO_GAIN)
                return true;
        return drive && (why == BL_WHY_SHARE_WAIT_TURN || why == BL_WHY_SHARE_WAIT_BALLOON ||
                         (why == BL_WHY_SHARE_WAIT_EVIDENCE && h->unsure_at > 0));
}

/* It is merged and does not pay any more: it leaves, when nobody else does and the host can afford it. */
static bool leaves(const struct bl_tick *t, size_t i, uint64_t room)
{
        const struct bl_sharing *p = &t->p->sharing;
        const struct bl_vm *vm = &t->s->vms[i];
        const struct bl_vm_sharing *h = &t->w[i].st->sharing;
        usec_t since = bl_max(vm->share.merging_at, p->ended ? p->ended_at : 0);

        if (p->driving || t->unmerging || vm->share.evidence_at == 0 || !bl_sharing_can_tell(vm))
                return false;
        if (bl_sub_sat(t->now, since) < SETTLED || bl_sharing_breaks(vm) > room)
                return false;
        if (vm->share.merged >= BL_STEP && vm->share.saved_at < since && bl_sub_sat(t->now, since) < MEASURED)
                return false;
        return bl_sharing_pays_no_more(&t->s->share, t->c, vm, bl_sharing_credible(t, vm, h), p->passes);
}

static void decide_members(struct bl_tick *t, struct bl_plan *plan, uint64_t room)
{
        bool left = t->leaver < t->n || t->share_lacks > 0;

        for (size_t i = 0; i < t->n; i++) {
                const struct bl_vm *vm = &t->s->vms[i];
                struct bl_share_decision *d = &plan->share.d[i];
                struct bl_vm_sharing *h = &t->w[i].st->sharing;

                if (bl_sharing_must_not(t->s, vm))
                        continue;
                if (d->why == BL_WHY_SHARE_MERGE) {
                        d->act = d->merge = h->chosen && vm->share.merging == 0 && bl_sharing_can_tell(vm);
                } else if (is_in_the_way(vm, h, d->why, plan->share.drive)) {
                        d->act = true;
                } else if (d->why == BL_WHY_SHARE_KEEP && !left && leaves(t, i, room)) {
                        d->act = left = true;
                        d->why = BL_WHY_SHARE_LEAVE;
                        if (!h->leaving && t->now >= h->retry_at) {
                                h->retry_at = bl_add_sat(t->now, bl_sharing_back_off(h->failures));
                                h->failures += h->failures < 64;
                        }
                }
        }
}

/* --- zero pages, and all together ------------------------------------------------------------------- */

/* Of a VM that is registered ksmd merges zero pages like others. */
static void decide_zero(const struct bl_tick *t, size_t i, const struct bl_decision *balloon,
                        struct bl_share_decision *d)
{
        const struct bl_vm *vm = &t->s->vms[i];
        const struct bl_vm_share *v = &vm->share;

        if (t->s->share.mode < BL_SHARE_ZERO || v->mode < BL_SHARE_ZERO || !v->zero_possible)
                return;
        if (v->zero < ZERO_WORTH || v->evidence_at == 0 || v->merging == 1 || v->busy || vm->hung ||
            vm->run == BL_RUN_MIGRATING || going(&t->w[i], balloon) >= AWAY)
                return;
        if (d->act || (d->why != BL_WHY_SHARE_OFF && d->why != BL_WHY_SHARE_NOT_POSSIBLE &&
                       d->why != BL_WHY_SHARE_NO_GAIN && d->why != BL_WHY_SHARE_YIELDED))
                return;
        d->why = BL_WHY_SHARE_ZERO;
        d->zero_out = v->zero;
}

static enum bl_reason why_drive(const struct bl_tick *t, const struct bl_plan *plan, const struct group *g)
{
        const struct bl_share_state *s = &t->s->share;
        const struct bl_sharing *p = &t->p->sharing;

        if (s->mode < BL_SHARE_GROUP)
                return BL_WHY_SHARE_OFF;
        if (s->yielded)
                return BL_WHY_SHARE_YIELDED;
        if (!s->usable)
                return BL_WHY_SHARE_NOT_POSSIBLE;
        if (t->share_blocked)
                return BL_WHY_SHARE_BLOCKED;
        if (plan->share.drive)
                return p->driving && p->new_vms ? BL_WHY_SHARE_DRIVE_NEW : BL_WHY_SHARE_DRIVE;
        if (breaking(t) && g->credible > 0)
                return BL_WHY_SHARE_BREAKING;
        return p->ended && g->registered > 0 ? BL_WHY_SHARE_REST : BL_WHY_SHARE_REST_NONE;
}

void bl_sharing_decide(struct bl_tick *t, struct bl_plan *plan, uint64_t room)
{
        struct bl_sharing *p = &t->p->sharing;
        struct group g = {};

        bl_sharing_look(t);
        if (t->s->share.mode == BL_SHARE_GROUP) {
                survey(t, plan, &g);
                if (bl_sharing_may_drive(t)) {
                        choose(t, plan, &g);
                        wake(t, &g);
                }
                plan->share.drive =
                        bl_sharing_may_drive(t) && (p->driving || (t->c->test.no_share_rest && g.registered > 0));
                decide_members(t, plan, room);
        }
        plan->share.gain = bl_sharing_left(t);
        plan->share.why = why_drive(t, plan, &g);

        for (size_t i = 0; i < t->n; i++) {
                const struct bl_vm_share *v = &t->s->vms[i].share;
                struct bl_share_decision *d = &plan->share.d[i];
                struct bl_vm_sharing *h;

                if (bl_sharing_must_not(t->s, &t->s->vms[i]))
                        decide_outsider(t, i, d);
                if (v->zero > 0)
                        decide_zero(t, i, &plan->d[i], d);
                if (v->merging == 0)
                        continue;
                h = &t->w[i].st->sharing;
                h->leaving = (d->act && !d->merge) || (h->leaving && v->busy);
        }
}
