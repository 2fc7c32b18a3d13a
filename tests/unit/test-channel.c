/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host's end of an agent: conversation, hostile guests, and the way to QEMU's socket. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include <ballast/cleanup.h>

#include "daemon/channel/agent.h"
#include "daemon/channel/virtio_serial.h"
#include "tests/unit/test-streams.h"

/* Ours comes before libc's also for the event loop: seconds pass when a test says so. */
static usec_t clock_ahead;

int clock_gettime(clockid_t id, struct timespec *ret)
{
        usec_t ahead = id == CLOCK_MONOTONIC || id == CLOCK_BOOTTIME ? clock_ahead : 0;

        if (syscall(SYS_clock_gettime, id, ret) < 0)
                return -1;
        ret->tv_sec += (time_t)(ahead / BL_SEC);
        ret->tv_nsec += (long)(ahead % BL_SEC) * 1000;
        if (ret->tv_nsec >= 1000000000) {
                ret->tv_nsec -= 1000000000;
                ret->tv_sec++;
        }
        return 0;
}

enum free_in {
        FREE_NEVER,
        FREE_IN_HELLO,
        FREE_IN_STATS,
        FREE_IN_CLOSED,
        FREE_IN_REQUEST,
        FREE_IN_HINTS,
        FREE_IN_RESULT,
};

struct fixture {
        sd_event *event;
        struct bl_agent *agent;
        int guest; /* the guest's end */
        enum free_in free_in;

        int hellos, stats, closes, requests, hints, results;
        int error;
        struct bl_wire_hello hello;
        struct bl_guest_stats last;
        struct bl_wire_request request; /* the last */
        int stats_before; /* statistics that had come when it did */
        usec_t request_at, closest; /* the shortest time between two */
        uint64_t hinted; /* pages */
        struct bl_wire_result result;
        enum bl_wire_action_kind acted;
};

static void maybe_free(struct fixture *x, enum free_in where)
{
        if (x->free_in == where)
                x->agent = bl_agent_free(x->agent);
}

static void on_hello(struct bl_agent *a, const struct bl_wire_hello *h, void *userdata)
{
        struct fixture *x = userdata;

        (void)a;
        x->hellos++;
        x->hello = *h;
        maybe_free(x, FREE_IN_HELLO);
}

static void on_stats(struct bl_agent *a, const struct bl_guest_stats *s, void *userdata)
{
        struct fixture *x = userdata;

        (void)a;
        x->stats++;
        x->last = *s;
        maybe_free(x, FREE_IN_STATS);
}

static void on_closed(struct bl_agent *a, int error, void *userdata)
{
        struct fixture *x = userdata;

        (void)a;
        x->closes++;
        x->error = error;
        maybe_free(x, FREE_IN_CLOSED);
}

static usec_t monotonic(void)
{
        struct timespec t;

        assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &t), 0);
        return (usec_t)t.tv_sec * BL_SEC + (usec_t)t.tv_nsec / 1000;
}

static void on_request(struct bl_agent *a, const struct bl_wire_request *r, void *userdata)
{
        struct fixture *x = userdata;
        usec_t now = 0;

        (void)a;
        assert_true(sd_event_now(x->event, CLOCK_MONOTONIC, &now) >= 0);
        if (x->requests++ > 0)
                x->closest = bl_min(x->closest, now - x->request_at);
        x->request_at = now;
        x->request = *r;
        x->stats_before = x->stats;
        maybe_free(x, FREE_IN_REQUEST);
}

static void on_hints(struct bl_agent *a, const struct bl_wire_hints *h, void *userdata)
{
        struct fixture *x = userdata;
        struct bl_wire_run run;
        uint64_t pfn = 0;
        size_t pos = 0;

        (void)a;
        assert_true(x->hellos > 0);
        x->hints++;
        while (bl_wire_run_next(h, &pos, &pfn, &run) > 0)
                x->hinted += run.pages;
        maybe_free(x, FREE_IN_HINTS);
}

static void on_result(struct bl_agent *a, enum bl_wire_action_kind kind, const struct bl_wire_result *r, void *userdata)
{
        struct fixture *x = userdata;

        (void)a;
        x->results++;
        x->acted = kind;
        x->result = *r;
        maybe_free(x, FREE_IN_RESULT);
}

static const struct bl_agent_handlers handlers = {
        .hello = on_hello,
        .stats = on_stats,
        .request = on_request,
        .hints = on_hints,
        .result = on_result,
        .closed = on_closed,
};

static void open_agent(struct fixture *x)
{
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
        x->guest = pair[1];
        assert_int_equal(bl_agent_open(x->event, pair[0], &handlers, x, &x->agent), 0);
}

static void close_agent(struct fixture *x)
{
        x->agent = bl_agent_free(x->agent);
        bl_closep(&x->guest);
        *x = (struct fixture){.event = x->event, .guest = -1, .closest = BL_UNSET};
}

static int setup(void **state)
{
        struct fixture *x = calloc(1, sizeof *x);

        assert_non_null(x);
        x->closest = BL_UNSET;
        assert_true(sd_event_new(&x->event) >= 0);
        open_agent(x);
        *state = x;
        return 0;
}

static int teardown(void **state)
{
        struct fixture *x = *state;

        close_agent(x);
        sd_event_unref(x->event);
        free(x);
        return 0;
}

/* Runs the loop until nothing has happened for `idle`. */
static void settle_for(struct fixture *x, usec_t idle)
{
        int r;

        while ((r = sd_event_run(x->event, idle)) > 0)
                ;
        assert_int_equal(r, 0);
}

static void settle(struct fixture *x)
{
        settle_for(x, 0);
}

static void advance(struct fixture *x, usec_t time)
{
        clock_ahead += time;
        settle(x);
}

static usec_t cpu_time(void)
{
        struct timespec t;

        assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t), 0);
        return (usec_t)t.tv_sec * BL_SEC + (usec_t)t.tv_nsec / 1000;
}

static size_t hello_frame(uint8_t *buf, uint64_t major)
{
        struct bl_wire_hello h = {.major = major, .version = "0.1.0", .kernel = "6.1.0"};

        return (size_t)bl_wire_encode_hello(&h, buf, BL_WIRE_FRAME_MAX);
}

static size_t stats_frame(uint8_t *buf, uint64_t sequence)
{
        struct bl_wire_stats s;

        bl_wire_stats_init(&s);
        s.v[BL_STAT_SEQUENCE] = sequence;
        s.v[BL_STAT_MEM_TOTAL] = 512 * BL_MIB;
        s.v[BL_STAT_MEM_AVAILABLE] = 300 * BL_MIB;
        return (size_t)bl_wire_encode_stats(&s, buf, BL_WIRE_FRAME_MAX);
}

static void say(struct fixture *x, const uint8_t *buf, size_t size)
{
        assert_int_equal(send(x->guest, buf, size, MSG_NOSIGNAL), size);
}

static void say_hello(struct fixture *x, uint64_t major)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];

        say(x, buf, hello_frame(buf, major));
        settle(x);
}

static void say_stats(struct fixture *x, uint64_t sequence)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];

        say(x, buf, stats_frame(buf, sequence));
        settle(x);
}

/* How many welcomes the guest got; the last in *ret. */
static int welcomes(struct fixture *x, struct bl_wire_welcome *ret)
{
        static uint8_t buf[1 << 20];
        ssize_t n = recv(x->guest, buf, sizeof buf, 0);
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        int found = 0;

        if (n < 0) {
                assert_int_equal(errno, EAGAIN);
                return 0;
        }
        bl_wire_iter_init(&it, buf, (size_t)n);
        while (bl_wire_next(&it, &f) > 0) {
                assert_int_equal(f.type, BL_WIRE_WELCOME);
                assert_int_equal(bl_wire_decode_welcome(&f, ret), 0);
                found++;
        }
        assert_int_equal(it.pos, it.size);
        assert_int_equal(it.skipped, 0);
        return found;
}

/* --- conversation ---------------------------------------------------------------- */

