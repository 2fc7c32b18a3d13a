/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ballast-agent: its readers on stored guests, and its conversation with a host that misbehaves. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#include <ballast/cleanup.h>

#include "guestagent/print.h"
#include "guestagent/session.h"

#define GUESTS "tests/data/guest/"

/* --- readers ------------------------------------------------------------------------ */

static struct guest_reader reader;

static struct bl_wire_stats read_guest(const char *root)
{
        struct bl_wire_stats s;

        if (guest_reader_open(&reader, root) < 0)
                fail_msg("%s: %m (run from the top of the tree)", root);
        reader.page = 4096;
        assert_int_equal(guest_reader_read(&reader, &s), 0);
        return s;
}

static void test_linux_4_19(void **state)
{
        struct bl_wire_stats s = read_guest(GUESTS "linux-4.19");
        struct bl_wire_hello h;

        (void)state;
        assert_int_equal(s.v[BL_STAT_MEM_TOTAL], 2040944 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_MEM_AVAILABLE], 1701888 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_MEM_FREE], 1021232 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_BUFFERS], 38912 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_CACHED], 721340 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_SHMEM], 13060 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_SRECLAIMABLE], 52116 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_SWAP_CACHED], 124 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_SWAP_TOTAL], 998396 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_SWAP_FREE], 997116 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_UNEVICTABLE], 3072 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_MLOCKED], 2048 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_HUGETLB], 8192 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_SWAP_IN], 31 * 4096);
        assert_int_equal(s.v[BL_STAT_SWAP_OUT], 351 * 4096);
        assert_int_equal(s.v[BL_STAT_MAJOR_FAULTS], 5123);
        assert_int_equal(s.v[BL_STAT_OOM_KILLS], 2);
        assert_int_equal(s.v[BL_STAT_BALLOON_INFLATE], 65536 * UINT64_C(4096));
        assert_int_equal(s.v[BL_STAT_BALLOON_DEFLATE], 1024 * 4096);
        assert_int_equal(s.v[BL_STAT_PSI_SOME], BL_UNSET);
        assert_int_equal(s.v[BL_STAT_PSI_FULL], BL_UNSET);
        assert_true(s.v[BL_STAT_UPTIME] > 0 && s.v[BL_STAT_UPTIME] != BL_UNSET);

        guest_identity(&reader, GUESTS "linux-4.19", &h);
        assert_int_equal(h.major, BL_WIRE_MAJOR);
        assert_int_equal(h.features, 0);
        assert_string_equal(h.version, BALLAST_VERSION);
        assert_string_equal(h.kernel, "4.19.0-27-amd64");
        assert_memory_equal(h.boot_id, "\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef", 16);
        guest_reader_close(&reader);
}

/* Everything that we report, a newer kernel has. */
static void test_newer_kernels(void **state)
{
        static const char *const roots[] = {GUESTS "linux-6.1", GUESTS "linux-6.18"};

        (void)state;
        for (size_t i = 0; i < 2; i++) {
                struct bl_wire_stats s = read_guest(roots[i]);
                struct bl_wire_hello h;

                /* what comes then is of swap on the store */
                for (int tag = BL_STAT_UPTIME; tag < BL_STAT_STORE_STATE; tag++)
                        if (s.v[tag] == BL_UNSET)
                                fail_msg("%s: statistic %d is missing", roots[i], tag);
                assert_int_equal(s.v[BL_STAT_ZSWAPPED], i == 0 ? BL_UNSET : 0); /* cloud kernels have none */
                assert_true(s.v[BL_STAT_MEM_FREE] <= s.v[BL_STAT_MEM_TOTAL]);
                guest_identity(&reader, roots[i], &h);
                assert_int_equal(h.features, BL_WIRE_FEATURE_PSI);
                guest_reader_close(&reader);
        }
}

