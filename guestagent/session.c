/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "guestagent/session.h"

/* Reads per step; the rest waits for the next, so that a host that floods us
 * cannot keep the reports from going out. */
#define READS_PER_STEP 4

void guest_session_init(struct guest_session *s, const struct guest_setup *setup)
{
        *s = (struct guest_session){
                .reader = setup->reader,
                .hello = *setup->hello,
                .period = BL_WIRE_PERIOD_DEFAULT,
        };
        guest_link_init(&s->link, setup->transports, setup->n_transports, setup->log);
        guest_watch_init(&s->watch, setup->reader, setup->root);
        guest_actions_init(&s->actions, setup->root);
        guest_swap_init(&s->swap, setup->root);
        guest_status_init(&s->status, setup->status_file, setup->log);
        bl_wire_entitlement_init(&s->grant);
}

void guest_session_end(struct guest_session *s)
{
        guest_actions_cancel(&s->actions);
        guest_swap_end(&s->swap);
        guest_link_end(&s->link);
        guest_watch_end(&s->watch);
        guest_status_end(&s->status);
}

/* May we tell this host more than that we are there? */
static bool is_heard(const struct guest_session *s)
{
        return guest_link_is_up(&s->link) && s->greeted && !s->refused && !s->hello_due;
}

/* Requests and pressure came with minor version 1. */
static bool may_ask(const struct guest_session *s)
{
        return is_heard(s) && s->minor >= 1;
}

usec_t guest_session_poll(const struct guest_session *s, struct pollfd ret[_GUEST_POLL_MAX], usec_t now)
{
        usec_t wait = guest_link_poll(&s->link, &ret[GUEST_POLL_STREAM], &ret[GUEST_POLL_TRIAL], now);
        usec_t look = guest_watch_poll(&s->watch, &ret[GUEST_POLL_PSI], &ret[GUEST_POLL_ALARM], now);

        /* nobody to tell: no look */
        if (may_ask(s))
                wait = bl_min(wait, look);
        else
                ret[GUEST_POLL_PSI].fd = ret[GUEST_POLL_ALARM].fd = -1;
        wait = bl_min(wait, guest_actions_poll(&s->actions, &ret[GUEST_POLL_ACTION], now));
        wait = bl_min(wait, guest_swap_poll(&s->swap, &ret[GUEST_POLL_SWAP]));
        wait = bl_min(wait, guest_status_wait(&s->status, now));
        if (guest_link_is_up(&s->link)) {
                if (s->out_len > 0 || s->blocked)
                        ret[GUEST_POLL_STREAM].events |= POLLOUT;
                wait = bl_min(wait, bl_sub_sat(s->report_at, now));
        }
        return wait;
}

/* A stream begins: nothing of the one before is true of it. */
static void connected(struct guest_session *s, usec_t now)
{
        /* what this guest can do may have changed since it booted */
        s->hello.features &= BL_WIRE_FEATURE_PSI;
        s->hello.features |=
                BL_WIRE_FEATURE_REQUEST | guest_actions_features(&s->actions) | guest_swap_features(&s->swap);
        s->hello_due = true;
        s->greeted = s->refused = false;
        s->greet_by = now + GUEST_WELCOME_TIME;
        s->granted_at = 0;
        s->period = BL_WIRE_PERIOD_DEFAULT;
        s->in_len = s->out_len = s->out_pos = 0;
        s->report_at = now;
        s->pressure_due = s->request_due = s->blocked = false;
        guest_actions_cancel(&s->actions);
}

static void disconnected(struct guest_session *s)
{
        if (s->greeted)
                s->status.due = true;
        s->greeted = s->blocked = false;
        s->out_len = s->out_pos = 0;
        guest_actions_cancel(&s->actions);
}

/* --- sending ---------------------------------------------------------------- */

/* Sends the rest of what is in `out`.  False: not all of it is out. */
static bool flush(struct guest_session *s, usec_t now)
{
        while (s->out_pos < s->out_len) {
                ssize_t n = guest_link_send(&s->link, s->out + s->out_pos, s->out_len - s->out_pos, now);

                if (n <= 0) {
                        /* nothing of it is out: drop it, it will be stale */
                        if (s->out_pos == 0)
                                s->out_len = 0;
                        if (n == -ENOTCONN)
                                disconnected(s);
                        return false;
                }
                s->out_pos += (size_t)n;
        }
        s->out_len = s->out_pos = 0;
        return true;
}

/* Sends the first `len` bytes of `out`. */
static bool send_out(struct guest_session *s, size_t len, usec_t now)
{
        s->out_len = len;
        s->out_pos = 0;
        /* once a part is out the rest follows: counts as sent */
        return flush(s, now) || s->out_len > 0;
}

