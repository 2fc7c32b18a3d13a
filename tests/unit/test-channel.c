/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host's end of an agent: conversation, hostile guests, and the way to QEMU's socket. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#include <ballast/cleanup.h>

#include "daemon/channel/agent.h"
#include "daemon/channel/virtio_serial.h"

enum free_in { FREE_NEVER, FREE_IN_HELLO, FREE_IN_STATS, FREE_IN_CLOSED };

struct fixture {
        sd_event *event;
        struct bl_agent *agent;
        int guest; /* the guest's end */
        enum free_in free_in;

        int hellos, stats, closes;
        int error;
        struct bl_wire_hello hello;
        struct bl_guest_stats last;
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

static const struct bl_agent_handlers handlers = {.hello = on_hello, .stats = on_stats, .closed = on_closed};

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
        x->guest = -1;
        x->hellos = x->stats = x->closes = 0;
}

static int setup(void **state)
{
        struct fixture *x = calloc(1, sizeof *x);

        assert_non_null(x);
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

static usec_t monotonic(void)
{
        struct timespec t;

        assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &t), 0);
        return (usec_t)t.tv_sec * BL_SEC + (usec_t)t.tv_nsec / 1000;
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
        for (uint64_t i = 1; i <= 200; i++) {
                for (int tag = BL_STAT_UPTIME; tag < _BL_STAT_MAX; tag++)
                        s.v[tag] = i;
                n += (size_t)bl_wire_encode_stats(&s, buf + n, sizeof buf - n);
        }
        say(x, buf, n);
        settle(x);
        assert_true(bl_agent_counters(x->agent)->bytes > 40 * BL_KIB); /* several wake-ups */
        assert_int_equal(x->stats, 1);
        assert_int_equal(x->last.total, 200);
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
                cmocka_unit_test_setup_teardown(test_connect, place_setup, place_teardown),
                cmocka_unit_test_setup_teardown(test_connect_long_path, place_setup, place_teardown),
                cmocka_unit_test_setup_teardown(test_connect_errors, place_setup, place_teardown),
                cmocka_unit_test_setup_teardown(test_symlinks, place_setup, place_teardown),
                cmocka_unit_test_setup_teardown(test_other_root, place_setup, place_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
