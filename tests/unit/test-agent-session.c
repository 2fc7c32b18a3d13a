/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ballast-agent: two ways to the host, requests for memory, and what the host asks and says. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#include <ballast/cleanup.h>

#include "guestagent/session.h"

/* --- a way to the host that the test rules ------------------------------------------- */

struct way {
        struct guest_transport t; /* first: what the agent holds */
        bool exists; /* a device is there; a host takes calls */
        int error; /* otherwise */
        bool pending; /* a call is not decided */
        int host; /* the test's end; -1: none */
        int guest; /* the agent's end, as long as it is open */
        int opens;
        size_t most; /* bytes that it still takes */
        int sends;
        size_t kept;
        uint8_t buf[1 << 16];
};

static struct way call, port;

static struct way *way_of(int fd)
{
        return fd == call.guest ? &call : &port;
}

static void cut(struct way *w)
{
        bl_closep(&w->host);
        w->host = -1;
        w->kept = 0;
}

static int way_open(struct guest_transport *t)
{
        struct way *w = (struct way *)t;
        int pair[2];

        w->opens++;
        if (!w->exists)
                return w->error;
        cut(w);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
        w->host = pair[0];
        call.guest = call.guest == pair[1] ? -1 : call.guest; /* the number was free again */
        port.guest = port.guest == pair[1] ? -1 : port.guest;
        w->guest = pair[1];
        return pair[1];
}

static int way_connected(int fd)
{
        struct way *w = way_of(fd);

        if (w->pending)
                return 0;
        return w->host >= 0 ? 1 : w->t.ops->dials ? -ECONNRESET : 0;
}

static ssize_t way_send(int fd, const void *data, size_t size)
{
        struct way *w = way_of(fd);
        ssize_t n;

        w->sends++;
        if (w->most == 0)
                return -EAGAIN;
        n = send(fd, data, bl_min(size, w->most), MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
                w->most -= (size_t)n;
                return n;
        }
        return errno == EAGAIN ? -EAGAIN : w->t.ops->dials ? -ENODEV : -EAGAIN;
}

static ssize_t way_receive(int fd, void *buf, size_t size)
{
        ssize_t n = recv(fd, buf, size, MSG_DONTWAIT);

        return n >= 0 ? n : errno == EAGAIN ? -EAGAIN : 0;
}

static const struct guest_transport_ops call_ops = {
        .name = "call",
        .dials = true,
        .open = way_open,
        .connected = way_connected,
        .send = way_send,
        .receive = way_receive,
};
static const struct guest_transport_ops port_ops = {
        .name = "port",
        .open = way_open,
        .connected = way_connected,
        .send = way_send,
        .receive = way_receive,
};

/* --- the world ------------------------------------------------------------------------ */

static struct guest_session session;
static struct guest_reader reader;
static usec_t now;
static int logs;
static char last_log[256];
static char dir[64];
static uint64_t free_ram;

static void note(const char *text)
{
        logs++;
        (void)snprintf(last_log, sizeof last_log, "%s", text);
}

static uint64_t fake_free_ram(struct guest_watch *w)
{
        (void)w;
        return free_ram;
}

