/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who gets memory that is free, and how much of it. */
#include "internal.h"

struct filling {
        uint64_t amount;
        enum bl_reason why;
        permyriad_t tax;
};

static uint64_t wanted(const struct bl_work *w, enum bl_reason why)
{
        if (!w->may_grant)
                return 0;
        /* out of the reserve: for those that ask */
        if (why == BL_WHY_GRANT_REQUEST)
                return w->st->asks && !w->st->squeezed && !w->due_reserved ? w->due : 0;
        /* also out of the reserve: for those that were pressed for it; in steps, as what is read back
         * then shows whether it was enough */
        if (why == BL_WHY_GRANT_THRASH)
                return w->due_thrash && w->st->squeezed && !w->due_reserved ? bl_min(w->due, w->st->thrash_due) : 0;
        if (why == BL_WHY_GRANT_REST) {
                /* one reason at a time: what it gets by need or reservation is enough for one command */
                if (w->grant > 0 || (w->settling && w->st->last_dir < 0))
                        return 0;
                return bl_sub_sat(w->highest, w->base_up);
        }
        return w->due_reserved == (why == BL_WHY_GRANT_RESERVED) ? w->due : 0;
}

/* What a guest is short of, it will use; what it gets at rest may lie idle, and is taxed as when it is
 * taken, so that giving and taking have the same end. */
static uint64_t active(const struct bl_work *w, enum bl_reason why)
{
        return why == BL_WHY_GRANT_REST ? bl_pays_for(w, w->active) : UINT64_MAX;
}

static uint64_t gets_at(const struct bl_work *w, bl_level level, enum bl_reason why, permyriad_t tax)
{
        uint64_t want = wanted(w, why);

        if (want == 0)
                return 0;
        return bl_min(bl_sub_sat(bl_level_size(level, w->shares, active(w, why), tax), bl_pays_for(w, w->base_up)),
                      want);
}

static bool affordable(const struct bl_work *w, size_t n, bl_level level, const void *arg)
{
        const struct filling *f = arg;
        uint64_t sum = 0;

        for (size_t i = 0; i < n; i++)
                sum = bl_add_sat(sum, gets_at(&w[i], level, f->why, f->tax));
        return sum <= f->amount;
}

uint64_t bl_grant(struct bl_work *w, size_t n, uint64_t amount, enum bl_reason why, const struct bl_policy_config *c,
                  struct bl_pick *picks)
{
        struct filling f = {.amount = amount, .why = why, .tax = c->idle_tax};
        bl_level high = 0, level;
        uint64_t given = 0;

        for (size_t i = 0; i < n; i++) {
                uint64_t want = wanted(&w[i], why);

                if (want == 0)
                        continue;
                w[i].order =
                        bl_level_of(bl_pays_for(&w[i], w[i].base_up), w[i].shares, active(&w[i], why), c->idle_tax);
                high = bl_max(high, bl_level_of(bl_pays_for(&w[i], bl_add_sat(w[i].base_up, want)), w[i].shares,
                                                active(&w[i], why), c->idle_tax));
        }
        if (high == 0 || amount < c->dead_band)
                return 0;

        level = bl_level_find(w, n, high, affordable, &f);
        for (size_t i = 0; i < n; i++) {
                w[i].part = gets_at(&w[i], level, why, c->idle_tax);
                w[i].part_max = wanted(&w[i], why);
        }
        bl_in_steps(w, n, c->dead_band, picks);

        for (size_t i = 0; i < n; i++) {
                /* the steps together may come to more than there is, by less than one of them */
                uint64_t part = bl_min(w[i].part, bl_sub_sat(amount, given));

                if (part < c->dead_band)
                        continue;
                w[i].grant += part;
                w[i].grant_why = why;
                if (why == BL_WHY_GRANT_NEED && w[i].due_thrash)
                        w[i].grant_why = BL_WHY_GRANT_THRASH;
                else if (why == BL_WHY_GRANT_NEED && w[i].due_asked)
                        w[i].grant_why = BL_WHY_GRANT_REQUEST;
                w[i].base_up += part;
                if (why != BL_WHY_GRANT_REST)
                        w[i].due -= bl_min(part, w[i].due);
                given += part;
        }
        return given;
}

uint64_t bl_fair_size(const struct bl_work *w, bl_level fair)
{
        uint64_t size = bl_level_size(fair, w->shares, UINT64_MAX, 0);

        return bl_clamp(size, bl_min(w->vm->reservation, w->highest), w->highest);
}

static bool divisible(const struct bl_work *w, size_t n, bl_level level, const void *arg)
{
        const uint64_t *pool = arg;
        uint64_t sum = 0;

        for (size_t i = 0; i < n; i++) {
                if (w[i].may_grant)
                        sum = bl_add_sat(sum, bl_fair_size(&w[i], level));
        }
        return sum <= *pool;
}

bl_level bl_fair_level(const struct bl_work *w, size_t n, uint64_t pool)
{
        bl_level high = 0;

        for (size_t i = 0; i < n; i++) {
                if (w[i].may_grant)
                        high = bl_max(high, bl_level_of(w[i].highest, w[i].shares, UINT64_MAX, 0));
        }
        return bl_level_find(w, n, high, divisible, &pool);
}

/* Beyond its part it gets only as far as the host sees it use what it has. */
static uint64_t usable(const struct bl_work *w, const struct bl_policy_config *c)
{
        uint64_t ahead = bl_add_sat(2 * bl_max(w->need.margin, c->guest_margin), w->st->held_rate);

        return bl_add_sat(bl_held(w->vm), ahead);
}

/* What is due to it beyond its part, too: what was pressed out of it and is in use after all, step by step, and what
 * an administrator calls back; the store's own figures say that it is out. */
static uint64_t owed(const struct bl_work *w)
{
        const struct bl_vm_store *v = &w->vm->store;
        uint64_t out = bl_add_sat(v->held, v->zero);

        if (v->leaving)
                return bl_min(w->due, out);
        if (w->due_thrash && w->st->squeezed)
                return bl_min(bl_min(w->due, w->st->thrash_due), out);
        return 0;
}

void bl_entitle(struct bl_work *w, size_t n, bl_level fair, const struct bl_policy_config *c)
{
        bl_level richest = 0;

        for (size_t i = 0; i < n; i++) {
                uint64_t part;

                if (w[i].room > 0)
                        richest = bl_max(richest,
                                         bl_level_of(w[i].base, bl_paying_shares(&w[i]), w[i].active, c->idle_tax));
                if (!w[i].may_grant || w[i].due > 0)
                        continue;
                /* what it is entitled to and is not short of is as idle as what it has and does not use */
                part = bl_fair_size(&w[i], fair);
                if (part > w[i].active)
                        richest = bl_max(richest, bl_level_of(part, w[i].shares, w[i].active, c->idle_tax));
        }

        for (size_t i = 0; i < n; i++) {
                uint64_t most, part, least;

                if (w[i].due == 0 || w[i].due_reserved)
                        continue;
                least = owed(&w[i]);
                part = bl_fair_size(&w[i], fair);
                /* asking costs nothing, and is good for its part */
                if (w[i].due_asked)
                        w[i].due = bl_min(w[i].due, bl_sub_sat(bl_max(w[i].called_for, part), w[i].base_up));
                /* its share of all, and more while others hold, or leave to it, memory that they pay less for */
                most = bl_min(bl_level_size(richest, w[i].shares, UINT64_MAX, 0), usable(&w[i], c));
                w[i].due = bl_min(w[i].due, bl_sub_sat(bl_max(most, part), w[i].base_up));
                w[i].due = bl_max(w[i].due, least);
        }
}
