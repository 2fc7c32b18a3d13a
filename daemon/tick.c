// SPDX-License-Identifier: LGPL-2.1-or-later
/* snapshot -> policy -> plan -> act, and what came of it. */
#include <string.h>

#include "daemon/act/balloon.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

#define TICK_REST (1 * BL_SEC)
/* A failure that repeats is told again then. */
#define FAILURE_AGAIN (10 * BL_SEC)

#define TICK_BUSY (100 * BL_MSEC) /* while memory moves, or is short */

/* --- snapshot -------------------------------------------------------------- */

int bl_snapshot_build(struct bl_manager *m, usec_t now, struct bl_snapshot *ret)
{
        struct bl_snapshot s = {.at = now, .host = m->host};

        bl_swap_store_state(m, now, &s.store);
        bl_share_state(m, &s.share);
        s.vms = calloc(m->n_guests ? m->n_guests : 1, sizeof *s.vms);
        if (!s.vms)
                return -ENOMEM;
        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_vm *vm = &s.vms[s.n_vms];

                if (!bl_guest_to_vm(m->guests[i], now, vm))
                        continue;
                vm->name = strdup(m->guests[i]->name);
                if (!vm->name) {
                        bl_snapshot_clear(&s);
                        return -ENOMEM;
                }
                s.n_vms++;
        }
        *ret = s;
        return 0;
}

/* --- failures -------------------------------------------------------------- */

/* The same failure is worth a line now and then, not one a tick.  `what`: any
 * number for the kind, not 0. */
static bool failed_anew(struct bl_guest *g, int what)
{
        usec_t now = bl_now();

        if (g->failure == what && now - g->failure_at < FAILURE_AGAIN)
                return false;
        g->failure = what;
        g->failure_at = now;
        return true;
}

/* --- act ------------------------------------------------------------------- */

/* One line in the history for each thing that would be done, not one per tick. */
static void note_not_acting(struct bl_guest *g, const struct bl_decision *d)
{
        if (g->told_why == d->why && bl_distance(d->to, g->told_to) < 16 * BL_MIB)
                return;
        g->told_why = d->why;
        g->told_to = d->to;
        bl_manager_note(g->m, g, LOG_INFO, BL_EV_PLAIN, bl_reason_to_string(d->why), "not-acting", d->from, d->to,
                        "would act: %s", g->sentence);
}

static void act(struct bl_guest *g, const struct bl_vm *vm, const struct bl_decision *d)
{
        struct bl_engine *e = g->m->engines[d->engine];
        int r;

        if (d->engine == BL_ENGINE_BALLOON) {
                if (d->to < d->from)
                        bl_actions_before_taking(g, d->from, d->to);
                g->under_way.why = d->why;
                memcpy(g->under_way.sentence, g->sentence, sizeof g->under_way.sentence);
        }
        r = e->ops->apply(e, vm, d);
        if (r < 0 && r != -EBUSY && r != -ESTALE && failed_anew(g, r))
                bl_manager_note(g->m, g, LOG_ERR, BL_EV_BALLOON_FAILED, bl_reason_to_string(d->why), "failed", d->from,
                                d->to, "nothing was done to %s: %s", g->name, strerror(-r));
}

static void carry_out(struct bl_manager *m, const struct bl_snapshot *s)
{
        bool acting = bl_manager_acting(m);

        for (size_t i = 0; i < m->plan.n; i++) {
                const struct bl_decision *d = &m->plan.d[i];
                const struct bl_vm *vm = &s->vms[i];
                struct bl_guest *g = bl_manager_find(m, vm->uuid);

                if (!g)
                        continue;
                (void)bl_explain(&m->plan, s, i, g->sentence, sizeof g->sentence);
                if (d->stuck && !(g->decided && g->decision.stuck))
                        bl_manager_note(m, g, LOG_WARNING, BL_EV_STUCK, "guest.stuck", "seen", vm->actual, vm->target,
                                        "%s does not follow its balloon target; the others give instead", g->name);
                g->decision = *d;
                g->decided = true;
                bl_guests_tell(g);
                if (!d->act)
                        continue;
                if (acting && m->connected)
                        act(g, vm, d);
                else if (!acting)
                        note_not_acting(g, d);
        }
}

