/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What may be done to each VM, before anything is decided. */
#include "internal.h"

/* A guest with no statistics this soon after its start is taken to be booting. */
#define BOOT_TIME (120 * BL_SEC)

/* Why it is left alone, whatever the host's state; sets what may be done nevertheless. */
static enum bl_reason classify(const struct bl_tick *t, struct bl_work *w)
{
        const struct bl_vm *vm = w->vm;
        const struct bl_offer *o = &vm->offer[BL_ENGINE_BALLOON];
        enum bl_stats_verdict verdict = bl_stats_check(&vm->stats, vm->max, t->now);

        w->hands_off = true;
        if (!vm->managed)
                return BL_WHY_SKIP_UNMANAGED;
        if (vm->no_reclaim != BL_RECLAIM_OK)
                return BL_WHY_SKIP_RECLAIM;
        if (vm->hold != BL_HOLD_NONE)
                return BL_WHY_SKIP_HELD;
        if (vm->run == BL_RUN_MIGRATING)
                return BL_WHY_SKIP_MIGRATING;
        if (vm->run != BL_RUN_RUNNING)
                return BL_WHY_SKIP_PAUSED;
        if (vm->hung)
                return BL_WHY_SKIP_HUNG;
        if (o->takes == 0 && (verdict == BL_STATS_MISSING || bl_sub_sat(t->now, vm->booted_at) < BOOT_TIME))
                return BL_WHY_SKIP_BOOTING;
        w->hands_off = false;
        if (w->st->lying)
                return BL_WHY_SKIP_LYING;

        w->may_grant = !w->st->wont_grow;
        switch (verdict) {
        case BL_STATS_STALE:
                if (!t->c->test.no_stale_check)
                        return BL_WHY_SKIP_STALE;
                break;
        case BL_STATS_MISSING:
                return BL_WHY_SKIP_STATS;
        case BL_STATS_ABSURD:
                return BL_WHY_SKIP_ABSURD;
        case BL_STATS_GOOD:
                break;
        }

        w->given_up = w->st->stuck;
        if (w->st->stuck && t->now < w->st->retry_at)
                return BL_WHY_SKIP_STUCK;

        w->may_take = true;
        return BL_WHY_NOTHING;
}

bool bl_has_need(const struct bl_work *w)
{
        return w->may_take || w->skip == BL_WHY_SKIP_STUCK;
}

/* By how much what a guest needs will have grown when the next report is in. */
static uint64_t need_ahead(const struct bl_work *w)
{
        const struct bl_guest_stats *s = &w->vm->stats;
        usec_t time = s->period == 0 || s->period == BL_UNSET ? BL_SEC : s->period;

        /* until the next report is in, and the memory has moved */
        time = bl_clamp(time + BL_SEC, BL_SEC, 5 * BL_SEC);
        /* what it has touched since its report, the host has seen already, and much sooner */
        return bl_max(bl_rate_times(w->st->need_rate, time),
                      bl_add_sat(bl_sub_sat(w->st->held, w->st->report_held), bl_rate_times(w->st->held_rate, BL_SEC)));
}

/* The balloon that its own figures call for where it is short; 0: it is not. */
static uint64_t called_for(const struct bl_work *w, const struct bl_need *now, bool *ret_pressed)
{
        const struct bl_vm_state *st = w->st;
        uint64_t ahead = need_ahead(w), want;
        bool oom;

        *ret_pressed = false;
        /* Short below three quarters of the margin, brought to one and a half of it: room to breathe,
         * and far enough from both ends that it is not asked to give at once. */
        want = bl_add_sat(bl_add_sat(now->floor, now->margin / 2), ahead);
        if (w->base_up < bl_add_sat(bl_add_sat(now->need, now->margin / 4 * 3), ahead))
                return want;

        oom = st->bottom != 0 && w->vm->oom_deflate;
        /* Reclaim in the guest causes stalls for a moment even where it has enough; two
         * reports in a row, and not while it is giving, are more than that. */
        if (!oom && (st->pressed < 2 || st->dir < 0))
                return 0;
        *ret_pressed = !oom;
        return bl_max(want, bl_add_sat(w->base_up, bl_max(now->margin, now->need / 8)));
}

