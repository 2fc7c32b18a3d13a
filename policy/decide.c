/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One tick: how much is needed, who gives it, who gets what is free.
 *
 * Memory is freed in one tick and granted in a later one, when it is seen to be
 * free (squeezed's two-phase targets); what a grant may use is what stays above
 * the goal even if every grant of before is used at once.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

/* A stuck guest is tried again with this much: worth having, and no harm if it is more than is needed. */
#define PROBE (64 * BL_MIB)

/* Guests begin to move within some 20 ms of a command; each command wakes one and writes a record. */
#define RETARGET (250 * BL_MSEC)

struct sums {
        uint64_t promised; /* granted before and not used yet */
        uint64_t coming; /* to be freed within the horizon by earlier commands */
        uint64_t outstanding; /* to be freed by them at all */
        uint64_t speed; /* joint, of those that can give */
        uint64_t spent; /* of what was promised, used since the last snapshot */
        uint64_t pool; /* held by all that take part in the division */
        bool pressed;
        bool due;
        bool asked; /* of what is due some is asked for by an agent, now */
        bool drain; /* and some by one that is being drained */
        bool thrash; /* and some by one that reads back what was pressed into the store */
};

/* What comes to the host when the balloon of a VM goes down to `to`. */
static uint64_t brings(const struct bl_work *w, uint64_t to)
{
        uint64_t bytes = bl_sub_sat(w->holds, to);

        return w->swaps_below == 0 ? bl_comes_back(w, bytes) : bl_store_gain(w, w->holds, bytes);
}

static void add_up(const struct bl_tick *t, struct sums *ret)
{
        struct sums z = {};

        for (size_t i = 0; i < t->n; i++) {
                const struct bl_work *w = &t->w[i];
                const struct bl_vm_state *st = w->st;
                uint64_t has = bl_has_or_gets(st, w->vm);

                z.promised = bl_add_sat(z.promised, bl_add_sat(st->credit, bl_sub_sat(st->asked, has)));
                z.spent = bl_add_sat(z.spent, st->spent);
                if (w->moving) {
                        uint64_t to = bl_max(st->cmd_target, st->bottom);

                        z.outstanding = bl_add_sat(z.outstanding, brings(w, to));
                        to = bl_max(to, bl_reach(w, t->c));
                        z.coming = bl_add_sat(z.coming, brings(w, to));
                }
                if (w->may_take && !w->spared && w->base > w->lowest)
                        z.speed = bl_add_sat(z.speed, bl_comes_back(w, st->speed));
                if (w->may_grant)
                        z.pool = bl_add_sat(z.pool, w->base_up);
                z.pressed |= w->may_take && st->pressed > 0;
                z.due |= w->due > 0;
                z.drain |= w->due > 0 && w->vm->store.leaving;
                z.asked |= w->due > 0 && st->asks && !st->squeezed;
                z.thrash |= w->due > 0 && w->due_thrash && st->squeezed;
        }
        *ret = z;
}

/* Bytes to be freed until `goal` is free; `free` itself ends at 0 where more is used than the budget. */
static uint64_t missing(const struct bl_host *h, uint64_t goal)
{
        return bl_add_sat(bl_sub_sat(goal, h->free), h->free == 0 ? bl_sub_sat(h->used, h->budget) : 0);
}

/* By how much the marks lead: what the host loses until the guests could have given it. */
static uint64_t reckon_lead(const struct bl_tick *t, const struct sums *z, uint64_t goal)
{
        const struct bl_host *h = &t->s->host;
        /* granted memory that comes into use was set aside for that, and is no sign of more to come */
        uint64_t growth = bl_sub_sat(h->growth, t->p->spending), lacking = missing(h, goal);
        usec_t time;

        if (growth == 0)
                return 0;
        if (z->speed == 0)
                time = lacking > 0 ? t->c->lead_max : t->c->lead_min;
        else
                time = bl_mul_sat(lacking, BL_SEC) / z->speed;
        time = bl_add_sat(time, t->p->latency + t->p->interval);
        return bl_rate_times(growth, bl_clamp(time, t->c->lead_min, t->c->lead_max));
}

/* How fast granted memory comes into use; falls off within seconds, as the sensed growth does. */
static void note_spending(struct bl_policy *p, uint64_t spent, usec_t dt)
{
        uint64_t rate;

        if (dt == 0)
                return;
        rate = bl_mul_sat(spent, BL_SEC) / dt;
        p->spending = bl_max(rate, p->spending - bl_min(p->spending, bl_rate_times(p->spending / 2, dt)));
}

/* A guest that is under pressure is not shrunk and gets more, unless it has more than its shares entitle
 * it to: pressure is what it says, and memory in use can at least not be had without using it. */
static void protect_pressed(struct bl_tick *t, bl_level fair)
{
        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];

                if (w->due_pressed)
                        w->due = bl_min(w->due, bl_sub_sat(bl_fair_size(w, fair), w->base_up));
                if (w->may_take && w->st->pressed > 0)
                        w->floor = bl_max(w->floor, bl_min(w->vm->actual, bl_fair_size(w, fair)));
                w->lowest = bl_max(w->lowest, w->floor);
                if (w->may_take && w->st->pressed > 0)
                        w->pressed_to = bl_max(w->pressed_to, bl_min(w->vm->actual, bl_fair_size(w, fair)));
        }
}

