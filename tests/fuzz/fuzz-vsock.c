/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libFuzzer target for the virtio-vsock connections.  The input is a sequence of
 * what a guest, its ring and a host may do.  Oracles, beside the sanitizers:
 *
 *  - the guest never gets more than its credit or than there is room;
 *  - both directions carry the bytes that were sent, in order, none twice;
 *  - RESPONSE comes once, and before anything else of its connection;
 *  - answers and connections are bounded, and what has_next says holds;
 *  - when nobody does anything more, poll(2) comes to rest;
 *  - after a reset every socket that connect gave is closed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/vsock/mux.h"

#define GUEST     3U
#define HOST_PORT 1031U
#define PORTS     12U
#define HOSTS     16U /* connections in one input */
#define OPS       40U
#define ROOM      65536U
#define PERIOD    4093U /* of the pattern; a prime, so that lost blocks show */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct link {
        int fd; /* the host's end */
        bool responded;
        uint32_t alloc, fwd; /* as the guest said last */
        uint32_t told; /* to the guest */
        uint64_t sent, taken; /* to the host */
        uint64_t written, got; /* to the guest */
};

static struct {
        const uint8_t *data;
        size_t size;
        struct link links[HOSTS];
        unsigned n_links;
        struct link *port[PORTS]; /* the newest */
        uint32_t alloc, fwd; /* of the packet that is on its way */
        usec_t now;
} in;

static struct bl_mux *mux;
static uint8_t pattern[ROOM + PERIOD], buffer[ROOM];

static void check(bool ok)
{
        if (!ok)
                abort();
}

static uint8_t take(void)
{
        if (in.size == 0)
                return 0;
        in.size--;
        return *in.data++;
}

static uint32_t take32(void)
{
        const uint32_t low = take(), high = take();

        return low | high << 8 | (uint32_t)take() << 16 | (uint32_t)take() << 24;
}

static uint32_t take_size(void)
{
        static const uint32_t sizes[] = {0,     1,     100,   4096,  BL_MUX_BUFFER / 2 - 1, BL_MUX_BUFFER / 2,
                                         16383, 16384, 16385, 65535, BL_MUX_PAYLOAD};
        const uint8_t i = take();

        return i < sizeof(sizes) / sizeof(sizes[0]) ? sizes[i] : i * 37U;
}

static const uint8_t *pattern_at(uint64_t at)
{
        return pattern + at % PERIOD;
}

