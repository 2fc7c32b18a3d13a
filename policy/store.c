/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests that swap on the store: how far they may be pressed below what they
 * need, in what steps, and what the store's pool has to have ready for that.
 *
 * What is pressed out is written uncompressed by the guest and kept compressed
 * by the store.  Room is counted as if nothing shrank; what is gained, by what
 * the guest's last pages shrank to.
 */
#include "internal.h"

/* Never the working set: half of what it uses stays in memory.  Debian guests of 512 MiB lived at half and
 * died, two of four, at a seventh (research, "Guest swap into a shared store"); a kernel and init need this
 * much in any case. */
#define KEPT_PART 5000 /* permyriad */
#define KEPT_MIN  (64 * BL_MIB)

/* To what a page shrinks where that is not known yet; LZ4 made 0.31 of real guests' pages. */
#define RATIO_GUESS 3333

/* The pool's size changes in units of this, so that it does not follow every page; taking 64 MiB ahead
 * is a few hundredths of a second. */
#define POOL_GRAIN (64 * BL_MIB)
/* Nobody could be pressed for so long: then the pool need not be ready. */
#define POOL_IDLE (30 * BL_SEC)

uint64_t bl_vm_limit(const struct bl_vm *vm)
{
        /* What a drained VM has there, it gets back; and to one without a limit of its own nothing is forbidden: what
         * it reads back stays in its slots, too, for as long as those are not half used up. */
        if (vm->store.stored == 0 || vm->store.leaving || vm->limit >= vm->max)
                return vm->limit;
        return bl_max(bl_sub_sat(vm->limit, vm->store.stored), bl_min(vm->reservation, vm->limit));
}

uint64_t bl_store_slots(const struct bl_vm *vm)
{
        const struct bl_vm_store *v = &vm->store;
        uint64_t stored = bl_add_sat(v->held, v->zero);

        /* what the guest says is a hint; slots that it freed and the store still holds are counted as taken */
        return bl_sub_sat(v->size, bl_max(v->used == BL_UNSET ? 0 : v->used, stored));
}

/* Does the store take anything of anybody? */
static bool takes(const struct bl_tick *t)
{
        return t->s->store.there && !t->s->store.slow;
}

/* Compressed, as far as it may hold it. */
static uint64_t limit_left(const struct bl_vm *vm)
{
        const struct bl_vm_store *v = &vm->store;
        permyriad_t shrinks = v->ratio_known ? (permyriad_t)bl_clamp(v->ratio, 1, BL_WHOLE) : BL_WHOLE;

        if (v->limit == BL_UNSET)
                return UINT64_MAX;
        return bl_mul_sat(bl_sub_sat(v->limit, v->stored), BL_WHOLE) / shrinks;
}

/* What it can still swap out there. */
static uint64_t behind(const struct bl_tick *t, const struct bl_vm *vm)
{
        if (!takes(t) || vm->store.leaving)
                return 0;
        return bl_min(bl_part(bl_store_slots(vm), t->backed), limit_left(vm));
}

void bl_store_survey(struct bl_tick *t)
{
        uint64_t slots = 0, room = t->s->store.room;

        t->backed = 0;
        if (!t->s->store.there)
                return;
        for (size_t i = 0; i < t->n; i++) {
                if (t->s->vms[i].store.on)
                        slots = bl_add_sat(slots, bl_store_slots(&t->s->vms[i]));
        }
        if (slots <= room)
                t->backed = BL_WHOLE;
        else
                t->backed = bl_ratio(room, slots);
}

uint64_t bl_swap_room(const struct bl_tick *t, const struct bl_vm *vm)
{
        const struct bl_guest_stats *s = &vm->stats;
        uint64_t there;

        if (s->swap_free == BL_UNSET)
                return 0;
        if (!vm->store.on || t->c->test.no_store_room)
                return s->swap_free;
        /* the rest of its swap is the guest's own */
        there = bl_sub_sat(vm->store.size, vm->store.used == BL_UNSET ? 0 : vm->store.used);
        return bl_add_sat(bl_sub_sat(s->swap_free, there), bl_min(behind(t, vm), bl_min(there, s->swap_free)));
}

static permyriad_t cost(const struct bl_vm *vm)
{
        return vm->store.ratio_known ? (permyriad_t)bl_min(vm->store.ratio, BL_WHOLE) : RATIO_GUESS;
}

uint64_t bl_store_gain(const struct bl_work *w, uint64_t from, uint64_t bytes)
{
        uint64_t to = bl_sub_sat(from, bytes), swapped = bl_sub_sat(bl_min(from, w->swaps_below), to);

        return bl_sub_sat(bl_comes_back(w, bytes), bl_part(bl_min(swapped, bytes), cost(w->vm)));
}

