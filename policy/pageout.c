/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host kernel's own tiers, for what the balloon cannot do: VMs that it
 * cannot take from, when the host is in need, and the cold memory of VMs that
 * have been idle for long.  Which pages go, and at what pace, is the engine's
 * business: its offer is one slice, and 0 while one is under way or does harm.
 */
#include <stdlib.h>

#include "internal.h"

/* Ahead of pressure nothing is urgent: what an idle VM needs again at once it can read back within a blink. */
#define IDLE_STEP (16 * BL_MIB)

/* Bytes that may be paged out of it: never what is reserved for it; and what others map too the kernel leaves where it
 * is (mm/madvise.c, madvise_cold_or_pageout_pte_range). */
static uint64_t slice(const struct bl_work *w)
{
        const struct bl_vm *vm = w->vm;
        uint64_t least = bl_add_sat(bl_min(vm->reservation, vm->limit), vm->overhead);

        least = bl_max(least, vm->share.merged);
        return bl_min(vm->offer[BL_ENGINE_PAGEOUT].takes, bl_sub_sat(vm->resident, least));
}

/* May it be touched at all?  It says nothing of memory that it lacks. */
static bool may(const struct bl_work *w)
{
        const struct bl_vm *vm = w->vm;
        const struct bl_vm_state *st = w->st;

        if (!vm->managed || vm->hold != BL_HOLD_NONE || vm->run != BL_RUN_RUNNING || vm->hung || vm->in_flight)
                return false;
        return w->due == 0 && w->grant == 0 && st->pressed == 0 && !st->asks && !st->stops && !st->thrashes;
}

/* Does what was paged out of it come back? */
static bool refaults(const struct bl_vm *vm)
{
        const struct bl_offer *o = &vm->offer[BL_ENGINE_PAGEOUT];

        return o->takes == 0 && o->gives > 0;
}

static bool balloon_cannot(const struct bl_work *w)
{
        enum bl_reason r = w->skip;

        if (r == BL_WHY_SKIP_RECLAIM)
                return w->vm->no_reclaim == BL_RECLAIM_NO_BALLOON;
        return r == BL_WHY_SKIP_STATS || r == BL_WHY_SKIP_STALE || r == BL_WHY_SKIP_ABSURD ||
               r == BL_WHY_SKIP_BOOTING || r == BL_WHY_SKIP_STUCK || r == BL_WHY_SKIP_LYING;
}

static int compare(const void *a, const void *b)
{
        const struct bl_pick *x = a, *y = b;

        if (x->order != y->order)
                return x->order < y->order ? -1 : 1;
        return x->index < y->index ? -1 : x->index > y->index;
}

uint64_t bl_pageout_need(struct bl_tick *t, uint64_t missing, struct bl_pick *picks)
{
        uint64_t brought = 0;
        size_t k = 0;

        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];

                if (!balloon_cannot(w) || !may(w))
                        continue;
                if (refaults(w->vm))
                        w->pageout_why = BL_WHY_SKIP_REFAULTS;
                if (slice(w) < t->c->dead_band)
                        continue;
                /* the one that has done nothing for longest first, those at work last */
                picks[k++] =
                        (struct bl_pick){.order = w->vm->idle_since == 0 ? UINT64_MAX : w->vm->idle_since, .index = i};
        }
        if (k > 1)
                qsort(picks, k, sizeof(*picks), compare);
        for (size_t i = 0; i < k && brought < missing; i++) {
                struct bl_work *w = &t->w[picks[i].index];

                w->pageout = bl_min(slice(w), bl_max(missing - brought, t->c->dead_band));
                w->pageout_why = BL_WHY_TAKE_PAGEOUT;
                brought += w->pageout;
        }
        return brought;
}

void bl_pageout_idle(struct bl_tick *t, const struct bl_marks *m)
{
        usec_t after = t->c->idle_after;

        /* with plenty free there is nothing to be gained */
        if (after == 0 || t->state > BL_STATE_SOFT || t->s->host.free >= m->mark[BL_STATE_HIGH])
                return;
        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];
                usec_t since = w->vm->idle_since;

                if (since == 0 || bl_sub_sat(t->now, since) < after || w->pageout > 0 || w->take > 0 || !may(w))
                        continue;
                if (w->skip == BL_WHY_SKIP_RECLAIM && w->vm->no_reclaim != BL_RECLAIM_NO_BALLOON)
                        continue;
                if (refaults(w->vm))
                        w->pageout_why = BL_WHY_SKIP_REFAULTS;
                w->pageout = slice(w);
                if (t->state <= BL_STATE_CLEAR)
                        w->pageout = bl_min(w->pageout, IDLE_STEP);
                if (w->pageout < t->c->dead_band)
                        w->pageout = 0;
                else
                        w->pageout_why = BL_WHY_TAKE_IDLE;
        }
}