static void test_missing_files(void **state)
{
        struct bl_wire_hello h;
        struct bl_wire_stats s;

        (void)state;
        assert_int_equal(guest_reader_open(&reader, "/nonexistent"), -ENOENT);
        assert_int_equal(guest_reader_open(&reader, GUESTS "linux-4.19"), 0);
        guest_identity(&reader, "/nonexistent", &h);
        assert_string_equal(h.kernel, "");
        guest_reader_close(&reader);
        reader.meminfo = open("/dev/null", O_RDONLY | O_CLOEXEC);
        assert_int_equal(guest_reader_read(&reader, &s), -ENODATA);
        guest_reader_close(&reader);
}

/* A file larger than the buffer is cut, and the line at the cut is not half-read. */
static void test_large_file(void **state)
{
        char path[] = "/tmp/test-agent.XXXXXX";
        _cleanup_close_ int fd = mkstemp(path);
        _cleanup_fclose_ FILE *f = NULL;
        struct bl_wire_stats s;
        int line = 0;

        (void)state;
        assert_true(fd >= 0);
        assert_int_equal(unlink(path), 0);
        f = fdopen(dup(fd), "w");
        assert_non_null(f);
        (void)fprintf(f, "MemTotal: 7 kB\n");
        while (ftell(f) < (long)sizeof reader.text - 32)
                (void)fprintf(f, "Filler%04d: 1 kB\n", line++);
        while (ftell(f) < (long)sizeof reader.text - 12)
                (void)fputc('\n', f);
        (void)fprintf(f, "MemFree: 123456789 kB\n");
        assert_int_equal(fflush(f), 0);
        assert_int_equal(guest_reader_open(&reader, GUESTS "linux-4.19"), 0);
        assert_int_equal(dup2(fd, reader.meminfo), reader.meminfo);
        assert_int_equal(guest_reader_read(&reader, &s), 0);
        assert_int_equal(s.v[BL_STAT_MEM_TOTAL], 7 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_MEM_FREE], BL_UNSET);
        guest_reader_close(&reader);
}

static void test_odd_lines(void **state)
{
        static const char meminfo[] = "\n:\n 1\nMemTotal\nMemTotal:\nMemTotal: x kB\nMemFree: -1 kB\n"
                                      "MemAvailable: 99999999999999999999 kB\nCached: 18014398509481984 kB\n"
                                      "MemTotalX: 3 kB\nMemTota: 3 kB\nShmem: 5 kB\r\nSwapTotal:6\nBuffers: 7 kB";
        struct bl_wire_stats s;

        (void)state;
        bl_wire_stats_init(&s);
        guest_parse_meminfo(meminfo, sizeof meminfo - 1, &s);
        assert_int_equal(s.v[BL_STAT_MEM_TOTAL], BL_UNSET);
        assert_int_equal(s.v[BL_STAT_MEM_FREE], BL_UNSET);
        assert_int_equal(s.v[BL_STAT_MEM_AVAILABLE], BL_UNSET); /* not a number of 64 bits */
        assert_int_equal(s.v[BL_STAT_CACHED], BL_UNSET); /* nor is this one in bytes */
        assert_int_equal(s.v[BL_STAT_SHMEM], 5 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_SWAP_TOTAL], 6 * BL_KIB);
        assert_int_equal(s.v[BL_STAT_BUFFERS], BL_UNSET); /* perhaps cut */
        guest_parse_meminfo("", 0, &s);
        guest_parse_vmstat("pswpin 2\npswpin_x 9\noom_kill\n", 30, 16384, &s);
        assert_int_equal(s.v[BL_STAT_SWAP_IN], 32768);
        assert_int_equal(s.v[BL_STAT_OOM_KILLS], BL_UNSET);
}

/* Every cut of a real file is survived (under ASan: nothing is read beyond it). */
static void test_every_cut(void **state)
{
        char text[8192];
        _cleanup_fclose_ FILE *f = fopen(GUESTS "linux-6.1/proc/meminfo", "re");
        size_t n;

        (void)state;
        assert_non_null(f);
        n = fread(text, 1, sizeof text, f);
        for (size_t i = 0; i <= n; i++) {
                _cleanup_free_ char *copy = malloc(i + 1);
                struct bl_wire_stats s;

                bl_wire_stats_init(&s);
                memcpy(copy, text + n - i, i);
                guest_parse_meminfo(copy, i, &s);
                guest_parse_vmstat(copy, i, 4096, &s);
                guest_parse_psi(copy, i, &s);
                memcpy(copy, text, i);
                guest_parse_meminfo(copy, i, &s);
        }
}

