/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What can only be learned over time, for one VM: how fast it gives, whether
 * it follows at all, whether what it says it gave came back to the host, and
 * which balloon size a report belongs to.
 */
#include <string.h>

#include "internal.h"

#define SPEED_MIN (64 * BL_KIB) /* so that nothing divides by zero, and the slowest is still asked */
#define SPEED_MAX (64 * BL_GIB) /* above any memory bus: two readings a moment apart */
#define DT_MIN    (5 * BL_MSEC) /* readings closer than this say nothing about speed */

/* libvirt tells the time of a report in whole seconds, cut off (virDomainMemoryStats, LAST_UPDATE). */
#define REPORT_BLUR BL_SEC

/* A command that was decided on shows in the snapshot within this time, or was not given. */
#define ASKED_FOR BL_SEC

/* Signs of memory pressure inside a guest: pages come back from swap at this rate, or tasks wait for
 * memory for this part of the time (systemd-oomd acts from 60 %, Senpai keeps below 0.1 %). */
#define PRESSED_SWAP_IN BL_MIB
#define PRESSED_PSI     1000 /* permyriad */

/* An agent that asks for memory reports each time, many times a second. Over less than this a rate is an
 * accident, and a stall is no lasting one. */
#define GROWTH_SPAN  (250 * BL_MSEC)
#define PRESSED_SPAN (500 * BL_MSEC)

void bl_learn_reset(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c)
{
        struct bl_vm_state fresh = {
                .booted_at = vm->booted_at,
                .actual = vm->actual,
                .held = bl_held(vm),
                .peak = vm->actual,
                .own = BL_UNSET,
                .speed = bl_max(c->first_speed, SPEED_MIN),
        };

        memcpy(fresh.uuid, vm->uuid, BL_UUID_LEN);
        *st = fresh;
}

uint64_t bl_held(const struct bl_vm *vm)
{
        /* not read yet: what the balloon leaves is the best guess */
        if (vm->resident == 0)
                return vm->actual;
        return bl_sub_sat(vm->resident, vm->overhead);
}

uint64_t bl_has_or_gets(const struct bl_vm_state *st, const struct bl_vm *vm)
{
        return st->dir > 0 ? bl_max(vm->actual, st->cmd_target) : vm->actual;
}

/* --- where the balloon was, and what a report says ------------------------------------------- */

static void past_note(struct bl_vm_state *st, uint64_t actual, usec_t at)
{
        struct bl_past *last = st->n_past > 0 ? &st->past[st->n_past - 1] : NULL;

        if (last && bl_max(last->high, actual) - bl_min(last->low, actual) < 4 * BL_STEP) {
                last->low = bl_min(last->low, actual);
                last->high = bl_max(last->high, actual);
                return;
        }

        if (st->n_past == BL_PAST_MAX) {
                st->past[1].since = st->past[0].since;
                st->past[1].low = bl_min(st->past[0].low, st->past[1].low);
                st->past[1].high = bl_max(st->past[0].high, st->past[1].high);
                memmove(&st->past[0], &st->past[1], (BL_PAST_MAX - 1) * sizeof(st->past[0]));
                st->n_past--;
        }
        st->past[st->n_past++] = (struct bl_past){.since = at, .low = actual, .high = actual};
}

/* A change that was first seen after `at` may have happened before it. */
void bl_past_at(const struct bl_vm_state *st, usec_t at, usec_t blur, uint64_t *ret_low, uint64_t *ret_high)
{
        uint64_t low = UINT64_MAX, high = 0;

        for (unsigned int i = 0; i < st->n_past; i++) {
                const struct bl_past *r = &st->past[i];

                if (i + 1 < st->n_past && st->past[i + 1].since < bl_sub_sat(at, blur))
                        continue;
                low = bl_min(low, r->low);
                high = bl_max(high, r->high);
                if (r->since > at)
                        break;
        }
        *ret_low = low;
        *ret_high = high;
}

static bool rose(uint64_t before, uint64_t after, uint64_t by)
{
        return before != BL_UNSET && after != BL_UNSET && bl_sub_sat(after, before) >= bl_max(by, 1);
}

/* Does a report tell its own balloon size? */
static bool tells_balloon(const struct bl_guest_stats *s)
{
        return s->actual != 0 && s->actual != BL_UNSET;
}

/*
 * How fast what it uses grows.  Within one report MemTotal and MemAvailable belong together, so a moving
 * balloon does not disturb this, except with deflate-on-oom, where it shows as use and MemTotal stays.
 */
