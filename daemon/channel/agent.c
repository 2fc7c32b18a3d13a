/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <ballast/cleanup.h>

#include "daemon/channel/agent.h"

/* Read per wake-up; the rest has to wait its turn among the loop's other sources. */
#define READ_PER_WAKE (16 * BL_KIB)

/* What waking up costs, in bytes of work: else a guest could send its bytes one by one. */
#define WAKE_COST 256

/* What a hello costs that is handed on: it is logged, and answered. */
#define HELLO_COST (16 * BL_KIB)

/* What a request costs that is handed on: it makes a tick. */
#define REQUEST_COST (2 * BL_KIB)

#define ENTITLEMENT_GAP BL_SEC

/* The longest that we send is an entitlement: all its tags, numbers with a header of 4 bytes. */
#define OUT_SIZE (BL_WIRE_HEADER + (_BL_GRANT_MAX - 1) * 12)

/*
 * What has come in and is not handed on yet: the newest of each.  It waits until
 * all that lies in the socket is read, so that a pile of old messages counts
 * like its last ones; what is pressing waits no longer than to the next pause.
 */
struct news {
        bool hello_seen, stats_seen, request_seen;
        bool request_due; /* waits for nothing but the gap behind the one before */
        struct bl_wire_hello hello;
        struct bl_wire_stats stats;
        usec_t stats_at;
        struct bl_wire_request request; /* the most urgent of all; `deadline` is an instant here */
};

struct bl_agent {
        const struct bl_agent_handlers *handlers;
        void *userdata;
        sd_event_source *io;
        sd_event_source *timer; /* for all that waits, made when something first does */
        int fd;

        bool busy; /* inside a handler */
        bool doomed; /* freed there */
        bool up;
        bool asking; /* no hello yet; asked once, or two majors would greet each other for ever */
        bool welcome_due;
        bool action_due;
        bool acting; /* an action is due, or its result */
        bool granted; /* `sent` was sent since the last hello */
        bool have_sequence;

        usec_t timer_at; /* BL_UNSET: off */
        usec_t pause_end; /* BL_UNSET: no pause in reading */
        usec_t request_next; /* not before */
        usec_t grant_next;
        usec_t action_end;

        usec_t period;
        struct bl_wire_hello hello; /* the last one handed on; zeros: none yet */
        struct bl_wire_action action; /* its id counts up */
        struct bl_wire_entitlement grant, sent;
        struct news news;
        struct bl_wire_stats figures; /* the last that were handed on */
        uint64_t sequence;
        int64_t tokens; /* bytes of work left; below 0: a debt */
        usec_t tokens_at;
        struct bl_agent_counters n;

        size_t out_len, out_pos;
        size_t in_len;
        uint8_t out[OUT_SIZE];
        uint8_t in[BL_WIRE_FRAME_MAX];
};

_Static_assert(sizeof(struct bl_agent) < 6 * BL_KIB, "see the promise in agent.h");

static void stop(struct bl_agent *a)
{
        /* the source goes first: epoll(7) forgets a closed descriptor only if it has no duplicate */
        a->io = sd_event_source_disable_unref(a->io);
        a->timer = sd_event_source_disable_unref(a->timer);
        bl_closep(&a->fd);
        a->fd = -1;
        a->up = false;
}

struct bl_agent *bl_agent_free(struct bl_agent *a)
{
        if (!a)
                return NULL;
        stop(a);
        if (a->busy)
                a->doomed = true;
        else
                free(a);
        return NULL;
}

static usec_t loop_now(const struct bl_agent *a)
{
        usec_t now = 0;

        (void)sd_event_now(sd_event_source_get_event(a->io), CLOCK_MONOTONIC, &now);
        return now;
}

/* --- handlers: false when the agent is no more ------------------------------ */

static bool survived(struct bl_agent *a)
{
        a->busy = false;
        if (!a->doomed)
                return true;
        free(a);
        return false;
}

static bool give_hello(struct bl_agent *a)
{
        struct bl_wire_hello h = a->news.hello;

        if (!a->news.hello_seen)
                return true;
        a->news.hello_seen = false;
        a->n.hellos++;
        a->tokens -= (int64_t)HELLO_COST;
        a->welcome_due = true;
        /* perhaps another agent, which was told nothing */
        a->granted = false;
        if (memcmp(&h, &a->hello, sizeof h) == 0)
                return true;
        a->hello = h;
        if (!a->handlers->hello)
                return true;
        a->busy = true;
        a->handlers->hello(a, &h, a->userdata);
        return survived(a);
}