static void test_psi(void **state)
{
        static const char text[] = "some avg10=1.50 avg60=0.00 avg300=0.00 total=123456\n"
                                   "full avg10=0.00 avg60=0.00 avg300=0.00 total=42\n"
                                   "else avg10=0.00 total=1\nsome total\nfull total=x\n";
        struct bl_wire_stats s;

        (void)state;
        bl_wire_stats_init(&s);
        guest_parse_psi(text, sizeof text - 1, &s);
        assert_int_equal(s.v[BL_STAT_PSI_SOME], 123456);
        assert_int_equal(s.v[BL_STAT_PSI_FULL], 42);
}

static void test_uuid(void **state)
{
        static const char good[] = "6f1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d\n";
        uint8_t id[16];

        (void)state;
        assert_true(guest_parse_uuid(good, strlen(good), id));
        assert_memory_equal(id, "\x6f\x1b\x2c\x3d\x4e\x5f\x4a\x6b\x8c\x7d\x9e\x0f\x1a\x2b\x3c\x4d", 16);
        for (size_t n = 0; n < 36; n++)
                assert_false(guest_parse_uuid(good, n, id));
        assert_false(guest_parse_uuid("6f1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d0", 37, id));
        assert_false(guest_parse_uuid("6f1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4x", 36, id));
        assert_memory_equal(id, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
}

static void test_print(void **state)
{
        struct bl_wire_stats s = read_guest(GUESTS "linux-4.19");
        struct bl_wire_hello h;
        _cleanup_free_ char *text = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);

        (void)state;
        assert_non_null(f);
        guest_identity(&reader, GUESTS "linux-4.19", &h);
        assert_int_equal(guest_print_report(f, &h, &s), 0);
        assert_int_equal(fclose(f), 0);
        assert_non_null(strstr(text, "kernel            4.19.0-27-amd64\n"));
        assert_non_null(strstr(text, "memory            1993.1 MiB\n"));
        assert_non_null(strstr(text, "some stalled      not known\n"));
        f = fopen("/dev/full", "we");
        assert_non_null(f);
        assert_int_equal(guest_print_report(f, &h, &s), -EIO);
        (void)fclose(f);
        guest_reader_close(&reader);
}

/* --- virtio-serial -------------------------------------------------------------------- */

static void make(const char *command, const char *dir)
{
        char text[512];

        (void)snprintf(text, sizeof text, "cd '%s' && %s", dir, command);
        assert_int_equal(system(text), 0);
}

static void test_open_port(void **state)
{
        char dir[] = "/tmp/test-agent.XXXXXX";
        char path[128];
        struct guest_transport t = {.ops = &guest_virtio_serial, .device = path, .root = dir};
        int fd;

        (void)state;
        assert_non_null(mkdtemp(dir));
        (void)snprintf(path, sizeof path, "%s/dev/virtio-ports/org.ballast.agent.0", dir);
        assert_int_equal(t.ops->open(&t), -ENOENT);
        /* a port without udev; other ports, odd names and a port without a name beside it */
        make("mkdir -p dev sys/class/virtio-ports/vport0p1 sys/class/virtio-ports/vport0p2 "
             "sys/class/virtio-ports/vport1p9 && echo org.qemu.guest_agent.0 > sys/class/virtio-ports/vport0p1/name && "
             "echo org.ballast.agent.01 > sys/class/virtio-ports/vport0p2/name",
             dir);
        assert_int_equal(t.ops->open(&t), -ENOENT);
        make("echo org.ballast.agent.0 > sys/class/virtio-ports/vport1p9/name", dir);
        assert_int_equal(t.ops->open(&t), -ENOENT);
        make("ln -s /dev/null dev/vport1p9", dir); /* any character device will do here */
        fd = t.ops->open(&t);
        assert_true(fd >= 0);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        (void)close(fd);
        /* a regular file in its place must not be filled with reports */
        make("mkdir dev/virtio-ports && : > dev/virtio-ports/org.ballast.agent.0", dir);
        assert_int_equal(t.ops->open(&t), -ENODEV);
        make("rm -rf '../'\"$(basename \"$PWD\")\"", dir);
}