static void test_conversation(void **state)
{
        struct fixture *x = *state;
        struct bl_wire_welcome w;
        usec_t before;

        settle(x);
        assert_int_equal(welcomes(x, &w), 1);
        assert_int_equal(w.major, BL_WIRE_MAJOR);
        assert_int_equal(w.period, BL_SEC);
        assert_int_equal(w.ask, 1);
        assert_false(bl_agent_is_up(x->agent));

        say_hello(x, BL_WIRE_MAJOR);
        assert_int_equal(x->hellos, 1);
        assert_string_equal(x->hello.kernel, "6.1.0");
        assert_true(bl_agent_is_up(x->agent));
        assert_int_equal(welcomes(x, &w), 1);
        assert_int_equal(w.ask, 0);

        before = monotonic();
        say_stats(x, 1);
        assert_int_equal(x->stats, 1);
        assert_int_equal(x->last.source, BL_STATS_AGENT);
        assert_true(x->last.at >= before && x->last.at <= monotonic());
        assert_int_equal(x->last.period, BL_SEC);
        assert_int_equal(x->last.total, 512 * BL_MIB);
        assert_int_equal(x->last.psi_some, BL_UNSET);

        bl_agent_set_period(x->agent, 250 * BL_MSEC);
        settle(x);
        assert_int_equal(welcomes(x, &w), 1);
        assert_int_equal(w.period, 250 * BL_MSEC);
        bl_agent_set_period(x->agent, 1); /* out of bounds */
        settle(x);
        assert_int_equal(welcomes(x, &w), 1);
        assert_int_equal(w.period, BL_WIRE_PERIOD_MIN);
        bl_agent_set_period(x->agent, 1); /* no change */
        settle(x);
        assert_int_equal(welcomes(x, &w), 0);
        say_stats(x, 5);
        assert_int_equal(x->last.period, BL_WIRE_PERIOD_MIN);
        assert_int_equal(bl_agent_counters(x->agent)->lost, 3);
        assert_int_equal(x->closes, 0);
}

/* Our question and the guest's own hello may cross: answered both, told once. */
static void test_same_hello(void **state)
{
        struct fixture *x = *state;
        struct bl_wire_welcome w;

        settle(x);
        (void)welcomes(x, &w);
        say_hello(x, BL_WIRE_MAJOR);
        say_hello(x, BL_WIRE_MAJOR);
        assert_int_equal(x->hellos, 1);
        assert_int_equal(welcomes(x, &w), 2);
        say_hello(x, BL_WIRE_MAJOR + 1);
        assert_int_equal(x->hellos, 2);
}

static void test_period_before_hello(void **state)
{
        struct fixture *x = *state;
        struct bl_wire_welcome w;

        settle(x);
        (void)welcomes(x, &w);
        bl_agent_set_period(x->agent, 2 * BL_SEC);
        settle(x);
        assert_int_equal(welcomes(x, &w), 0);
        say_hello(x, BL_WIRE_MAJOR);
        assert_int_equal(welcomes(x, &w), 1);
        assert_int_equal(w.period, 2 * BL_SEC);
}

/* What another major version means by its messages is not known to us. */
static void test_other_major(void **state)
{
        struct fixture *x = *state;
        struct bl_wire_welcome w;

        settle(x);
        (void)welcomes(x, &w);
        say_hello(x, BL_WIRE_MAJOR + 1);
        assert_int_equal(x->hellos, 1);
        assert_int_equal(x->hello.major, BL_WIRE_MAJOR + 1);
        assert_int_equal(welcomes(x, &w), 1);
        assert_int_equal(w.ask, 0); /* or two majors would greet each other for ever */
        say_stats(x, 1);
        assert_int_equal(x->stats, 0);
        assert_int_equal(bl_agent_counters(x->agent)->early, 1);
        say_hello(x, BL_WIRE_MAJOR); /* it was upgraded */
        say_stats(x, 2);
        assert_int_equal(x->stats, 1);
}

static void test_stats_before_hello(void **state)
{
        struct fixture *x = *state;

        say_stats(x, 1);
        assert_int_equal(x->stats, 0);
        assert_int_equal(bl_agent_counters(x->agent)->early, 1);
        assert_int_equal(x->closes, 0);
}

static void test_unknown_and_spoilt(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX];
        struct bl_wire_writer w;

        say_hello(x, BL_WIRE_MAJOR);
        bl_wire_begin(&w, buf, sizeof buf, 0x4321);
        say(x, buf, (size_t)bl_wire_end(&w));
        bl_wire_begin(&w, buf, sizeof buf, BL_WIRE_WELCOME); /* only we may say that */
        bl_wire_put_u64(&w, 1, 1);
        say(x, buf, (size_t)bl_wire_end(&w));
        bl_wire_begin(&w, buf, sizeof buf, BL_WIRE_STATS);
        bl_wire_put(&w, BL_STAT_MEM_TOTAL, "short", 5);
        say(x, buf, (size_t)bl_wire_end(&w));
        say(x, (const uint8_t *)"garbage", 7);
        say_stats(x, 1);
        assert_int_equal(x->stats, 1);
        assert_int_equal(bl_agent_counters(x->agent)->unknown, 2);
        assert_int_equal(bl_agent_counters(x->agent)->spoilt, 1);
        assert_int_equal(bl_agent_counters(x->agent)->garbage, 7);
        assert_int_equal(x->closes, 0);
}

/* Of what came in one go only the newest counts: old figures must not look new. */
static void test_newest_counts(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX];

        say_hello(x, BL_WIRE_MAJOR);
        for (uint64_t i = 1; i <= 9; i++)
                say(x, buf, stats_frame(buf, i));
        settle(x);
        assert_int_equal(x->stats, 1);
        say_stats(x, 10);
        assert_int_equal(x->stats, 2);
        assert_int_equal(bl_agent_counters(x->agent)->lost, 0);
}

/* We were stopped, and the guest went on: of all that has piled up in the socket,
 * only the last is fresh. */
static void test_piled_up(void **state)
{
        struct fixture *x = *state;
        static uint8_t buf[BL_WIRE_FRAME_MAX * 20];
        struct bl_wire_stats s;
        size_t n = 0;

        say_hello(x, BL_WIRE_MAJOR);
        bl_wire_stats_init(&s);
        for (uint64_t i = 1; i <= 150; i++) {
                for (int tag = BL_STAT_UPTIME; tag < _BL_STAT_MAX; tag++)
                        s.v[tag] = i;
                n += (size_t)bl_wire_encode_stats(&s, buf + n, sizeof buf - n);
        }
        say(x, buf, n);
        settle(x);
        assert_true(bl_agent_counters(x->agent)->bytes > 40 * BL_KIB); /* several wake-ups */
        assert_int_equal(x->stats, 1);
        assert_int_equal(x->last.total, 150);
        assert_int_equal(bl_agent_figures(x->agent)->v[BL_STAT_STORE_USED], 150);
}

static void test_convert(void **state)
{
        struct bl_wire_stats w;
        struct bl_guest_stats s;

        (void)state;
        for (uint64_t i = 0; i < _BL_STAT_MAX; i++)
                w.v[i] = 1000 + i;
        bl_agent_convert(&w, 7, 8, &s);
        assert_int_equal(s.at, 7);
        assert_int_equal(s.period, 8);
        assert_int_equal(s.total, 1000 + BL_STAT_MEM_TOTAL);
        assert_int_equal(s.available, 1000 + BL_STAT_MEM_AVAILABLE);
        assert_int_equal(s.unused, 1000 + BL_STAT_MEM_FREE);
        assert_int_equal(s.caches, 3000 + BL_STAT_CACHED + BL_STAT_BUFFERS + BL_STAT_SWAP_CACHED);
        assert_int_equal(s.swap_total, 1000 + BL_STAT_SWAP_TOTAL);
        assert_int_equal(s.swap_free, 1000 + BL_STAT_SWAP_FREE);
        assert_int_equal(s.swap_in, 1000 + BL_STAT_SWAP_IN);
        assert_int_equal(s.swap_out, 1000 + BL_STAT_SWAP_OUT);
        assert_int_equal(s.major_faults, 1000 + BL_STAT_MAJOR_FAULTS);
        assert_int_equal(s.unevictable, 1000 + BL_STAT_UNEVICTABLE);
        assert_int_equal(s.hugetlb, 1000 + BL_STAT_HUGETLB);
        assert_int_equal(s.psi_some, 1000 + BL_STAT_PSI_SOME);

        w.v[BL_STAT_CACHED] = UINT64_MAX - 1; /* a sum that overflows is large, not unknown and not small */
        bl_agent_convert(&w, 7, 8, &s);
        assert_int_equal(s.caches, UINT64_MAX - 1);
        w.v[BL_STAT_BUFFERS] = BL_UNSET;
        bl_agent_convert(&w, 7, 8, &s);
        assert_int_equal(s.caches, BL_UNSET);
}