/* Behind what is in `out` already; negative: cannot be, all of them fit together. */
static void append(size_t *len, int n)
{
        if (n > 0)
                *len += (size_t)n;
}

static void send_hello(struct guest_session *s, usec_t now)
{
        size_t len = 0;

        append(&len, bl_wire_encode_hello(&s->hello, s->out, sizeof s->out));
        if (send_out(s, len, now))
                s->hello_due = false;
}

/* Statistics, and behind them what needs them fresh, in one piece. */
static void send_report(struct guest_session *s, usec_t now)
{
        struct bl_wire_stats stats;
        struct guest_sample sample;
        struct bl_wire_request r;
        size_t len = 0;

        s->sequence++;
        if (guest_reader_read(s->reader, &stats) < 0) {
                s->dropped++;
                s->pressure_due = s->request_due = false;
                return;
        }
        guest_swap_report(&s->swap, &stats);
        guest_status_swap(&s->status, &stats);
        stats.v[BL_STAT_SEQUENCE] = s->sequence;
        append(&len, bl_wire_encode_stats(&stats, s->out, sizeof s->out));
        /* what is read anyway is a look, too; where the watch has just looked, not another one */
        if (may_ask(s) && !s->pressure_due && !s->request_due)
                s->request_due = guest_watch_seen(&s->watch, &stats, now, &s->grant, &r);
        if (s->pressure_due) {
                struct bl_wire_pressure p = {.stall = s->watch.psi_stall, .window = s->watch.psi_window};

                append(&len, bl_wire_encode_pressure(&p, s->out + len, sizeof s->out - len));
        }
        if (s->request_due && guest_sample_from(&stats, s->reader->drift, now, &sample)) {
                guest_need_request(&s->watch.need, &sample, &s->grant, &r);
                append(&len, bl_wire_encode_request(&r, s->out + len, sizeof s->out - len));
        }
        if (send_out(s, len, now)) {
                s->pressure_due = s->request_due = false;
        } else {
                s->dropped++;
                s->blocked = s->pressure_due || s->request_due;
        }
}

static void send_message(struct guest_session *s, usec_t now)
{
        size_t len = guest_actions_message(&s->actions, s->out, sizeof s->out, now);

        if (len == 0)
                return;
        if (send_out(s, len, now))
                guest_actions_sent(&s->actions, now);
        else
                s->blocked = true;
}

/* When a report is due it is counted, be it sent or not. */
static void report(struct guest_session *s, usec_t now)
{
        s->report_at += s->period;
        if (s->report_at <= now) /* we were stopped: one report, not all that are missing */
                s->report_at = now + s->period;
        if (s->hello_due || s->refused || s->out_len > 0) {
                s->sequence++;
                s->dropped += s->out_len > 0 && !s->hello_due && !s->refused;
                return;
        }
        send_report(s, now);
}

static void send_due(struct guest_session *s, usec_t now)
{
        s->blocked = false;
        if (s->out_len > 0)
                (void)flush(s, now);
        if (s->out_len == 0 && s->hello_due && guest_link_is_up(&s->link))
                send_hello(s, now);
        if (guest_link_is_up(&s->link) && now >= s->report_at)
                report(s, now);
        else if (is_heard(s) && s->out_len == 0 && (s->pressure_due || s->request_due))
                send_report(s, now);
        if (is_heard(s) && s->out_len == 0)
                send_message(s, now);
}

/* --- receiving ---------------------------------------------------------------- */

static void welcome(struct guest_session *s, const struct bl_wire_frame *f, usec_t now)
{
        struct bl_wire_welcome w;

        if (bl_wire_decode_welcome(f, &w) < 0)
                return;
        if (w.ask)
                s->hello_due = true;
        s->minor = w.minor;
        if (!s->greeted || (w.major != BL_WIRE_MAJOR) != s->refused) {
                char text[96];

                s->greeted = true;
                s->refused = w.major != BL_WIRE_MAJOR;
                s->status.due = true;
                guest_link_greeted(&s->link, now);
                (void)snprintf(text, sizeof text, "host speaks protocol %" PRIu64 ".%" PRIu64 ", %s", w.major, w.minor,
                               s->refused ? "we do not: not reporting" : "reporting");
                guest_link_say(&s->link, "connected", text);
        }
        if (w.period != BL_UNSET) {
                s->period = bl_clamp(w.period, BL_WIRE_PERIOD_MIN, BL_WIRE_PERIOD_MAX);
                s->report_at = bl_min(s->report_at, now + s->period);
        }
}

static void entitlement(struct guest_session *s, const struct bl_wire_frame *f, usec_t now)
{
        struct bl_wire_entitlement e;

        if (bl_wire_decode_entitlement(f, &e) < 0)
                return;
        if (!s->grant_known || memcmp(&e, &s->grant, sizeof e) != 0)
                s->status.due = true;
        s->grant = e;
        s->grant_known = true;
        s->granted_at = now;
}