/* --- session ---------------------------------------------------------------------------- */

/* A transport over a socketpair, whose device the test may take away. */
static struct {
        int host; /* the test's end; -1: host away */
        int next; /* what open hands out; -1: no device */
        bool unplugged;
        size_t send_most; /* bytes per send; 0: EAGAIN */
        size_t kept; /* bytes of a frame that the host has the start of */
        int opens;
        int logs;
        char last_log[256];
} world;

static int fake_open(struct guest_transport *t)
{
        int fd = world.next;

        (void)t;
        world.opens++;
        world.next = -1;
        return fd < 0 ? -ENOENT : fd;
}

static int fake_connected(int fd)
{
        (void)fd;
        return world.host >= 0 && !world.unplugged;
}

static ssize_t fake_send(int fd, const void *data, size_t size)
{
        ssize_t n;

        if (world.unplugged)
                return -ENODEV;
        if (world.send_most == 0 || world.host < 0)
                return -EAGAIN;
        n = send(fd, data, bl_min(size, world.send_most), MSG_DONTWAIT | MSG_NOSIGNAL);
        return n < 0 ? -EAGAIN : n;
}

static ssize_t fake_receive(int fd, void *buf, size_t size)
{
        ssize_t n;

        if (world.unplugged)
                return -ENODEV;
        if (world.host < 0)
                return 0;
        n = recv(fd, buf, size, MSG_DONTWAIT);
        return n < 0 ? -EAGAIN : n;
}

static const struct guest_transport_ops fake_ops = {
        .name = "test",
        .open = fake_open,
        .connected = fake_connected,
        .send = fake_send,
        .receive = fake_receive,
};

static struct guest_transport fake = {.ops = &fake_ops, .device = "test", .root = ""};
static struct guest_transport *const transports[] = {&fake};
static struct guest_session session;
static usec_t now;

static void note(const char *text)
{
        world.logs++;
        (void)snprintf(world.last_log, sizeof world.last_log, "%s", text);
}

static void plug(void)
{
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        world.host = pair[0];
        world.next = pair[1];
        world.unplugged = false;
}

static int session_setup(void **state)
{
        struct bl_wire_hello h;

        (void)state;
        memset(&world, 0, sizeof world);
        world.send_most = SIZE_MAX;
        world.next = world.host = -1;
        now = 1000 * BL_SEC;
        (void)read_guest(GUESTS "linux-6.1");
        guest_identity(&reader, GUESTS "linux-6.1", &h);
        guest_session_init(&session, &(struct guest_setup){
                                             .transports = transports,
                                             .n_transports = 1,
                                             .reader = &reader,
                                             .hello = &h,
                                             .root = GUESTS "linux-6.1",
                                             .status_file = "/dev/null/status.json", /* cannot be written */
                                             .log = note,
                                     });
        session.status.failed = true; /* and that has been said */
        return 0;
}

static int session_teardown(void **state)
{
        (void)state;
        guest_session_end(&session);
        guest_reader_close(&reader);
        bl_closep(&world.host);
        bl_closep(&world.next);
        return 0;
}

/* One turn of the agent's loop: what poll(2) would say, or time goes on. */
static void turn(void)
{
        struct pollfd fds[_GUEST_POLL_MAX];
        usec_t timeout = guest_session_poll(&session, fds, now);
        struct pollfd *p = &fds[GUEST_POLL_STREAM];

        assert_true(timeout <= BL_WIRE_PERIOD_MAX);
        if (p->fd >= 0 && world.host < 0)
                p->revents = POLLHUP;
        else if (p->fd >= 0)
                assert_true(poll(p, 1, 0) >= 0);
        if ((p->events & POLLOUT) && world.send_most == 0)
                p->revents &= (short)~POLLOUT;
        if (p->revents == 0)
                now += timeout;
        guest_session_step(&session, fds, now);
}