/* --- hostile guests ------------------------------------------------------------------ */

static void test_close_at_each_byte(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t hello = hello_frame(buf, BL_WIRE_MAJOR);
        size_t size = hello + stats_frame(buf + hello, 1);

        for (size_t n = 0; n <= size; n++) {
                close_agent(x);
                open_agent(x);
                settle(x);
                if (n > 0)
                        say(x, buf, n);
                bl_closep(&x->guest);
                x->guest = -1;
                settle(x);
                assert_int_equal(x->hellos, n >= hello);
                assert_int_equal(x->stats, n >= size);
                assert_int_equal(x->closes, 1);
                /* ECONNRESET where our welcome lay unread (unix(7)), EPIPE where the reply had nobody to go to */
                assert_true(x->error == 0 || x->error == -ECONNRESET || x->error == -EPIPE);
        }
}

static void test_byte_by_byte(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t hello = hello_frame(buf, BL_WIRE_MAJOR);
        size_t size = hello + stats_frame(buf + hello, 1);

        for (size_t i = 0; i < size; i++) {
                say(x, buf + i, 1);
                settle(x);
        }
        assert_int_equal(x->hellos, 1);
        assert_int_equal(x->stats, 1);
}

static void test_split_at_each_byte(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t hello = hello_frame(buf, BL_WIRE_MAJOR);
        size_t size = hello + stats_frame(buf + hello, 1);

        for (size_t n = 1; n < size; n++) {
                close_agent(x);
                open_agent(x);
                say(x, buf, n);
                settle(x);
                say(x, buf + n, size - n);
                settle(x);
                assert_int_equal(x->hellos, 1);
                assert_int_equal(x->stats, 1);
        }
}

/* The guest reads nothing: no error, no growth, and in the end the newest period. */
static void test_guest_does_not_read(void **state)
{
        struct fixture *x = *state;
        struct bl_wire_welcome w = {0};
        static uint8_t sink[1 << 20];
        ssize_t n;

        say_hello(x, BL_WIRE_MAJOR);
        for (usec_t i = 0; i < 20000; i++) {
                bl_agent_set_period(x->agent, BL_SEC + i);
                settle(x);
        }
        assert_int_equal(x->closes, 0);
        for (int i = 0; i < 1000; i++) {
                n = recv(x->guest, sink, sizeof sink, 0);
                settle(x);
                if (n < 0)
                        break;
        }
        bl_agent_set_period(x->agent, 3 * BL_SEC);
        settle(x);
        assert_int_equal(welcomes(x, &w), 1);
        assert_int_equal(w.period, 3 * BL_SEC);
        assert_int_equal(x->closes, 0);
}

/* Sends `what` over and over for `time`; returns the CPU that the loop took. */
static usec_t flood(struct fixture *x, const uint8_t *what, size_t size, usec_t time)
{
        usec_t end = monotonic() + time, cpu = 0;
        size_t at = 0;

        while (monotonic() < end) {
                usec_t before;
                ssize_t n;

                while ((n = send(x->guest, what + at, size - at, MSG_NOSIGNAL)) > 0)
                        at = (at + (size_t)n) % size;
                before = cpu_time();
                assert_true(sd_event_run(x->event, 10 * BL_MSEC) >= 0);
                cpu += cpu_time() - before;
        }
        return cpu;
}

static void assert_bounded(const struct fixture *x, usec_t time)
{
        const struct bl_agent_counters *n = bl_agent_counters(x->agent);

        assert_true(n->bytes <= BL_AGENT_BURST + bl_rate_times(BL_AGENT_RATE, time) + 20 * BL_KIB);
        assert_true(n->throttled > 0);
        assert_int_equal(x->closes, 0);
}

static void test_flood(void **state)
{
        struct fixture *x = *state;
        static uint8_t what[BL_WIRE_FRAME_MAX * 64];
        size_t size = 0;

        /* sound reports, as many as go in */
        say_hello(x, BL_WIRE_MAJOR);
        while (size + BL_WIRE_FRAME_MAX < sizeof what)
                size += stats_frame(what + size, size);
        print_message("reports: %lu us of CPU a second\n", (unsigned long)flood(x, what, size, BL_SEC));
        assert_bounded(x, BL_SEC);
        assert_true(x->stats < 20);

        close_agent(x);
        open_agent(x);
        size = 0;
        while (size + BL_WIRE_FRAME_MAX < sizeof what)
                size += hello_frame(what + size, BL_WIRE_MAJOR);
        print_message("hellos: %lu us of CPU a second\n", (unsigned long)flood(x, what, size, BL_SEC));
        assert_true(bl_agent_counters(x->agent)->throttled > 0);
        assert_true(x->hellos <= 20);

        close_agent(x);
        open_agent(x);
        memset(what, 0, sizeof what);
        print_message("zeros: %lu us of CPU a second\n", (unsigned long)flood(x, what, sizeof what, BL_SEC));
        assert_bounded(x, BL_SEC);
}

/* Sound headers that each announce a long body with a wrong checksum: every 16
 * bytes cost a checksum over 4 KiB, which has to be paid for. */
static void test_flood_of_headers(void **state)
{
        struct fixture *x = *state;
        static uint8_t what[BL_WIRE_FRAME_MAX * 64];
        struct bl_wire_writer w;
        uint8_t header[BL_WIRE_FRAME_MAX];
        usec_t cpu;

        bl_wire_begin(&w, header, sizeof header, BL_WIRE_STATS);
        for (int i = 0; i < 254; i++)
                bl_wire_put(&w, 99, "xxxxxxxxxxxx", 12);
        assert_true(bl_wire_end(&w) > 4000);
        for (size_t i = 0; i < sizeof what; i += BL_WIRE_HEADER)
                memcpy(what + i, header, BL_WIRE_HEADER);
        cpu = flood(x, what, sizeof what, 2 * BL_SEC);
        print_message("headers: %lu us of CPU a second\n", (unsigned long)cpu / 2);
        assert_true(bl_agent_counters(x->agent)->throttled > 0);
        assert_true(bl_agent_counters(x->agent)->bytes < 32 * BL_KIB);
        assert_true(cpu < 400 * BL_MSEC); /* generous: sanitizers; unpaid it would be all of it */
}

/* Once the flood ends, the guest is heard again. */
static void test_after_flood(void **state)
{
        struct fixture *x = *state;
        static uint8_t what[BL_WIRE_FRAME_MAX * 16];
        usec_t end = monotonic() + 10 * BL_SEC;

        say_hello(x, BL_WIRE_MAJOR);
        (void)send(x->guest, what, sizeof what, MSG_NOSIGNAL);
        (void)send(x->guest, what, sizeof what, MSG_NOSIGNAL);
        (void)send(x->guest, what, sizeof what, MSG_NOSIGNAL);
        say_stats(x, 1);
        while (x->stats == 0 && monotonic() < end)
                assert_true(sd_event_run(x->event, 100 * BL_MSEC) >= 0);
        assert_int_equal(x->stats, 1);
        assert_true(bl_agent_counters(x->agent)->throttled > 0);
}