static bool give_stats(struct bl_agent *a)
{
        const struct bl_wire_stats *w = &a->news.stats;
        struct bl_guest_stats s;
        uint64_t sequence = w->v[BL_STAT_SEQUENCE];

        if (!a->news.stats_seen || !a->up)
                return true;
        a->news.stats_seen = false;
        a->n.reports++;
        if (a->have_sequence && sequence != BL_UNSET && sequence > a->sequence)
                a->n.lost = bl_add_sat(a->n.lost, sequence - a->sequence - 1);
        a->have_sequence = sequence != BL_UNSET;
        a->sequence = sequence;
        a->figures = *w;
        if (!a->handlers->stats)
                return true;
        bl_agent_convert(w, a->news.stats_at, a->period, &s);
        a->busy = true;
        a->handlers->stats(a, &s, a->userdata);
        return survived(a);
}

static bool give_request(struct bl_agent *a, usec_t now)
{
        struct bl_wire_request r = a->news.request;

        if (!a->news.request_due || !a->up || now < a->request_next)
                return true;
        a->news.request_seen = a->news.request_due = false;
        a->request_next = now + BL_AGENT_REQUEST_GAP;
        a->tokens -= (int64_t)REQUEST_COST;
        a->n.requests++;
        if (!a->handlers->request)
                return true;
        if (r.deadline != BL_UNSET)
                r.deadline = bl_sub_sat(r.deadline, now);
        a->busy = true;
        a->handlers->request(a, &r, a->userdata);
        return survived(a);
}

static bool give_hints(struct bl_agent *a, const struct bl_wire_hints *h)
{
        a->n.hints++;
        if (!a->handlers->hints)
                return true;
        a->busy = true;
        a->handlers->hints(a, h, a->userdata);
        return survived(a);
}

static bool give_result(struct bl_agent *a, const struct bl_wire_result *r)
{
        a->acting = a->action_due = false;
        if (!a->handlers->result)
                return true;
        a->busy = true;
        a->handlers->result(a, (enum bl_wire_action_kind)a->action.kind, r, a->userdata);
        return survived(a);
}

static void give_closed(struct bl_agent *a, int error)
{
        stop(a);
        if (!a->handlers->closed)
                return;
        a->busy = true;
        a->handlers->closed(a, error, a->userdata);
        (void)survived(a);
}

/* --- sending ----------------------------------------------------------------- */

/* Did it say hello in our major version, and in a minor one with more than statistics? */
static bool is_partner(const struct bl_agent *a)
{
        return a->up && a->hello.major == BL_WIRE_MAJOR && a->hello.minor >= 1;
}

static bool grant_is_news(const struct bl_agent *a)
{
        return is_partner(a) && (!a->granted || memcmp(&a->grant, &a->sent, sizeof a->grant) != 0);
}

/* It has heard nothing of it for so long that it would think us gone. */
static bool grant_is_old(const struct bl_agent *a, usec_t now)
{
        return is_partner(a) && a->granted && now >= a->grant_next + BL_WIRE_GRANT_PERIOD - ENTITLEMENT_GAP;
}

static int watch(struct bl_agent *a)
{
        uint32_t events = EPOLLIN | (a->out_len > 0 ? (uint32_t)EPOLLOUT : 0);

        return sd_event_source_set_io_events(a->io, events);
}

/* Sends from the loop, where a failure can be reported as the end of the stream. */
static void send_soon(struct bl_agent *a)
{
        (void)sd_event_source_set_io_events(a->io, EPOLLIN | EPOLLOUT);
}

static int write_welcome(struct bl_agent *a)
{
        struct bl_wire_welcome w = {
                .major = BL_WIRE_MAJOR,
                .minor = BL_WIRE_MINOR,
                .period = a->period,
                .ask = a->asking ? 1 : 0,
        };

        a->welcome_due = false;
        return bl_wire_encode_welcome(&w, a->out, sizeof a->out);
}

static int write_action(struct bl_agent *a)
{
        a->action_due = false;
        return bl_wire_encode_action(&a->action, a->out, sizeof a->out);
}

static int write_entitlement(struct bl_agent *a, usec_t now)
{
        a->sent = a->grant;
        a->granted = true;
        a->grant_next = now + ENTITLEMENT_GAP;
        return bl_wire_encode_entitlement(&a->sent, a->out, sizeof a->out);
}