/* Who is drained goes before those that are squeezed and do well: an administrator waits for it. */
static void wait_for_drain(struct bl_tick *t)
{
        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];

                if (w->st->squeezed && !w->vm->store.leaving && !w->due_thrash && !w->due_reserved)
                        w->due = 0;
        }
}

static void open_rooms(struct bl_tick *t, bool all)
{
        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];
                uint64_t least = w->lowest;

                w->room = 0;
                if (!w->may_take || w->spared || w->due > 0)
                        continue;
                /* One that stands still has been asked already; more and more of it would only come all at
                 * once when it moves. */
                if (w->st->dir < 0 && !w->moving)
                        continue;
                if (!all) {
                        least = bl_max(least, bl_reach(w, t->c));
                        if (w->settling && w->st->last_dir > 0)
                                continue;
                }
                w->room = bl_sub_sat(w->base, least);
                if (bl_comes_back(w, w->room) < t->c->dead_band)
                        w->room = 0;
        }
}

/* Above its limit: that is the administrator's word, at rest as well. Returns the bytes that are expected. */
static uint64_t take_forced(struct bl_tick *t)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];

                if (w->forced == 0)
                        continue;
                sum = bl_add_sat(sum, bl_comes_back(w, bl_sub_sat(w->base, bl_max(w->forced, w->lowest))));
                w->take += bl_sub_sat(w->base, w->forced);
                w->base = bl_min(w->base, w->forced);
                w->lowest = bl_min(w->lowest, w->forced);
                w->room = bl_min(w->room, bl_sub_sat(w->base, w->lowest));
        }
        return sum;
}

/* Guests that stopped before are asked to go on in addition to the others, not instead of them. */
static void probe(struct bl_tick *t)
{
        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];
                uint64_t room = bl_sub_sat(w->base, w->floor);

                if (!w->may_take || w->spared || w->st->bottom == 0 || w->st->dir != 0 || w->due > 0 ||
                    t->now < w->st->retry_at)
                        continue;
                if (w->base > w->lowest || room < t->c->dead_band)
                        continue;
                w->take += bl_min(room, PROBE);
                w->base -= bl_min(room, PROBE);
                w->lowest = w->floor;
        }
}

/* --- decisions ----------------------------------------------------------------------------------- */

/* The nearest target at or above x that is the daemon's own (offer.phase); UINT64_MAX if there is none. */
static uint64_t grain_up(const struct bl_offer *o, uint64_t x)
{
        uint64_t phase, below;

        if (o->grain == 0)
                return x;
        phase = o->phase % o->grain;
        if (x <= phase)
                return phase;
        below = (x - phase) % o->grain;
        return below == 0 ? x : bl_add_sat(x, o->grain - below);
}

/* At or below x; 0 if there is none. */
static uint64_t grain_down(const struct bl_offer *o, uint64_t x)
{
        uint64_t phase;

        if (o->grain == 0)
                return x;
        phase = o->phase % o->grain;
        return x < phase ? 0 : x - (x - phase) % o->grain;
}