struct heard {
        int hellos, stats;
        struct bl_wire_stats last;
};

/* What the host got since the last call; what is not whole yet is kept. */
static struct heard hear(void)
{
        static uint8_t buf[1 << 18];
        struct heard h = {0};
        struct bl_wire_iter it;
        struct bl_wire_frame f;
        struct bl_wire_hello hello;
        ssize_t n = recv(world.host, buf + world.kept, sizeof buf - world.kept, MSG_DONTWAIT);

        if (n < 0)
                return h;
        bl_wire_iter_init(&it, buf, world.kept + (size_t)n);
        while (bl_wire_next(&it, &f) > 0)
                switch (f.type) {
                case BL_WIRE_HELLO:
                        assert_int_equal(bl_wire_decode_hello(&f, &hello), 0);
                        assert_int_equal(h.stats, 0); /* it comes first */
                        h.hellos++;
                        break;
                case BL_WIRE_STATS:
                        assert_int_equal(bl_wire_decode_stats(&f, &h.last), 0);
                        h.stats++;
                        break;
                default:
                        fail();
                }
        assert_int_equal(it.skipped, 0);
        world.kept = it.size - it.pos;
        memmove(buf, buf + it.pos, world.kept);
        return h;
}

static void host_says(const struct bl_wire_welcome *w)
{
        uint8_t buf[256];
        int n = bl_wire_encode_welcome(w, buf, sizeof buf);

        assert_int_equal(send(world.host, buf, (size_t)n, MSG_NOSIGNAL), n);
}

/* A host of the first minor version, which asks for nothing, comes and is known. */
static void greet(void)
{
        struct bl_wire_welcome w = {.major = BL_WIRE_MAJOR, .period = BL_UNSET};

        plug();
        turn();
        host_says(&w);
        turn();
}

static void test_cycle(void **state)
{
        struct heard h;
        usec_t start;

        (void)state;
        greet();
        h = hear();
        assert_int_equal(h.hellos, 1);
        assert_int_equal(h.stats, 1);
        assert_int_equal(h.last.v[BL_STAT_SEQUENCE], 1);
        assert_int_equal(h.last.v[BL_STAT_MEM_TOTAL], 480284 * BL_KIB);
        start = now;
        for (int i = 0; i < 10; i++)
                turn();
        h = hear();
        assert_int_equal(h.hellos, 0);
        assert_int_equal(h.stats, 10);
        assert_int_equal(now - start, 10 * BL_SEC);
}

static void test_period(void **state)
{
        static const struct {
                uint64_t ask, get;
        } cases[] = {
                {250 * BL_MSEC, 250 * BL_MSEC}, {0, BL_WIRE_PERIOD_MIN}, {UINT64_MAX - 1, BL_WIRE_PERIOD_MAX},
                {BL_UNSET, BL_WIRE_PERIOD_MAX}, /* says nothing about it */
                {5 * BL_SEC, 5 * BL_SEC},
        };

        (void)state;
        plug();
        turn();
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
                struct bl_wire_welcome w = {.major = BL_WIRE_MAJOR, .period = cases[i].ask};
                usec_t start;

                host_says(&w);
                turn(); /* reads it */
                turn(); /* what was due before */
                (void)hear();
                start = now;
                for (int k = 0; k < 4; k++)
                        turn();
                assert_int_equal(now - start, 4 * cases[i].get);
                assert_int_equal(hear().stats, 4);
        }
}

/* A host that came while we looked away asks, and gets a hello without waiting. */
static void test_ask(void **state)
{
        struct bl_wire_welcome w = {.major = BL_WIRE_MAJOR, .period = BL_SEC, .ask = 1};
        usec_t before;

        (void)state;
        plug();
        turn();
        (void)hear();
        before = now;
        host_says(&w);
        turn();
        assert_int_equal(now, before);
        assert_int_equal(hear().hellos, 1);
}

