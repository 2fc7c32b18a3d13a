/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <ballast/cleanup.h>

#include "daemon/vsock/mux.h"
#include "daemon/vsock/mux_conn.h"

#define GUEST     77U
#define HOST_PORT 1031U
#define PORT      4000U /* the guest's first */
#define BOTH      (BL_VSOCK_SHUTDOWN_RECEIVE | BL_VSOCK_SHUTDOWN_SEND)
#define ROOM      65536U
#define HOSTS     64

/* A mux, the hosts' ends of what it connected, and the guest's credit as the guest says it. */
struct rig {
        struct bl_mux *mux;
        int hosts[HOSTS];
        unsigned n_hosts, n_connects;
        bool refuse;
        int sndbuf;
        usec_t now;
        uint32_t buf_alloc, fwd_cnt;
        struct bl_vsock_packet p; /* the last that the guest got */
        uint8_t payload[ROOM];
};

static int rig_connect(void *userdata, uint32_t src_port, uint32_t dst_port)
{
        struct rig *r = userdata;
        int pair[2];

        assert_true(src_port >= PORT);
        assert_int_equal(dst_port, HOST_PORT);
        r->n_connects++;
        if (r->refuse)
                return -ECONNREFUSED;
        assert_true(r->n_hosts < HOSTS);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
        if (r->sndbuf)
                assert_int_equal(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &r->sndbuf, sizeof(r->sndbuf)), 0);
        r->hosts[r->n_hosts++] = pair[1];
        return pair[0];
}

static int setup(void **state)
{
        struct rig *r = calloc(1, sizeof(*r));
        struct bl_mux_options o = {.guest_cid = GUEST, .connect = rig_connect, .userdata = r};

        assert_non_null(r);
        r->buf_alloc = 1U << 18;
        r->now = BL_SEC;
        assert_int_equal(bl_mux_new(&o, &r->mux), 0);
        *state = r;
        return 0;
}

static int teardown(void **state)
{
        struct rig *r = *state;

        assert_null(bl_mux_free(r->mux));
        for (unsigned i = 0; i < r->n_hosts; i++)
                bl_closep(&r->hosts[i]);
        free(r);
        return 0;
}

static void close_host(struct rig *r, unsigned i)
{
        assert_int_equal(close(r->hosts[i]), 0);
        r->hosts[i] = -1;
}

static struct bl_vsock_packet packet(const struct rig *r, uint32_t port, uint16_t op)
{
        return (struct bl_vsock_packet){
                .src_cid = GUEST,
                .dst_cid = BL_VSOCK_HOST,
                .src_port = port,
                .dst_port = HOST_PORT,
                .type = BL_VSOCK_STREAM,
                .op = op,
                .buf_alloc = r->buf_alloc,
                .fwd_cnt = r->fwd_cnt,
        };
}

static void give(struct rig *r, uint32_t port, uint16_t op)
{
        const struct bl_vsock_packet p = packet(r, port, op);

        bl_mux_receive(r->mux, &p, NULL, r->now);
}

static void give_shutdown(struct rig *r, uint32_t port, uint32_t flags)
{
        struct bl_vsock_packet p = packet(r, port, BL_VSOCK_OP_SHUTDOWN);

        p.flags = flags;
        bl_mux_receive(r->mux, &p, NULL, r->now);
}

static void give_data(struct rig *r, uint32_t port, const void *data, size_t size)
{
        struct bl_vsock_packet p = packet(r, port, BL_VSOCK_OP_RW);

        p.len = (uint32_t)size;
        bl_mux_receive(r->mux, &p, data, r->now);
}

static int next(struct rig *r, size_t room)
{
        const int n = bl_mux_next(r->mux, room, &r->p, r->payload, r->now);

        if (n > 0) {
                assert_int_equal(r->p.src_cid, BL_VSOCK_HOST);
                assert_int_equal(r->p.dst_cid, GUEST);
                assert_int_equal(r->p.src_port, HOST_PORT);
                assert_true(r->p.len <= room);
                assert_true(r->p.op == BL_VSOCK_OP_RW ? r->p.len > 0 : r->p.len == 0);
        }
        return n;
}

static void expect(struct rig *r, uint32_t port, enum bl_vsock_op op)
{
        assert_true(bl_mux_has_next(r->mux));
        assert_int_equal(next(r, ROOM), 1);
        assert_int_equal(r->p.op, op);
        assert_int_equal(r->p.dst_port, port);
        assert_int_equal(r->p.type, BL_VSOCK_STREAM);
}