/* Puts the target back to where the balloon is. */
static bool put_back(const struct bl_work *w, enum bl_reason why, struct bl_decision *d)
{
        bool parks = why == BL_WHY_PARK_STUCK;
        const struct bl_vm *vm = w->vm;
        const struct bl_offer *o = &vm->offer[BL_ENGINE_BALLOON];
        uint64_t to;

        to = grain_up(o, vm->actual);
        if (to == UINT64_MAX || to > vm->max || to > bl_add_sat(vm->actual, bl_max(o->gives, o->grain)))
                to = grain_down(o, vm->actual);
        if (to == 0 || to == vm->target || (!parks && to < vm->target))
                return false;
        d->act = true;
        d->why = why;
        d->to = to;
        return true;
}

/* One that stopped is not to give (or take) later, at a bad time. */
static bool park(const struct bl_work *w, struct bl_decision *d)
{
        if (!w->st->park || bl_distance(w->vm->target, w->vm->actual) < BL_STEP)
                return false;
        return put_back(w, BL_WHY_PARK_STUCK, d);
}

static void decide_grant(const struct bl_tick *t, struct bl_work *w, struct bl_decision *d)
{
        uint64_t to = grain_down(&w->vm->offer[BL_ENGINE_BALLOON], bl_min(w->base_up, w->highest));

        if (to < bl_add_sat(w->base_up - w->grant, BL_STEP) || to == w->vm->target) {
                d->why = BL_WHY_DEAD_BAND;
                return;
        }
        d->act = true;
        d->why = w->grant_why;
        d->to = to;
        w->st->asked = to;
        w->st->asked_at = t->now;
        if (w->grant_why == BL_WHY_GRANT_REQUEST)
                bl_request_granted(w->st, w->grant);
        if (w->due_thrash) {
                w->st->thrash_due = bl_sub_sat(w->st->thrash_due, w->grant);
                w->st->thrash_to = bl_max(w->st->thrash_to, to);
        }
}

static void decide_take(const struct bl_tick *t, struct bl_work *w, struct bl_decision *d, enum bl_reason why)
{
        uint64_t was = w->st->dir < 0 ? bl_min(w->vm->target, w->vm->actual) : w->vm->actual;
        uint64_t to = w->take > 0 ? bl_max(w->base, w->lowest) : w->forced;

        to = grain_up(&w->vm->offer[BL_ENGINE_BALLOON], to);
        /* never to the bare size when it is not a legal target, and never upwards */
        if (to == UINT64_MAX || bl_add_sat(to, BL_STEP) > was) {
                d->why = w->st->dir < 0 ? BL_WHY_IN_FLIGHT : BL_WHY_DEAD_BAND;
                return;
        }
        /* a little more of one that has not even begun can wait until it has */
        if (w->st->dir < 0 && !w->st->moved && bl_sub_sat(t->now, w->vm->target_at) < RETARGET && was - to < PROBE) {
                d->why = BL_WHY_IN_FLIGHT;
                return;
        }
        d->act = true;
        d->why = w->forced ? BL_WHY_TAKE_LIMIT : why;
        d->to = to;
        d->swaps = w->swaps_below > 0 ? bl_sub_sat(d->floor, to) : 0;
        if (w->swaps_below > 0 && bl_add_sat(to, t->c->dead_band) < w->need.floor)
                w->st->squeezed = true;
}

static void decide_pageout(const struct bl_work *w, struct bl_decision *d)
{
        d->why = w->pageout_why;
        if (w->pageout == 0)
                return;
        d->act = true;
        d->engine = BL_ENGINE_PAGEOUT;
        d->from = w->vm->resident;
        d->to = w->vm->resident - w->pageout;
}

static void decide_balloon(const struct bl_tick *t, struct bl_work *w, enum bl_reason why, bool taking,
                           struct bl_decision *d)
{
        const struct bl_vm *vm = w->vm;
        const struct bl_vm_state *st = w->st;

        *d = (struct bl_decision){
                .engine = BL_ENGINE_BALLOON,
                .why = w->skip,
                .from = vm->actual,
                .to = vm->actual,
                .floor = bl_has_need(w) ? bl_max(w->need.floor, bl_min(vm->reservation, vm->limit)) : vm->actual,
                .want = w->highest,
                .due = bl_add_sat(w->due, w->grant_why == BL_WHY_GRANT_REST ? 0 : w->grant),
                .speed = st->speed,
                .stuck = st->stuck,
                .lying = st->lying,
                .asked = w->due_asked,
                .retry_at = st->stuck ? bl_max(st->retry_at, 1) : 0,
                .deaf_until = st->deaf_until > t->now ? st->deaf_until : 0,
        };