static void note_state(struct bl_manager *m, enum bl_host_state was)
{
        const char *from, *to;
        char free[32], mark[32];

        if (m->planned && m->plan.state == was)
                return;
        from = bl_state_to_string(was);
        to = bl_state_to_string(m->plan.state);
        m->state_since = bl_now_wall();
        bl_manager_note(m, NULL, m->plan.state >= BL_STATE_SOFT ? LOG_WARNING : LOG_INFO, BL_EV_STATE, "host.state",
                        "seen", BL_UNSET, BL_UNSET, "the host is %s: %s free, minFree is %s", to,
                        bl_size_format(m->host.free, free, sizeof free),
                        bl_size_format(m->plan.marks.min_free, mark, sizeof mark));
        if (from != to)
                bl_bus_state_changed(m->bus, from, to);
        bl_manager_notify_status(m);
}

static bool is_waiting(const struct bl_plan *p)
{
        for (size_t i = 0; i < p->n; i++)
                if (p->d[i].due > bl_sub_sat(p->d[i].to, p->d[i].from))
                        return true;
        return false;
}

static bool is_pressed(const struct bl_plan *p)
{
        return p->state >= BL_STATE_SOFT || p->shortfall > 0;
}

static bool is_busy(const struct bl_manager *m)
{
        if (is_pressed(&m->plan) || m->plan.coming > 0 || bl_share_busy(m))
                return true;
        for (size_t i = 0; i < m->plan.n; i++)
                if (m->plan.d[i].act || m->plan.d[i].why == BL_WHY_IN_FLIGHT)
                        return true;
        return false;
}

void bl_tick_now(struct bl_manager *m)
{
        enum bl_host_state was = m->plan.state;
        usec_t now;
        struct bl_snapshot s;
        struct bl_plan plan;
        bool pressed;

        for (size_t i = 0; i < m->n_guests && !bl_host_needs_usage(m->host_sensor); i++)
                bl_sample_host_mem(m->guests[i], bl_now());
        now = bl_now();
        bl_kernel_tiers_look(m, now);
        bl_share_look(m, now);
        m->tick_at = now;
        /* also after a tick that fails for want of memory */
        bl_tick_soon(m, TICK_REST);
        if (bl_snapshot_build(m, now, &s) < 0)
                return;
        if (bl_policy_decide(m->policy, &s, &m->conf->policy, now, &plan) < 0) {
                bl_snapshot_clear(&s);
                return;
        }
        bl_host_psi_clear(m->host_sensor);
        pressed = is_pressed(&m->plan);
        bl_plan_clear(&m->plan);
        m->plan = plan;
        if (is_pressed(&m->plan) && !pressed)
                bl_poll_pressed(m);
        note_state(m, was);
        m->planned = true;
        m->free_at_tick = m->host.free;
        m->waiting = is_waiting(&m->plan);
        carry_out(m, &s);
        bl_share_carry_out(m, &s);
        bl_swap_tick(m, now);
        bl_shadow_drop(m, now);
        bl_snapshot_clear(&s);
        bl_tick_soon(m, is_busy(m) ? TICK_BUSY : TICK_REST);
}

static int on_tick(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bl_manager *m = userdata;

        (void)s;
        (void)usec;
        /* the regular tick must not decide on an old sample */
        bl_sample_now(m);
        bl_tick_now(m);
        return 0;
}

void bl_tick_soon(struct bl_manager *m, usec_t in)
{
        (void)sd_event_source_set_time(m->tick_timer, bl_now() + in);
        (void)sd_event_source_set_enabled(m->tick_timer, SD_EVENT_ONESHOT);
}