/* A guest that goes while it is throttled is noticed in the end, and the loop does not spin. */
static void test_close_while_throttled(void **state)
{
        struct fixture *x = *state;
        static uint8_t what[BL_WIRE_FRAME_MAX * 48];
        usec_t end = monotonic() + 10 * BL_SEC;
        int turns = 0;

        (void)send(x->guest, what, sizeof what, MSG_NOSIGNAL);
        bl_closep(&x->guest);
        x->guest = -1;
        while (x->closes == 0 && monotonic() < end) {
                assert_true(sd_event_run(x->event, 500 * BL_MSEC) >= 0);
                turns++;
        }
        assert_int_equal(x->closes, 1);
        assert_true(turns < 100);
}

static void test_free_in_handlers(void **state)
{
        struct fixture *x = *state;

        for (int where = FREE_IN_HELLO; where <= FREE_IN_CLOSED; where++) {
                uint8_t buf[BL_WIRE_FRAME_MAX];
                size_t n;

                close_agent(x);
                open_agent(x);
                settle(x);
                x->free_in = (enum free_in)where;
                n = hello_frame(buf, BL_WIRE_MAJOR);
                n += stats_frame(buf + n, 1);
                say(x, buf, n);
                bl_closep(&x->guest);
                x->guest = -1;
                settle(x);
                assert_null(x->agent);
                assert_int_equal(x->hellos, 1);
                assert_int_equal(x->stats, where >= FREE_IN_STATS);
                assert_int_equal(x->closes, where >= FREE_IN_CLOSED);
        }
}

static void test_free_before_start(void **state)
{
        struct fixture *x = *state;

        close_agent(x);
        settle(x);
        assert_null(bl_agent_free(NULL));
}

/* --- requests ----------------------------------------------------------------------------- */

static size_t partner_frame(uint8_t *buf)
{
        struct bl_wire_hello h = {
                .major = BL_WIRE_MAJOR,
                .minor = 1,
                .features = BL_WIRE_FEATURE_REQUEST | BL_WIRE_FEATURE_HINTS | BL_WIRE_FEATURE_TRIM,
                .version = "0.2.0",
        };

        return (size_t)bl_wire_encode_hello(&h, buf, BL_WIRE_FRAME_MAX);
}

static void say_partner(struct fixture *x)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];

        say(x, buf, partner_frame(buf));
        settle(x);
        assert_int_equal(x->hellos, 1);
}

static size_t request_frame(uint8_t *buf, uint64_t bytes, uint64_t urgency, usec_t deadline)
{
        struct bl_wire_request r = {.bytes = bytes, .urgency = urgency, .deadline = deadline};

        return (size_t)bl_wire_encode_request(&r, buf, BL_WIRE_FRAME_MAX);
}

static size_t pressure_frame(uint8_t *buf)
{
        struct bl_wire_pressure p = {.stall = 70 * BL_MSEC, .window = BL_SEC, .full = 1};

        return (size_t)bl_wire_encode_pressure(&p, buf, BL_WIRE_FRAME_MAX);
}

static void say_request(struct fixture *x, uint64_t bytes, uint64_t urgency, usec_t deadline)
{
        uint8_t buf[BL_WIRE_FRAME_MAX];

        say(x, buf, request_frame(buf, bytes, urgency, deadline));
        settle(x);
}

/* The figures that go with it come first, also where they were written behind it. */
static void test_request(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n;

        say_partner(x);
        n = request_frame(buf, 256 * BL_MIB, BL_URGENCY_NOW, 400 * BL_MSEC);
        n += stats_frame(buf + n, 1);
        say(x, buf, n);
        settle(x);
        assert_int_equal(x->requests, 1);
        assert_int_equal(x->stats_before, 1);
        assert_int_equal(x->request.bytes, 256 * BL_MIB);
        assert_int_equal(x->request.urgency, BL_URGENCY_NOW);
        assert_int_equal(x->request.deadline, 400 * BL_MSEC);
        assert_int_equal(bl_agent_counters(x->agent)->requests, 1);
}

static void test_pressure(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX];

        say_partner(x);
        say(x, buf, pressure_frame(buf));
        settle(x);
        assert_int_equal(x->requests, 1);
        assert_int_equal(x->request.bytes, 0);
        assert_int_equal(x->request.urgency, BL_URGENCY_NOW);
        assert_int_equal(x->request.deadline, BL_UNSET);
}

static void test_request_before_hello(void **state)
{
        struct fixture *x = *state;

        say_request(x, 1, BL_URGENCY_STOP, 0);
        advance(x, BL_SEC);
        assert_int_equal(x->requests, 0);
        assert_int_equal(bl_agent_counters(x->agent)->early, 1);
        say_hello(x, BL_WIRE_MAJOR + 1);
        say_request(x, 1, BL_URGENCY_STOP, 0);
        advance(x, BL_SEC);
        assert_int_equal(x->requests, 0);
        assert_int_equal(bl_agent_counters(x->agent)->early, 2);
}

/* Of those that come together, and of those in the gap behind one, the most urgent is heard: none is lost. */
static void test_request_gap(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t n;

        say_partner(x);
        n = request_frame(buf, 5, BL_URGENCY_STOP, BL_UNSET);
        n += request_frame(buf + n, 9, BL_URGENCY_SOON, 3 * BL_SEC);
        n += pressure_frame(buf + n);
        n += request_frame(buf + n, 7, BL_URGENCY_SOON, 2 * BL_SEC);
        say(x, buf, n);
        settle(x);
        assert_int_equal(x->requests, 1);
        assert_true(x->request.bytes == 9 && x->request.urgency == BL_URGENCY_STOP &&
                    x->request.deadline == 2 * BL_SEC);

        say_request(x, 11, BL_URGENCY_SOON, BL_UNSET);
        say_request(x, 12, BL_URGENCY_NOW, BL_SEC);
        say_stats(x, 1);
        assert_int_equal(x->stats, 1);
        assert_int_equal(x->requests, 1);
        advance(x, BL_AGENT_REQUEST_GAP);
        assert_int_equal(x->requests, 2);
        assert_true(x->request.bytes == 12 && x->request.urgency == BL_URGENCY_NOW);
        /* what it has left has become less meanwhile */
        assert_in_range(x->request.deadline, BL_SEC - BL_AGENT_REQUEST_GAP - 100 * BL_MSEC, BL_SEC - BL_MSEC);
        advance(x, BL_SEC);
        assert_int_equal(x->requests, 2);
        say_request(x, 1, BL_URGENCY_SOON, BL_UNSET);
        assert_int_equal(x->requests, 3);
        assert_true(x->request.bytes == 1 && x->request.urgency == BL_URGENCY_SOON);
        assert_true(x->closest >= BL_AGENT_REQUEST_GAP);
}

/* The longest statistics and a request ten times a second, and pressure twice: for
 * a minute, which is more than the burst covers. */
static void test_true_need_is_not_throttled(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX], sink[BL_WIRE_FRAME_MAX];
        struct bl_wire_stats s;

        say_partner(x);
        for (uint64_t i = 0; i < 600; i++) {
                size_t n;

                for (int tag = 1; tag < _BL_STAT_MAX; tag++)
                        s.v[tag] = i;
                n = (size_t)bl_wire_encode_stats(&s, buf, sizeof buf);
                say(x, buf, n);
                settle(x); /* a wake-up for each */
                say(x, buf, request_frame(buf, BL_MIB, BL_URGENCY_STOP, BL_SEC));
                settle(x);
                advance(x, 50 * BL_MSEC);
                if (i % 5 == 0)
                        say(x, buf, pressure_frame(buf));
                advance(x, 50 * BL_MSEC);
                while (recv(x->guest, sink, sizeof sink, 0) > 0)
                        ;
        }
        assert_int_equal(x->stats, 600);
        assert_int_equal(x->requests, 720);
        assert_int_equal(bl_agent_counters(x->agent)->throttled, 0);
}

