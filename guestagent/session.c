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

void guest_session_init(struct guest_session *s, struct guest_transport *t, struct guest_reader *r,
                        const struct bl_wire_hello *hello, void (*log)(const char *text))
{
        *s = (struct guest_session){
                .transport = t,
                .reader = r,
                .log = log,
                .hello = *hello,
                .fd = -1,
                .period = BL_WIRE_PERIOD_DEFAULT,
        };
}

void guest_session_end(struct guest_session *s)
{
        bl_closep(&s->fd);
        s->fd = -1;
        s->connected = false;
}

usec_t guest_session_poll(const struct guest_session *s, struct pollfd *ret, usec_t now)
{
        *ret = (struct pollfd){.fd = -1};
        if (s->connected) {
                ret->fd = s->fd;
                ret->events = (short)(POLLIN | (s->out_len > 0 ? POLLOUT : 0));
        }
        return bl_sub_sat(s->next_at, now);
}

static void say(struct guest_session *s, const char *what, const char *why)
{
        char text[256];

        (void)snprintf(text, sizeof text, "%s: %s%s%s", s->transport->device, what, why ? ": " : "", why ? why : "");
        s->log(text);
}

/* The next step looks for it at once. */
static void gone(struct guest_session *s)
{
        guest_session_end(s);
        s->next_at = 0;
        say(s, "device is gone, looking for it", NULL);
}

static void disconnected(struct guest_session *s, usec_t now)
{
        s->connected = false;
        s->next_at = now + GUEST_HUP_PERIOD;
        if (s->greeted)
                say(s, "host disconnected", NULL);
}

static void connected(struct guest_session *s, usec_t now)
{
        s->connected = true;
        s->hello_due = true;
        s->greeted = s->refused = false;
        s->period = BL_WIRE_PERIOD_DEFAULT;
        s->in_len = s->out_len = s->out_pos = 0;
        s->next_at = now;
}

/* Looks for the device and for the host behind it. */
static void look(struct guest_session *s, usec_t now)
{
        /* an unplugged port says POLLHUP like a disconnected one; only reading tells them apart */
        if (s->fd >= 0 && s->transport->ops->receive(s->fd, s->in, sizeof s->in) == -ENODEV)
                gone(s);
        if (s->fd < 0) {
                int fd = s->transport->ops->open(s->transport);

                if (fd < 0) {
                        if (fd != s->last_error)
                                say(s, "cannot open, trying again", strerror(-fd));
                        s->last_error = fd;
                        s->next_at = now + GUEST_OPEN_PERIOD;
                        return;
                }
                s->fd = fd;
                s->last_error = 0;
        }
        s->next_at = now + GUEST_HUP_PERIOD;
        if (s->transport->ops->connected(s->fd))
                connected(s, now);
}

/* Sends the rest of the frame in `out`.  False: not all of it is out. */
static bool flush(struct guest_session *s)
{
        while (s->out_pos < s->out_len) {
                ssize_t n = s->transport->ops->send(s->fd, s->out + s->out_pos, s->out_len - s->out_pos);

                if (n <= 0) {
                        /* nothing of it is out: drop it, it will be stale */
                        if (s->out_pos == 0)
                                s->out_len = 0;
                        if (n < 0 && n != -EAGAIN)
                                gone(s);
                        return false;
                }
                s->out_pos += (size_t)n;
        }
        s->out_len = s->out_pos = 0;
        return true;
}

static bool send_frame(struct guest_session *s, int len)
{
        if (len < 0) /* cannot be: the largest message fits; see the unit test */
                return false;
        s->out_len = (size_t)len;
        s->out_pos = 0;
        /* once a part is out the rest follows: counts as sent */
        return flush(s) || s->out_len > 0;
}

static void send_hello(struct guest_session *s)
{
        if (s->out_len == 0 && send_frame(s, bl_wire_encode_hello(&s->hello, s->out, sizeof s->out)))
                s->hello_due = false;
}

static void send_report(struct guest_session *s, usec_t now)
{
        struct bl_wire_stats stats;

        s->next_at += s->period;
        if (s->next_at <= now) /* we were stopped: one report, not all that are missing */
                s->next_at = now + s->period;
        s->sequence++;
        if (s->hello_due || s->refused)
                return;
        if (s->out_len > 0 || guest_reader_read(s->reader, &stats) < 0) {
                s->dropped++;
                return;
        }
        stats.v[BL_STAT_SEQUENCE] = s->sequence;
        if (!send_frame(s, bl_wire_encode_stats(&stats, s->out, sizeof s->out)))
                s->dropped++;
}

static void welcome(struct guest_session *s, const struct bl_wire_frame *f, usec_t now)
{
        struct bl_wire_welcome w;

        if (bl_wire_decode_welcome(f, &w) < 0)
                return;
        if (w.ask)
                s->hello_due = true;
        if (!s->greeted || (w.major != BL_WIRE_MAJOR) != s->refused) {
                char text[96];

                s->greeted = true;
                s->refused = w.major != BL_WIRE_MAJOR;
                (void)snprintf(text, sizeof text, "host speaks protocol %" PRIu64 ".%" PRIu64 ", %s", w.major, w.minor,
                               s->refused ? "we do not: not reporting" : "reporting");
                say(s, "connected", text);
        }
        if (w.period != BL_UNSET) {
                s->period = bl_clamp(w.period, BL_WIRE_PERIOD_MIN, BL_WIRE_PERIOD_MAX);
                s->next_at = bl_min(s->next_at, now + s->period);
        }
}

/* False: the host or the device is gone. */
static bool receive(struct guest_session *s, usec_t now)
{
        for (int i = 0; i < READS_PER_STEP; i++) {
                struct bl_wire_iter it;
                struct bl_wire_frame f;
                ssize_t n = s->transport->ops->receive(s->fd, s->in + s->in_len, sizeof s->in - s->in_len);

                if (n == -EAGAIN)
                        return true;
                if (n <= 0) {
                        if (n == 0)
                                disconnected(s, now);
                        else
                                gone(s);
                        return false;
                }
                bl_wire_iter_init(&it, s->in, s->in_len + (size_t)n);
                while (bl_wire_next(&it, &f) > 0)
                        if (f.type == BL_WIRE_WELCOME)
                                welcome(s, &f, now);
                s->in_len = it.size - it.pos;
                memmove(s->in, s->in + it.pos, s->in_len);
        }
        return true;
}

void guest_session_step(struct guest_session *s, short revents, usec_t now)
{
        if (!s->connected) {
                if (now >= s->next_at)
                        look(s, now);
                if (!s->connected)
                        return;
        }
        if ((revents & POLLIN) && !receive(s, now))
                return;
        if (revents & (POLLHUP | POLLERR | POLLNVAL)) {
                disconnected(s, now);
                return;
        }
        if (s->out_len > 0)
                (void)flush(s);
        if (s->connected && s->hello_due)
                send_hello(s);
        if (s->connected && now >= s->next_at)
                send_report(s, now);
}
