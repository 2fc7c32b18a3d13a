/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest's agent asks for, and whether it is heard.
 *
 * A request costs the guest nothing, so it is believed only as far as the guest
 * uses what it gets.  That is seen on the host: memory cannot be made resident
 * without touching it, and what is resident is charged to the guest by its
 * shares.  One that goes on asking and does not use what it got is not heard for
 * a while, longer each time; what its figures say counts as before.
 */
#include "internal.h"

/* How exactly the time of a request is known: it has passed through a socket or two. */
#define REQUEST_BLUR (200 * BL_MSEC)

/* After a rest this long a request is a new matter. */
#define ASKING_ENDS (60 * BL_SEC)

/* The balloon that it had when it asked, or less. */
static uint64_t had_then(const struct bl_vm_state *st, const struct bl_vm *vm, bool good)
{
        uint64_t low, high;

        /* the figures that it was made with */
        if (good && bl_distance(vm->stats.at, vm->request.at) <= BL_SEC)
                low = st->report_low;
        else
                bl_past_at(st, vm->request.at, REQUEST_BLUR, &low, &high);
        return bl_min(low, bl_has_or_gets(st, vm));
}

/* The balloon that it asks for. */
static uint64_t asks_for(const struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c,
                         usec_t at)
{
        bool good = bl_stats_check(&vm->stats, vm->max, at) == BL_STATS_GOOD;
        uint64_t bytes = vm->request.bytes, had = had_then(st, vm, good);

        if (bytes == 0)
                return 0;
        if (good)
                return bl_add_sat(had, bytes);
        /* Nothing is known but what the host sees it use: a margin above that will do for one that gives no
         * figures. */
        return bl_min(bl_add_sat(had, bl_min(bytes, c->guest_margin)), bl_add_sat(bl_held(vm), c->guest_margin));
}

static void begin(struct bl_vm_state *st, const struct bl_vm *vm, usec_t at)
{
        uint64_t held = bl_held(vm);

        st->asking = (struct bl_asking){.since = bl_max(at, 1), .actual = vm->actual, .held = held, .peak = held};
}

/* Has it got memory that it could use, by its own figures? */
static bool has_plenty(const struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c,
                       usec_t at)
{
        struct bl_need n;

        if (bl_stats_check(&vm->stats, vm->max, at) != BL_STATS_GOOD)
                return false;
        bl_guest_need(vm, c, st->report_low, st->swap_room, false, &n);
        return vm->actual >= bl_add_sat(n.need, n.margin / 4 * 3);
}

static void judge(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c, usec_t at)
{
        const struct bl_asking *a = &st->asking;
        usec_t time = a->time, wait = c->deaf_first;
        uint64_t got, used;
        bool idly;

        /* what it got a moment ago it cannot have used, but not for ever */
        if (time < c->idle_asker_after || (st->last_dir > 0 && bl_sub_sat(at, st->cmd_at) < BL_PROMISE_KEPT &&
                                           time < bl_mul_sat(c->idle_asker_after, 2)))
                return;

        got = bl_min(a->given, bl_sub_sat(vm->actual, a->actual));
        used = bl_sub_sat(a->peak, a->held);
        /* To one that got nothing it is no fault that it used nothing.  If it is short, its figures spare it; if
         * it is not, it asks to be spared. */
        idly = got >= c->dead_band ? used < got / 2 : used < c->dead_band && has_plenty(st, vm, c, at);
        /* one that was short when it asked, and is not now, has ended what it wanted the memory for */
        idly = idly && !a->was_short;
        if (!idly) {
                st->idly = 0;
                begin(st, vm, at);
                return;
        }

        for (unsigned int i = 0; i < st->idly && wait < c->retry_max; i++)
                wait = bl_mul_sat(wait, 2);
        if (st->idly < 64)
                st->idly++;
        st->deaf_until = bl_add_sat(at, bl_min(wait, c->retry_max));
        st->asking.since = 0;
        st->request_to = 0;
        st->stop_until = 0;
}

/* What it uses counts from its lowest on: memory that was taken from it meanwhile it has to use again. */
static void follow(struct bl_asking *a, const struct bl_vm *vm)
{
        uint64_t held = bl_held(vm);

        if (held < a->held)
                a->held = a->peak = held;
        a->peak = bl_max(a->peak, held);
        if (vm->actual < a->actual) {
                a->actual = vm->actual;
                a->given = 0;
        }
}

static void take_in(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c, usec_t at)
{
        const struct bl_guest_request *q = &vm->request;

        if (st->asking.since == 0 || bl_sub_sat(q->at, st->request_at) > ASKING_ENDS)
                begin(st, vm, at);
        else
                st->asking.time += bl_min(bl_sub_sat(q->at, st->request_at), c->request_life);
        if (q->bytes > 0 && bl_stats_check(&vm->stats, vm->max, at) == BL_STATS_GOOD && !has_plenty(st, vm, c, at))
                st->asking.was_short = true;
        st->request_at = q->at;
        st->request_to = asks_for(st, vm, c, at);
        if (q->stop)
                st->stop_until = bl_add_sat(q->at, bl_add_sat(c->request_life, c->stop_hold));
}

/* An agent that reports later than it asked, asks no more and has plenty is served. */
static bool is_over(const struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c, usec_t at)
{
        return vm->stats.source == BL_STATS_AGENT && vm->stats.at > bl_add_sat(st->request_at, REQUEST_BLUR) &&
               has_plenty(st, vm, c, at);
}

void bl_learn_request(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c, usec_t at)
{
        const struct bl_guest_request *q = &vm->request;
        bool live;

        /* never, or not since it booted */
        if ((q->at == 0 && st->request_at == 0) || c->test.no_requests)
                return;

        live = q->at != 0 && q->at <= at && at - q->at < c->request_life;
        if (at < st->deaf_until) {
                /* what it asks for now is not granted later */
                st->request_at = q->at;
                st->asks = st->stops = false;
                st->deaf = live;
                return;
        }
        if (live && q->at != st->request_at)
                take_in(st, vm, c, at);
        if (st->asking.since != 0)
                follow(&st->asking, vm);

        if (is_over(st, vm, c, at))
                st->request_to = st->stop_until = 0;
        st->asks = live && st->request_to > 0;
        st->stops = at < st->stop_until;
        st->deaf = false;
        if ((st->asks || st->stops) && !c->test.no_idle_askers)
                judge(st, vm, c, at);
        if (at < st->deaf_until) {
                st->asks = st->stops = false;
                st->deaf = live;
        }

        /* It says that it stalls, and no more: one of the signs of pressure. */
        if (live && !st->deaf && q->bytes == 0 && st->pressed == 0)
                st->pressed = 1;
}

void bl_request_granted(struct bl_vm_state *st, uint64_t bytes)
{
        st->asking.given = bl_add_sat(st->asking.given, bytes);
}