/* Requests without end: no more than the budget, no closer than the gap. */
static void test_flood_of_requests(void **state)
{
        struct fixture *x = *state;
        static uint8_t what[BL_WIRE_FRAME_MAX * 8];
        size_t size = 0;
        int at_once;

        say_partner(x);
        while (size + BL_WIRE_FRAME_MAX < sizeof what)
                size += request_frame(what + size, size, BL_URGENCY_STOP, 0);
        for (int i = 0; i < 10000; i++) { /* 10 s */
                ssize_t n = send(x->guest, what, 52 * 4, MSG_NOSIGNAL);

                assert_true(n > 0 || errno == EAGAIN);
                advance(x, BL_MSEC);
        }
        assert_true(bl_agent_counters(x->agent)->throttled > 0);
        assert_true(x->requests > 10); /* it is not deaf either: a true one may be among them */
        assert_in_range(x->requests, 10, 64 + 320);
        assert_true(x->closest >= BL_AGENT_REQUEST_GAP);
        at_once = x->requests;

        /* as many as the socket takes, at one instant */
        advance(x, 60 * BL_SEC);
        while (send(x->guest, what, size, MSG_NOSIGNAL) > 0)
                ;
        settle(x);
        assert_true(x->requests <= at_once + 3);
        assert_int_equal(x->closes, 0);
}

/* --- hints -------------------------------------------------------------------------------- */

static size_t hints_frame(uint8_t *buf, uint64_t kind, size_t size)
{
        static uint8_t runs[BL_WIRE_FRAME_MAX];
        struct bl_wire_hints h = {.scan = 1, .kind = kind, .file = BL_UNSET, .runs = runs, .runs_size = size};

        memset(runs, 1, sizeof runs);
        return (size_t)bl_wire_encode_hints(&h, buf, BL_WIRE_FRAME_MAX);
}

static void test_hints(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX * 4];
        size_t n;

        say(x, buf, hints_frame(buf, BL_HINT_FREE, 2));
        settle(x);
        assert_int_equal(bl_agent_counters(x->agent)->early, 1);
        n = partner_frame(buf); /* behind it in one go */
        n += hints_frame(buf + n, BL_HINT_FREE, 20);
        n += hints_frame(buf + n, _BL_HINT_MAX, 20); /* of a newer minor version */
        n += hints_frame(buf + n, BL_HINT_FILE, 3);
        n += hints_frame(buf + n, BL_HINT_FREE, 3000);
        say(x, buf, n);
        settle(x);
        assert_int_equal(x->hellos, 1);
        assert_int_equal(x->hints, 3);
        assert_int_equal(x->hinted, 10 + 1 + 1500);
        assert_int_equal(bl_agent_counters(x->agent)->hints, 3);
        assert_int_equal(bl_agent_counters(x->agent)->unknown, 1);
        assert_int_equal(bl_agent_counters(x->agent)->spoilt, 0);
        assert_int_equal(bl_agent_counters(x->agent)->throttled, 0);
}

/* Figures between hints that take several wake-ups are not lost. */
static void test_stats_among_hints(void **state)
{
        struct fixture *x = *state;
        static uint8_t buf[BL_WIRE_FRAME_MAX * 16];
        size_t n;

        say_partner(x);
        n = stats_frame(buf, 1);
        n += request_frame(buf + n, 1, BL_URGENCY_NOW, 0);
        for (int i = 0; i < 8; i++)
                n += hints_frame(buf + n, BL_HINT_FREE, 4000);
        say(x, buf, n);
        settle(x);
        assert_int_equal(x->hints, 8);
        assert_int_equal(x->stats, 1);
        assert_int_equal(x->requests, 1);
        assert_int_equal(x->stats_before, 1);
}

/* --- what the guest is told --------------------------------------------------------------- */

struct heard {
        int welcomes, actions, entitlements;
        int order[8]; /* types */
        int n;
        struct bl_wire_action action;
        struct bl_wire_entitlement grant;
};

static struct heard hear(struct fixture *x)
{
        static uint8_t buf[1 << 16];
        ssize_t n = recv(x->guest, buf, sizeof buf, 0);
        struct heard h = {0};
        struct bl_wire_iter it;
        struct bl_wire_frame f;

        if (n < 0) {
                assert_int_equal(errno, EAGAIN);
                return h;
        }
        bl_wire_iter_init(&it, buf, (size_t)n);
        while (bl_wire_next(&it, &f) > 0) {
                if (h.n < 8)
                        h.order[h.n++] = f.type;
                h.welcomes += f.type == BL_WIRE_WELCOME;
                h.actions += bl_wire_decode_action(&f, &h.action) == 0;
                h.entitlements += bl_wire_decode_entitlement(&f, &h.grant) == 0;
        }
        assert_int_equal(it.pos, it.size);
        assert_int_equal(it.skipped, 0);
        return h;
}

static void grant(struct fixture *x, uint64_t bytes)
{
        struct bl_wire_entitlement e;

        for (int i = 0; i < _BL_GRANT_MAX; i++)
                e.v[i] = bytes;
        bl_agent_set_entitlement(x->agent, &e);
        settle(x);
}

static void test_entitlement(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX];
        struct heard h;
        int n = 0;

        grant(x, 5);
        h = hear(x);
        assert_true(h.welcomes == 1 && h.entitlements == 0); /* who would it be for? */
        say_partner(x);
        h = hear(x);
        assert_true(h.welcomes == 1 && h.entitlements == 1 && h.order[0] == BL_WIRE_WELCOME);
        assert_int_equal(h.grant.v[BL_GRANT_MANAGED], 5);
        advance(x, BL_WIRE_GRANT_PERIOD - BL_SEC);
        grant(x, 5); /* nothing new */
        assert_int_equal(hear(x).n, 0);
        advance(x, BL_SEC);
        grant(x, 5); /* that we are still there */
        assert_int_equal(hear(x).entitlements, 1);
        advance(x, 2 * BL_SEC);
        grant(x, 6); /* at once */
        assert_int_equal(hear(x).grant.v[BL_GRANT_MAX], 6);
        /* ten times a second: the newest once a second */
        for (uint64_t i = 1; i <= 30; i++) {
                grant(x, 100 + i);
                advance(x, 100 * BL_MSEC);
                h = hear(x);
                n += h.entitlements;
        }
        advance(x, BL_SEC);
        h = hear(x);
        assert_in_range(n + h.entitlements, 3, 4);
        if (h.entitlements == 0)
                assert_int_equal(n, 3);
        /* back to what it knows, within the second: nothing to say */
        advance(x, 5 * BL_SEC);
        grant(x, 1);
        assert_int_equal(hear(x).entitlements, 1);
        grant(x, 2);
        grant(x, 1);
        advance(x, 2 * BL_SEC);
        assert_int_equal(hear(x).entitlements, 0);
        /* an agent that was started anew knows nothing */
        say(x, buf, partner_frame(buf));
        settle(x);
        h = hear(x);
        assert_true(h.welcomes == 1 && h.entitlements == 1 && h.grant.v[BL_GRANT_MAX] == 1);
        assert_int_equal(x->closes, 0);
}

/* An agent of version 1.0 would skip it; it is not sent what it cannot read. */
static void test_entitlement_for_old_agent(void **state)
{
        struct fixture *x = *state;
        struct bl_wire_action a = {.kind = BL_ACTION_PING, .bytes = BL_UNSET};

        grant(x, 5);
        say_hello(x, BL_WIRE_MAJOR);
        grant(x, 6);
        assert_int_equal(bl_agent_act(x->agent, &a), -EOPNOTSUPP);
        advance(x, 2 * BL_SEC);
        assert_int_equal(hear(x).entitlements, 0);
        assert_true(bl_agent_is_up(x->agent));
}

static void say_result(struct fixture *x, uint64_t id, uint64_t status)
{
        struct bl_wire_result r = {.id = id, .status = status, .bytes = 3, .took = 4, .need = 5, .have = 6};
        uint8_t buf[BL_WIRE_FRAME_MAX];

        say(x, buf, (size_t)bl_wire_encode_result(&r, buf, sizeof buf));
        settle(x);
}