/* What is due next; 0: nothing. */
static int write_next(struct bl_agent *a, usec_t now)
{
        if (a->welcome_due)
                return write_welcome(a);
        if (a->action_due && a->up)
                return write_action(a);
        if (now >= a->grant_next && (grant_is_news(a) || grant_is_old(a, now)))
                return write_entitlement(a, now);
        return 0;
}

/*
 * Sends what is due.  Only the newest of each matters, so that nothing queues up
 * behind a guest that does not read: one frame on its way and a few flags.
 */
static int flush(struct bl_agent *a, usec_t now)
{
        for (;;) {
                ssize_t n;

                if (a->out_len == 0) {
                        int len = write_next(a, now);

                        if (len < 0)
                                return len;
                        if (len == 0)
                                break;
                        a->out_len = (size_t)len;
                        a->out_pos = 0;
                }
                n = send(a->fd, a->out + a->out_pos, a->out_len - a->out_pos, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno != EAGAIN)
                        return -errno;
                if (n < 0)
                        break;
                a->out_pos += (size_t)n;
                if (a->out_pos == a->out_len)
                        a->out_len = 0;
        }
        return watch(a);
}

/* --- receiving --------------------------------------------------------------- */

static void take_hello(struct bl_agent *a, const struct bl_wire_frame *f)
{
        struct bl_wire_hello h;

        if (bl_wire_decode_hello(f, &h) < 0) {
                a->n.spoilt++;
                return;
        }
        a->news.hello = h;
        a->news.hello_seen = true;
        /* perhaps another agent, or the same started anew: its numbers start anew too */
        a->news.stats_seen = false;
        a->have_sequence = false;
        a->up = h.major == BL_WIRE_MAJOR;
        a->asking = false;
}

static void take_stats(struct bl_agent *a, const struct bl_wire_frame *f, usec_t now)
{
        if (bl_wire_decode_stats(f, &a->news.stats) < 0) {
                a->n.spoilt++;
                return;
        }
        a->news.stats_at = now;
        a->news.stats_seen = true;
}

static void merge_request(struct news *news, const struct bl_wire_request *r, usec_t now)
{
        struct bl_wire_request *m = &news->request;
        usec_t deadline = bl_add_sat(now, r->deadline);

        if (!news->request_seen)
                *m = (struct bl_wire_request){.deadline = BL_UNSET};
        m->bytes = bl_max(m->bytes, r->bytes);
        m->urgency = bl_max(m->urgency, r->urgency);
        m->deadline = bl_min(m->deadline, deadline);
        news->request_seen = true;
}

static void take_request(struct bl_agent *a, const struct bl_wire_frame *f, usec_t now)
{
        struct bl_wire_request r;

        if (bl_wire_decode_request(f, &r) < 0)
                a->n.spoilt++;
        else
                merge_request(&a->news, &r, now);
}

static void take_pressure(struct bl_agent *a, const struct bl_wire_frame *f, usec_t now)
{
        static const struct bl_wire_request r = {.urgency = BL_URGENCY_NOW, .deadline = BL_UNSET};
        struct bl_wire_pressure p;

        if (bl_wire_decode_pressure(f, &p) < 0)
                a->n.spoilt++;
        else
                merge_request(&a->news, &r, now);
}

static bool take_hints(struct bl_agent *a, const struct bl_wire_frame *f)
{
        struct bl_wire_hints h;
        int r = bl_wire_decode_hints(f, &h);

        if (r == -EOPNOTSUPP)
                a->n.unknown++; /* of a newer minor version */
        else if (r < 0)
                a->n.spoilt++;
        else if (a->news.hello_seen && a->tokens <= 0)
                a->n.early++; /* there is no time now to say who speaks */
        else
                return give_hello(a) && give_hints(a, &h);
        return true;
}

static bool take_result(struct bl_agent *a, const struct bl_wire_frame *f)
{
        struct bl_wire_result r;

        if (bl_wire_decode_result(f, &r) < 0) {
                a->n.spoilt++;
                return true;
        }
        if (!a->acting || a->action_due || r.id != a->action.id)
                return true; /* that one's time was over */
        if (r.status >= _BL_RESULT_MAX) /* of a newer minor version; it is not done in any case */
                r.status = BL_RESULT_FAILED;
        return give_result(a, &r);
}