static void expect_shutdown(struct rig *r, uint32_t port, uint32_t flags)
{
        expect(r, port, BL_VSOCK_OP_SHUTDOWN);
        assert_int_equal(r->p.flags, flags);
}

static void expect_data(struct rig *r, uint32_t port, const void *data, size_t size)
{
        expect(r, port, BL_VSOCK_OP_RW);
        assert_int_equal(r->p.len, size);
        assert_memory_equal(r->payload, data, size);
        assert_int_equal(r->p.buf_alloc, BL_MUX_BUFFER);
}

static void expect_none(struct rig *r)
{
        assert_int_equal(next(r, ROOM), 0);
        assert_false(bl_mux_has_next(r->mux));
}

/* One round of the worker's loop; how many sockets had something to tell. */
static int poll_once(struct rig *r)
{
        struct pollfd fds[BL_MUX_CONNECTIONS];
        usec_t at;
        const size_t n = bl_mux_poll(r->mux, fds, BL_MUX_CONNECTIONS, &at);
        const int ready = poll(fds, n, 0);

        assert_true(ready >= 0);
        bl_mux_polled(r->mux, fds, n, r->now);
        return ready;
}

/* Nothing is owed, no socket has anything to tell: a worker sleeps here. */
static void expect_rest(struct rig *r)
{
        expect_none(r);
        assert_int_equal(poll_once(r), 0);
        expect_none(r);
}

static void open_connection(struct rig *r, uint32_t port)
{
        give(r, port, BL_VSOCK_OP_REQUEST);
        expect(r, port, BL_VSOCK_OP_RESPONSE);
        assert_int_equal(r->p.buf_alloc, BL_MUX_BUFFER);
        assert_int_equal(r->p.fwd_cnt, 0);
}

static void expect_host_end(struct rig *r, unsigned i)
{
        char c;
        const ssize_t n = read(r->hosts[i], &c, 1);

        assert_true(n == 0 || (n < 0 && errno == ECONNRESET));
}

static void host_writes(struct rig *r, unsigned i, const void *data, size_t size)
{
        assert_int_equal(write(r->hosts[i], data, size), size);
}

static unsigned count_fds(void)
{
        _cleanup_closedir_ DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        assert_non_null(d);
        while (readdir(d))
                n++;
        return n;
}

static void test_connect_and_talk(void **state)
{
        struct rig *r = *state;
        char buf[16];

        open_connection(r, PORT);
        assert_int_equal(bl_mux_connections(r->mux), 1);
        expect_rest(r);
        give_data(r, PORT, "hello", 5);
        assert_int_equal(read(r->hosts[0], buf, sizeof(buf)), 5);
        assert_memory_equal(buf, "hello", 5);
        host_writes(r, 0, "welcome", 7);
        assert_int_equal(poll_once(r), 1);
        expect_data(r, PORT, "welcome", 7);
        assert_int_equal(r->p.fwd_cnt, 5);
        expect_rest(r);
}

static void test_response_before_data(void **state)
{
        struct rig *r = *state;

        give(r, PORT, BL_VSOCK_OP_REQUEST);
        host_writes(r, 0, "x", 1);
        assert_int_equal(poll_once(r), 1);
        expect(r, PORT, BL_VSOCK_OP_RESPONSE);
        expect_data(r, PORT, "x", 1);
        expect_rest(r);
}

static void test_refused(void **state)
{
        struct rig *r = *state;

        r->refuse = true;
        for (unsigned i = 0; i < 1000; i++) {
                assert_true(bl_mux_may_receive(r->mux));
                give(r, PORT + i, BL_VSOCK_OP_REQUEST);
                expect(r, PORT + i, BL_VSOCK_OP_RST);
                expect_none(r);
        }
        assert_int_equal(r->n_connects, 1000);
        assert_int_equal(bl_mux_connections(r->mux), 0);
}

static void test_limit(void **state)
{
        struct rig *r = *state;

        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++)
                open_connection(r, PORT + i);
        give(r, PORT + BL_MUX_CONNECTIONS, BL_VSOCK_OP_REQUEST);
        expect(r, PORT + BL_MUX_CONNECTIONS, BL_VSOCK_OP_RST);
        assert_int_equal(r->n_connects, BL_MUX_CONNECTIONS);
        assert_int_equal(bl_mux_connections(r->mux), BL_MUX_CONNECTIONS);
        /* one that ends makes room */
        give(r, PORT + 3, BL_VSOCK_OP_RST);
        expect_host_end(r, 3);
        open_connection(r, PORT + BL_MUX_CONNECTIONS);
}