static void note_growth(struct bl_vm_state *st, const struct bl_guest_stats *s, bool steady)
{
        bool exact = tells_balloon(s), comparable;
        usec_t dt = bl_sub_sat(s->at, st->used_at);
        uint64_t used, rate;

        /* a report that tells its own balloon size is not disturbed by anything */
        used = bl_sub_sat(exact ? s->actual : s->total, bl_guest_available(s));
        if (exact != st->used_exact)
                st->total = 0;
        st->used_steady &= steady || exact;
        st->used_exact = exact;
        comparable = st->total != 0 && (st->used_steady || s->total != st->total);
        rate = bl_min(bl_mul_sat(bl_sub_sat(used, st->used), BL_SEC) / bl_max(dt, GROWTH_SPAN), SPEED_MAX);
        if (st->total != 0 && s->at >= st->used_at && dt < GROWTH_SPAN) {
                if (comparable)
                        st->need_rate = bl_max(st->need_rate, rate);
                return;
        }
        if (comparable && dt > 0)
                st->need_rate = rate;
        st->total = s->total;
        st->used = used;
        st->used_at = s->at;
        st->used_steady = true;
}

static uint64_t rate_of(uint64_t before, uint64_t after, usec_t dt, uint64_t unit)
{
        if (before == BL_UNSET || after == BL_UNSET)
                return 0;
        return bl_mul_sat(bl_sub_sat(after, before), unit) / dt;
}

static void note_pressure(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c)
{
        const struct bl_guest_stats *s = &vm->stats;
        usec_t dt = bl_sub_sat(s->at, st->pressed_at);
        bool pressed;

        if (st->pressed_at != 0 && dt > 0) {
                if (dt < PRESSED_SPAN)
                        return;
                pressed = (rose(st->swap_in, s->swap_in, bl_rate_times(PRESSED_SWAP_IN, dt)) &&
                           !c->test.no_thrash_check) ||
                          rose(st->psi_some, s->psi_some, bl_part(dt, PRESSED_PSI));
                st->pressed = pressed ? st->pressed + (st->pressed < 1000) : 0;
                if (pressed || st->thrashes)
                        bl_learn_thrash(st, vm, c, rate_of(st->swap_in, s->swap_in, dt, BL_SEC),
                                        rate_of(st->psi_some, s->psi_some, dt, BL_WHOLE));
        }
        st->pressed_at = s->at;
        st->swap_in = s->swap_in;
        st->psi_some = s->psi_some;
}

/*
 * The balloon size of a report.  When it was made is known to a second or so, and the balloon may have
 * moved within that.  Linux lets MemTotal follow the balloon (unless deflate-on-oom was negotiated), so
 * once the difference is known, a report tells its balloon size by itself.
 */
static void place_report(struct bl_vm_state *st, const struct bl_vm *vm)
{
        const struct bl_guest_stats *s = &vm->stats;
        uint64_t low, high, told;

        if (tells_balloon(s)) {
                st->report_low = st->report_high = s->actual;
                return;
        }

        bl_past_at(st, s->at, REPORT_BLUR, &low, &high);
        /* From before we first saw the VM, or just after: a balloon that was being filled then may have
         * been empty when the report was made. */
        if (st->past[0].since > bl_sub_sat(s->at, REPORT_BLUR))
                high = bl_max(high, vm->max);
        if (st->total != 0 && bl_distance(s->total, st->total) >= 2 * BL_STEP)
                st->follows = true;

        if (high - low < 4 * BL_STEP) {
                st->own = high >= s->total ? high - s->total : BL_UNSET;
        } else if (st->follows && st->own != BL_UNSET) {
                told = bl_add_sat(s->total, st->own);
                if (told + 8 * BL_STEP >= low && told <= high + 8 * BL_STEP)
                        low = high = told;
        }
        st->report_low = low;
        st->report_high = high;
}

static void note_report(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c)
{
        const struct bl_guest_stats *s = &vm->stats;
        uint64_t low = st->report_low, high = st->report_high;
        bool good;

        if (s->source == BL_STATS_NONE || s->at == 0 || s->at == BL_UNSET || s->at == st->report_at)
                return;

        good = bl_stats_check(s, vm->max, s->at) == BL_STATS_GOOD;
        if (good)
                place_report(st, vm);
        else
                bl_past_at(st, s->at, REPORT_BLUR, &st->report_low, &st->report_high);

        note_pressure(st, vm, c);
        if (good)
                note_growth(st, s, bl_max(high, st->report_high) - bl_min(low, st->report_low) < 8 * BL_STEP);
        else
                st->need_rate = st->total = 0;
        st->report_at = s->at;
        st->report_held = bl_held(vm);
}