static void test_other_major(void **state)
{
        struct bl_wire_welcome w = {.major = BL_WIRE_MAJOR + 1, .period = BL_SEC};

        (void)state;
        plug();
        turn();
        (void)hear();
        host_says(&w);
        for (int i = 0; i < 5; i++)
                turn();
        assert_int_equal(hear().stats, 0);
        assert_non_null(strstr(world.last_log, "not reporting"));
        w.major = BL_WIRE_MAJOR;
        w.ask = 1;
        host_says(&w);
        for (int i = 0; i < 3; i++)
                turn();
        assert_true(hear().stats >= 2);
}

/* No host: nothing is polled, one look a second, and no line in the log for each. */
static void test_host_away(void **state)
{
        struct pollfd fds[_GUEST_POLL_MAX];
        usec_t start;
        int logs, host;

        (void)state;
        plug();
        host = world.host;
        world.host = -1;
        start = now;
        for (int i = 0; i < 10; i++) {
                turn();
                (void)guest_session_poll(&session, fds, now);
                assert_int_equal(fds[GUEST_POLL_STREAM].fd, -1);
        }
        assert_true(now - start >= 9 * GUEST_HUP_PERIOD);
        assert_int_equal(world.logs, 0);
        assert_int_equal(world.opens, 1);

        world.host = host; /* it comes, goes and comes again */
        turn();
        assert_int_equal(hear().hellos, 1);
        world.host = -1;
        turn();
        assert_false(guest_link_is_up(&session.link));
        logs = world.logs;
        for (int i = 0; i < 5; i++)
                turn();
        assert_int_equal(world.logs, logs);
        world.host = host;
        turn();
        assert_int_equal(hear().hellos, 1);
}

/* A host that does not read: reports are dropped and counted, none is kept. */
static void test_host_does_not_read(void **state)
{
        struct heard h;

        (void)state;
        greet();
        (void)hear();
        world.send_most = 0;
        for (int i = 0; i < 100; i++)
                turn();
        assert_int_equal(session.dropped, 100);
        assert_int_equal(session.out_len, 0);
        world.send_most = SIZE_MAX;
        turn();
        h = hear();
        assert_int_equal(h.stats, 1);
        assert_int_equal(h.last.v[BL_STAT_SEQUENCE], 102); /* the host sees how many are missing */
}

/* The hello is not lost when it cannot be sent at once, and comes before any report. */
static void test_hello_waits(void **state)
{
        (void)state;
        plug();
        world.send_most = 0;
        for (int i = 0; i < 5; i++)
                turn();
        world.send_most = SIZE_MAX;
        turn();
        assert_int_equal(hear().hellos, 1);
}

/* Frames that go out in parts are whole in the end, and never mixed. */
static void test_partial_sends(void **state)
{
        struct bl_wire_welcome w = {.major = BL_WIRE_MAJOR, .period = BL_UNSET};

        (void)state;
        for (size_t most = 1; most < 60; most++) {
                int hellos = 0, stats = 0;

                (void)session_teardown(NULL);
                (void)session_setup(NULL);
                plug();
                host_says(&w);
                world.send_most = most;
                for (int i = 0; i < 20; i++) {
                        struct heard h;

                        turn();
                        h = hear();
                        hellos += h.hellos;
                        stats += h.stats;
                }
                assert_int_equal(hellos, 1);
                assert_true(stats >= 5);
                assert_int_equal(world.kept, 0);
        }
}

/* After the first part of a frame the host stops reading, and starts again. */
static void test_rest_of_frame(void **state)
{
        (void)state;
        greet();
        (void)hear();
        for (size_t first = 1; first < 80; first += 13) {
                struct pollfd fds[_GUEST_POLL_MAX] = {0};
                struct heard h;

                now = session.report_at;
                world.send_most = 0;
                /* only `first` bytes get through */
                memset(session.out, 0, sizeof session.out);
                session.out_len = (size_t)bl_wire_encode_hello(&session.hello, session.out, sizeof session.out);
                session.out_pos = first;
                assert_true(first < session.out_len);
                assert_int_equal(send(session.link.line[0].fd, session.out, session.out_pos, 0), session.out_pos);
                for (int i = 0; i < 3; i++) {
                        now += BL_SEC;
                        guest_session_step(&session, fds, now);
                }
                assert_true(session.out_len > 0);
                (void)guest_session_poll(&session, fds, now);
                assert_true(fds[GUEST_POLL_STREAM].events & POLLOUT);
                world.send_most = SIZE_MAX;
                now = session.report_at;
                fds[GUEST_POLL_STREAM].revents = POLLOUT;
                guest_session_step(&session, fds, now);
                h = hear();
                assert_int_equal(h.hellos, 1);
                assert_int_equal(h.stats, 1);
        }
}