        if (w->hands_off)
                return;

        if (vm->in_flight) {
                if (d->why == BL_WHY_NOTHING)
                        d->why = BL_WHY_IN_FLIGHT;
        } else if (w->grant > 0) {
                decide_grant(t, w, d);
                if (!d->act && w->turn_back)
                        (void)put_back(w, w->turn_why, d);
        } else if (w->turn_back && put_back(w, w->turn_why, d)) {
                return;
        } else if (park(w, d)) {
                return;
        } else if (w->take > 0 || w->forced > 0) {
                decide_take(t, w, d, why);
        } else if (t->press_wanted && w->press_skip != BL_WHY_NOTHING) {
                d->why = w->press_skip;
        } else if (w->due > 0) {
                d->why = BL_WHY_WAIT_FREE;
        } else if (d->why == BL_WHY_NOTHING) {
                if (st->dir != 0)
                        d->why = BL_WHY_IN_FLIGHT;
                else if (taking && vm->store.leaving)
                        d->why = BL_WHY_SKIP_DRAINING;
                else if (taking && w->spared)
                        d->why = BL_WHY_SKIP_ASKS;
                else if (st->deaf)
                        d->why = BL_WHY_SKIP_ASKS_IDLY;
                else if (taking && st->bottom != 0 && w->lowest > w->floor)
                        d->why = BL_WHY_SKIP_STUCK;
                else if (taking && bl_sub_sat(w->base, w->lowest) < t->c->dead_band)
                        d->why = BL_WHY_SKIP_FLOOR;
                else if (w->settling && (taking ? st->last_dir > 0 : st->last_dir < 0 && w->base_up < w->highest))
                        d->why = BL_WHY_SETTLING;
        }
}

static void decide_one(const struct bl_tick *t, struct bl_work *w, enum bl_reason why, bool taking,
                       struct bl_decision *d)
{
        decide_balloon(t, w, why, taking, d);
        if (!d->act && w->pageout_why != BL_WHY_NOTHING)
                decide_pageout(w, d);
}

/* What idle memory has to be had for to take merged memory apart; 0 where that would not be enough. */
static uint64_t room_to_unmerge(const struct bl_tick *t, const struct sums *z)
{
        uint64_t can = z->outstanding;

        for (size_t i = 0; i < t->n; i++)
                can = bl_add_sat(can, bl_comes_back(&t->w[i], t->w[i].room));
        return t->share_lacks <= can ? t->share_lacks : 0;
}

static enum bl_reason reason_to_take(enum bl_host_state state, bool for_host, bool unmerge, bool lead)
{
        if (!for_host)
                return unmerge ? BL_WHY_TAKE_UNMERGE : BL_WHY_TAKE_FOR_OTHER;
        switch (state) {
        case BL_STATE_LOW:
                return BL_WHY_TAKE_LOW;
        case BL_STATE_HARD:
                return BL_WHY_TAKE_HARD;
        case BL_STATE_SOFT:
                return BL_WHY_TAKE_SOFT;
        case BL_STATE_HIGH:
        case BL_STATE_CLEAR:
                return lead ? BL_WHY_TAKE_LEAD : BL_WHY_TAKE_PSI;
        case _BL_STATE_MAX:
                break;
        }
        return BL_WHY_TAKE_SOFT;
}

/* Memory that squeezed guests get back when there is plenty. */
static void grant_at_rest(struct bl_tick *t, uint64_t spare, struct bl_pick *picks)
{
        bool others = false;

        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];

                if (w->may_grant && !w->given_up && bl_sub_sat(w->highest, w->base_up) >= t->c->dead_band)
                        others = true;
        }
        /* one that does not follow comes last */
        if (others) {
                for (size_t i = 0; i < t->n; i++)
                        t->w[i].may_grant &= !t->w[i].given_up;
        }
        bl_grant(t->w, t->n, spare, BL_WHY_GRANT_REST, t->c, picks);
}