static void test_action(void **state)
{
        struct fixture *x = *state;
        struct bl_wire_action a = {.id = 99, .kind = BL_ACTION_TRIM, .bytes = BL_MIB};
        struct heard h;
        uint64_t id;

        settle(x);
        assert_int_equal(bl_agent_act(x->agent, &a), -ENOTCONN);
        say_partner(x);
        (void)hear(x);
        say_result(x, 0, BL_RESULT_DONE); /* of nothing */
        assert_int_equal(x->results, 0);
        grant(x, 1);
        (void)hear(x);
        assert_int_equal(bl_agent_act(x->agent, &a), 0);
        assert_int_equal(bl_agent_act(x->agent, &a), -EBUSY);
        say_result(x, 1, BL_RESULT_DONE); /* it was not asked yet */
        assert_int_equal(x->results, 0);
        settle(x);
        h = hear(x);
        assert_int_equal(h.actions, 1);
        assert_true(h.action.kind == BL_ACTION_TRIM && h.action.bytes == BL_MIB);
        id = h.action.id;
        say_result(x, id + 1, BL_RESULT_DONE);
        say_result(x, id - 1, BL_RESULT_DONE);
        assert_int_equal(x->results, 0);
        say_result(x, id, BL_RESULT_PARTLY);
        assert_int_equal(x->results, 1);
        assert_int_equal(x->acted, BL_ACTION_TRIM);
        assert_true(x->result.status == BL_RESULT_PARTLY && x->result.bytes == 3 && x->result.took == 4);
        assert_true(x->result.need == 5 && x->result.have == 6);
        say_result(x, id, BL_RESULT_DONE); /* twice */
        assert_int_equal(x->results, 1);
        advance(x, 2 * BL_AGENT_ACTION_LIMIT);
        assert_int_equal(x->results, 1);

        a.kind = BL_ACTION_COMPACT; /* not among its features */
        assert_int_equal(bl_agent_act(x->agent, &a), -EOPNOTSUPP);
        a.kind = _BL_ACTION_MAX;
        assert_int_equal(bl_agent_act(x->agent, &a), -EOPNOTSUPP);
        a.kind = 0;
        assert_int_equal(bl_agent_act(x->agent, &a), -EOPNOTSUPP);

        a.kind = BL_ACTION_SWAP_ON;
        assert_int_equal(bl_agent_act(x->agent, &a), -EOPNOTSUPP);

        /* a status of a newer minor version is no success */
        a.kind = BL_ACTION_PING;
        assert_int_equal(bl_agent_act(x->agent, &a), 0);
        settle(x);
        assert_int_equal(hear(x).action.id, id + 1);
        say_result(x, id + 1, _BL_RESULT_MAX);
        assert_int_equal(x->results, 2);
        assert_int_equal(x->result.status, BL_RESULT_FAILED);
}

static void test_action_limit(void **state)
{
        struct fixture *x = *state;
        struct bl_wire_action a = {.kind = BL_ACTION_PING, .bytes = BL_UNSET};
        uint64_t id;

        say_partner(x);
        (void)hear(x);
        assert_int_equal(bl_agent_act(x->agent, &a), 0);
        settle(x);
        id = hear(x).action.id;
        advance(x, BL_AGENT_ACTION_LIMIT - BL_SEC);
        assert_int_equal(x->results, 0);
        advance(x, BL_SEC);
        assert_int_equal(x->results, 1);
        assert_true(x->result.status == BL_RESULT_FAILED && x->result.bytes == BL_UNSET);
        say_result(x, id, BL_RESULT_DONE); /* too late */
        assert_int_equal(x->results, 1);
        assert_int_equal(bl_agent_act(x->agent, &a), 0);
        settle(x);
        say_result(x, id + 1, BL_RESULT_DONE);
        assert_int_equal(x->results, 2);
        assert_int_equal(x->result.status, BL_RESULT_DONE);
}

/* A guest that does not read: nothing queues up, and the newest of each is what it gets. */
static void test_out_side_is_bounded(void **state)
{
        struct fixture *x = *state;
        static uint8_t sink[1 << 20];
        struct bl_wire_action a = {.kind = BL_ACTION_PING, .bytes = BL_UNSET};
        struct heard h;

        say_partner(x);
        for (usec_t i = 0; i < 20000; i++) {
                bl_agent_set_period(x->agent, BL_SEC + i);
                advance(x, 5 * BL_MSEC); /* its budget is not what ends it */
        }
        assert_int_equal(bl_agent_act(x->agent, &a), 0);
        grant(x, 1);
        grant(x, 2);
        advance(x, BL_SEC);
        grant(x, 3);
        bl_agent_set_period(x->agent, 7 * BL_SEC);
        settle(x);
        /* while it waits the loop has nothing to do */
        assert_int_equal(sd_event_run(x->event, 10 * BL_MSEC), 0);
        assert_true(recv(x->guest, sink, sizeof sink, 0) < (ssize_t)sizeof sink);
        settle(x);
        h = hear(x);
        /* perhaps behind one that was on its way */
        assert_true(h.welcomes >= 1 && h.actions == 1 && h.entitlements == 1);
        assert_int_equal(h.order[h.n - 3], BL_WIRE_WELCOME);
        assert_int_equal(h.order[h.n - 2], BL_WIRE_ACTION);
        assert_int_equal(h.order[h.n - 1], BL_WIRE_ENTITLEMENT);
        assert_int_equal(h.grant.v[BL_GRANT_MAX], 3);
}

static void test_free_in_later_handlers(void **state)
{
        struct fixture *x = *state;

        for (int where = FREE_IN_REQUEST; where <= FREE_IN_RESULT; where++) {
                struct bl_wire_action a = {.kind = BL_ACTION_PING, .bytes = BL_UNSET};
                struct bl_wire_result r = {.id = 1};
                uint8_t buf[BL_WIRE_FRAME_MAX * 2];
                size_t n;

                close_agent(x);
                open_agent(x);
                say_partner(x);
                x->free_in = (enum free_in)where;
                assert_int_equal(bl_agent_act(x->agent, &a), 0);
                settle(x);
                n = stats_frame(buf, 1);
                n += request_frame(buf + n, 1, 1, 1);
                if (where == FREE_IN_HINTS)
                        n += hints_frame(buf + n, BL_HINT_FREE, 4);
                if (where == FREE_IN_RESULT)
                        n += (size_t)bl_wire_encode_result(&r, buf + n, BL_WIRE_FRAME_MAX);
                n += stats_frame(buf + n, 2);
                say(x, buf, n);
                settle(x);
                assert_null(x->agent);
                assert_int_equal(x->stats, where == FREE_IN_REQUEST);
        }
        /* and by the clock: a request in the gap, an action that was not answered */
        for (int where = FREE_IN_REQUEST; where <= FREE_IN_RESULT; where += FREE_IN_RESULT - FREE_IN_REQUEST) {
                struct bl_wire_action a = {.kind = BL_ACTION_PING, .bytes = BL_UNSET};

                close_agent(x);
                open_agent(x);
                say_partner(x);
                say_request(x, 1, 1, 1);
                assert_int_equal(bl_agent_act(x->agent, &a), 0);
                say_request(x, 1, 1, 1);
                x->free_in = (enum free_in)where;
                advance(x, 2 * BL_AGENT_ACTION_LIMIT);
                assert_null(x->agent);
        }
}

/* --- after a flood, many agents, stored streams ------------------------------------------- */

/* Hellos by the thousand, which QEMU and the socket still hold when a true agent
 * comes: it is heard as soon as their bytes are read, not when each has been
 * answered. */
static void test_after_flood_of_hellos(void **state)
{
        struct fixture *x = *state;
        static uint8_t what[300 * 1024];
        uint8_t buf[BL_WIRE_FRAME_MAX];
        size_t size = 0, at = 0;
        usec_t began = monotonic(), took;

        while (size + 256 < sizeof what) {
                struct bl_wire_hello h = {.major = BL_WIRE_MAJOR, .features = size};

                size += (size_t)bl_wire_encode_hello(&h, what + size, sizeof what - size);
        }
        size -= size > 0 ? 7 : 0; /* and the last was cut off */
        while (at < size) {
                ssize_t n = send(x->guest, what + at, size - at, MSG_NOSIGNAL);

                if (n > 0)
                        at += (size_t)n;
                advance(x, 10 * BL_MSEC);
        }
        say(x, buf, partner_frame(buf));
        say(x, buf, stats_frame(buf, 1));
        say(x, buf, stats_frame(buf, 2));
        while (x->stats == 0 && monotonic() < began + 300 * BL_SEC)
                advance(x, 10 * BL_MSEC);
        took = monotonic() - began;
        print_message("heard after %lu ms and %lu hellos\n", (unsigned long)(took / 1000),
                      (unsigned long)bl_agent_counters(x->agent)->hellos);
        assert_int_equal(x->stats, 1);
        assert_string_equal(x->hello.version, "0.2.0");
        assert_true(took < 20 * BL_SEC); /* at 4 hellos a second it would be ten minutes */
        assert_int_equal(x->closes, 0);
}