/* --- commands and how they are followed ------------------------------------------------------- */

static void note_command(struct bl_vm_state *st, const struct bl_vm *vm, bool first, usec_t at)
{
        uint64_t before = first ? vm->actual : st->actual;
        int dir = 0;

        if (!first && vm->target == st->cmd_target && vm->target_at == st->cmd_at) {
                if (bl_sub_sat(at, st->asked_at) > ASKED_FOR && !vm->in_flight)
                        st->asked = 0;
                return;
        }

        if (bl_add_sat(vm->target, BL_STEP) <= before)
                dir = -1;
        else if (vm->target >= bl_add_sat(before, BL_STEP))
                dir = 1;

        if (dir > 0 && !first) {
                uint64_t had = st->dir > 0 ? bl_max(st->cmd_target, before) : before;

                st->credit = bl_add_sat(st->credit, bl_sub_sat(vm->target, had));
        }

        /* a further command in the same direction does not start the clock again: a guest that gives
         * nothing must not stay unnoticed because it is asked often */
        if (dir == 0 || dir != st->dir) {
                st->best = before;
                st->best_held = bl_held(vm);
                st->progress_at = st->actual_at = first || vm->target_at == 0 ? at : vm->target_at;
                st->moved = false;
        }

        st->cmd_target = vm->target;
        st->cmd_at = vm->target_at;
        st->dir = dir;
        if (dir != 0)
                st->last_dir = dir;
        if (dir < 0)
                st->wont_grow = false;
        st->park = false;
        st->asked = 0;
}

static void note_speed(struct bl_policy *p, struct bl_vm_state *st, const struct bl_vm *vm, bool done, usec_t at)
{
        uint64_t moved = bl_sub_sat(st->actual, vm->actual), rate;
        usec_t since = bl_max(st->seen_at, st->cmd_at), dt = bl_sub_sat(at, since);

        if (!st->moved && moved > 0) {
                usec_t took = bl_clamp(bl_sub_sat(at, st->cmd_at), 10 * BL_MSEC, 5 * BL_SEC);

                p->latency = (3 * p->latency + took) / 4;
        }

        if (dt < DT_MIN)
                return;
        rate = bl_clamp(bl_mul_sat(moved, BL_SEC) / dt, SPEED_MIN, SPEED_MAX);

        if (done) {
                /* it was done some time within the interval: at least this fast */
                st->speed = bl_max(st->speed, rate);
        } else if (st->moved) {
                /* one whole interval of moving; the first such replaces the assumption */
                st->speed = st->speed_known ? (3 * st->speed + rate) / 4 : rate;
                st->speed_known = true;
        }
}

static void note_progress(struct bl_policy *p, struct bl_vm_state *st, const struct bl_vm *vm,
                          const struct bl_policy_config *c, usec_t at)
{
        bool down = st->dir < 0, done, gained;

        if (st->dir == 0)
                return;

        /* its vCPUs, libvirt or the command itself stand still: not the guest's fault */
        if (vm->run != BL_RUN_RUNNING || vm->hung || vm->in_flight)
                st->progress_at = st->actual_at = at;

        done = down ? vm->actual < bl_add_sat(st->cmd_target, BL_STEP)
                    : bl_add_sat(vm->actual, BL_STEP) > st->cmd_target;
        gained = down ? bl_add_sat(vm->actual, BL_STEP) <= st->best : vm->actual >= bl_add_sat(st->best, BL_STEP);

        if (down && vm->run == BL_RUN_RUNNING)
                note_speed(p, st, vm, done, at);

        if (gained || done) {
                st->moved = true;
                st->best = vm->actual;
                st->progress_at = st->actual_at = at;
                if (down) {
                        st->stuck = false;
                        if (bl_add_sat(vm->actual, BL_STEP) <= st->bottom || st->bottom == 0) {
                                st->bottom = 0;
                                st->failures = 0;
                        }
                } else {
                        st->wont_grow = false;
                }
        }

        /* Some drivers tell their new size only at the end; the host sees memory come back meanwhile.
         * That it does so for other reasons (swapped out, merged) excuses nobody for ever. */
        if (down && bl_add_sat(bl_held(vm), BL_STEP) <= st->best_held) {
                st->best_held = bl_held(vm);
                if (bl_sub_sat(at, st->actual_at) < bl_mul_sat(c->stuck_after, 4))
                        st->progress_at = at;
        }

        if (done)
                st->dir = 0;
}