int bl_tick_start(struct bl_manager *m)
{
        return sd_event_add_time(m->event, &m->tick_timer, CLOCK_MONOTONIC, 0, 10 * BL_MSEC, on_tick, m);
}

/* --- what came of it ------------------------------------------------------- */

static void on_command(void *userdata, const uint8_t uuid[BL_UUID_LEN], uint64_t from, uint64_t to)
{
        struct bl_guest *g = bl_manager_find(userdata, uuid);
        usec_t now = bl_now();

        if (!g)
                return;
        bl_watch_command(&g->watch, from, to, now);
        g->target_before = g->target;
        g->target_before_at = g->target_at;
        g->target = to;
        g->target_at = now;
        bl_poll_soon(g, now + 100 * BL_MSEC);
}

static enum bl_watch_answer answer_of(enum bl_outcome o)
{
        switch (o) {
        case BL_OUTCOME_DONE:
                return BL_WATCH_ANSWER_DONE;
        case BL_OUTCOME_REFUSED:
        case BL_OUTCOME_FAILED:
                return BL_WATCH_ANSWER_REFUSED;
        case BL_OUTCOME_UNKNOWN:
                return BL_WATCH_ANSWER_UNKNOWN;
        }
        return BL_WATCH_ANSWER_UNKNOWN;
}

static void count(struct bl_manager *m, const struct bl_balloon_result *r)
{
        if (r->outcome != BL_OUTCOME_DONE) {
                m->n_failed++;
                return;
        }
        m->n_commands++;
        if (r->to < r->from)
                m->taken_total = bl_add_sat(m->taken_total, r->from - r->to);
        else
                m->given_total = bl_add_sat(m->given_total, r->to - r->from);
}

static void on_result(void *userdata, const struct bl_balloon_result *r)
{
        struct bl_manager *m = userdata;
        struct bl_guest *g = bl_manager_find(m, r->uuid);
        const char *reason, *outcome = bl_outcome_to_string(r->outcome);
        bool refused = answer_of(r->outcome) == BL_WATCH_ANSWER_REFUSED;
        int priority = r->outcome == BL_OUTCOME_REFUSED ? LOG_INFO : LOG_WARNING;

        count(m, r);
        if (!g)
                return;
        bl_watch_answered(&g->watch, r->to, answer_of(r->outcome), bl_now());
        /* one more look has asked QEMU itself: fresher than any event */
        if (r->found != BL_UNSET)
                g->actual = r->found;
        reason = r->undo ? "rollback" : r->by_hand ? "balloon.by-hand" : bl_reason_to_string(g->under_way.why);
        if (refused) {
                g->target = g->target_before;
                g->target_at = g->target_before_at;
        } else {
                g->oom_deflate = false;
        }
        if (r->outcome == BL_OUTCOME_DONE) {
                g->failure = 0;
                bl_manager_note(m, g, LOG_INFO, BL_EV_BALLOON, reason, outcome, r->from, r->to, "%s",
                                r->undo || r->by_hand ? (r->message ? r->message : "balloon set")
                                                      : g->under_way.sentence);
                g->told_why = _BL_WHY_MAX;
        } else if (failed_anew(g, 1 + (int)r->outcome * 16 + (int)r->look) || r->by_hand) {
                bl_manager_note(m, g, priority, BL_EV_BALLOON_FAILED, reason, outcome, r->from, r->to,
                                "balloon of %s not set%s%s", g->name, r->message ? ": " : "",
                                r->message ? r->message : "");
        }
        bl_poll_soon(g, bl_now() + 50 * BL_MSEC);
}

static void on_ledger_error(void *userdata, int r)
{
        bl_manager_not_saved(userdata, r);
}

const struct bl_balloon_handler bl_tick_balloon_handler = {
        .on_command = on_command,
        .on_result = on_result,
        .on_ledger_error = on_ledger_error,
};