static int connect_host(void *userdata, uint32_t src_port, uint32_t dst_port)
{
        const int small = 4096;
        struct link *l;
        int pair[2];

        (void)userdata;
        check(dst_port == HOST_PORT && src_port < PORTS);
        if (in.n_links == HOSTS)
                return -EMFILE;
        check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
        if (src_port & 1)
                check(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
        l = &in.links[in.n_links++];
        *l = (struct link){.fd = pair[1], .alloc = in.alloc, .fwd = in.fwd};
        in.port[src_port] = l;
        return pair[0];
}

/* What the guest says of its buffer: mostly the truth, which makes things go on. */
static void choose_credit(const struct link *l)
{
        const uint8_t how = take();
        const uint32_t got = l ? (uint32_t)l->got : 0;

        in.alloc = 1U << 18;
        in.fwd = got;
        switch (how) {
        case 1:
                in.alloc = 0;
                break;
        case 2:
                in.alloc = UINT32_MAX;
                break;
        case 3:
                in.fwd = got + 1;
                break;
        case 4:
                in.fwd = got - 1;
                break;
        case 5:
                in.fwd = 0x80000000U;
                break;
        case 6:
                in.fwd = take32();
                in.alloc = take32();
                break;
        default:
                if (how > 127)
                        in.alloc = how;
                break;
        }
}

static void through_the_wire(struct bl_vsock_packet *p)
{
        uint8_t bytes[BL_VSOCK_HEADER], again[BL_VSOCK_HEADER];

        bl_vsock_packet_encode(p, bytes);
        bl_vsock_packet_decode(bytes, p);
        bl_vsock_packet_encode(p, again);
        check(memcmp(bytes, again, sizeof(bytes)) == 0);
}

static void guest_gives(void)
{
        struct bl_vsock_packet p = {
                .src_cid = GUEST,
                .dst_cid = BL_VSOCK_HOST,
                .src_port = take() % PORTS,
                .dst_port = HOST_PORT,
                .type = BL_VSOCK_STREAM,
        };
        struct link *l = in.port[p.src_port];
        const bool heard = bl_mux_may_receive(mux);
        const uint8_t op = take(), odd = take();

        p.op = op < 16 ? op : op % 8;
        choose_credit(l);
        p.buf_alloc = in.alloc;
        p.fwd_cnt = in.fwd;
        if (p.op == BL_VSOCK_OP_RW)
                p.len = take_size();
        else if (p.op == BL_VSOCK_OP_SHUTDOWN)
                p.flags = take();
        if (odd == 1)
                p.type = take();
        else if (odd == 2)
                p.dst_cid = take32();
        else if (odd == 3)
                p.src_cid = take32();
        through_the_wire(&p);
        bl_mux_receive(mux, &p, pattern_at(l ? l->sent : 0), in.now);
        /* only what was meant for this connection counts */
        if (!l || l != in.port[p.src_port] || !heard || p.type != BL_VSOCK_STREAM || p.src_cid != GUEST ||
            p.dst_cid != BL_VSOCK_HOST)
                return;
        l->alloc = in.alloc;
        l->fwd = in.fwd;
        l->sent += p.len;
}

static void check_packet(const struct bl_vsock_packet *p, size_t room)
{
        struct link *l = p->dst_port < PORTS ? in.port[p->dst_port] : NULL;

        check(p->src_cid == BL_VSOCK_HOST && p->dst_cid == GUEST && p->src_port == HOST_PORT);
        check(p->len <= room && (p->len > 0) == (p->op == BL_VSOCK_OP_RW));
        if (p->op == BL_VSOCK_OP_RST)
                return;
        check(l && p->type == BL_VSOCK_STREAM && p->buf_alloc == BL_MUX_BUFFER);
        check(l->responded == (p->op != BL_VSOCK_OP_RESPONSE));
        l->responded = true;
        check(p->fwd_cnt - l->told <= (uint32_t)l->sent - l->told);
        l->told = p->fwd_cnt;
        check(p->op == BL_VSOCK_OP_SHUTDOWN ? p->flags >= 1 && p->flags <= 3 : p->flags == 0);
        if (p->op != BL_VSOCK_OP_RW) {
                check(p->op == BL_VSOCK_OP_RESPONSE || p->op == BL_VSOCK_OP_SHUTDOWN ||
                      p->op == BL_VSOCK_OP_CREDIT_UPDATE);
                return;
        }
        check(l->got + p->len <= l->written && memcmp(buffer, pattern_at(l->got), p->len) == 0);
        l->got += p->len;
        check((uint32_t)l->got - l->fwd <= l->alloc);
}

/* How many packets there were, `most` at most. */
static unsigned guest_gets(size_t room, unsigned most)
{
        struct bl_vsock_packet p;
        unsigned n = 0;

        for (; n < most; n++) {
                const bool has = bl_mux_has_next(mux);

                if (!bl_mux_next(mux, room, &p, buffer, in.now))
                        break;
                check(has);
                check_packet(&p, room);
        }
        if (n < most && room > 0)
                check(!bl_mux_has_next(mux));
        return n;
}

static void host_acts(void)
{
        struct link *l = in.n_links > 0 ? &in.links[take() % in.n_links] : NULL;
        const uint8_t how = take();
        ssize_t n;

        if (!l || l->fd < 0)
                return;
        if (how < 100) {
                n = send(l->fd, pattern_at(l->written), take_size(), MSG_NOSIGNAL);
                l->written += n > 0 ? (uint64_t)n : 0;
        } else if (how < 200) {
                n = recv(l->fd, buffer, take_size(), 0);
                if (n <= 0)
                        return;
                check(l->taken + (uint64_t)n <= l->sent && memcmp(buffer, pattern_at(l->taken), (size_t)n) == 0);
                l->taken += (uint64_t)n;
        } else if (how < 230) {
                (void)close(l->fd);
                l->fd = -1;
        } else {
                (void)shutdown(l->fd, how % 3);
        }
}

static int poll_once(void)
{
        struct pollfd fds[BL_MUX_CONNECTIONS];
        usec_t at;
        const size_t n = bl_mux_poll(mux, fds, BL_MUX_CONNECTIONS, &at);
        const int ready = n > 0 ? poll(fds, n, 0) : 0;

        check(n <= BL_MUX_CONNECTIONS);
        bl_mux_polled(mux, fds, n, in.now);
        return ready;
}

static void time_passes(void)
{
        in.now += take() * (BL_SEC / 8);
        bl_mux_expire(mux, in.now);
}

/* Each round may end a direction of each connection; that is all that there is without a guest or a host. */
static void come_to_rest(void)
{
        unsigned rounds = 0;

        do
                (void)guest_gets(ROOM, UINT32_MAX);
        while (poll_once() > 0 && ++rounds < 8);
        check(rounds < 8);
}

static void end(void)
{
        struct pollfd fds[HOSTS];
        unsigned n = 0;

        bl_mux_reset(mux);
        check(bl_mux_connections(mux) == 0 && !bl_mux_has_next(mux));
        for (unsigned i = 0; i < in.n_links; i++)
                if (in.links[i].fd >= 0)
                        fds[n++] = (struct pollfd){.fd = in.links[i].fd};
        if (n > 0)
                check(poll(fds, n, 0) == (int)n);
        for (unsigned i = 0; i < n; i++)
                (void)close(fds[i].fd);
}

static void start(const uint8_t *data, size_t size)
{
        const struct bl_mux_options o = {.guest_cid = GUEST, .connect = connect_host};

        if (!mux) {
                check(bl_mux_new(&o, &mux) == 0);
                for (size_t i = 0; i < sizeof(pattern); i++)
                        pattern[i] = (uint8_t)((i % PERIOD) * 2654435761U >> 13);
        }
        memset(&in, 0, sizeof(in));
        in.data = data;
        in.size = size;
        in.now = BL_SEC;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        start(data, size);
        for (unsigned i = 0; i < OPS && in.size > 0; i++) {
                const uint8_t op = take();

                switch (op % 8) {
                case 4:
                        (void)guest_gets(take_size(), 1U + take() % 16);
                        break;
                case 5:
                        host_acts();
                        break;
                case 6:
                        (void)poll_once();
                        break;
                case 7:
                        time_passes();
                        break;
                default:
                        guest_gives();
                        break;
                }
                check(bl_mux_connections(mux) <= BL_MUX_CONNECTIONS);
        }
        check(guest_gets(0, UINT32_MAX) <= BL_MUX_ANSWERS + 3 * BL_MUX_CONNECTIONS);
        come_to_rest();
        end();
        return 0;
}
