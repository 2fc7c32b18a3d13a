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

/* What a hello costs: it is logged, and answered. */
#define HELLO_COST (16 * BL_KIB)

struct bl_agent {
        const struct bl_agent_handlers *handlers;
        void *userdata;
        sd_event_source *io;
        sd_event_source *start; /* sends the first welcome from the loop */
        sd_event_source *pause; /* ends a pause in reading */
        int fd;

        bool busy; /* inside a handler */
        bool doomed; /* freed there */
        bool up;
        bool asking; /* no hello yet; asked once, or two majors would greet each other for ever */
        bool welcome_due;
        bool have_sequence;

        usec_t period;
        struct bl_wire_hello hello; /* the last one; zeros: none yet */
        uint64_t sequence;
        int64_t tokens; /* bytes of work left; below 0: a debt */
        usec_t tokens_at;
        struct bl_agent_counters n;

        size_t out_len, out_pos;
        size_t in_len;
        uint8_t out[128];
        uint8_t in[BL_WIRE_FRAME_MAX];
};

_Static_assert(sizeof(struct bl_agent) < 6 * BL_KIB, "see the promise in agent.h");

/* What a wake-up brought: the newest of each. */
struct news {
        bool hello_seen, stats_seen;
        struct bl_wire_hello hello;
        struct bl_wire_stats stats;
};