/* Memory of one agent with all that it may have, and before it has anything. */
static void test_memory(void **state)
{
        enum { N = 1000 };
        static struct bl_agent *agents[N];
        static int guests[N];
        struct fixture *x = *state;
        uint8_t hello[BL_WIRE_FRAME_MAX];
        size_t size = partner_frame(hello), before, open, full;
        struct bl_wire_action a = {.kind = BL_ACTION_PING, .bytes = BL_UNSET};
        struct bl_wire_entitlement e = {.v = {1}};

        settle(x);
        before = mallinfo2().uordblks;
        for (int i = 0; i < N; i++) {
                int pair[2];

                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
                guests[i] = pair[1];
                assert_int_equal(bl_agent_open(x->event, pair[0], &handlers, x, &agents[i]), 0);
        }
        settle(x);
        open = mallinfo2().uordblks - before;
        for (int i = 0; i < N; i++)
                assert_int_equal(send(guests[i], hello, size, MSG_NOSIGNAL), size);
        settle(x);
        assert_int_equal(x->hellos, N);
        for (int i = 0; i < N; i++) {
                bl_agent_set_entitlement(agents[i], &e);
                assert_int_equal(bl_agent_act(agents[i], &a), 0);
        }
        settle(x);
        full = mallinfo2().uordblks - before;
        print_message("%zu bytes an agent, with its timer %zu\n", open / N, full / N);
        assert_true(full / N < 8 * BL_KIB);
        for (int i = 0; i < N; i++) {
                agents[i] = bl_agent_free(agents[i]);
                bl_closep(&guests[i]);
        }
}

/* Each stored agent against us, as it was sent, frame by frame and in one go. */
static void test_stored_streams(void **state)
{
        static const struct {
                const char *name;
                uint64_t hellos, reports, requests, hints, unknown, early, results;
                uint64_t minor;
        } streams[] = {
                {"agent-1.0", .hellos = 1, .reports = 1, .minor = 0},
                {"agent-1.1", .hellos = 1, .reports = 1, .requests = 2, .hints = 3, .results = 1, .minor = 1},
                {"agent-1.2", .hellos = 1, .reports = 2, .results = 1, .minor = 2},
                /* it took 3 for pressure, as we do, and 0x7001 for something else */
                {"agent-1.7", .hellos = 1, .reports = 2, .requests = 1, .unknown = 1, .minor = 7},
                {"agent-1.9", .hellos = 1, .reports = 1, .requests = 2, .hints = 1, .unknown = 3, .results = 1,
                 .minor = 9},
                {"agent-2.0", .hellos = 1, .minor = 1},
        };
        struct fixture *x = *state;

        for (size_t i = 0; i < sizeof streams / sizeof streams[0]; i++) {
                struct bl_wire_action ping = {.kind = BL_ACTION_PING, .bytes = BL_UNSET};
                uint8_t buf[BL_WIRE_FRAME_MAX];
                size_t size = load_hex(streams[i].name, buf, sizeof buf), from = 0;
                const struct bl_agent_counters *n;
                struct bl_wire_iter it;
                struct bl_wire_frame f;

                print_message("%s\n", streams[i].name);
                close_agent(x);
                open_agent(x);
                bl_wire_iter_init(&it, buf, size);
                while (bl_wire_next(&it, &f) > 0) {
                        say(x, buf + from, it.pos - from);
                        settle(x);
                        if (f.type == BL_WIRE_HELLO && streams[i].results > 0) {
                                assert_int_equal(bl_agent_act(x->agent, &ping), 0);
                                settle(x);
                        }
                        from = it.pos;
                        advance(x, BL_AGENT_REQUEST_GAP);
                }
                n = bl_agent_counters(x->agent);
                assert_int_equal(n->hellos, streams[i].hellos);
                assert_int_equal(n->reports, streams[i].reports);
                assert_int_equal(n->requests, streams[i].requests);
                assert_int_equal(n->hints, streams[i].hints);
                assert_int_equal(n->unknown, streams[i].unknown);
                assert_int_equal(n->bytes, size);
                assert_int_equal(n->early + n->spoilt + n->garbage + n->throttled + n->lost, 0);
                assert_int_equal(x->hello.minor, streams[i].minor);
                assert_int_equal(x->stats, streams[i].reports);
                assert_int_equal(x->requests, streams[i].requests);
                assert_int_equal(x->results, streams[i].results);
                assert_int_equal(bl_agent_is_up(x->agent), x->hello.major == BL_WIRE_MAJOR);

                close_agent(x);
                open_agent(x);
                say(x, buf, size);
                settle(x);
                assert_int_equal(x->hellos, 1);
                assert_int_equal(x->stats, streams[i].reports > 0);
                assert_int_equal(x->requests, streams[i].requests > 0);
                assert_int_equal(x->hints, streams[i].hints);
                assert_int_equal(x->results, 0); /* of nothing */
        }
}

static void test_stored_figures(void **state)
{
        struct fixture *x = *state;
        uint8_t buf[BL_WIRE_FRAME_MAX];

        say(x, buf, load_hex("agent-1.9", buf, sizeof buf));
        settle(x);
        assert_int_equal(x->last.total, 8 * BL_GIB);
        assert_int_equal(x->last.available, 64 * BL_MIB);
        assert_int_equal(x->request.bytes, 512 * BL_MIB);
        assert_int_equal(x->request.urgency, BL_URGENCY_STOP); /* it said 7 */
        assert_int_equal(x->hinted, 16);
        assert_string_equal(x->hello.kernel, "10.2.0");
}

/* --- virtio-serial --------------------------------------------------------------------- */

struct place {
        char dir[128];
        char path[512];
        int listener;
};

/* Linux before 5.6, and valgrind, have no openat2. */
static bool have_openat2(void)
{
        int fd = -1;

        return bl_virtio_serial_connect("/nonexistent", 0, &fd) != -ENOSYS;
}

static int place_setup(void **state)
{
        struct place *p = calloc(1, sizeof *p);

        assert_non_null(p);
        (void)snprintf(p->dir, sizeof p->dir, "/tmp/test-channel.XXXXXX");
        assert_non_null(mkdtemp(p->dir));
        p->listener = -1;
        *state = p;
        return 0;
}

static int place_teardown(void **state)
{
        struct place *p = *state;
        char command[256];

        bl_closep(&p->listener);
        (void)snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
        assert_int_equal(system(command), 0);
        free(p);
        return 0;
}

/* A listening socket at dir/sub, which may be longer than sun_path. */
static void listen_at(struct place *p, const char *sub, const char *name)
{
        struct sockaddr_un addr = {.sun_family = AF_UNIX};
        char command[1024];
        char here[PATH_MAX];

        (void)snprintf(p->path, sizeof p->path, "%s/%s", p->dir, sub);
        (void)snprintf(command, sizeof command, "mkdir -p '%s'", p->path);
        assert_int_equal(system(command), 0);
        assert_non_null(getcwd(here, sizeof here));
        assert_int_equal(chdir(p->path), 0);
        (void)snprintf(addr.sun_path, sizeof addr.sun_path, "%s", name);
        p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(p->listener, (struct sockaddr *)&addr, sizeof addr), 0);
        assert_int_equal(listen(p->listener, 0), 0);
        assert_int_equal(chdir(here), 0);
        (void)snprintf(p->path, sizeof p->path, "%s/%s/%s", p->dir, sub, name);
}