/* Of what it was told to give, what it has to swap out for, and has not yet. */
static uint64_t on_its_way(const struct bl_work *w, uint64_t below)
{
        return bl_sub_sat(bl_min(w->vm->actual, below), w->vm->target);
}

/* The store takes no more: what it was told to give and has not given, it may keep. */
static void stop(const struct bl_tick *t, struct bl_work *w, uint64_t left)
{
        const struct bl_vm *vm = w->vm;
        uint64_t under_way = on_its_way(w, w->need.within);

        if (t->c->test.no_store_room || under_way < t->c->dead_band || vm->in_flight || w->hands_off ||
            vm->actual > bl_min(vm->limit, vm->max))
                return;
        if (takes(t) && !vm->store.leaving && under_way <= left)
                return;
        w->turn_back = true;
        w->turn_why = BL_WHY_STOP_STORE;
        w->moving = false;
        w->base = w->holds;
}

void bl_store_prepare(struct bl_tick *t, struct bl_work *w)
{
        const struct bl_vm *vm = w->vm;
        struct bl_vm_state *st = w->st;
        uint64_t way, from, least, left;

        t->n_store++;
        w->pressed_to = w->lowest;
        if (!bl_has_need(w))
                return;
        w->swaps_below = bl_add_sat(w->need.within, w->need.margin);
        /* back at what it needs, or nearly so, and not on its way down */
        if (st->dir >= 0 && st->asked == 0 && bl_add_sat(w->base_up, w->need.margin / 4) >= w->need.floor)
                st->squeezed = false;

        left = t->c->test.no_store_room ? UINT64_MAX : behind(t, vm);
        stop(t, w, left);
        way = w->turn_back ? 0 : on_its_way(w, w->swaps_below);
        t->pressing = bl_add_sat(t->pressing, way);
        if (!w->may_take || w->turn_back || vm->store.leaving)
                return;

        if (!takes(t) && !t->c->test.no_store_room) {
                w->press_skip = BL_WHY_SKIP_STORE_SLOW;
                return;
        }
        if (vm->store.ratio_known && vm->store.ratio > t->c->worth_ratio) {
                w->press_skip = BL_WHY_SKIP_INCOMPRESSIBLE;
                return;
        }
        /* What is left of its room stands in for the margin that it loses (floor.c): with neither the next
         * allocation would be its last. */
        left = bl_sub_sat(left, bl_add_sat(way, w->need.margin));
        if (left < t->c->dead_band) {
                w->press_skip = BL_WHY_SKIP_STORE_FULL;
                return;
        }

        least = bl_max(bl_part(w->need.need, KEPT_PART), bl_max(w->need.pinned, KEPT_MIN));
        least = bl_add_sat(least, bl_max(t->c->guest_margin, bl_part(w->need.need, t->c->guest_margin_ratio)) / 2);
        least = bl_max(least, bl_min(st->thrash_to, vm->actual));
        least = bl_max(least, bl_max(bl_min(vm->reservation, vm->limit), bl_min(st->bottom, vm->actual)));
        least = bl_max(least, bl_sub_sat(vm->actual, vm->offer[BL_ENGINE_BALLOON].takes));
        from = bl_min(w->base, w->swaps_below);
        least = bl_max(least, bl_sub_sat(from, left));
        w->pressed_to = bl_min(w->pressed_to, least);
}

/* May it be pressed now, and by how much? */
static uint64_t room_to_press(const struct bl_tick *t, const struct bl_work *w)
{
        const struct bl_vm_state *st = w->st;
        uint64_t least = w->pressed_to;

        if (!w->may_take || w->spared || w->turn_back || w->grant > 0 || w->due_reserved || st->thrashes)
                return 0;
        if (st->dir < 0 && !w->moving)
                return 0;
        /* what it was given a moment ago is not taken again before the host is in need */
        if (w->settling && st->last_dir > 0 && t->state < BL_STATE_HARD)
                return 0;
        if (w->swaps_below == 0 || w->press_skip != BL_WHY_NOTHING)
                return 0;
        /* it would take more room there than it frees here */
        if (w->merged_part > BL_MERGED_WHOLE / 2)
                return 0;
        least = bl_max(least, bl_reach(w, t->c));
        return bl_sub_sat(w->base, least);
}

/* What a step may be, over all of them: half of what the store can take without its disk, less what is under way. */
static uint64_t step_left(const struct bl_tick *t)
{
        if (t->c->test.no_store_room)
                return UINT64_MAX / 4;
        return bl_sub_sat(t->s->store.headroom / 2, t->pressing);
}

