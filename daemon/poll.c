// SPDX-License-Identifier: LGPL-2.1-or-later
/* What each VM says: its balloon's size and its statistics; and who moved the balloon. */
#include <string.h>

#include "daemon/act/balloon.h"
#include "daemon/manager-private.h"
#include "daemon/util/clock.h"
#include "daemon/util/size.h"

/* While a balloon moves its size is worth a call each so often: QEMU's own
 * event comes at most once a second. */
#define POLL_MOVING  (200 * BL_MSEC)
#define EXACT_AFTER  (5 * BL_SEC)
#define POLL_PRESSED (1 * BL_SEC)
#define POLL_FAILED  (1 * BL_SEC)

void bl_poll_rearm(struct bl_manager *m)
{
        usec_t next = m->list_at ? m->list_at : UINT64_MAX;

        for (size_t i = 0; i < m->n_guests; i++)
                if (!m->guests[i]->sensing)
                        next = bl_min(next, m->guests[i]->sense_at);
        if (next == UINT64_MAX) {
                (void)sd_event_source_set_enabled(m->poll_timer, SD_EVENT_OFF);
                return;
        }
        (void)sd_event_source_set_time(m->poll_timer, next);
        (void)sd_event_source_set_enabled(m->poll_timer, SD_EVENT_ONESHOT);
}

void bl_poll_soon(struct bl_guest *g, usec_t at)
{
        if (at == 0 || at < g->sense_at) {
                g->sense_at = bl_max(at, 1);
                bl_poll_rearm(g->m);
        }
}

void bl_poll_pressed(struct bl_manager *m)
{
        usec_t now = bl_now();

        for (size_t i = 0; i < m->n_guests; i++)
                m->guests[i]->sense_at = bl_min(m->guests[i]->sense_at, now);
        bl_poll_rearm(m);
}

static bool is_moving(const struct bl_guest *g, usec_t now)
{
        return g->target_at > 0 && bl_distance(g->actual, g->target) >= BL_MIB && now - g->target_at < 30 * BL_SEC;
}

/* libvirt repeats the size of QEMU's last event, which may be a second old: after
 * a command QEMU itself is asked, or a balloon that has arrived would seem to go back. */
static bool needs_exact(const struct bl_guest *g, usec_t now)
{
        return is_moving(g, now) || (g->target_at > 0 && now - g->target_at < EXACT_AFTER);
}

static usec_t next_poll(const struct bl_guest *g, usec_t now)
{
        if (is_moving(g, now))
                return now + POLL_MOVING;
        if (g->m->plan.state >= BL_STATE_SOFT || g->m->plan.shortfall > 0)
                return now + POLL_PRESSED;
        /* nearly as often as it reports: its figures must not grow old between two looks (bl_stats_check: three
         * periods), and as soon as the host is short all are asked (bl_poll_pressed) */
        return now + bl_max(POLL_PRESSED, g->m->conf->stats_period * 3 / 2);
}

/* --- who moved the balloon ----------------------------------------------- */

static void moved_by_hand(struct bl_guest *g, const struct bl_watch_report *w)
{
        struct bl_manager *m = g->m;
        const struct bl_ledger_vm *record;
        char size[32], sentence[160];

        (void)snprintf(sentence, sizeof sentence, "its balloon was set to %s by somebody else",
                       bl_size_format(w->now, size, sizeof size));
        if (bl_ledger_add(m->ledger, g->uuid, g->name, &record) < 0)
                return;
        (void)bl_ledger_forget_targets(m->ledger, g->uuid);
        /* "ballastctl hold" outlives the VM's process, and is not weakened to what does not */
        if (record->hold != BL_HOLD_ADMIN)
                (void)bl_ledger_set_hold(m->ledger, g->uuid, BL_HOLD_HAND, sentence, bl_now_wall());
        (void)bl_manager_save(m, true);
        g->target_at = 0;
        bl_manager_note(m, g, LOG_NOTICE, BL_EV_HAND, "hold.hand", "seen", w->was, w->now,
                        "%s is held: %s; 'ballastctl release %s' hands it back", g->name, sentence, g->name);
}