/* False when the agent is no more. */
static bool take(struct bl_agent *a, const struct bl_wire_frame *f, usec_t now)
{
        switch (f->type) {
        case BL_WIRE_HELLO:
                take_hello(a, f);
                return true;
        case BL_WIRE_STATS:
        case BL_WIRE_PRESSURE:
        case BL_WIRE_REQUEST:
        case BL_WIRE_HINTS:
        case BL_WIRE_RESULT:
                break;
        default: /* of a newer minor version, or what only a host may send */
                a->n.unknown++;
                return true;
        }
        if (!a->up) {
                a->n.early++;
                return true;
        }
        if (f->type == BL_WIRE_STATS)
                take_stats(a, f, now);
        else if (f->type == BL_WIRE_REQUEST)
                take_request(a, f, now);
        else if (f->type == BL_WIRE_PRESSURE)
                take_pressure(a, f, now);
        else if (f->type == BL_WIRE_HINTS)
                return take_hints(a, f);
        else
                return take_result(a, f);
        return true;
}

/* Parses what is in the buffer and keeps the start of a frame at its end.  False
 * when the agent is no more. */
static bool parse(struct bl_agent *a, usec_t now)
{
        struct bl_wire_iter it;
        struct bl_wire_frame f;

        bl_wire_iter_init(&it, a->in, a->in_len);
        while (bl_wire_next(&it, &f) > 0)
                if (!take(a, &f, now))
                        return false;
        a->n.garbage += it.skipped;
        a->tokens -= (int64_t)it.checked;
        a->in_len = it.size - it.pos;
        memmove(a->in, a->in + it.pos, a->in_len);
        return true;
}

enum received { RECEIVED_END, RECEIVED_ALL, RECEIVED_SOME, AGENT_GONE };

/* Did it read all that there is, or only as much as it may?  Negative errno. */
static int receive(struct bl_agent *a, usec_t now)
{
        size_t budget = READ_PER_WAKE;

        while (budget > 0 && a->tokens > 0) {
                /* there is room: a frame is complete before it fills the buffer */
                size_t room = bl_min(sizeof a->in - a->in_len, budget);
                ssize_t n = recv(a->fd, a->in + a->in_len, room, MSG_DONTWAIT);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno == EAGAIN ? RECEIVED_ALL : -errno;
                if (n == 0)
                        return RECEIVED_END;
                a->n.bytes += (uint64_t)n;
                a->tokens -= n;
                budget -= (size_t)n;
                a->in_len += (size_t)n;
                if (!parse(a, now))
                        return AGENT_GONE;
        }
        return RECEIVED_SOME;
}

static void refill(struct bl_agent *a, usec_t now)
{
        uint64_t more = bl_rate_times(BL_AGENT_RATE, bl_sub_sat(now, a->tokens_at));

        /* no time passes where nothing comes of it: else rounding would eat it */
        if (more == 0)
                return;
        a->tokens += (int64_t)bl_min(more, INT64_MAX / 2);
        if (a->tokens > (int64_t)BL_AGENT_BURST)
                a->tokens = (int64_t)BL_AGENT_BURST;
        a->tokens_at = now;
}

/* Leaves the socket alone until a fourth of a second's work is free again. */
static int throttle(struct bl_agent *a, usec_t now)
{
        uint64_t missing = (uint64_t)((int64_t)BL_AGENT_RATE / 4 - a->tokens);

        a->n.throttled++;
        a->pause_end = now + missing * BL_SEC / BL_AGENT_RATE;
        /* disabled rather than without events: EPOLLHUP is always reported */
        return sd_event_source_set_enabled(a->io, SD_EVENT_OFF);
}

/* --- waiting ----------------------------------------------------------------- */

/* When the first of what waits is due. */
static usec_t next_instant(const struct bl_agent *a, usec_t now)
{
        usec_t at = a->pause_end;

        if (a->news.request_due && a->up)
                at = bl_min(at, a->request_next);
        if (a->acting)
                at = bl_min(at, a->action_end);
        /* one that is due already waits for the guest to read, not for the clock */
        if (a->grant_next > now && grant_is_news(a))
                at = bl_min(at, a->grant_next);
        return at;
}

static int on_timer(sd_event_source *source, uint64_t at, void *userdata);

static int set_timer(struct bl_agent *a, usec_t now)
{
        usec_t at = next_instant(a, now);
        int r;

        if (at == a->timer_at)
                return 0;
        if (!a->timer) {
                r = sd_event_add_time(sd_event_source_get_event(a->io), &a->timer, CLOCK_MONOTONIC, at, BL_MSEC,
                                      on_timer, a);
        } else if (at == BL_UNSET) {
                r = sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
        } else {
                r = sd_event_source_set_time(a->timer, at);
                if (r >= 0)
                        r = sd_event_source_set_enabled(a->timer, SD_EVENT_ONESHOT);
        }
        if (r < 0)
                return r;
        a->timer_at = at;
        return 0;
}