/* The balloon that its agent asks for; 0: it does not. */
static uint64_t asked_for(const struct bl_tick *t, const struct bl_work *w, const struct bl_need *now)
{
        uint64_t most;

        if (!w->st->asks)
                return 0;
        /* where margins are halved, nobody talks himself into more */
        if (t->state < BL_STATE_HARD || !bl_has_need(w))
                return w->st->request_to;
        most = bl_add_sat(bl_add_sat(now->floor, now->margin / 2), need_ahead(w));
        return bl_min(w->st->request_to, most);
}

/* What it lacks: the reservation above all, then what it needs by its own figures, or asks for. */
static void find_due(const struct bl_tick *t, struct bl_work *w)
{
        const struct bl_vm_state *st = w->st;
        uint64_t reservation = bl_min(w->vm->reservation, w->highest), asked;
        struct bl_need now = {};
        bool pressed;

        if (!w->may_grant)
                return;
        if (w->base_up < reservation) {
                w->due = reservation - w->base_up;
                w->due_reserved = true;
                return;
        }
        if (w->given_up || (!bl_has_need(w) && !st->asks))
                return;

        if (bl_has_need(w)) {
                /* the lower end of where the balloon was when the report was made: while it moves, the upper
                 * end would make need out of what it has just given */
                bl_guest_need(w->vm, t->c, st->report_low, st->swap_room, t->state >= BL_STATE_HARD, &now);
                w->called_for = called_for(w, &now, &pressed);
                w->due_pressed = pressed;
                /* all of it comes back, so none of it may wait until it is short */
                if (w->vm->store.leaving)
                        w->called_for = bl_max(w->called_for, bl_add_sat(now.floor, now.margin / 2));
        }
        asked = asked_for(t, w, &now);
        if (asked > bl_max(w->called_for, w->base_up)) {
                w->due_asked = true;
                w->due_pressed = false;
        }
        if (st->thrashes && st->thrash_due > 0) {
                w->due_thrash = true;
                w->due_pressed = false;
                w->called_for = bl_max(w->called_for, bl_add_sat(w->base_up, st->thrash_due));
        }
        w->due = bl_sub_sat(bl_min(bl_max(w->called_for, asked), w->highest), w->base_up);
        /* What was pressed out a moment ago is not called back at once because it was a little too much: each
         * page would be written and read for nothing. */
        if (st->squeezed && w->settling && st->last_dir < 0 && !w->due_thrash && !st->stops && !w->vm->store.leaving)
                w->due = 0;
        if (w->due < t->c->dead_band)
                w->due = 0;
}

static void turn_back(struct bl_work *w, enum bl_reason why)
{
        w->turn_back = true;
        w->turn_why = why;
        w->moving = false;
        w->base = w->holds;
}

/* One that asks for memory is not taken from meanwhile. */
static void find_spared(const struct bl_tick *t, struct bl_work *w)
{
        const struct bl_vm *vm = w->vm;
        const struct bl_vm_state *st = w->st;
        bool below_floor;

        /* Where the host itself is in need, those that ask may be all: their figures, fresh as they are, spare
         * them what they need. */
        w->spared = st->stops || (st->asks && t->state < BL_STATE_HARD && !st->squeezed);
        below_floor = st->asks && vm->target < w->floor && !st->squeezed;
        /* It asks for what it has, as one that is near its limit may while it is squeezed: nobody needs to be
         * spared for that, and whoever waits for what it gives must not wait longer. */
        if (!st->stops && vm->request.bytes < t->c->dead_band)
                w->spared = false;
        /* an administrator's limit stands above what a guest asks for */
        if (!(w->spared || below_floor) || t->c->test.no_turn_back || vm->in_flight ||
            vm->actual > bl_min(vm->limit, vm->max) || bl_add_sat(vm->target, BL_STEP) > vm->actual)
                return;
        turn_back(w, BL_WHY_STOP_REQUEST);
}

/* What was pressed out of it comes back: no more is pressed out, and what is being taken it may keep. */
static void find_thrash(struct bl_work *w)
{
        const struct bl_vm *vm = w->vm;

        w->spared = true;
        if (!vm->in_flight && bl_add_sat(vm->target, BL_STEP) <= vm->actual &&
            vm->actual <= bl_min(bl_vm_limit(vm), vm->max))
                turn_back(w, BL_WHY_GRANT_THRASH);
}