static void judge(struct bl_guest *g, const struct bl_watch_report *w)
{
        struct bl_manager *m = g->m;
        char now[32], target[32];

        (void)bl_size_format(w->now, now, sizeof now);
        (void)bl_size_format(w->target, target, sizeof target);
        switch (w->verdict) {
        case BL_WATCH_MOVING:
                if (w->look_again)
                        bl_poll_soon(g, w->look_again);
                break;
        case BL_WATCH_UNCHANGED:
        case BL_WATCH_BASELINE:
                break;
        case BL_WATCH_SETTLED:
                bl_log_debug("%s reached its balloon target of %s", g->name, target);
                break;
        case BL_WATCH_INCOMPLETE:
                bl_manager_note(m, g, LOG_INFO, BL_EV_BALLOON, "balloon.incomplete", "seen", w->was, w->now,
                                "%s stopped at %s on its way to %s", g->name, now, target);
                break;
        case BL_WATCH_LATE:
                bl_manager_note(m, g, LOG_INFO, BL_EV_BALLOON, "balloon.late", "seen", w->was, w->now,
                                "an earlier command to %s took effect late: it is at %s", g->name, now);
                break;
        case BL_WATCH_OOM:
                g->oom_deflate = true;
                g->oom_deflates++;
                bl_manager_note(m, g, LOG_WARNING, BL_EV_OOM_DEFLATE, "guest.oom-deflate", "seen", w->was, w->now,
                                "%s ran out of memory and took some back by itself: it is at %s", g->name, now);
                break;
        case BL_WATCH_REBOOT:
        case BL_WATCH_RELOAD:
                bl_manager_note(m, g, LOG_INFO, BL_EV_REBOOT, "guest.balloon-restarted", "seen", w->was, w->now,
                                "the balloon of %s began anew (%s): it is at %s", g->name,
                                w->verdict == BL_WATCH_REBOOT ? "the guest rebooted" : "its driver was reloaded", now);
                break;
        case BL_WATCH_HAND:
                moved_by_hand(g, w);
                break;
        case _BL_WATCH_MAX:
                break;
        }
}

/* What an earlier daemon did to this VM, from the ledger, into the watch. */
static void recall(struct bl_guest *g, usec_t now)
{
        struct bl_manager *m = g->m;
        const struct bl_ledger_vm *record = bl_ledger_find(m->ledger, g->uuid);
        bool known = record && record->instance.pid != 0;
        usec_t now_wall = bl_now_wall();
        char size[32];

        (void)bl_ledger_add(m->ledger, g->uuid, g->name, &record);
        if (g->desc->has_instance &&
            bl_ledger_set_instance(m->ledger, g->uuid, &g->desc->instance, g->birth, g->actual) > 0 && known)
                bl_log(LOG_INFO, BL_EV_RECOVERED, g->name, "recover.void",
                       "%s started anew: what was done to it before is void", g->name);
        for (size_t i = 0; record && i < record->n_targets; i++) {
                const struct bl_ledger_target *t = &record->targets[i];
                usec_t at = bl_sub_sat(now, bl_sub_sat(now_wall, t->at_wall));

                bl_watch_command(&g->watch, t->from, t->to, bl_max(at, 1));
                bl_watch_answered(&g->watch, t->to,
                                  t->state == BL_TARGET_DONE ? BL_WATCH_ANSWER_DONE : BL_WATCH_ANSWER_UNKNOWN, at);
                /* One that may never have been given is not waited for: the guest would be
                 * taken for stuck.  If it was given, the guest is at it, or on its way. */
                g->target_at = t->state == BL_TARGET_DONE ? bl_max(at, 1) : 0;
                g->target = t->to;
                if (t->state == BL_TARGET_IN_FLIGHT) {
                        (void)bl_ledger_end(m->ledger, g->uuid, t->to, false, BL_TARGET_UNKNOWN);
                        bl_manager_note(m, g, LOG_NOTICE, BL_EV_RECOVERED, "recover.in-flight", "seen", t->from, t->to,
                                        "an earlier ballastd ended while it set the balloon of %s to %s; "
                                        "going on from what is found",
                                        g->name, bl_size_format(t->to, size, sizeof size));
                }
        }
        if (record && record->original != BL_UNSET)
                bl_log(LOG_INFO, BL_EV_RECOVERED, g->name, "recover.original",
                       "%s had %s before Ballast first changed it; 'ballastctl rollback' restores that", g->name,
                       bl_size_format(record->original, size, sizeof size));
        (void)bl_manager_save(m, false);
        /* everything else is as it was found already: this one was in a file then */
        if (g->birth == BL_BIRTH_MOVED && bl_ledger_rollback(m->ledger) == BL_ROLLBACK_DONE && record &&
            record->hold == BL_HOLD_NONE && bl_ledger_vm_dirty(record))
                (void)bl_rollback_begin(m);
        g->birth = BL_BIRTH_SEEN;
        g->watching = true;
        bl_discover_period(g);
}