static int end_pause(struct bl_agent *a, usec_t now)
{
        if (now < a->pause_end)
                return 0;
        a->pause_end = BL_UNSET;
        return sd_event_source_set_enabled(a->io, SD_EVENT_ON);
}

static bool end_action(struct bl_agent *a, usec_t now)
{
        struct bl_wire_result late = {
                .id = a->action.id,
                .status = BL_RESULT_FAILED,
                .bytes = BL_UNSET,
                .took = BL_UNSET,
                .need = BL_UNSET,
                .have = BL_UNSET,
        };

        if (!a->acting || now < a->action_end)
                return true;
        return give_result(a, &late);
}

static int on_timer(sd_event_source *source, uint64_t at, void *userdata)
{
        struct bl_agent *a = userdata;
        usec_t now = loop_now(a);
        int r;

        (void)source;
        (void)at;
        a->timer_at = BL_UNSET;
        r = end_pause(a, now);
        if (!end_action(a, now) || !give_request(a, now))
                return 0;
        if (r >= 0)
                r = flush(a, now);
        if (r >= 0)
                r = set_timer(a, now);
        if (r < 0)
                give_closed(a, r);
        return 0;
}

/* Hands on what may be, and answers.  AGENT_GONE, 0 or negative errno. */
static int deliver(struct bl_agent *a, int received, usec_t now)
{
        bool all = received != RECEIVED_SOME;
        bool pressing = all || a->tokens <= 0;
        int r = 0;

        if (pressing && !give_hello(a))
                return AGENT_GONE;
        /* after the hello, whose handler may have set the period */
        if (received > RECEIVED_END)
                r = flush(a, now);
        /* Behind figures that are not the last to be read newer ones wait: after
         * we were stopped for a while they may be old, and must not look fresh. */
        if (all && !give_stats(a))
                return AGENT_GONE;
        if (pressing)
                a->news.request_due = a->news.request_seen;
        if (!give_request(a, now))
                return AGENT_GONE;
        return r < 0 ? r : 0;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        struct bl_agent *a = userdata;
        usec_t now = loop_now(a);
        int r, s;

        (void)source;
        (void)fd;
        (void)revents;
        refill(a, now);
        a->tokens -= WAKE_COST;
        r = receive(a, now);
        if (r == AGENT_GONE)
                return 0;
        s = deliver(a, r, now);
        if (s == AGENT_GONE)
                return 0;
        if (r > RECEIVED_END && s >= 0 && a->tokens <= 0)
                s = throttle(a, now);
        if (r > RECEIVED_END && s >= 0)
                s = set_timer(a, now);
        if (r <= RECEIVED_END || s < 0)
                give_closed(a, r < 0 ? r : s);
        return 0;
}

/* --- the rest ---------------------------------------------------------------- */

int bl_agent_open(sd_event *e, int fd, const struct bl_agent_handlers *h, void *userdata, struct bl_agent **ret)
{
        struct bl_agent *a = calloc(1, sizeof *a);
        int r;

        if (!a) {
                bl_closep(&fd);
                return -ENOMEM;
        }
        a->fd = fd;
        a->handlers = h;
        a->userdata = userdata;
        a->asking = true;
        a->welcome_due = true;
        a->period = BL_WIRE_PERIOD_DEFAULT;
        a->timer_at = a->pause_end = BL_UNSET;
        bl_wire_entitlement_init(&a->grant);
        a->sent = a->grant;
        bl_wire_stats_init(&a->figures);
        a->tokens = (int64_t)BL_AGENT_BURST;
        r = sd_event_now(e, CLOCK_MONOTONIC, &a->tokens_at);
        if (r >= 0)
                r = sd_event_add_io(e, &a->io, fd, EPOLLIN | EPOLLOUT, on_io, a);
        if (r < 0) {
                (void)bl_agent_free(a);
                return r;
        }
        *ret = a;
        return 0;
}

void bl_agent_set_period(struct bl_agent *a, usec_t period)
{
        period = bl_clamp(period, BL_WIRE_PERIOD_MIN, BL_WIRE_PERIOD_MAX);
        if (period == a->period)
                return;
        a->period = period;
        if (!a->up)
                return;
        a->welcome_due = true;
        send_soon(a);
}