static void swap_action(struct guest_session *s, const struct bl_wire_action *a)
{
        struct bl_wire_stats memory;
        struct bl_wire_result r;

        if (guest_reader_glance(s->reader, &memory) < 0)
                bl_wire_stats_init(&memory); /* then there is no room for anything */
        guest_swap_begin(&s->swap, a, &memory, &r);
        guest_actions_reply(&s->actions, &r);
}

static void action(struct guest_session *s, const struct bl_wire_frame *f, usec_t now)
{
        struct bl_wire_action a;

        if (bl_wire_decode_action(f, &a) < 0)
                return;
        if (guest_swap_is_action(a.kind))
                swap_action(s, &a);
        else
                guest_actions_begin(&s->actions, &a, now);
}

static void obey(struct guest_session *s, usec_t now)
{
        struct bl_wire_iter it;
        struct bl_wire_frame f;

        bl_wire_iter_init(&it, s->in, s->in_len);
        while (bl_wire_next(&it, &f) > 0) {
                if (f.type == BL_WIRE_WELCOME)
                        welcome(s, &f, now);
                if (!s->greeted || s->refused)
                        continue;
                if (f.type == BL_WIRE_ENTITLEMENT)
                        entitlement(s, &f, now);
                else if (f.type == BL_WIRE_ACTION)
                        action(s, &f, now);
        }
        s->in_len = it.size - it.pos;
        memmove(s->in, s->in + it.pos, s->in_len);
}

static void receive(struct guest_session *s, usec_t now)
{
        for (int i = 0; i < READS_PER_STEP; i++) {
                ssize_t n = guest_link_receive(&s->link, s->in + s->in_len, sizeof s->in - s->in_len, now);

                if (n == -EAGAIN)
                        return;
                if (n <= 0) {
                        disconnected(s);
                        return;
                }
                s->in_len += (size_t)n;
                obey(s, now);
        }
}

/* --- all of it ---------------------------------------------------------------- */

static void mind_silence(struct guest_session *s, usec_t now)
{
        if (s->granted_at == 0 || bl_sub_sat(now, s->granted_at) < GUEST_SILENT)
                return;
        guest_link_say(&s->link, "host is silent", NULL);
        guest_link_hang_up(&s->link, now);
        disconnected(s);
}

static void step_link(struct guest_session *s, const struct pollfd fds[_GUEST_POLL_MAX], usec_t now)
{
        if (guest_link_is_up(&s->link) && (fds[GUEST_POLL_STREAM].revents & POLLIN))
                receive(s, now);
        if (guest_link_is_up(&s->link) && (fds[GUEST_POLL_STREAM].revents & (POLLHUP | POLLERR | POLLNVAL))) {
                guest_link_hang_up(&s->link, now);
                disconnected(s);
        }
        if (guest_link_is_up(&s->link))
                mind_silence(s, now);
        if (guest_link_step(&s->link, fds[GUEST_POLL_TRIAL].revents, now)) {
                connected(s, now);
                s->in_len = s->link.trial_len;
                memcpy(s->in, s->link.trial_in, s->in_len);
                obey(s, now);
        }
        /* our hello or its answer may have been lost, or there is nobody yet */
        if (guest_link_is_up(&s->link) && !s->greeted && now >= s->greet_by) {
                s->hello_due = true;
                s->greet_by = now + GUEST_WELCOME_TIME;
        }
}

static void step_watch(struct guest_session *s, const struct pollfd fds[_GUEST_POLL_MAX], usec_t now)
{
        struct bl_wire_request r;
        unsigned events;

        if (!may_ask(s))
                return;
        events = guest_watch_step(&s->watch, fds[GUEST_POLL_PSI].revents, fds[GUEST_POLL_ALARM].revents, now, &s->grant,
                                  &r);
        s->pressure_due |= (events & GUEST_WATCH_PRESSURE) != 0;
        s->request_due |= (events & GUEST_WATCH_REQUEST) != 0;
}

/* The host waits for what becomes of it. */
static void step_swap(struct guest_session *s, usec_t now)
{
        guest_swap_step(&s->swap);
        if (!s->swap.changed)
                return;
        s->swap.changed = false;
        if (s->minor >= 2)
                s->report_at = bl_min(s->report_at, now);
}

void guest_session_step(struct guest_session *s, const struct pollfd fds[_GUEST_POLL_MAX], usec_t now)
{
        step_link(s, fds, now);
        step_watch(s, fds, now);
        guest_actions_step(&s->actions, now);
        step_swap(s, now);
        send_due(s, now);
        guest_status_step(&s->status, guest_link_name(&s->link), s->grant_known ? &s->grant : NULL, now);
}