static void run(struct bl_tick *t, struct bl_pick *picks, struct bl_plan *plan)
{
        const struct bl_policy_config *c = t->c;
        const struct bl_host *h = &t->s->host;
        const struct bl_marks *m = &plan->marks;
        uint64_t free = h->free, margin, base_goal, spare, reserve, granted, taken, coming, needed = 0, unmet, grows,
                 unmerge;
        bool psi, lead, reclaim, for_host;
        bl_level fair = 0;
        struct sums z;

        bl_prepare(t);
        add_up(t, &z);
        /* so is what the store's pool took when it was told to, and what un-merging took */
        z.spent = bl_add_sat(z.spent, bl_sub_sat(t->s->store.pool_ready, t->p->pool_ready));
        note_spending(t->p, bl_add_sat(z.spent, bl_sharing_learn(t)), t->dt);
        t->p->pool_ready = t->s->store.pool_ready;

        /* Far enough above the mark that a rest smaller than the dead band does not keep us below it. */
        margin = bl_max(m->mark[BL_STATE_CLEAR] / 16, 2 * c->dead_band);
        base_goal = bl_add_sat(m->mark[BL_STATE_CLEAR], margin);
        plan->lead = reckon_lead(t, &z, base_goal);
        plan->goal = bl_add_sat(base_goal, plan->lead);
        plan->coming = z.coming;
        plan->promised = z.promised;

        /* The pool grows before the balloon gives; what it is to take is nobody else's. */
        plan->pool_to = bl_store_pool(t, m, base_goal, bl_add_sat(plan->lead, plan->promised));
        grows = bl_sub_sat(plan->pool_to, t->s->store.pool_ready);
        free = bl_sub_sat(free, grows);

        lead = bl_sub_sat(free, plan->lead) < m->mark[BL_STATE_SOFT];
        /* The kernel tells of stalls: the marks are too low for what is going on, so a further quarter is
         * freed each time; with plenty free the stalls have other causes. */
        psi = h->budget_is_ram && h->psi_pressure && free < m->mark[BL_STATE_HIGH];
        if (psi)
                plan->goal = bl_max(plan->goal, bl_add_sat(free, m->min_free / 4));
        reclaim = t->state >= BL_STATE_SOFT || lead || psi;
        plan->shortfall = reclaim ? missing(h, plan->goal) : 0;

        spare = bl_sub_sat(free, plan->goal);
        if (c->test.no_two_phase)
                spare = UINT64_MAX;
        else
                spare = bl_sub_sat(spare, z.promised);
        bl_sharing_leavers(t, spare);
        spare = bl_sub_sat(spare, t->share_aside);

        if (z.pressed || z.due)
                fair = bl_fair_level(t->w, t->n, bl_add_sat(z.pool, spare == UINT64_MAX ? 0 : spare));
        if (z.pressed)
                protect_pressed(t, fair);
        if (z.drain)
                wait_for_drain(t);

        /* for one that asks the slow ones are asked too, and those that have just been given to */
        open_rooms(t, z.asked);
        granted = 0;
        if (z.due) {
                bl_entitle(t->w, t->n, fair, c);
                granted = bl_grant(t->w, t->n, spare, BL_WHY_GRANT_RESERVED, c, picks);
                if (z.thrash)
                        granted += bl_grant(t->w, t->n, spare - granted, BL_WHY_GRANT_THRASH, c, picks);
                granted += bl_grant(t->w, t->n, spare - granted, BL_WHY_GRANT_NEED, c, picks);
                /* What is kept free is kept for this: a guest that asks may be a tenth of a second from its
                 * OOM killer, and what others are to give instead takes longer (Waldspurger 2002, section 6.3). */
                reserve = bl_sub_sat(bl_sub_sat(free, bl_add_sat(m->mark[BL_STATE_HARD], z.promised)), granted);
                if ((z.asked || z.thrash) && !c->test.no_reserve && reserve >= c->dead_band) {
                        uint64_t before = granted;

                        if (z.asked)
                                granted += bl_grant(t->w, t->n, reserve, BL_WHY_GRANT_REQUEST, c, picks);
                        if (z.thrash)
                                granted += bl_grant(t->w, t->n, reserve - (granted - before), BL_WHY_GRANT_THRASH, c,
                                                    picks);
                        /* and filled again at once */
                        if (granted > spare)
                                plan->shortfall = bl_max(plan->shortfall, missing(h, bl_add_sat(plan->goal, granted)));
                }
        }

        taken = take_forced(t);
        coming = bl_add_sat(z.coming, taken);
        for (size_t i = 0; i < t->n; i++)
                needed = bl_add_sat(needed, t->w[i].due);
        unmerge = t->share_lacks > 0 ? room_to_unmerge(t, &z) : 0;
        needed = bl_sub_sat(bl_add_sat(bl_add_sat(needed, plan->shortfall), unmerge), coming);
        for_host = plan->shortfall > coming;

        if (needed >= c->dead_band) {
                taken += bl_revoke(t->w, t->n, bl_add_sat(plan->shortfall, unmerge), coming, true, c, picks);

                /* What is left of the host's need is asked from the slow ones after all, and in need from
                 * those that were told to grow a moment ago. */
                unmet = bl_sub_sat(plan->shortfall, bl_add_sat(z.outstanding, taken));
                if (unmet >= c->dead_band && t->state >= BL_STATE_SOFT) {
                        open_rooms(t, true);
                        taken += bl_revoke(t->w, t->n, unmet, 0, false, c, picks);
                }
                probe(t);
        }
        unmet = bl_sub_sat(plan->shortfall, bl_add_sat(z.outstanding, taken));
        if (unmet >= c->dead_band && t->state >= BL_STATE_SOFT) {
                taken += bl_store_press(t, unmet, picks);
                unmet = bl_sub_sat(plan->shortfall, bl_add_sat(z.outstanding, taken));
        }
        if (unmet >= c->dead_band && t->state >= BL_STATE_HARD)
                taken += bl_pageout_need(t, unmet, picks);
        t->p->pressing = t->press_wanted;
        plan->unmet = bl_sub_sat(plan->shortfall, bl_add_sat(z.outstanding, taken));

        if (t->state == BL_STATE_HIGH && !reclaim && needed == 0) {
                /* twice the mark: the way down from there is as long as the one to soft */
                uint64_t keep = bl_add_sat(bl_add_sat(2 * m->min_free, margin), bl_add_sat(plan->lead, z.promised));

                keep = bl_add_sat(keep, bl_add_sat(plan->share.reserve, t->share_aside));

                grant_at_rest(t, bl_sub_sat(free, bl_add_sat(keep, granted)), picks);
        }

        bl_pageout_idle(t, m);
        for (size_t i = 0; i < t->n; i++)
                decide_one(t, &t->w[i], reason_to_take(t->state, for_host, unmerge > 0, lead), needed > 0, &plan->d[i]);
        bl_sharing_decide(t, plan, bl_sub_sat(spare, granted));
}