void bl_agent_set_entitlement(struct bl_agent *a, const struct bl_wire_entitlement *e)
{
        usec_t now;

        a->grant = *e;
        a->grant.v[0] = BL_UNSET; /* nobody's, and not compared */
        now = loop_now(a);
        if (!grant_is_news(a) && !grant_is_old(a, now))
                return;
        if (now >= a->grant_next)
                send_soon(a);
        else
                (void)set_timer(a, now); /* what fails here is tried again when the guest next speaks */
}

/* What it must have said that it can do; BL_UNSET: we know of no such action. */
static uint64_t feature_for(uint64_t kind)
{
        switch (kind) {
        case BL_ACTION_PING:
                return 0;
        case BL_ACTION_TRIM:
                return BL_WIRE_FEATURE_TRIM;
        case BL_ACTION_COMPACT:
                return BL_WIRE_FEATURE_COMPACT;
        case BL_ACTION_HINTS:
                return BL_WIRE_FEATURE_HINTS;
        case BL_ACTION_SWAP_ON:
        case BL_ACTION_SWAP_OFF:
        case BL_ACTION_SWAP_GIVE:
                return BL_WIRE_FEATURE_SWAP;
        default:
                return BL_UNSET;
        }
}

int bl_agent_act(struct bl_agent *a, const struct bl_wire_action *action)
{
        uint64_t feature = feature_for(action->kind);
        usec_t now;
        int r;

        if (!a->up || a->hello.major != BL_WIRE_MAJOR)
                return -ENOTCONN;
        if (feature == BL_UNSET || !is_partner(a) || (a->hello.features & feature) != feature)
                return -EOPNOTSUPP;
        if (a->acting)
                return -EBUSY;
        now = loop_now(a);
        a->acting = true;
        a->action_end = now + BL_AGENT_ACTION_LIMIT;
        r = set_timer(a, now);
        if (r < 0) {
                a->acting = false;
                return r;
        }
        a->action = (struct bl_wire_action){.id = a->action.id + 1, .kind = action->kind, .bytes = action->bytes};
        a->action_due = true;
        send_soon(a);
        return 0;
}

bool bl_agent_is_up(const struct bl_agent *a)
{
        return a->up;
}

const struct bl_wire_stats *bl_agent_figures(const struct bl_agent *a)
{
        return &a->figures;
}

const struct bl_agent_counters *bl_agent_counters(const struct bl_agent *a)
{
        return &a->n;
}

/* Sums of what the guest says; not known if any part is not. */
static uint64_t add_known(uint64_t a, uint64_t b)
{
        return a == BL_UNSET || b == BL_UNSET ? BL_UNSET : bl_min(bl_add_sat(a, b), BL_UNSET - 1);
}

void bl_agent_convert(const struct bl_wire_stats *w, usec_t at, usec_t period, struct bl_guest_stats *ret)
{
        /* meminfo's Cached is NR_FILE_PAGES without the other two (fs/proc/meminfo.c);
         * virtio-balloon's "caches" is NR_FILE_PAGES: both sources mean the same */
        uint64_t caches = add_known(add_known(w->v[BL_STAT_CACHED], w->v[BL_STAT_BUFFERS]), w->v[BL_STAT_SWAP_CACHED]);

        *ret = (struct bl_guest_stats){
                .source = BL_STATS_AGENT,
                .at = at,
                .period = period,
                .total = w->v[BL_STAT_MEM_TOTAL],
                .available = w->v[BL_STAT_MEM_AVAILABLE],
                .unused = w->v[BL_STAT_MEM_FREE],
                .caches = caches,
                .swap_total = w->v[BL_STAT_SWAP_TOTAL],
                .swap_free = w->v[BL_STAT_SWAP_FREE],
                .swap_in = w->v[BL_STAT_SWAP_IN],
                .swap_out = w->v[BL_STAT_SWAP_OUT],
                .major_faults = w->v[BL_STAT_MAJOR_FAULTS],
                .unevictable = w->v[BL_STAT_UNEVICTABLE],
                .hugetlb = w->v[BL_STAT_HUGETLB],
                .psi_some = w->v[BL_STAT_PSI_SOME],
                .ballooned = BL_UNSET,
        };
        if (w->v[BL_STAT_BALLOON_INFLATE] != BL_UNSET && w->v[BL_STAT_BALLOON_DEFLATE] != BL_UNSET)
                ret->ballooned = bl_sub_sat(w->v[BL_STAT_BALLOON_INFLATE], w->v[BL_STAT_BALLOON_DEFLATE]);
}