static void stop(struct bl_agent *a)
{
        /* the source goes first: epoll(7) forgets a closed descriptor only if it has no duplicate */
        a->io = sd_event_source_disable_unref(a->io);
        a->start = sd_event_source_disable_unref(a->start);
        a->pause = sd_event_source_disable_unref(a->pause);
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

/* --- handlers: false when the agent is no more ------------------------------ */

static bool survived(struct bl_agent *a)
{
        a->busy = false;
        if (!a->doomed)
                return true;
        free(a);
        return false;
}

static bool give_hello(struct bl_agent *a, const struct bl_wire_hello *h)
{
        a->n.hellos++;
        if (memcmp(h, &a->hello, sizeof *h) == 0)
                return true;
        a->hello = *h;
        if (!a->handlers->hello)
                return true;
        a->busy = true;
        a->handlers->hello(a, h, a->userdata);
        return survived(a);
}

static bool give_stats(struct bl_agent *a, const struct bl_wire_stats *w, usec_t now)
{
        struct bl_guest_stats s;
        uint64_t sequence = w->v[BL_STAT_SEQUENCE];

        a->n.reports++;
        if (a->have_sequence && sequence != BL_UNSET && sequence > a->sequence)
                a->n.lost = bl_add_sat(a->n.lost, sequence - a->sequence - 1);
        a->have_sequence = sequence != BL_UNSET;
        a->sequence = sequence;
        if (!a->handlers->stats)
                return true;
        bl_agent_convert(w, now, a->period, &s);
        a->busy = true;
        a->handlers->stats(a, &s, a->userdata);
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

static int watch(struct bl_agent *a)
{
        uint32_t events = EPOLLIN | (a->out_len > 0 ? (uint32_t)EPOLLOUT : 0);

        return sd_event_source_set_io_events(a->io, events);
}

/*
 * Sends what is due.  Only the newest welcome matters, so that nothing queues
 * up behind a guest that does not read: one frame on its way and one flag.
 */
static int flush(struct bl_agent *a)
{
        while (a->out_len > 0 || a->welcome_due) {
                ssize_t n;

                if (a->out_len == 0) {
                        struct bl_wire_welcome w = {
                                .major = BL_WIRE_MAJOR,
                                .minor = BL_WIRE_MINOR,
                                .period = a->period,
                                .ask = a->asking ? 1 : 0,
                        };
                        int len = bl_wire_encode_welcome(&w, a->out, sizeof a->out);

                        if (len < 0)
                                return len;
                        a->out_len = (size_t)len;
                        a->out_pos = 0;
                        a->welcome_due = false;
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

void bl_agent_set_period(struct bl_agent *a, usec_t period)
{
        period = bl_clamp(period, BL_WIRE_PERIOD_MIN, BL_WIRE_PERIOD_MAX);
        if (period == a->period)
                return;
        a->period = period;
        if (!a->up)
                return;
        a->welcome_due = true;
        /* from the loop, where a failure can be reported as the end of the stream */
        (void)sd_event_source_set_io_events(a->io, EPOLLIN | EPOLLOUT);
}

/* --- receiving --------------------------------------------------------------- */

static void take_hello(struct bl_agent *a, const struct bl_wire_frame *f, struct news *news)
{
        struct bl_wire_hello h;

        if (bl_wire_decode_hello(f, &h) < 0) {
                a->n.spoilt++;
                return;
        }
        news->hello = h;
        news->hello_seen = true;
        /* perhaps another agent, or the same started anew: its numbers start anew too */
        news->stats_seen = false;
        a->have_sequence = false;
        a->up = h.major == BL_WIRE_MAJOR;
        a->asking = false;
        a->welcome_due = true;
        a->tokens -= (int64_t)HELLO_COST;
}

static void take_stats(struct bl_agent *a, const struct bl_wire_frame *f, struct news *news)
{
        struct bl_wire_stats s;

        if (!a->up) {
                a->n.early++;
        } else if (bl_wire_decode_stats(f, &s) < 0) {
                a->n.spoilt++;
        } else {
                news->stats = s;
                news->stats_seen = true;
        }
}

static void take(struct bl_agent *a, const struct bl_wire_frame *f, struct news *news)
{
        switch (f->type) {
        case BL_WIRE_HELLO:
                take_hello(a, f, news);
                break;
        case BL_WIRE_STATS:
                take_stats(a, f, news);
                break;
        default: /* of a newer minor version, or what only a host may send */
                a->n.unknown++;
                break;
        }
}

/* Parses what is in the buffer and keeps the start of a frame at its end. */
static void parse(struct bl_agent *a, struct news *news)
{
        struct bl_wire_iter it;
        struct bl_wire_frame f;

        bl_wire_iter_init(&it, a->in, a->in_len);
        while (bl_wire_next(&it, &f) > 0)
                take(a, &f, news);
        a->n.garbage += it.skipped;
        a->tokens -= (int64_t)it.checked;
        a->in_len = it.size - it.pos;
        memmove(a->in, a->in + it.pos, a->in_len);
}

enum received { RECEIVED_END, RECEIVED_ALL, RECEIVED_SOME };

/* Did it read all that there is, or only as much as it may?  Negative errno. */
static int receive(struct bl_agent *a, struct news *news)
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
                parse(a, news);
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
static int throttle(struct bl_agent *a)
{
        uint64_t missing = (uint64_t)((int64_t)BL_AGENT_RATE / 4 - a->tokens);
        int r;

        a->n.throttled++;
        /* disabled rather than without events: EPOLLHUP is always reported */
        r = sd_event_source_set_enabled(a->io, SD_EVENT_OFF);
        if (r < 0)
                return r;
        r = sd_event_source_set_time_relative(a->pause, missing * BL_SEC / BL_AGENT_RATE);
        if (r < 0)
                return r;
        return sd_event_source_set_enabled(a->pause, SD_EVENT_ONESHOT);
}

static int on_pause_end(sd_event_source *source, uint64_t at, void *userdata)
{
        struct bl_agent *a = userdata;
        int r = sd_event_source_set_enabled(a->io, SD_EVENT_ON);

        (void)source;
        (void)at;
        if (r < 0)
                give_closed(a, r);
        return 0;
}

static int on_start(sd_event_source *source, void *userdata)
{
        struct bl_agent *a = userdata;
        int r;

        (void)source;
        a->welcome_due = true;
        r = flush(a);
        if (r < 0)
                give_closed(a, r);
        return 0;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
        struct bl_agent *a = userdata;
        struct news news = {0};
        usec_t now = 0;
        int r, s = 0;

        (void)fd;
        (void)revents;
        (void)sd_event_now(sd_event_source_get_event(source), CLOCK_MONOTONIC, &now);
        refill(a, now);
        a->tokens -= WAKE_COST;
        r = receive(a, &news);
        if (news.hello_seen && !give_hello(a, &news.hello))
                return 0;
        /* after the hello, whose handler may have set the period */
        if (r > RECEIVED_END)
                s = flush(a);
        /* Behind figures that are not the last to be read newer ones wait: after
         * we were stopped for a while they may be old, and must not look fresh. */
        if (news.stats_seen && a->up && r != RECEIVED_SOME && !give_stats(a, &news.stats, now))
                return 0;
        if (r > RECEIVED_END && s >= 0 && a->tokens <= 0)
                s = throttle(a);
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
        a->period = BL_WIRE_PERIOD_DEFAULT;
        a->tokens = (int64_t)BL_AGENT_BURST;
        r = sd_event_now(e, CLOCK_MONOTONIC, &a->tokens_at);
        if (r >= 0)
                r = sd_event_add_io(e, &a->io, fd, EPOLLIN, on_io, a);
        if (r >= 0)
                r = sd_event_add_time(e, &a->pause, CLOCK_MONOTONIC, 0, 10 * BL_MSEC, on_pause_end, a);
        if (r >= 0)
                r = sd_event_source_set_enabled(a->pause, SD_EVENT_OFF);
        if (r >= 0)
                r = sd_event_add_defer(e, &a->start, on_start, a);
        if (r < 0) {
                (void)bl_agent_free(a);
                return r;
        }
        (void)sd_event_source_set_description(a->io, "agent");
        *ret = a;
        return 0;
}

bool bl_agent_is_up(const struct bl_agent *a)
{
        return a->up;
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
