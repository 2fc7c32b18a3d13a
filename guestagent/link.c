/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <ballast/cleanup.h>

#include "guestagent/link.h"

void guest_link_init(struct guest_link *l, struct guest_transport *const transports[], unsigned n,
                     void (*log)(const char *text))
{
        *l = (struct guest_link){.lines = (unsigned)bl_min(n, GUEST_LINES), .current = -1, .trial = -1, .log = log};
        for (unsigned i = 0; i < l->lines; i++)
                l->line[i] = (struct guest_line){.transport = transports[i], .fd = -1};
}

static void close_line(struct guest_line *line)
{
        bl_closep(&line->fd);
        line->fd = -1;
}

void guest_link_end(struct guest_link *l)
{
        for (unsigned i = 0; i < l->lines; i++)
                close_line(&l->line[i]);
        l->current = l->trial = -1;
        l->greeted = false;
}

static void say(const struct guest_link *l, int i, const char *what, const char *why)
{
        char text[256];

        (void)snprintf(text, sizeof text, "%s: %s%s%s", l->line[i].transport->device, what, why ? ": " : "",
                       why ? why : "");
        l->log(text);
}

void guest_link_say(const struct guest_link *l, const char *what, const char *why)
{
        if (l->current >= 0)
                say(l, l->current, what, why);
}

const char *guest_link_name(const struct guest_link *l)
{
        return l->greeted ? l->line[l->current].transport->ops->name : NULL;
}

bool guest_link_is_up(const struct guest_link *l)
{
        return l->current >= 0;
}

/* Is this one to be looked at when its time comes: would it be better than what there is? */
static bool is_wanted(const struct guest_link *l, unsigned i)
{
        if ((int)i == l->current || (int)i == l->trial || (l->greeted && (int)i > l->current))
                return false;
        return l->line[i].transport->ops->dials ? l->trial < 0 : l->current < 0;
}

usec_t guest_link_poll(const struct guest_link *l, struct pollfd *ret_stream, struct pollfd *ret_trial, usec_t now)
{
        usec_t next = l->trial >= 0 ? l->trial_until : BL_UNSET;

        *ret_stream = *ret_trial = (struct pollfd){.fd = -1};
        if (l->current >= 0)
                *ret_stream = (struct pollfd){.fd = l->line[l->current].fd, .events = POLLIN};
        if (l->trial >= 0)
                *ret_trial = (struct pollfd){.fd = l->line[l->trial].fd, .events = l->trial_up ? POLLIN : POLLOUT};
        for (unsigned i = 0; i < l->lines; i++)
                if (is_wanted(
                            l,
                            i)) /* while there is a host it is done beside the reports, without a wake-up of its own */
                        next = bl_min(next, l->line[i].next_at + (l->greeted ? BL_WIRE_PERIOD_DEFAULT : 0));
        return bl_sub_sat(next, now);
}

/* There is no stream any more: everything is looked at again. */
static void lost(struct guest_link *l, usec_t now)
{
        l->current = -1;
        l->greeted = false;
        for (unsigned i = 0; i < l->lines; i++)
                l->line[i].next_at = bl_min(l->line[i].next_at, now);
}

static void gone(struct guest_link *l, usec_t now)
{
        struct guest_line *line = &l->line[l->current];

        say(l, l->current, "device is gone, looking for it", NULL);
        close_line(line);
        lost(l, now);
}

void guest_link_hang_up(struct guest_link *l, usec_t now)
{
        struct guest_line *line = &l->line[l->current];

        if (l->greeted)
                say(l, l->current, "host disconnected", NULL);
        if (line->transport->ops->dials)
                close_line(line);
        lost(l, now);
        line->next_at = now + GUEST_HUP_PERIOD;
}

static void failed(struct guest_link *l, int i, int error, const char *what)
{
        if (error != l->line[i].last_error)
                say(l, i, what, strerror(-error));
        l->line[i].last_error = error;
}

static bool open_line(struct guest_link *l, int i)
{
        struct guest_line *line = &l->line[i];
        int fd = line->transport->ops->open(line->transport);

        if (fd < 0) {
                failed(l, i, fd, "cannot open, trying again");
                return false;
        }
        line->fd = fd;
        return true;
}

/* Looks for a device and for the host behind it.  True: it is the stream now. */
static bool look(struct guest_link *l, int i, usec_t now)
{
        struct guest_line *line = &l->line[i];
        const struct guest_transport_ops *ops = line->transport->ops;
        uint8_t stale[256];

        line->next_at = now + GUEST_HUP_PERIOD;
        /* an unplugged port says POLLHUP like a disconnected one; only reading tells them apart */
        if (line->fd >= 0 && ops->receive(line->fd, stale, sizeof stale) == -ENODEV) {
                say(l, i, "device is gone, looking for it", NULL);
                close_line(line);
        }
        if (line->fd < 0 && !open_line(l, i)) {
                line->next_at = now + GUEST_OPEN_PERIOD;
                return false;
        }
        line->last_error = 0;
        if (ops->connected(line->fd) <= 0)
                return false;
        l->current = i;
        l->trial_len = 0;
        return true;
}