static void test_unknown(void **state)
{
        struct rig *r = *state;
        struct bl_vsock_packet p;

        for (uint16_t op = 0; op < 20; op++) {
                if (op == BL_VSOCK_OP_REQUEST)
                        continue;
                give(r, PORT, op);
                if (op != BL_VSOCK_OP_RST)
                        expect(r, PORT, BL_VSOCK_OP_RST);
                expect_none(r);
        }
        open_connection(r, PORT);
        /* a type that is not offered: RST with that type, and the stream of the same name lives on */
        p = packet(r, PORT, BL_VSOCK_OP_RW);
        p.type = 2;
        bl_mux_receive(r->mux, &p, NULL, r->now);
        assert_int_equal(next(r, 0), 1);
        assert_int_equal(r->p.op, BL_VSOCK_OP_RST);
        assert_int_equal(r->p.type, 2);
        p.op = BL_VSOCK_OP_RST;
        bl_mux_receive(r->mux, &p, NULL, r->now);
        assert_int_equal(bl_mux_connections(r->mux), 1);
        /* the same port of the guest, another of the host */
        p = packet(r, PORT, BL_VSOCK_OP_RW);
        p.dst_port++;
        bl_mux_receive(r->mux, &p, NULL, r->now);
        assert_int_equal(bl_mux_next(r->mux, 0, &p, NULL, r->now), 1);
        assert_int_equal(p.op, BL_VSOCK_OP_RST);
        assert_int_equal(p.src_port, HOST_PORT + 1);
        assert_int_equal(bl_mux_connections(r->mux), 1);
        /* other CIDs */
        p = packet(r, PORT, BL_VSOCK_OP_RST);
        p.src_cid = GUEST + 1;
        bl_mux_receive(r->mux, &p, NULL, r->now);
        p.src_cid = GUEST | UINT64_C(1) << 32;
        bl_mux_receive(r->mux, &p, NULL, r->now);
        p.src_cid = GUEST;
        p.dst_cid = 1;
        bl_mux_receive(r->mux, &p, NULL, r->now);
        p.dst_cid = BL_VSOCK_HOST | UINT64_C(1) << 32;
        bl_mux_receive(r->mux, &p, NULL, r->now);
        assert_int_equal(bl_mux_connections(r->mux), 1);
        expect_rest(r);
}

/* What no guest may say to a connection that there is. */
static void test_rules_broken(void **state)
{
        static const uint16_t ops[] = {BL_VSOCK_OP_INVALID, BL_VSOCK_OP_REQUEST, BL_VSOCK_OP_RESPONSE, 8, 0xffff};
        struct rig *r = *state;

        for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
                open_connection(r, PORT);
                give(r, PORT, ops[i]);
                assert_int_equal(bl_mux_connections(r->mux), 0);
                expect(r, PORT, BL_VSOCK_OP_RST);
                expect_rest(r);
                expect_host_end(r, i);
        }
        open_connection(r, PORT);
        give_shutdown(r, PORT, BL_VSOCK_SHUTDOWN_SEND);
        give_data(r, PORT, "x", 1);
        expect(r, PORT, BL_VSOCK_OP_RST);
        expect_rest(r);
}

static void test_flood(void **state)
{
        struct rig *r = *state;
        unsigned n = 0;

        open_connection(r, PORT);
        while (bl_mux_may_receive(r->mux)) {
                give(r, PORT + 1 + n, BL_VSOCK_OP_RW);
                assert_true(++n <= BL_MUX_ANSWERS);
        }
        /* the connection's own RST has its place */
        assert_int_equal(n, BL_MUX_ANSWERS - 1);
        /* who gives more all the same is not heard */
        give(r, PORT, BL_VSOCK_OP_RST);
        assert_int_equal(bl_mux_connections(r->mux), 1);
        close_host(r, 0);
        r->now += BL_SEC;
        assert_int_equal(poll_once(r), 1);
        for (unsigned i = 0; i < n; i++) {
                expect(r, PORT + 1 + i, BL_VSOCK_OP_RST);
                assert_true(bl_mux_may_receive(r->mux));
        }
        expect_shutdown(r, PORT, BOTH);
        expect_none(r);
}