uint64_t bl_reach(const struct bl_work *w, const struct bl_policy_config *c)
{
        return bl_sub_sat(w->vm->actual, bl_rate_times(w->st->speed, c->horizon));
}

/* Its merged pages are spread over what it holds, as far as anybody knows. */
static void find_merged(struct bl_work *w)
{
        uint64_t held = bl_held(w->vm);

        w->merged_part = bl_ratio(bl_min(w->vm->share.merged, held), held) * BL_MERGED_WHOLE / BL_WHOLE;
        w->paying = bl_mul_sat(w->shares, BL_MERGED_WHOLE) / bl_max(BL_MERGED_WHOLE - w->merged_part, 1);
}

static void prepare_one(struct bl_tick *t, struct bl_work *w)
{
        const struct bl_vm *vm = w->vm;
        const struct bl_vm_state *st = w->st;
        const struct bl_policy_config *c = t->c;
        const struct bl_offer *o = &vm->offer[BL_ENGINE_BALLOON];
        usec_t grace = bl_min(c->stuck_after, BL_SEC + 2 * t->p->latency);
        uint64_t limit;

        w->skip = classify(t, w);
        w->shares = bl_max(vm->shares, 1);
        if (vm->share.merged > 0)
                find_merged(w);
        w->stored = bl_min(vm->store.stored, vm->max);
        limit = bl_vm_limit(vm);
        w->highest = bl_min(bl_min(limit, vm->max), bl_add_sat(vm->actual, o->gives));
        w->base_up = bl_max(bl_has_or_gets(st, vm), st->asked);

        w->lowest = bl_max(bl_min(vm->reservation, vm->limit), bl_sub_sat(vm->actual, o->takes));
        if (bl_has_need(w)) {
                bl_guest_need(vm, c, st->report_high, st->swap_room, t->state >= BL_STATE_HARD, &w->need);
                if (!c->test.no_floors)
                        w->lowest = bl_max(w->lowest, bl_add_sat(w->need.floor, need_ahead(w)));
        }
        w->floor = w->lowest;
        /* it stopped here before; further down it is only probed */
        w->lowest = bl_max(w->lowest, bl_min(st->bottom, vm->actual));

        /* Pages that the guest never touched cost the host nothing, and Linux may give those first: what
         * frees memory is to get below the part that is resident. */
        w->holds = bl_min(vm->actual, bl_held(vm));
        w->base = st->dir < 0 ? bl_min(w->holds, st->cmd_target) : w->holds;
        /* One under pressure uses all that it has, whatever it says is available; so it gives after those
         * that hold idle memory, by as much as the tax says. */
        w->active = bl_has_need(w) && st->pressed == 0 ? w->need.need : vm->actual;
        w->moving = st->dir < 0 && (c->test.no_stuck_detection || bl_sub_sat(t->now, st->progress_at) < grace);
        w->settling = st->cmd_at != 0 && bl_sub_sat(t->now, st->cmd_at) < c->settle && st->last_dir != 0;

        find_due(t, w);
        if (st->asks || st->stops)
                find_spared(t, w);
        if (st->thrashes && bl_has_need(w))
                find_thrash(w);
        /* a drain gets its memory, and loses none meanwhile */
        w->spared |= vm->store.leaving;
        if (vm->store.on)
                bl_store_prepare(t, w);

        if (w->may_take && vm->actual > limit) {
                uint64_t to = bl_max(limit, t->now >= st->retry_at ? w->floor : w->lowest);

                if (bl_sub_sat(st->dir < 0 ? bl_min(vm->actual, st->cmd_target) : vm->actual, to) >= c->dead_band)
                        w->forced = bl_max(to, 1);
        }
}

void bl_prepare(struct bl_tick *t)
{
        bl_store_survey(t);
        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];

                w->vm = &t->s->vms[i];
                w->st = bl_table_get(t->p, w->vm, t->c, i);
                w->st->swap_room = bl_swap_room(t, w->vm);
                bl_learn(t->p, w->st, w->vm, t->c, t->s->at);
                prepare_one(t, w);
        }
}