static void failed(struct bl_vm_state *st, const struct bl_policy_config *c, usec_t at)
{
        usec_t wait = c->retry_first;

        for (unsigned int i = 0; i < st->failures && wait < c->retry_max; i++)
                wait = bl_mul_sat(wait, 2);
        if (st->failures < 64)
                st->failures++;
        st->retry_at = bl_add_sat(at, bl_min(wait, c->retry_max));
        st->park = true;
        st->dir = 0;
}

static void judge_following(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c, usec_t at)
{
        if (at >= st->retry_at && st->dir == 0)
                st->wont_grow = false;

        if (c->test.no_stuck_detection)
                return;

        if (vm->oom_deflate && vm->actual >= bl_add_sat(vm->target, BL_STEP)) {
                /* it needed the pages back at once: that is the lowest it can do for now */
                if (st->bottom < vm->actual) {
                        st->bottom = vm->actual;
                        failed(st, c, at);
                }
                return;
        }

        if (st->dir == 0 || bl_sub_sat(at, st->progress_at) < c->stuck_after)
                return;

        if (st->dir > 0) {
                st->wont_grow = true;
        } else {
                st->stuck = !st->moved;
                st->bottom = vm->actual;
        }
        failed(st, c, at);
}

/* Its balloon says that it gave, and the host still holds the memory.  `resident` can only be judged
 * against where it agreed before: how much of it is the VMM's own is an estimate. */
static void judge_honesty(struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c, usec_t at)
{
        uint64_t slack = bl_max(64 * BL_MIB, vm->actual / 32), held = bl_held(vm);

        if (held <= bl_add_sat(vm->actual, slack / 2)) {
                st->peak = vm->actual;
                st->suspect_at = 0;
                st->lying = false;
                return;
        }

        st->peak = bl_max(st->peak, vm->actual);
        if (held <= bl_add_sat(vm->actual, slack) || bl_sub_sat(st->peak, vm->actual) < slack / 2)
                return;

        if (st->suspect_at == 0)
                st->suspect_at = at;
        else if (at - st->suspect_at >= c->lying_after && vm->resident_at > st->suspect_at)
                st->lying = true;
}

/* How fast the host sees it take memory; falls off within a second, so that a pause of a moment is no rest. */
static void note_touching(struct bl_vm_state *st, uint64_t held, usec_t dt)
{
        uint64_t rate;

        if (st->seen_at == 0 || dt < DT_MIN)
                return;
        rate = bl_min(bl_mul_sat(bl_sub_sat(held, st->held), BL_SEC) / dt, SPEED_MAX);
        st->held_rate = bl_max(rate, bl_sub_sat(st->held_rate, bl_rate_times(st->held_rate, dt)));
}

void bl_learn(struct bl_policy *p, struct bl_vm_state *st, const struct bl_vm *vm, const struct bl_policy_config *c,
              usec_t at)
{
        uint64_t held = bl_held(vm), promised;
        bool first;

        if (st->booted_at != vm->booted_at)
                bl_learn_reset(st, vm, c);
        first = st->seen_at == 0;

        past_note(st, vm->actual, at);
        note_report(st, vm, c);
        note_command(st, vm, first, at);
        note_progress(p, st, vm, c, at);
        judge_following(st, vm, c, at);
        judge_honesty(st, vm, c, at);
        bl_learn_request(st, vm, c, at);
        if (st->thrash_to != 0)
                bl_thrash_fade(st, at);

        /* Memory that was granted and then touched is no longer owed; nor is what the guest no longer has. */
        promised = bl_sub_sat(bl_has_or_gets(st, vm), held);
        st->spent = bl_min(st->credit, bl_sub_sat(held, st->held));
        st->credit = bl_min(st->credit - st->spent, promised);
        if (bl_sub_sat(at, st->cmd_at) > BL_PROMISE_KEPT)
                st->credit = 0;

        note_touching(st, held, bl_sub_sat(at, st->seen_at));
        st->actual = vm->actual;
        st->held = held;
        st->seen_at = at;
}