static void test_overrun(void **state)
{
        static uint8_t data[BL_MUX_PAYLOAD];
        struct rig *r = *state;

        /* a host that takes nothing: all that its socket holds, then the buffer, then no more */
        open_connection(r, PORT);
        while (bl_mux_connections(r->mux) > 0) {
                give_data(r, PORT, data, 4096);
                while (next(r, ROOM) > 0 && r->p.op == BL_VSOCK_OP_CREDIT_UPDATE)
                        ;
                r->now++;
                assert_true(r->now < BL_SEC + 10000);
        }
        assert_int_equal(r->p.op, BL_VSOCK_OP_RST);
        expect_rest(r);
        /* more than any buffer, at once */
        open_connection(r, PORT);
        give_data(r, PORT, data, BL_MUX_BUFFER + 1);
        expect(r, PORT, BL_VSOCK_OP_RST);
        open_connection(r, PORT);
        give_data(r, PORT, data, BL_MUX_PAYLOAD);
        expect(r, PORT, BL_VSOCK_OP_RST);
        expect_host_end(r, 2);
        expect_rest(r);
}

/* Bytes of a stream that a test can tell the place of. */
static uint8_t pattern(uint64_t at)
{
        return (uint8_t)(at * 2654435761U >> 11);
}

static void fill(uint8_t *buf, uint64_t at, size_t size)
{
        for (size_t i = 0; i < size; i++)
                buf[i] = pattern(at + i);
}

static void check(const uint8_t *buf, uint64_t at, size_t size)
{
        for (size_t i = 0; i < size; i++)
                if (buf[i] != pattern(at + i))
                        fail_msg("byte %llu is wrong", (unsigned long long)(at + i));
}

static uint64_t host_reads(struct rig *r, unsigned i, uint64_t at)
{
        static uint8_t buf[BL_MUX_BUFFER];
        ssize_t n;

        while ((n = read(r->hosts[i], buf, sizeof(buf))) > 0) {
                check(buf, at, (size_t)n);
                at += (uint64_t)n;
        }
        return at;
}

/* Fills the host's socket and the buffer to the last byte; how much that was. */
static uint64_t fill_up(struct rig *r, uint32_t port)
{
        uint8_t buf[1000];
        uint32_t told = 0;
        uint64_t sent = 0;

        for (;;) {
                const size_t n = bl_min(sizeof(buf), BL_MUX_BUFFER - (uint32_t)(sent - told));

                if (n == 0)
                        return sent;
                fill(buf, sent, n);
                give_data(r, port, buf, n);
                sent += n;
                while (next(r, ROOM) > 0) {
                        assert_int_equal(r->p.op, BL_VSOCK_OP_CREDIT_UPDATE);
                        told = r->p.fwd_cnt;
                }
        }
}