static void assert_connects(const struct place *p, const char *path, pid_t pid)
{
        struct bl_agent_address a = {.socket_path = path, .vmm_pid = pid};
        _cleanup_close_ int fd = -1;
        _cleanup_close_ int peer = -1;
        char c;

        assert_int_equal(bl_transport_virtio_serial.connect(&a, &fd), 0);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        peer = accept(p->listener, NULL, NULL);
        assert_true(peer >= 0);
        assert_int_equal(send(fd, "x", 1, 0), 1);
        assert_int_equal(recv(peer, &c, 1, 0), 1);
}

static void test_connect(void **state)
{
        struct place *p = *state;

        if (!have_openat2())
                skip();
        listen_at(p, "channel", "org.ballast.agent.0");
        assert_connects(p, p->path, 0);
        assert_connects(p, p->path, getpid());
        assert_connects(p, p->path, INT_MAX); /* no such process: as we see it */
}

static void test_connect_long_path(void **state)
{
        struct place *p = *state;
        char sub[250];

        if (!have_openat2())
                skip();
        memset(sub, 'd', sizeof sub - 1);
        sub[sizeof sub - 1] = 0;
        sub[100] = '/';
        listen_at(p, sub, "org.ballast.agent.0");
        assert_true(strlen(p->path) > 107);
        assert_connects(p, p->path, getpid());
        assert_connects(p, p->path, 0);
}

static void test_connect_errors(void **state)
{
        struct place *p = *state;
        char other[256];
        int fd = -7;
        int held[4] = {-1, -1, -1, -1};
        int r = 0;

        if (!have_openat2())
                skip();
        assert_int_equal(bl_virtio_serial_connect(NULL, 0, &fd), -EADDRNOTAVAIL);
        assert_int_equal(bl_virtio_serial_connect("relative", 0, &fd), -EADDRNOTAVAIL);
        (void)snprintf(other, sizeof other, "%s/missing", p->dir);
        assert_int_equal(bl_virtio_serial_connect(other, getpid(), &fd), -ENOENT);
        assert_int_equal(bl_virtio_serial_connect(p->dir, getpid(), &fd), -ENOTSOCK);
        assert_int_equal(bl_virtio_serial_connect("/dev/null", 0, &fd), -ENOTSOCK);

        listen_at(p, "channel", "s");
        /* QEMU takes one client, and the backlog fills up behind it */
        for (size_t i = 0; i < 4 && r == 0; i++)
                r = bl_virtio_serial_connect(p->path, 0, &held[i]);
        assert_int_equal(r, -EAGAIN);
        for (size_t i = 0; i < 4; i++)
                bl_closep(&held[i]);
        bl_closep(&p->listener);
        p->listener = -1;
        assert_int_equal(bl_virtio_serial_connect(p->path, 0, &fd), -ECONNREFUSED);
        assert_int_equal(fd, -7); /* untouched */
}

/* QEMU's user owns the directory and may put a symbolic link in the socket's place. */
static void test_symlinks(void **state)
{
        struct place *p = *state;
        char link_path[256], through[600];
        int fd = -1;

        if (!have_openat2())
                skip();
        listen_at(p, "channel", "s");
        (void)snprintf(link_path, sizeof link_path, "%s/link", p->dir);
        assert_int_equal(symlink(p->path, link_path), 0);
        assert_int_equal(bl_virtio_serial_connect(link_path, getpid(), &fd), -ENOTSOCK);
        assert_int_equal(bl_virtio_serial_connect(link_path, 0, &fd), -ENOTSOCK);
        /* /var/run is such a one: a directory on the way may be a link */
        (void)snprintf(link_path, sizeof link_path, "%s/way", p->dir);
        assert_int_equal(symlink("channel", link_path), 0);
        (void)snprintf(through, sizeof through, "%s/way/s", p->dir);
        assert_connects(p, through, getpid());
        /* a magic link would lead out of any root */
        (void)snprintf(through, sizeof through, "/proc/self/root%s", p->path);
        assert_int_equal(bl_virtio_serial_connect(through, 0, &fd), -ELOOP);
}

/* A process with another root: paths and links are as it sees them, and none leads out. */
static void test_other_root(void **state)
{
        struct place *p = *state;
        char path[256];
        int ready[2];
        int fd = -1;
        pid_t pid;
        char c;

        if (geteuid() != 0 || !have_openat2())
                skip();
        listen_at(p, "jail/real", "s");
        (void)snprintf(path, sizeof path, "%s/jail/absolute", p->dir);
        assert_int_equal(symlink("/real", path), 0);
        (void)snprintf(path, sizeof path, "%s/jail/escape", p->dir);
        assert_int_equal(symlink("../../../../../../dev", path), 0);
        assert_int_equal(pipe(ready), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* else a failed assertion leaves it behind */
                (void)snprintf(path, sizeof path, "%s/jail", p->dir);
                if (chroot(path) < 0 || write(ready[1], "x", 1) != 1)
                        _exit(1);
                pause();
                _exit(0);
        }
        (void)close(ready[1]);
        assert_int_equal(read(ready[0], &c, 1), 1);
        (void)close(ready[0]);
        assert_connects(p, "/real/s", pid);
        assert_connects(p, "/absolute/s", pid);
        assert_int_equal(bl_virtio_serial_connect("/escape/null", pid, &fd), -ENOENT);
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_conversation, setup, teardown),
                cmocka_unit_test_setup_teardown(test_same_hello, setup, teardown),
                cmocka_unit_test_setup_teardown(test_period_before_hello, setup, teardown),
                cmocka_unit_test_setup_teardown(test_other_major, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stats_before_hello, setup, teardown),
                cmocka_unit_test_setup_teardown(test_unknown_and_spoilt, setup, teardown),
                cmocka_unit_test_setup_teardown(test_newest_counts, setup, teardown),
                cmocka_unit_test_setup_teardown(test_piled_up, setup, teardown),
                cmocka_unit_test(test_convert),
                cmocka_unit_test_setup_teardown(test_close_at_each_byte, setup, teardown),
                cmocka_unit_test_setup_teardown(test_byte_by_byte, setup, teardown),
                cmocka_unit_test_setup_teardown(test_split_at_each_byte, setup, teardown),
                cmocka_unit_test_setup_teardown(test_guest_does_not_read, setup, teardown),
                cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
                cmocka_unit_test_setup_teardown(test_flood_of_headers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_after_flood, setup, teardown),
                cmocka_unit_test_setup_teardown(test_close_while_throttled, setup, teardown),
                cmocka_unit_test_setup_teardown(test_free_in_handlers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_free_before_start, setup, teardown),
                cmocka_unit_test_setup_teardown(test_request, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pressure, setup, teardown),
                cmocka_unit_test_setup_teardown(test_request_before_hello, setup, teardown),
                cmocka_unit_test_setup_teardown(test_request_gap, setup, teardown),
                cmocka_unit_test_setup_teardown(test_true_need_is_not_throttled, setup, teardown),
                cmocka_unit_test_setup_teardown(test_flood_of_requests, setup, teardown),
                cmocka_unit_test_setup_teardown(test_hints, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stats_among_hints, setup, teardown),
                cmocka_unit_test_setup_teardown(test_entitlement, setup, teardown),
                cmocka_unit_test_setup_teardown(test_entitlement_for_old_agent, setup, teardown),
                cmocka_unit_test_setup_teardown(test_action, setup, teardown),
                cmocka_unit_test_setup_teardown(test_action_limit, setup, teardown),
                cmocka_unit_test_setup_teardown(test_out_side_is_bounded, setup, teardown),
                cmocka_unit_test_setup_teardown(test_free_in_later_handlers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_after_flood_of_hellos, setup, teardown),
                cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stored_streams, setup, teardown),
                cmocka_unit_test_setup_teardown(test_stored_figures, setup, teardown),
                cmocka_unit_test_setup_teardown(test_connect, place_setup, place_teardown),
                cmocka_unit_test_setup_teardown(test_connect_long_path, place_setup, place_teardown),
                cmocka_unit_test_setup_teardown(test_connect_errors, place_setup, place_teardown),
                cmocka_unit_test_setup_teardown(test_symlinks, place_setup, place_teardown),
                cmocka_unit_test_setup_teardown(test_other_root, place_setup, place_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