uint64_t bl_store_press(struct bl_tick *t, uint64_t missing, struct bl_pick *picks)
{
        uint64_t step = step_left(t), frees = 0, gain = 0, wanted, brought = 0;
        uint32_t merged = 0;
        permyriad_t brings;
        /* a step is rounded by as much (steps.c, level.c) */
        uint64_t slack = 2 * t->c->dead_band;

        t->press_wanted = true;
        if (t->n_store == 0 || step <= slack)
                return 0;

        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];

                w->room = room_to_press(t, w);
                if (w->room < t->c->dead_band)
                        w->room = 0;
                if (w->room == 0)
                        continue;
                frees = bl_add_sat(frees, bl_comes_back(w, w->room));
                gain = bl_add_sat(gain, bl_store_gain(w, w->base, w->room));
                merged = w->merged_part > merged ? w->merged_part : merged;
        }
        if (frees == 0 || gain == 0)
                return 0;

        /* so many bytes of theirs for what the host is to have; they differ, and the next tick sees by how much */
        brings = (permyriad_t)bl_max(bl_ratio(gain, frees), 1);
        wanted = bl_mul_sat(bl_min(missing, gain), BL_WHOLE) / brings;
        /* all that is given is swapped out, merged or not */
        step = (step - slack) / BL_MERGED_WHOLE * (BL_MERGED_WHOLE - merged);
        bl_revoke(t->w, t->n, bl_min(wanted, step), 0, false, t->c, picks);
        for (size_t i = 0; i < t->n; i++) {
                struct bl_work *w = &t->w[i];

                if (w->room == 0 && w->part == 0)
                        continue;
                brought = bl_add_sat(brought, bl_store_gain(w, bl_add_sat(w->base, w->part), w->part));
                w->lowest = bl_min(w->lowest, bl_max(w->base, w->pressed_to));
        }
        return brought;
}

/* --- the pool ------------------------------------------------------------------------------------ */

static uint64_t round_up(uint64_t x)
{
        return x > UINT64_MAX - POOL_GRAIN ? x : (x + POOL_GRAIN - 1) / POOL_GRAIN * POOL_GRAIN;
}

/* Bytes that guests could be told to swap out, from here on. */
static uint64_t could_swap(const struct bl_tick *t)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < t->n; i++) {
                const struct bl_work *w = &t->w[i];

                if (w->swaps_below > 0)
                        sum = bl_add_sat(sum, bl_sub_sat(bl_min(w->base, w->swaps_below), w->pressed_to));
        }
        return sum;
}

uint64_t bl_store_pool(struct bl_tick *t, const struct bl_marks *m, uint64_t goal, uint64_t keep)
{
        const struct bl_store_state *b = &t->s->store;
        uint64_t could, step, wanted, lacking, spare, to;

        if (!b->there)
                return 0;
        could = t->n_store > 0 ? could_swap(t) : 0;

        if (could < t->c->dead_band && t->pressing == 0) {
                if (t->p->pool_idle_at == 0)
                        t->p->pool_idle_at = t->now;
                /* given back when the host is short of it, and not because somebody cannot be pressed for a moment */
                to = round_up(bl_max(bl_add_sat(b->pool_used, b->pool_used / 8), 1));
                if (t->state < BL_STATE_SOFT || t->now - t->p->pool_idle_at < POOL_IDLE || to >= b->pool_ready)
                        return 0;
                return to;
        }
        t->p->pool_idle_at = 0;

        /* The next step: what it takes to come back from soft, of pages that shrink to a third. */
        step = bl_min(could, bl_sub_sat(goal, m->mark[BL_STATE_SOFT]) / 2 * 3);
        wanted = bl_mul_sat(step, 2);

        /* Where the host is in need, twice that is as good as idle memory. */
        if (t->state >= BL_STATE_SOFT && t->p->pressing && b->headroom > bl_add_sat(2 * wanted, 2 * POOL_GRAIN)) {
                to = round_up(bl_sub_sat(b->pool_ready, b->headroom - wanted));
                to = bl_max(to, round_up(bl_add_sat(b->pool_used, 1)));
                return to < b->pool_ready ? to : 0;
        }

        /* In hard and low nothing is left to grow by; in soft only as somebody is about to be pressed. */
        if (t->state >= BL_STATE_HARD || (t->state == BL_STATE_SOFT && !t->p->pressing))
                return 0;
        lacking = bl_sub_sat(wanted, b->headroom);
        if (lacking == 0)
                return 0;
        lacking = bl_min(round_up(lacking), bl_sub_sat(b->pool_size, b->pool_ready));
        keep = bl_add_sat(keep, m->mark[t->state == BL_STATE_SOFT ? BL_STATE_HARD : BL_STATE_SOFT]);
        spare = bl_sub_sat(t->s->host.free, keep);
        lacking = bl_min(lacking, spare / POOL_GRAIN * POOL_GRAIN);
        return lacking == 0 ? 0 : bl_add_sat(b->pool_ready, lacking);
}