static void test_slow_host(void **state)
{
        struct rig *r = *state;
        uint64_t sent, got = 0;

        r->sndbuf = 8192;
        open_connection(r, PORT);
        sent = fill_up(r, PORT);
        expect_rest(r); /* in particular it is not said to be writable */
        for (int i = 0; i < 1000 && got < sent; i++) {
                got = host_reads(r, 0, got);
                (void)poll_once(r);
        }
        assert_int_equal(got, sent);
        expect(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
        assert_int_equal(r->p.fwd_cnt, sent);
        expect_rest(r);
}

static void test_credit_request(void **state)
{
        struct rig *r = *state;

        open_connection(r, PORT);
        give_data(r, PORT, "abc", 3);
        for (int i = 0; i < 100; i++)
                give(r, PORT, BL_VSOCK_OP_CREDIT_REQUEST);
        expect(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
        assert_int_equal(r->p.fwd_cnt, 3);
        assert_int_equal(r->p.buf_alloc, BL_MUX_BUFFER);
        expect_rest(r);
}

static void test_peer_credit(void **state)
{
        struct rig *r = *state;

        r->buf_alloc = 10;
        open_connection(r, PORT);
        host_writes(r, 0, "0123456789abcdefghij", 20);
        assert_int_equal(poll_once(r), 1);
        expect_data(r, PORT, "0123456789", 10);
        expect_rest(r); /* not polled for what cannot be given */
        r->fwd_cnt = 4;
        give(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
        (void)poll_once(r);
        expect_data(r, PORT, "abcd", 4);
        expect_rest(r);
        /* it claims to have passed on what it never got */
        r->fwd_cnt = 15;
        give(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
        expect_rest(r);
        /* shrinks below what is on its way */
        r->fwd_cnt = 4;
        r->buf_alloc = 3;
        give(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
        expect_rest(r);
        r->buf_alloc = 0;
        give(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
        expect_rest(r);
        r->buf_alloc = UINT32_MAX;
        give(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
        (void)poll_once(r);
        expect_data(r, PORT, "efghij", 6);
        expect_rest(r);
        r->buf_alloc = 0;
        give(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
        host_writes(r, 0, "x", 1);
        expect_rest(r);
}

/* After 4 GiB all counters begin again. */
static void test_counters_wrap(void **state)
{
        static struct bl_mux_conn c;
        static uint8_t data[BL_MUX_BUFFER];
        struct rig *r = *state;
        struct bl_vsock_packet p = packet(r, PORT, BL_VSOCK_OP_REQUEST);
        char buf[64];

        bl_mux_conn_open(&c, rig_connect(r, PORT, HOST_PORT), &p);
        c.respond = false;
        c.tx_cnt = c.fwd_cnt = c.fwd_told = 0xfffffff0U;
        p = packet(r, PORT, BL_VSOCK_OP_RW);
        p.fwd_cnt = 0xffffffe0U;
        p.buf_alloc = 40;
        p.len = BL_MUX_BUFFER / 2;
        fill(data, 0, sizeof(data));
        assert_true(bl_mux_conn_receive(&c, &p, data));
        assert_int_equal(c.fwd_cnt, BL_MUX_BUFFER / 2 - 16);
        assert_int_equal(bl_mux_conn_owed(&c), BL_VSOCK_OP_CREDIT_UPDATE);
        assert_int_equal(bl_mux_conn_peer_free(&c), 24);
        host_writes(r, 0, data, 30);
        assert_int_equal(bl_mux_conn_read(&c, buf, bl_mux_conn_peer_free(&c)), 24);
        assert_int_equal(c.tx_cnt, 8);
        assert_int_equal(bl_mux_conn_peer_free(&c), 0);
        c.peer_fwd_cnt = 2;
        assert_int_equal(bl_mux_conn_peer_free(&c), 34);
        bl_mux_conn_close(&c);
        assert_int_equal(host_reads(r, 0, 0), BL_MUX_BUFFER / 2);
        expect_host_end(r, 0);
}

static void test_room(void **state)
{
        struct rig *r = *state;

        open_connection(r, PORT);
        host_writes(r, 0, "0123456789", 10);
        assert_int_equal(poll_once(r), 1);
        assert_int_equal(next(r, 0), 0);
        assert_true(bl_mux_has_next(r->mux));
        /* what was told once is not polled for again, or a full ring would keep the worker awake */
        assert_int_equal(poll_once(r), 0);
        give(r, PORT, BL_VSOCK_OP_CREDIT_REQUEST);
        assert_int_equal(next(r, 0), 1);
        assert_int_equal(r->p.op, BL_VSOCK_OP_CREDIT_UPDATE);
        assert_int_equal(next(r, 4), 1);
        assert_memory_equal(r->payload, "0123", 4);
        assert_int_equal(r->p.len, 4);
        expect_data(r, PORT, "456789", 6);
        expect_rest(r);
}

static void test_fair(void **state)
{
        static const uint8_t data[4096];
        unsigned turns[3] = {0};
        struct rig *r = *state;

        for (unsigned i = 0; i < 3; i++) {
                open_connection(r, PORT + i);
                host_writes(r, i, data, sizeof(data));
        }
        assert_int_equal(poll_once(r), 3);
        for (unsigned i = 0; i < 30; i++) {
                /* an answer owed goes first and costs nobody his turn */
                if (i == 10) {
                        give(r, PORT + 9, BL_VSOCK_OP_RW);
                        expect(r, PORT + 9, BL_VSOCK_OP_RST);
                }
                assert_int_equal(next(r, 16), 1);
                turns[r->p.dst_port - PORT]++;
        }
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(turns[i], 10);
}

static void test_guest_closes(void **state)
{
        struct rig *r = *state;
        uint64_t sent, got = 0;

        /* nothing on its way: answered at once */
        open_connection(r, PORT);
        give_shutdown(r, PORT, BOTH);
        expect(r, PORT, BL_VSOCK_OP_RST);
        expect_rest(r);
        expect_host_end(r, 0);
        /* what the host has not taken comes first */
        r->sndbuf = 4096;
        open_connection(r, PORT);
        sent = fill_up(r, PORT);
        give_shutdown(r, PORT, BOTH);
        expect_rest(r);
        for (int i = 0; i < 1000 && bl_mux_connections(r->mux); i++) {
                got = host_reads(r, 1, got);
                (void)poll_once(r);
        }
        expect(r, PORT, BL_VSOCK_OP_RST);
        assert_int_equal(host_reads(r, 1, got), sent);
        expect_host_end(r, 1);
        /* but not for ever */
        open_connection(r, PORT);
        (void)fill_up(r, PORT);
        give_shutdown(r, PORT, BOTH);
        bl_mux_expire(r->mux, r->now + BL_MUX_LINGER - 1);
        expect_rest(r);
        bl_mux_expire(r->mux, r->now + BL_MUX_LINGER);
        expect(r, PORT, BL_VSOCK_OP_RST);
        expect_rest(r);
}

static void test_half_close_send_first(void **state)
{
        struct rig *r = *state;
        uint64_t sent, got = 0;

        r->sndbuf = 4096;
        open_connection(r, PORT);
        sent = fill_up(r, PORT);
        give_shutdown(r, PORT, BL_VSOCK_SHUTDOWN_SEND);
        for (int i = 0; i < 1000 && got < sent; i++) {
                got = host_reads(r, 0, got);
                (void)poll_once(r);
        }
        assert_int_equal(got, sent);
        expect_host_end(r, 0);
        while (next(r, ROOM) > 0)
                assert_int_equal(r->p.op, BL_VSOCK_OP_CREDIT_UPDATE);
        /* the host may go on */
        host_writes(r, 0, "more", 4);
        assert_int_equal(poll_once(r), 1);
        expect_data(r, PORT, "more", 4);
        expect_rest(r);
        give_shutdown(r, PORT, BL_VSOCK_SHUTDOWN_RECEIVE);
        expect(r, PORT, BL_VSOCK_OP_RST);
        expect_rest(r);
        assert_int_equal(bl_mux_connections(r->mux), 0);
}

static void test_half_close_receive_first(void **state)
{
        struct rig *r = *state;
        char buf[4];

        open_connection(r, PORT);
        host_writes(r, 0, "lost", 4);
        give_shutdown(r, PORT, BL_VSOCK_SHUTDOWN_RECEIVE);
        expect_rest(r);
        assert_int_equal(send(r->hosts[0], "x", 1, MSG_NOSIGNAL), -1);
        assert_int_equal(errno, EPIPE);
        give_data(r, PORT, "more", 4);
        assert_int_equal(read(r->hosts[0], buf, sizeof(buf)), 4);
        expect_rest(r);
        give_shutdown(r, PORT, BL_VSOCK_SHUTDOWN_SEND);
        expect(r, PORT, BL_VSOCK_OP_RST);
        expect_rest(r);
        expect_host_end(r, 0);
}

static void test_host_closes(void **state)
{
        struct rig *r = *state;

        open_connection(r, PORT);
        host_writes(r, 0, "bye", 3);
        close_host(r, 0);
        assert_int_equal(poll_once(r), 1);
        expect_data(r, PORT, "bye", 3);
        expect_shutdown(r, PORT, BOTH);
        expect_rest(r);
        /* what the guest had sent before it heard of that is swallowed */
        give_data(r, PORT, "x", 1);
        give(r, PORT, BL_VSOCK_OP_CREDIT_REQUEST);
        expect_rest(r);
        give(r, PORT, BL_VSOCK_OP_RST);
        expect_rest(r);
        assert_int_equal(bl_mux_connections(r->mux), 0);
        /* with SHUTDOWN instead */
        open_connection(r, PORT);
        close_host(r, 1);
        (void)poll_once(r);
        expect_shutdown(r, PORT, BOTH);
        give_shutdown(r, PORT, BOTH);
        expect(r, PORT, BL_VSOCK_OP_RST);
        expect_rest(r);
}

static void test_host_closes_and_guest_is_silent(void **state)
{
        struct pollfd fds[BL_MUX_CONNECTIONS];
        struct rig *r = *state;
        usec_t at;

        open_connection(r, PORT);
        (void)bl_mux_poll(r->mux, fds, BL_MUX_CONNECTIONS, &at);
        assert_int_equal(at, BL_UNSET);
        close_host(r, 0);
        (void)poll_once(r);
        expect_shutdown(r, PORT, BOTH);
        assert_int_equal(bl_mux_poll(r->mux, fds, BL_MUX_CONNECTIONS, &at), 0);
        assert_int_equal(at, r->now + BL_MUX_LINGER);
        bl_mux_expire(r->mux, at - 1);
        assert_int_equal(bl_mux_connections(r->mux), 1);
        bl_mux_expire(r->mux, at);
        assert_int_equal(bl_mux_connections(r->mux), 0);
        expect(r, PORT, BL_VSOCK_OP_RST);
        expect_rest(r);
}

/* It writes no more, but it reads. */
static void test_host_half_closes(void **state)
{
        struct rig *r = *state;
        char buf[4];

        open_connection(r, PORT);
        assert_int_equal(shutdown(r->hosts[0], SHUT_WR), 0);
        assert_int_equal(poll_once(r), 1);
        expect_shutdown(r, PORT, BL_VSOCK_SHUTDOWN_SEND);
        expect_rest(r);
        give_data(r, PORT, "more", 4);
        assert_int_equal(read(r->hosts[0], buf, sizeof(buf)), 4);
        expect_rest(r);
        close_host(r, 0);
        assert_int_equal(poll_once(r), 1);
        expect_shutdown(r, PORT, BOTH);
        expect_rest(r);
        give(r, PORT, BL_VSOCK_OP_RST);
        /* both halves, one by each side */
        open_connection(r, PORT);
        assert_int_equal(shutdown(r->hosts[1], SHUT_WR), 0);
        (void)poll_once(r);
        expect_shutdown(r, PORT, BL_VSOCK_SHUTDOWN_SEND);
        give_shutdown(r, PORT, BL_VSOCK_SHUTDOWN_SEND);
        expect_shutdown(r, PORT, BOTH);
        expect_rest(r);
        expect_host_end(r, 1);
}

/* It wrote, does not take what it was sent, and closed: what it wrote still arrives. */
static void test_host_closes_without_reading(void **state)
{
        struct rig *r = *state;

        open_connection(r, PORT);
        give_data(r, PORT, "unread", 6);
        host_writes(r, 0, "last", 4);
        close_host(r, 0);
        give_data(r, PORT, "x", 1); /* EPIPE */
        assert_int_equal(poll_once(r), 1);
        expect_shutdown(r, PORT, BL_VSOCK_SHUTDOWN_RECEIVE);
        expect_data(r, PORT, "last", 4);
        expect_shutdown(r, PORT, BOTH);
        expect_rest(r);
}

/* poll(2) would tell of the hangup for ever. */
static void test_host_closes_without_credit(void **state)
{
        struct rig *r = *state;
        uint64_t sent;

        r->buf_alloc = 2;
        r->sndbuf = 4096;
        open_connection(r, PORT);
        host_writes(r, 0, "abcd", 4);
        (void)poll_once(r);
        expect_data(r, PORT, "ab", 2);
        sent = fill_up(r, PORT);
        close_host(r, 0);
        (void)poll_once(r);
        expect_shutdown(r, PORT, BL_VSOCK_SHUTDOWN_RECEIVE);
        assert_int_equal(r->p.fwd_cnt, sent); /* what goes nowhere takes no room */
        expect_rest(r);
        r->fwd_cnt = 2;
        give(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
        (void)poll_once(r);
        expect_data(r, PORT, "cd", 2);
        r->fwd_cnt = 4;
        give(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
        (void)poll_once(r);
        expect_shutdown(r, PORT, BOTH);
        expect_rest(r);
}

static void test_reset(void **state)
{
        struct rig *r = *state;
        const unsigned before = count_fds();
        usec_t at;
        struct pollfd fds[BL_MUX_CONNECTIONS];

        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++)
                give(r, PORT + i, BL_VSOCK_OP_REQUEST);
        close_host(r, 0);
        (void)poll_once(r);
        (void)next(r, ROOM);
        give(r, PORT + 99, BL_VSOCK_OP_RW);
        assert_true(bl_mux_has_next(r->mux));
        bl_mux_reset(r->mux);
        expect_rest(r);
        assert_int_equal(bl_mux_connections(r->mux), 0);
        assert_int_equal(bl_mux_poll(r->mux, fds, BL_MUX_CONNECTIONS, &at), 0);
        assert_int_equal(at, BL_UNSET);
        for (unsigned i = 1; i < BL_MUX_CONNECTIONS; i++) {
                expect_host_end(r, i);
                close_host(r, i);
        }
        assert_int_equal(count_fds(), before);
        open_connection(r, PORT);
        expect_rest(r);
}

/* Between poll and what came of it a connection may end, and its descriptor's number be another's. */
static void test_stale_events(void **state)
{
        struct pollfd fds[BL_MUX_CONNECTIONS];
        struct rig *r = *state;
        usec_t at;
        size_t n;

        open_connection(r, PORT);
        n = bl_mux_poll(r->mux, fds, BL_MUX_CONNECTIONS, &at);
        assert_int_equal(n, 1);
        give(r, PORT, BL_VSOCK_OP_RST);
        open_connection(r, PORT + 1);
        fds[0].revents = POLLIN | POLLOUT | POLLHUP | POLLERR;
        bl_mux_polled(r->mux, fds, n, r->now);
        expect_rest(r);
        assert_int_equal(bl_mux_connections(r->mux), 1);
        /* also one that only awaits a hangup */
        assert_int_equal(shutdown(r->hosts[1], SHUT_WR), 0);
        (void)poll_once(r);
        expect_shutdown(r, PORT + 1, BL_VSOCK_SHUTDOWN_SEND);
        n = bl_mux_poll(r->mux, fds, BL_MUX_CONNECTIONS, &at);
        fds[0].revents = POLLHUP;
        bl_mux_polled(r->mux, fds, n, r->now);
        expect_rest(r);
}

/* Both ways at once, by packets, rooms and reads of any size, with a guest whose buffer is small. */
static void test_transfer(void **state)
{
        enum { TOTAL = 300000, GUEST_BUFFER = 5000 };
        static uint8_t buf[ROOM];
        struct rig *r = *state;
        uint64_t sent = 0, taken = 0; /* guest to host */
        uint64_t written = 0, got = 0, used = 0; /* host to guest; used: what the guest's reader took */
        uint32_t told = 0;
        unsigned rounds = 0, updates = 0;

        srandom(1);
        r->buf_alloc = GUEST_BUFFER;
        r->sndbuf = 8192;
        open_connection(r, PORT);
        while (taken < TOTAL || used < TOTAL) {
                size_t n =
                        bl_min(bl_min((size_t)random() % 6000, TOTAL - sent), BL_MUX_BUFFER - (uint32_t)(sent - told));
                ssize_t k;

                assert_true(++rounds < 100000);
                if (n > 0 && bl_mux_may_receive(r->mux)) {
                        fill(buf, sent, n);
                        give_data(r, PORT, buf, n);
                        sent += n;
                }
                n = bl_min((size_t)random() % 9000, TOTAL - written);
                fill(buf, written, n);
                k = write(r->hosts[0], buf, n);
                written += k > 0 ? (uint64_t)k : 0;
                (void)poll_once(r);
                while (next(r, (size_t)random() % 3000) > 0) {
                        told = r->p.fwd_cnt;
                        updates += r->p.op == BL_VSOCK_OP_CREDIT_UPDATE;
                        assert_true(r->p.op == BL_VSOCK_OP_RW || r->p.op == BL_VSOCK_OP_CREDIT_UPDATE);
                        check(r->payload, got, r->p.len);
                        got += r->p.len;
                        assert_true(got - r->fwd_cnt <= GUEST_BUFFER);
                }
                used = bl_min(got, used + (uint64_t)random() % 4000);
                if ((uint32_t)used - r->fwd_cnt > GUEST_BUFFER / 2 || used == got) {
                        r->fwd_cnt = (uint32_t)used;
                        give(r, PORT, BL_VSOCK_OP_CREDIT_UPDATE);
                }
                k = read(r->hosts[0], buf, 1 + (size_t)random() % 7000);
                if (k > 0) {
                        check(buf, taken, (size_t)k);
                        taken += (uint64_t)k;
                }
        }
        assert_int_equal(sent, TOTAL);
        assert_int_equal(got, TOTAL);
        assert_true(updates <= TOTAL / (BL_MUX_BUFFER / 2) + 1);
        give_shutdown(r, PORT, BOTH);
        expect(r, PORT, BL_VSOCK_OP_RST);
        expect_rest(r);
        expect_host_end(r, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
                TEST(test_connect_and_talk),
                TEST(test_response_before_data),
                TEST(test_refused),
                TEST(test_limit),
                TEST(test_unknown),
                TEST(test_rules_broken),
                TEST(test_flood),
                TEST(test_overrun),
                TEST(test_slow_host),
                TEST(test_credit_request),
                TEST(test_peer_credit),
                TEST(test_counters_wrap),
                TEST(test_room),
                TEST(test_fair),
                TEST(test_guest_closes),
                TEST(test_half_close_send_first),
                TEST(test_half_close_receive_first),
                TEST(test_host_closes),
                TEST(test_host_closes_and_guest_is_silent),
                TEST(test_host_half_closes),
                TEST(test_host_closes_without_reading),
                TEST(test_host_closes_without_credit),
                TEST(test_reset),
                TEST(test_stale_events),
                TEST(test_transfer),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