int bl_policy_decide(struct bl_policy *p, const struct bl_snapshot *s, const struct bl_policy_config *c, usec_t now,
                     struct bl_plan *ret)
{
        struct bl_plan plan = {.at = now, .n = s->n_vms};
        struct bl_pick *picks = NULL;
        struct bl_tick t;
        int r;

        t = (struct bl_tick){.s = s, .c = c, .now = now, .p = p, .n = s->n_vms};

        /* Everything that can fail comes before anything is changed. */
        plan.d = calloc(s->n_vms + 1, sizeof(*plan.d));
        plan.share.d = calloc(s->n_vms + 1, sizeof(*plan.share.d));
        t.w = calloc(s->n_vms + 1, sizeof(*t.w));
        picks = calloc(s->n_vms + 1, sizeof(*picks));
        r = plan.d && plan.share.d && t.w && picks ? bl_table_reserve(p, s->n_vms) : -ENOMEM;
        if (r < 0) {
                free(picks);
                free(t.w);
                bl_plan_clear(&plan);
                return r;
        }

        if (p->started && s->at > p->last_at) {
                usec_t interval = bl_min(s->at - p->last_at, 5 * BL_SEC);

                p->interval = p->interval == 0 ? interval : (3 * p->interval + interval) / 4;
                t.dt = s->at - p->last_at;
        }
        p->started = true;
        p->last_at = s->at;

        bl_marks_compute(s->host.budget, c->min_free, &plan.marks);
        plan.share.reserve = bl_sharing_reserve(s, c);
        bl_marks_raise(&plan.marks, plan.share.reserve);
        plan.state_before = p->state;
        p->state = bl_state_next(p->state, s->host.free, &plan.marks, !c->test.no_hysteresis);
        plan.state = t.state = p->state;

        run(&t, picks, &plan);
        bl_table_purge(p, s->at);

        free(picks);
        free(t.w);
        *ret = plan;
        return 0;
}