static void test_unplugged(void **state)
{
        (void)state;
        turn();
        assert_int_equal(world.opens, 1);
        assert_non_null(strstr(world.last_log, "cannot open"));
        turn();
        turn();
        assert_int_equal(world.opens, 3);
        assert_int_equal(world.logs, 1); /* said once */
        plug();
        turn();
        assert_int_equal(hear().hellos, 1);

        world.unplugged = true; /* while connected */
        turn();
        turn();
        assert_int_equal(session.link.line[0].fd, -1);
        bl_closep(&world.host);
        plug();
        for (int i = 0; i < 3; i++)
                turn();
        assert_int_equal(hear().hellos, 1);

        bl_closep(&world.host); /* while disconnected */
        world.host = -1;
        turn();
        world.unplugged = true;
        turn();
        plug();
        for (int i = 0; i < 3; i++)
                turn();
        assert_int_equal(hear().hellos, 1);
}

/* Whatever the host sends, reports go out on time. */
static void test_hostile_host(void **state)
{
        static uint8_t junk[65536];
        struct bl_wire_welcome w = {.major = BL_WIRE_MAJOR, .period = BL_SEC, .ask = 1};
        usec_t end;
        int stats = 0;

        (void)state;
        plug();
        turn();
        (void)hear();
        end = now + 5 * BL_SEC;
        for (unsigned int seed = 1; now < end; seed++) {
                for (size_t i = 0; i < sizeof junk; i++)
                        junk[i] = (uint8_t)(rand_r(&seed) >> 7);
                for (size_t i = 0; i + 128 < sizeof junk; i += 1000)
                        (void)bl_wire_encode_welcome(&w, junk + i, 128);
                (void)send(world.host, junk, sizeof junk, MSG_DONTWAIT);
                turn();
                now += 50 * BL_MSEC;
                stats += hear().stats;
        }
        assert_true(stats >= 4 && stats <= 6);
}

/* After being stopped for an hour there is one report, not 3600. */
static void test_stopped(void **state)
{
        (void)state;
        greet();
        (void)hear();
        now += 3600 * BL_SEC;
        turn();
        turn();
        assert_int_equal(hear().stats, 2);
}

static void test_no_allocation(void **state)
{
        struct mallinfo2 before, after;
        struct bl_wire_welcome w = {.major = BL_WIRE_MAJOR, .period = BL_SEC, .ask = 1};

        (void)state;
        plug();
        turn();
        (void)hear();
        before = mallinfo2();
        for (int i = 0; i < 50; i++) {
                host_says(&w);
                turn();
                turn();
                (void)hear();
        }
        after = mallinfo2();
        assert_int_equal(before.uordblks, after.uordblks);
        assert_int_equal(before.arena, after.arena);
}

#define session_test(f) cmocka_unit_test_setup_teardown(f, session_setup, session_teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_linux_4_19),
                cmocka_unit_test(test_newer_kernels),
                cmocka_unit_test(test_missing_files),
                cmocka_unit_test(test_large_file),
                cmocka_unit_test(test_odd_lines),
                cmocka_unit_test(test_every_cut),
                cmocka_unit_test(test_psi),
                cmocka_unit_test(test_uuid),
                cmocka_unit_test(test_print),
                cmocka_unit_test(test_open_port),
                session_test(test_cycle),
                session_test(test_period),
                session_test(test_ask),
                session_test(test_other_major),
                session_test(test_host_away),
                session_test(test_host_does_not_read),
                session_test(test_hello_waits),
                session_test(test_partial_sends),
                session_test(test_rest_of_frame),
                session_test(test_unplugged),
                session_test(test_hostile_host),
                session_test(test_stopped),
                session_test(test_no_allocation),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