static void put_file(const char *name, const char *text)
{
        char path[128];
        _cleanup_close_ int fd = -1;

        (void)snprintf(path, sizeof path, "%s%s", dir, name);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* The guest's memory as all ways of looking at it show it. */
static void set_memory(uint64_t available)
{
        char text[256];

        free_ram = available;
        (void)snprintf(text, sizeof text, "MemTotal: %llu kB\nMemFree: %llu kB\nMemAvailable: %llu kB\n",
                       (unsigned long long)(696 * BL_MIB / BL_KIB), (unsigned long long)(available / BL_KIB),
                       (unsigned long long)(available / BL_KIB));
        put_file("/proc/meminfo", text);
}

static int setup(void **state)
{
        static struct guest_transport *const transports[] = {&call.t, &port.t};
        static char status[96];
        struct bl_wire_hello h = {.major = BL_WIRE_MAJOR, .minor = BL_WIRE_MINOR};
        char path[96];

        (void)state;
        memset(&call, 0, sizeof call);
        memset(&port, 0, sizeof port);
        call.t = (struct guest_transport){.ops = &call_ops, .device = "call", .root = ""};
        port.t = (struct guest_transport){.ops = &port_ops, .device = "port", .root = ""};
        call.host = port.host = call.guest = port.guest = -1;
        call.most = port.most = SIZE_MAX;
        call.error = port.error = -ENODEV;
        now = 1000 * BL_SEC;
        logs = 0;
        (void)snprintf(dir, sizeof dir, "/tmp/test-agent.XXXXXX");
        assert_non_null(mkdtemp(dir));
        (void)snprintf(path, sizeof path, "%s/proc", dir);
        assert_int_equal(mkdir(path, 0755), 0);
        (void)snprintf(status, sizeof status, "%s/run/status.json", dir);
        set_memory(96 * BL_MIB);
        assert_int_equal(guest_reader_open(&reader, dir), 0);
        guest_session_init(&session, &(struct guest_setup){
                                             .transports = transports,
                                             .n_transports = 2,
                                             .reader = &reader,
                                             .hello = &h,
                                             .root = dir,
                                             .status_file = status,
                                             .log = note,
                                     });
        session.watch.free_ram = fake_free_ram;
        return 0;
}

static int teardown(void **state)
{
        char command[128];

        (void)state;
        guest_session_end(&session);
        guest_reader_close(&reader);
        cut(&call);
        cut(&port);
        (void)snprintf(command, sizeof command, "rm -rf '%s'", dir);
        return system(command);
}

/* Everything that happens until `time` has passed.  The agent must not spin meanwhile. */
static void run(usec_t time)
{
        usec_t end = now + time;

        for (int turns = 0;; turns++) {
                struct pollfd fds[_GUEST_POLL_MAX];
                usec_t wait = guest_session_poll(&session, fds, now);
                int n;

                if (call.pending)
                        fds[GUEST_POLL_TRIAL].fd = -1;
                if (session.link.current >= 0 && way_of(fds[GUEST_POLL_STREAM].fd)->most == 0)
                        fds[GUEST_POLL_STREAM].events &= (short)~POLLOUT;
                n = poll(fds, _GUEST_POLL_MAX, 0);
                assert_true(n >= 0);
                if (n == 0) {
                        if (now + wait > end) {
                                now = end;
                                return;
                        }
                        now += wait;
                }
                guest_session_step(&session, fds, now);
                assert_true(turns < 2000);
        }
}

struct heard {
        int hellos, stats, pressures, requests, results, hints;
        int last; /* type of the last one */
        uint64_t first_sequence, sequence;
        struct bl_wire_hello hello;
        struct bl_wire_request request;
        struct bl_wire_pressure pressure;
        struct bl_wire_result result;
        uint64_t available;
        struct bl_wire_stats figures; /* the last */
};

static struct heard hear(struct way *w)
{
        struct heard h = {0};
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_stats s;
        struct bl_wire_hints hints;
        ssize_t n = w->host < 0 ? -1 : recv(w->host, w->buf + w->kept, sizeof w->buf - w->kept, MSG_DONTWAIT);

        if (n <= 0)
                return h;
        bl_wire_iter_init(&it, w->buf, w->kept + (size_t)n);
        while (bl_wire_next(&it, &f) > 0) {
                switch (f.type) {
                case BL_WIRE_HELLO:
                        assert_int_equal(bl_wire_decode_hello(&f, &h.hello), 0);
                        h.hellos++;
                        break;
                case BL_WIRE_STATS:
                        assert_int_equal(bl_wire_decode_stats(&f, &s), 0);
                        if (h.stats++ == 0)
                                h.first_sequence = s.v[BL_STAT_SEQUENCE];
                        h.sequence = s.v[BL_STAT_SEQUENCE];
                        h.available = s.v[BL_STAT_MEM_AVAILABLE];
                        h.figures = s;
                        break;
                case BL_WIRE_REQUEST:
                        assert_int_equal(h.last, BL_WIRE_STATS); /* fresh figures go before it */
                        assert_int_equal(bl_wire_decode_request(&f, &h.request), 0);
                        h.requests++;
                        break;
                case BL_WIRE_PRESSURE:
                        assert_int_equal(h.last, BL_WIRE_STATS);
                        assert_int_equal(bl_wire_decode_pressure(&f, &h.pressure), 0);
                        h.pressures++;
                        break;
                case BL_WIRE_RESULT:
                        assert_int_equal(bl_wire_decode_result(&f, &h.result), 0);
                        h.results++;
                        break;
                case BL_WIRE_HINTS:
                        assert_int_equal(bl_wire_decode_hints(&f, &hints), 0);
                        h.hints++;
                        break;
                default:
                        fail_msg("type %d", f.type);
                }
                h.last = f.type;
        }
        assert_int_equal(it.skipped, 0);
        w->kept = it.size - it.pos;
        memmove(w->buf, w->buf + it.pos, w->kept);
        return h;
}

static void say_frame(struct way *w, const uint8_t *buf, int n)
{
        assert_true(n > 0);
        assert_int_equal(send(w->host, buf, (size_t)n, MSG_NOSIGNAL), n);
}

static void welcome_minor(struct way *w, uint64_t minor)
{
        struct bl_wire_welcome m = {.major = BL_WIRE_MAJOR, .minor = minor, .period = BL_SEC, .ask = 1};
        uint8_t buf[256];

        say_frame(w, buf, bl_wire_encode_welcome(&m, buf, sizeof buf));
}

static void welcome(struct way *w)
{
        welcome_minor(w, 1);
}

static void entitle(struct way *w, const struct bl_wire_entitlement *e)
{
        uint8_t buf[512];

        say_frame(w, buf, bl_wire_encode_entitlement(e, buf, sizeof buf));
}

static void act(struct way *w, uint64_t id, uint64_t kind, uint64_t bytes)
{
        struct bl_wire_action a = {.id = id, .kind = kind, .bytes = bytes};
        uint8_t buf[256];

        say_frame(w, buf, bl_wire_encode_action(&a, buf, sizeof buf));
}

static const char *over(void)
{
        const char *name = guest_link_name(&session.link);

        return name ? name : "";
}

/* --- which way ------------------------------------------------------------------------- */

static void test_best_first(void **state)
{
        (void)state;
        call.exists = port.exists = true;
        run(0);
        welcome(&call);
        run(0);
        assert_string_equal(over(), "call");
        assert_int_equal(hear(&call).hellos, 1);
        assert_non_null(strstr(last_log, "call: connected"));
        /* the port is free for others meanwhile, and nobody looks at it */
        assert_int_equal(session.link.line[1].fd, -1);
        port.opens = call.opens = 0;
        run(20 * BL_SEC);
        assert_int_equal(port.opens, 0);
        assert_int_equal(call.opens, 0);
}

/* A vsock device that is plugged in long after the boot; not a report is missing. */
static void test_better_one_comes(void **state)
{
        struct heard old, fresh;
        int said;

        (void)state;
        port.exists = true;
        run(0);
        welcome(&port);
        run(0);
        assert_string_equal(over(), "port");
        call.opens = 0;
        said = logs;
        run(60 * BL_SEC);
        assert_in_range(call.opens, 10, 14);
        assert_int_equal(logs, said);
        call.exists = true;
        run(6 * BL_SEC);
        assert_int_equal(hear(&call).hellos, 0); /* it says nothing before the host has */
        welcome(&call);
        run(0);
        assert_string_equal(over(), "call");
        fresh = hear(&call);
        assert_int_equal(fresh.hellos, 1);
        assert_int_equal(fresh.stats, 1);
        assert_non_null(strstr(last_log, "call: connected"));
        old = hear(&port);
        assert_int_equal(fresh.first_sequence, old.sequence + 1);
        assert_int_equal(session.dropped, 0);
}

/* What carries the stream hangs: it is open, and nothing comes any more. */
static void test_silent_host(void **state)
{
        struct bl_wire_entitlement e;

        (void)state;
        call.exists = port.exists = true;
        run(0);
        welcome(&call);
        run(0);
        assert_string_equal(over(), "call");
        /* a host that never sends entitlements, as an older one, is not expected to */
        run(60 * BL_SEC);
        assert_string_equal(over(), "call");
        bl_wire_entitlement_init(&e);
        entitle(&call, &e);
        run(GUEST_SILENT - BL_SEC);
        assert_string_equal(over(), "call");
        entitle(&call, &e);
        run(GUEST_SILENT - BL_SEC);
        assert_string_equal(over(), "call");
        call.exists = false;
        call.error = -ETIMEDOUT;
        run(2 * BL_SEC);
        assert_string_equal(over(), "");
        run(2 * BL_SEC);
        welcome(&port);
        run(0);
        assert_string_equal(over(), "port");
}

/* What a call brings besides its welcome, in the same bytes, is heard. */
static void test_welcome_and_more(void **state)
{
        struct bl_wire_entitlement e;

        (void)state;
        call.exists = true;
        run(0);
        bl_wire_entitlement_init(&e);
        e.v[BL_GRANT_ACTUAL] = 5 * BL_MIB;
        welcome(&call);
        entitle(&call, &e);
        run(0);
        assert_int_equal(session.grant.v[BL_GRANT_ACTUAL], 5 * BL_MIB);
}

static void test_better_one_breaks(void **state)
{
        usec_t start;

        (void)state;
        call.exists = port.exists = true;
        run(0);
        welcome(&call);
        run(BL_SEC);
        start = now;
        call.exists = false;
        cut(&call);
        run(BL_SEC);
        assert_true(now - start <= BL_SEC);
        assert_int_equal(hear(&port).hellos, 1);
        welcome(&port);
        run(0);
        assert_string_equal(over(), "port");
        /* and back */
        call.exists = true;
        run(6 * BL_SEC);
        welcome(&call);
        run(0);
        assert_string_equal(over(), "call");
}

/* Somebody takes the call and says nothing (or garbage): that is no host. */
static void test_silent_call(void **state)
{
        static const uint8_t junk[4096] = {1, 2, 3};

        (void)state;
        call.exists = port.exists = true;
        run(0);
        welcome(&port);
        run(2900 * BL_MSEC);
        assert_string_equal(over(), "port");
        assert_int_equal(call.opens, 1);
        run(300 * BL_MSEC);
        assert_int_equal(session.link.trial, -1);
        run(6 * BL_SEC);
        assert_int_equal(call.opens, 2);
        assert_true(send(call.host, junk, sizeof junk, 0) > 0);
        run(0);
        assert_int_equal(session.link.trial, -1);
        assert_string_equal(over(), "port");
        assert_true(hear(&port).stats >= 9);
}

/* A call that is not decided for seconds delays nothing. */
static void test_slow_call(void **state)
{
        (void)state;
        call.exists = port.exists = true;
        call.pending = true;
        run(0);
        welcome(&port);
        run(2 * BL_SEC);
        assert_true(hear(&port).stats >= 2);
        call.pending = false;
        cut(&call); /* ETIMEDOUT, ECONNRESET */
        run(BL_SEC);
        assert_int_equal(session.link.trial, -1);
        assert_string_equal(over(), "port");
}

/* No host anywhere: looked for once a second, said once. */
static void test_nobody(void **state)
{
        (void)state;
        call.exists = true;
        port.exists = true;
        run(0);
        cut(&call);
        cut(&port);
        call.exists = false;
        call.error = -ENODEV;
        run(BL_SEC);
        logs = 0;
        run(60 * BL_SEC);
        assert_true(logs <= 1);
        assert_string_equal(over(), "");
}

/* The port has a host behind it that says nothing (QEMU's backlog): the call wins as soon as it can. */
static void test_backlog(void **state)
{
        struct heard h;

        (void)state;
        port.exists = true;
        run(10 * BL_SEC);
        h = hear(&port);
        assert_in_range(h.hellos, 3, 4); /* again and again, should one be lost */
        call.exists = true;
        run(BL_SEC); /* sooner than behind a port that is welcomed */
        welcome(&call);
        run(0);
        assert_string_equal(over(), "call");
}

static void test_vsock_errors(void **state)
{
        struct guest_transport t = {.ops = &guest_vsock, .device = "vsock", .root = dir, .cid = 1};
        char command[128];
        int fd;

        (void)state;
        /* sysfs without vsock: nobody asks the kernel to load it */
        (void)snprintf(command, sizeof command, "mkdir -p '%s/sys/class/misc'", dir);
        assert_int_equal(system(command), 0);
        assert_int_equal(t.ops->open(&t), -EAFNOSUPPORT);
        assert_int_equal(t.port, 0);
        /* this kernel, whatever it has: never blocks, never an odd answer, each time another port below 1024 */
        t.root = "/nonexistent";
        for (uint32_t last = 0, i = 0; i < 3; i++) {
                fd = t.ops->open(&t);
                assert_true(fd >= 0 || fd == -EAFNOSUPPORT || fd == -ENODEV || fd == -EACCES || fd == -EPERM ||
                            fd == -ECONNRESET);
                if (fd >= 0) {
                        struct pollfd p = {.fd = fd, .events = POLLIN};

                        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
                        (void)t.ops->connected(fd);
                        (void)poll(&p, 1, 0);
                        (void)close(fd);
                }
                assert_true(t.port < 1024 && (fd == -EAFNOSUPPORT || t.port != last));
                last = t.port;
        }
        assert_int_equal(t.ops->connected(-1), 0);
        /* an ended stream is a host that is gone, not a device */
        assert_int_equal(t.ops->receive(-1, command, sizeof command), 0);
        assert_int_equal(t.ops->send(-1, command, 1), -ENODEV);
}

/* Whoever touches memory rings it, until it is armed again. */
static void test_alarm(void **state)
{
        struct guest_alarm a;
        struct pollfd p = {.events = POLLIN};
        volatile char *memory;
        const size_t size = 8 * BL_MIB;

        (void)state;
        if (guest_alarm_open(&a) < 0) {
                assert_int_equal(a.signals, -1);
                assert_false(guest_alarm_rang(&a));
                guest_alarm_arm(&a);
                guest_alarm_close(&a);
                skip();
        }
        p.fd = a.signals;
        for (int i = 0; i < 3; i++) {
                guest_alarm_arm(&a);
                memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                assert_true(memory != MAP_FAILED);
                for (size_t at = 0; at < size; at += 4096)
                        memory[at] = 1;
                assert_int_equal(poll(&p, 1, 5000), 1);
                assert_true(guest_alarm_rang(&a));
                (void)munmap((void *)(uintptr_t)memory, size);
        }
        guest_alarm_close(&a);
        assert_false(guest_alarm_rang(&a));
}

/* --- requests ----------------------------------------------------------------------------- */

static void settle_on_port(void)
{
        port.exists = true;
        run(0);
        welcome(&port);
        run(2 * BL_SEC);
        (void)hear(&port);
}

/* A ramp: statistics and request leave in one piece, at once. */
static void test_request(void **state)
{
        struct heard h;
        usec_t start;

        (void)state;
        settle_on_port();
        assert_int_equal(session.hello.features & BL_WIRE_FEATURE_REQUEST, BL_WIRE_FEATURE_REQUEST);
        start = now;
        for (uint64_t mib = 96; session.sequence == 3; mib -= 6) { /* 300 MiB/s */
                set_memory(mib * BL_MIB);
                run(20 * BL_MSEC);
                assert_true(now - start <= 100 * BL_MSEC);
        }
        h = hear(&port);
        assert_int_equal(h.stats, 1);
        assert_int_equal(h.requests, 1);
        assert_int_equal(h.available, free_ram);
        assert_true(h.request.bytes > 50 * BL_MIB);
}

static void test_request_is_one_write(void **state)
{
        (void)state;
        settle_on_port();
        port.sends = 0;
        set_memory(40 * BL_MIB);
        run(100 * BL_MSEC);
        assert_int_equal(hear(&port).requests, 1);
        assert_int_equal(port.sends, 1);
}

/* The way is blocked, before or within a message: the request waits and goes out in fresh figures. */
static void test_request_waits(void **state)
{
        (void)state;
        for (size_t first = 0; first < 60; first += 20) {
                struct heard h;

                (void)teardown(NULL);
                (void)setup(NULL);
                settle_on_port();
                port.most = first; /* of the next report */
                run(BL_SEC);
                assert_int_equal(session.out_len > 0, first > 0);
                set_memory(40 * BL_MIB);
                run(150 * BL_MSEC);
                assert_int_equal(hear(&port).requests, 0);
                set_memory(30 * BL_MIB);
                port.most = SIZE_MAX;
                run(100 * BL_MSEC);
                h = hear(&port);
                assert_true(h.requests >= 1);
                assert_int_equal(h.available, 30 * BL_MIB);
        }
}

static void test_no_request(void **state)
{
        (void)state;
        /* a host of the first minor version would not understand it */
        port.exists = true;
        run(0);
        welcome_minor(&port, 0);
        run(2 * BL_SEC);
        set_memory(20 * BL_MIB);
        run(5 * BL_SEC);
        assert_int_equal(hear(&port).requests, 0);
        /* nothing is to be had, and it is not near its end */
        (void)teardown(NULL);
        (void)setup(NULL);
        settle_on_port();
        for (int tag = 1; tag < _BL_GRANT_MAX; tag++)
                session.grant.v[tag] = 700 * BL_MIB;
        for (uint64_t mib = 96; mib > 32; mib--) {
                set_memory(mib * BL_MIB);
                run(50 * BL_MSEC);
        }
        assert_int_equal(hear(&port).requests, 0);
}

static void test_pressure(void **state)
{
        struct pollfd fds[_GUEST_POLL_MAX] = {0};
        struct heard h;

        (void)state;
        settle_on_port();
        session.watch.psi_stall = 50000;
        session.watch.psi_window = 500000;
        fds[GUEST_POLL_PSI].revents = POLLPRI;
        guest_session_step(&session, fds, now);
        h = hear(&port);
        assert_int_equal(h.stats, 1);
        assert_int_equal(h.pressures, 1);
        assert_int_equal(h.requests, 0);
        assert_int_equal(h.pressure.stall, 50000);
        assert_int_equal(h.pressure.window, 500000);
        assert_int_equal(h.pressure.full, 0);
}

/* At rest: one message a second, and a look now and then that reads no file. */
static void test_rest(void **state)
{
        struct heard h;

        (void)state;
        settle_on_port();
        port.sends = 0;
        run(60 * BL_SEC);
        h = hear(&port);
        assert_int_equal(h.stats, 60);
        assert_int_equal(port.sends, 60);
        assert_int_equal(h.requests, 0);
}

/* --- actions and status ------------------------------------------------------------------- */

static void test_ping(void **state)
{
        struct heard h;

        (void)state;
        settle_on_port();
        act(&port, 77, BL_ACTION_PING, BL_UNSET);
        run(0);
        h = hear(&port);
        assert_int_equal(h.results, 1);
        assert_int_equal(h.result.id, 77);
        assert_int_equal(h.result.status, BL_RESULT_DONE);
        /* what this kernel (of an empty directory) cannot do, and what nobody knows */
        for (uint64_t kind = BL_ACTION_TRIM; kind < _BL_ACTION_MAX + 3; kind++) {
                act(&port, kind, kind, BL_MIB);
                run(0);
                h = hear(&port);
                assert_int_equal(h.results, 1);
                assert_int_equal(h.result.id, kind);
                assert_int_equal(h.result.status, BL_RESULT_UNKNOWN);
        }
        /* a result that cannot leave waits */
        port.most = 0;
        act(&port, 78, BL_ACTION_PING, BL_UNSET);
        run(2 * BL_SEC);
        port.most = SIZE_MAX;
        run(BL_SEC);
        h = hear(&port);
        assert_int_equal(h.results, 1);
        assert_int_equal(h.result.id, 78);
}

/* Nothing is obeyed before a welcome, nor from a host of another major version. */
static void test_not_obeyed(void **state)
{
        struct bl_wire_welcome w = {.major = BL_WIRE_MAJOR + 1, .period = BL_SEC};
        uint8_t buf[256];

        (void)state;
        port.exists = true;
        run(0);
        act(&port, 1, BL_ACTION_PING, BL_UNSET);
        run(0);
        assert_int_equal(hear(&port).results, 0);
        say_frame(&port, buf, bl_wire_encode_welcome(&w, buf, sizeof buf));
        act(&port, 1, BL_ACTION_PING, BL_UNSET);
        run(2 * BL_SEC);
        assert_int_equal(hear(&port).results, 0);
}

static int status_is(bool json, char **ret_text, const char **ret_why)
{
        size_t size;
        FILE *f = open_memstream(ret_text, &size);
        int r;

        assert_non_null(f);
        r = guest_status_print(f, session.status.path, json, ret_why);
        (void)fclose(f);
        return r;
}

static void until_swap_idle(void)
{
        for (int i = 0; i < 5000 && session.swap.child > 0; i++) {
                (void)usleep(1000);
                run(0);
        }
        assert_int_equal(session.swap.child, 0);
}

/* Swap on the store is answered at once, and what becomes of it is told at once, whatever the period. */
static void test_swap(void **state)
{
        struct bl_wire_welcome w = {.major = BL_WIRE_MAJOR, .minor = 2, .period = 60 * BL_SEC};
        struct bl_wire_entitlement e;
        _cleanup_free_ char *people = NULL, *json = NULL;
        const char *why = NULL;
        uint8_t buf[256];
        struct heard h;

        (void)state;
        put_file("/proc/swaps", "Filename Type Size Used Priority\n");
        guest_swap_end(&session.swap);
        guest_swap_init(&session.swap, dir);
        port.exists = true;
        until_swap_idle();
        run(0);
        assert_true(hear(&port).hello.features & BL_WIRE_FEATURE_SWAP);
        say_frame(&port, buf, bl_wire_encode_welcome(&w, buf, sizeof buf));
        run(BL_SEC);
        (void)hear(&port);
        act(&port, 5, BL_ACTION_SWAP_ON, BL_UNSET);
        run(0);
        until_swap_idle();
        run(0);
        h = hear(&port);
        assert_int_equal(h.results, 1);
        assert_true(h.result.id == 5 && h.result.status == BL_RESULT_DONE && h.result.need == BL_UNSET);
        assert_int_equal(h.stats, 2); /* it has begun, and ended */
        assert_int_equal(h.figures.v[BL_STAT_STORE_STATE], BL_STORE_SWAP_NONE);
        assert_int_equal(h.figures.v[BL_STAT_STORE_ERROR], ENODEV);
        bl_wire_entitlement_init(&e);
        e.v[BL_GRANT_STORE_HELD] = 33 * BL_MIB;
        entitle(&port, &e);
        run(2 * BL_SEC);
        assert_int_equal(status_is(false, &people, &why), 0);
        assert_non_null(strstr(people, "held by the store 33.0 MiB\n"));
        assert_null(strstr(people, "swap on the store")); /* there is none to speak of */
        assert_int_equal(status_is(true, &json, &why), 0);
        assert_non_null(strstr(json, "\"swap_state\": \"none\",\n"));
        assert_non_null(strstr(json, "\"swap_errno\": 19,\n"));
        assert_non_null(strstr(json, "\"zswap\": null\n}\n"));
}

/* What an administrator is to see, from figures as they may come. */
static void test_status_of_swap(void **state)
{
        struct bl_wire_entitlement e;
        struct bl_wire_stats s;
        _cleanup_free_ char *people = NULL;
        const char *why = NULL;

        (void)state;
        settle_on_port();
        bl_wire_entitlement_init(&e);
        entitle(&port, &e);
        run(2 * BL_SEC);
        bl_wire_stats_init(&s);
        s.v[BL_STAT_STORE_STATE] = BL_STORE_SWAP_ON;
        s.v[BL_STAT_STORE_SIZE] = 640 * BL_MIB;
        s.v[BL_STAT_STORE_USED] = 100 * BL_MIB;
        s.v[BL_STAT_STORE_ERROR] = ENOMEM;
        s.v[BL_STAT_SWAP_AHEAD] = 64 * BL_MIB;
        s.v[BL_STAT_ZSWAP] = 1;
        guest_status_swap(&session.status, &s);
        guest_status_step(&session.status, "port", &e, now + BL_SEC);
        assert_int_equal(status_is(false, &people, &why), 0);
        assert_non_null(strstr(people, "swap on the store on\n"));
        assert_non_null(strstr(people, "swap there        640.0 MiB\n"));
        assert_non_null(strstr(people, "of it used        100.0 MiB\n"));
        assert_non_null(strstr(people, "Cannot allocate memory\n"));
        assert_non_null(strstr(people, "warning: other swap"));
        assert_non_null(strstr(people, "warning: zswap"));
        /* a little more is no news, nothing at all is */
        assert_false(session.status.due);
        s.v[BL_STAT_STORE_USED] += BL_MIB;
        guest_status_swap(&session.status, &s);
        assert_false(session.status.due);
        s.v[BL_STAT_STORE_USED] = 0;
        guest_status_swap(&session.status, &s);
        assert_true(session.status.due);
}

static void test_status(void **state)
{
        struct bl_wire_entitlement e;
        _cleanup_free_ char *none = NULL, *silent = NULL, *people = NULL, *json = NULL, *away = NULL, *ended = NULL;
        const char *why = NULL;
        struct stat st, again;

        (void)state;
        assert_int_equal(status_is(false, &none, &why), 1);
        assert_non_null(strstr(why, "no agent"));
        settle_on_port();
        assert_int_equal(status_is(false, &silent, &why), 1);
        assert_non_null(strstr(why, "nothing"));
        bl_wire_entitlement_init(&e);
        e.v[BL_GRANT_MAX] = 4 * BL_GIB;
        e.v[BL_GRANT_ACTUAL] = 700 * BL_MIB + 512 * BL_KIB;
        e.v[BL_GRANT_SHARES] = 1000;
        e.v[BL_GRANT_STATE] = 2;
        e.v[BL_GRANT_MANAGED] = 1;
        entitle(&port, &e);
        run(2 * BL_SEC);
        assert_int_equal(status_is(false, &people, &why), 0);
        assert_non_null(strstr(people, "transport         port\n"));
        assert_non_null(strstr(people, "host memory       soft\n"));
        assert_non_null(strstr(people, "balloon managed   yes\n"));
        assert_non_null(strstr(people, "balloon size      700.5 MiB\n"));
        assert_non_null(strstr(people, "shares            1000\n"));
        assert_non_null(strstr(people, "compressed        not known\n"));
        assert_int_equal(status_is(true, &json, &why), 0);
        assert_non_null(strstr(json, "\"max\": 4294967296,\n"));
        assert_non_null(strstr(json, "\"swapped\": null,\n"));
        assert_int_equal(stat(session.status.path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0644);
        /* the same again is not written again */
        entitle(&port, &e);
        run(5 * BL_SEC);
        assert_int_equal(stat(session.status.path, &again), 0);
        assert_int_equal(st.st_ino, again.st_ino);
        /* what a newer host says, of which we know nothing, is no state */
        e.v[BL_GRANT_STATE] = 99;
        entitle(&port, &e);
        port.exists = false;
        run(BL_SEC);
        cut(&port);
        run(2 * BL_SEC);
        assert_int_equal(status_is(false, &away, &why), 0);
        assert_non_null(strstr(away, "transport         none now\n"));
        assert_non_null(strstr(away, "host memory       not known\n"));
        guest_session_end(&session);
        assert_int_equal(status_is(false, &ended, &why), 1);
}

/* A host that changes its mind all the time costs one file a second. */
static void test_status_rate(void **state)
{
        struct bl_wire_entitlement e;
        ino_t last = 0;
        int written = 0;

        (void)state;
        settle_on_port();
        bl_wire_entitlement_init(&e);
        for (int i = 0; i < 100; i++) {
                struct stat st;

                e.v[BL_GRANT_ACTUAL] = (uint64_t)i;
                entitle(&port, &e);
                run(50 * BL_MSEC);
                assert_int_equal(stat(session.status.path, &st), 0);
                written += st.st_ino != last;
                last = st.st_ino;
        }
        assert_in_range(written, 4, 7);
}

/* A file that is cut or spoilt is read without harm (under ASan). */
static void test_status_spoilt(void **state)
{
        static const char *const texts[] = {
                "",
                "{",
                "\"pid\": ",
                "\"pid\": 1,\"known\": true",
                "\"pid\": 99999999999999999999",
                "\"pid\": 1, \"known\": \"true\", \"host_state\": \"a name longer than any of ours, on and on\"",
        };
        char path[128];

        (void)state;
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
                _cleanup_free_ char *text = NULL;
                const char *why;
                size_t size;
                FILE *f = open_memstream(&text, &size);

                put_file("/odd", texts[i]);
                (void)snprintf(path, sizeof path, "%s/odd", dir);
                assert_true(guest_status_print(f, path, false, &why) >= 0);
                (void)fclose(f);
        }
}

#define world_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                world_test(test_best_first),
                world_test(test_better_one_comes),
                world_test(test_silent_host),
                world_test(test_welcome_and_more),
                world_test(test_better_one_breaks),
                world_test(test_silent_call),
                world_test(test_slow_call),
                world_test(test_nobody),
                world_test(test_backlog),
                world_test(test_vsock_errors),
                cmocka_unit_test(test_alarm),
                world_test(test_request),
                world_test(test_request_is_one_write),
                world_test(test_request_waits),
                world_test(test_no_request),
                world_test(test_pressure),
                world_test(test_rest),
                world_test(test_ping),
                world_test(test_not_obeyed),
                world_test(test_swap),
                world_test(test_status_of_swap),
                world_test(test_status),
                world_test(test_status_rate),
                world_test(test_status_spoilt),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