static usec_t dial_period(const struct guest_link *l)
{
        return l->greeted ? GUEST_DIAL_PERIOD : GUEST_HUP_PERIOD;
}

/* The trial has come to nothing.  However nobody answers, it is said once. */
static void give_up(struct guest_link *l, int error, usec_t now)
{
        struct guest_line *line = &l->line[l->trial];

        if (error == -ECONNRESET || error == -ECONNREFUSED || error == -EHOSTUNREACH)
                error = -ETIMEDOUT;
        if (error == -ETIMEDOUT && line->last_error != error)
                say(l, l->trial, "no host there yet, trying again", NULL);
        else
                failed(l, l->trial, error, "cannot connect, trying again");
        line->last_error = error;
        close_line(line);
        line->next_at = now + dial_period(l);
        l->trial = -1;
}

static void dial(struct guest_link *l, int i, usec_t now)
{
        l->line[i].next_at = now + dial_period(l);
        if (!open_line(l, i))
                return;
        l->trial = i;
        l->trial_up = false;
        l->trial_len = 0;
        l->trial_until = now + GUEST_WELCOME_TIME;
}

static bool has_welcome(const struct guest_link *l)
{
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_welcome w;

        bl_wire_iter_init(&it, l->trial_in, l->trial_len);
        while (bl_wire_next(&it, &f) > 0)
                if (bl_wire_decode_welcome(&f, &w) == 0)
                        return true;
        return false;
}

/* The trial is the stream now, and what was it is closed: a host that sees two
 * of us takes the one that speaks. */
static bool adopt(struct guest_link *l)
{
        for (unsigned i = 0; i < l->lines; i++)
                if ((int)i != l->trial)
                        close_line(&l->line[i]);
        l->current = l->trial;
        l->trial = -1;
        l->greeted = false;
        l->line[l->current].last_error = 0;
        return true;
}

/* True: it is the stream now. */
static bool try_on(struct guest_link *l, usec_t now)
{
        const struct guest_line *line = &l->line[l->trial];
        ssize_t n;
        int r;

        if (!l->trial_up) {
                r = line->transport->ops->connected(line->fd);
                if (r < 0) {
                        give_up(l, r, now);
                        return false;
                }
                l->trial_up = r > 0;
        }
        if (l->trial_up) {
                n = line->transport->ops->receive(line->fd, l->trial_in + l->trial_len,
                                                  sizeof l->trial_in - l->trial_len);
                if (n >= 0)
                        l->trial_len += (size_t)n;
                if (n > 0 && has_welcome(l))
                        return adopt(l);
                if ((n <= 0 && n != -EAGAIN) || l->trial_len == sizeof l->trial_in) {
                        give_up(l, -ECONNRESET, now);
                        return false;
                }
        }
        if (now >= l->trial_until)
                give_up(l, -ETIMEDOUT, now);
        return false;
}

bool guest_link_step(struct guest_link *l, short trial_revents, usec_t now)
{
        bool changed = false;

        if (l->trial >= 0 && (trial_revents || now >= l->trial_until))
                changed = try_on(l, now);
        for (unsigned i = 0; i < l->lines; i++) {
                if (now < l->line[i].next_at || !is_wanted(l, i))
                        continue;
                if (l->line[i].transport->ops->dials)
                        dial(l, (int)i, now);
                else
                        changed |= look(l, (int)i, now);
        }
        return changed;
}

/* A connection is gone with its host; a device may be gone itself. */
static void ended(struct guest_link *l, ssize_t n, usec_t now)
{
        if (n == 0 || l->line[l->current].transport->ops->dials)
                guest_link_hang_up(l, now);
        else
                gone(l, now);
}

ssize_t guest_link_send(struct guest_link *l, const void *data, size_t size, usec_t now)
{
        ssize_t n;

        if (l->current < 0)
                return -ENOTCONN;
        n = l->line[l->current].transport->ops->send(l->line[l->current].fd, data, size);
        if (n >= 0 || n == -EAGAIN)
                return n;
        ended(l, n, now);
        return -ENOTCONN;
}

ssize_t guest_link_receive(struct guest_link *l, void *buf, size_t size, usec_t now)
{
        ssize_t n;

        if (l->current < 0)
                return -ENOTCONN;
        n = l->line[l->current].transport->ops->receive(l->line[l->current].fd, buf, size);
        if (n > 0 || n == -EAGAIN)
                return n;
        ended(l, n, now);
        return -ENOTCONN;
}

void guest_link_greeted(struct guest_link *l, usec_t now)
{
        l->greeted = true;
        /* from now on there is no hurry with the others */
        for (unsigned i = 0; i < l->lines; i++)
                if ((int)i < l->current)
                        l->line[i].next_at = bl_max(l->line[i].next_at, now + GUEST_DIAL_PERIOD);
}