void bl_poll_balloon_seen(struct bl_guest *g, uint64_t actual, usec_t at)
{
        struct bl_watch_observation o = {
                .actual = actual,
                .at = at,
                .stats_at = g->balloon_stats.source ? g->balloon_stats.at : 0,
                .available = g->balloon_stats.source ? g->balloon_stats.available : BL_UNSET,
                .major_faults = g->balloon_stats.source ? g->balloon_stats.major_faults : BL_UNSET,
        };
        struct bl_watch_report w;

        if (!g->desc || actual == BL_UNSET)
                return;
        g->actual = actual;
        g->actual_at = at;
        if (!g->watching)
                recall(g, at);
        bl_watch_observe(&g->watch, &o, &w);
        judge(g, &w);
}

/* --- asking -------------------------------------------------------------- */

static void take_state(struct bl_guest *g, const struct bl_domain_state *s, usec_t now)
{
        usec_t period = bl_max(g->m->conf->stats_period, BL_SEC);

        /* the VM's own, where it is left as it is */
        if (g->desc && g->desc->live.stats_period > 0)
                period = g->desc->live.stats_period * BL_SEC;
        if (s->run != BL_RUN_MIGRATING)
                bl_discover_run(g, s->run);
        else if (g->desc)
                g->desc->migrating = true;
        if (s->stats.source != BL_STATS_NONE && (!g->balloon_stats.source || s->stats.at >= g->balloon_stats.at)) {
                g->balloon_stats = s->stats;
                g->balloon_stats.period = period;
        }
        if (s->current != BL_UNSET)
                bl_poll_balloon_seen(g, s->current, bl_min(s->at, now));
}

static void on_sensed(void *userdata, int r, const char *message, const struct bl_domain_state *s)
{
        struct bl_call *c = userdata;
        struct bl_manager *m = c->m;
        struct bl_guest *g = bl_call_guest(c);
        usec_t now = bl_now();
        bool moved;

        free(c);
        if (!g)
                return;
        g->sensing = false;
        if (r == -ENOENT) {
                g->sense_at = now + POLL_FAILED;
                bl_poll_rearm(m);
                bl_discover_not_there(g);
                return;
        }
        if (r < 0) {
                if (r == -EHOSTDOWN && !g->stopped)
                        bl_manager_note(m, g, LOG_WARNING, BL_EV_VM, "vm.stopped-process", "seen", BL_UNSET, BL_UNSET,
                                        "the process of %s is stopped; it is left alone until it goes on", g->name);
                else if (r != -EHOSTDOWN && r != -ECANCELED && r != -ENOTCONN)
                        bl_log_debug("%s: %s", g->name, message ? message : strerror(-r));
                g->stopped = r == -EHOSTDOWN;
                g->sense_at = now + POLL_FAILED;
                bl_poll_rearm(m);
                return;
        }
        g->stopped = false;
        moved = s->current != BL_UNSET && s->current != g->actual;
        g->sense_at = next_poll(g, now);
        take_state(g, s, now);
        bl_poll_rearm(m);
        /* whoever waits for what this VM gives wants to know at once */
        if (moved && (m->plan.state >= BL_STATE_SOFT || m->plan.shortfall > 0))
                bl_tick_soon(m, 0);
}

static void sense(struct bl_guest *g, usec_t now)
{
        const struct bl_instance *inst;
        struct bl_call *c;
        int r;

        g->sense_at = now + POLL_FAILED;
        if (!bl_conn_connected(g->m->conn))
                return;
        /* that a migration failed no event says */
        if (!g->describing && (!g->desc || g->describe_due || g->desc->migrating))
                bl_discover_describe(g);
        if (!g->desc)
                return;
        c = bl_call_new(g);
        if (!c)
                return;
        inst = g->desc->has_instance ? &g->desc->instance : NULL;
        r = bl_domain_sense(g->m->conn, g->uuid, inst, needs_exact(g, now), on_sensed, c);
        if (r < 0)
                free(c);
        else
                g->sensing = true;
}

static int on_poll(sd_event_source *s, uint64_t usec, void *userdata)
{
        struct bl_manager *m = userdata;
        usec_t now = bl_now();

        (void)s;
        (void)usec;
        if (m->list_at && m->list_at <= now)
                bl_discover_all(m);
        for (size_t i = 0; i < m->n_guests; i++) {
                struct bl_guest *g = m->guests[i];

                if (!g->sensing && g->sense_at <= now)
                        sense(g, now);
                bl_guests_connect(g);
        }
        bl_poll_rearm(m);
        return 0;
}

int bl_poll_start(struct bl_manager *m)
{
        int r = sd_event_add_time(m->event, &m->poll_timer, CLOCK_MONOTONIC, 0, 20 * BL_MSEC, on_poll, m);

        if (r >= 0)
                r = sd_event_source_set_enabled(m->poll_timer, SD_EVENT_OFF);
        return r;
}
