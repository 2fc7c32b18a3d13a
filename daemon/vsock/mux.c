/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/vsock/mux.h"

#include <ballast/cleanup.h>

#include "daemon/vsock/mux_conn.h"

/* A RST to a place where there is no connection, or none any more. */
struct answer {
        uint32_t guest_port, host_port;
        uint16_t type;
};

struct bl_mux {
        struct bl_mux_options options;
        unsigned first, n_answers; /* of `answers`, a ring */
        struct answer answers[BL_MUX_ANSWERS];
        unsigned turn; /* whose data is looked for first */
        struct bl_mux_conn conns[BL_MUX_CONNECTIONS];
};

int bl_mux_new(const struct bl_mux_options *o, struct bl_mux **ret)
{
        struct bl_mux *m = calloc(1, sizeof(*m));

        if (!m)
                return -ENOMEM;
        m->options = *o;
        *ret = m;
        return 0;
}

struct bl_mux *bl_mux_free(struct bl_mux *m)
{
        if (!m)
                return NULL;
        bl_mux_reset(m);
        free(m);
        return NULL;
}

void bl_mux_reset(struct bl_mux *m)
{
        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++)
                bl_mux_conn_close(&m->conns[i]);
        m->first = m->n_answers = m->turn = 0;
}

unsigned bl_mux_connections(const struct bl_mux *m)
{
        unsigned n = 0;

        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++)
                n += m->conns[i].used;
        return n;
}

/* Each connection may end at any time and has its RST reserved; a packet is worth one answer at most. */
bool bl_mux_may_receive(const struct bl_mux *m)
{
        return m->n_answers + bl_mux_connections(m) < BL_MUX_ANSWERS;
}

static void owe_reset(struct bl_mux *m, uint32_t guest_port, uint32_t host_port, uint16_t type)
{
        struct answer *a = &m->answers[(m->first + m->n_answers) % BL_MUX_ANSWERS];

        *a = (struct answer){.guest_port = guest_port, .host_port = host_port, .type = type};
        m->n_answers++;
}

static void end(struct bl_mux *m, struct bl_mux_conn *c)
{
        owe_reset(m, c->guest_port, c->host_port, BL_VSOCK_STREAM);
        bl_mux_conn_close(c);
}

static void settle(struct bl_mux *m, struct bl_mux_conn *c, usec_t now)
{
        if (bl_mux_conn_settle(c, now))
                end(m, c);
}

static struct bl_mux_conn *find(struct bl_mux *m, uint32_t guest_port, uint32_t host_port)
{
        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++) {
                struct bl_mux_conn *c = &m->conns[i];

                if (c->used && c->guest_port == guest_port && c->host_port == host_port)
                        return c;
        }
        return NULL;
}

static struct bl_mux_conn *find_free(struct bl_mux *m)
{
        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++)
                if (!m->conns[i].used)
                        return &m->conns[i];
        return NULL;
}

static void refuse(struct bl_mux *m, const struct bl_vsock_packet *p)
{
        if (p->op != BL_VSOCK_OP_RST)
                owe_reset(m, p->src_port, p->dst_port, p->type);
}

static void request(struct bl_mux *m, const struct bl_vsock_packet *p)
{
        struct bl_mux_conn *c = find_free(m);
        int fd = -1;

        if (c)
                fd = m->options.connect(m->options.userdata, p->src_port, p->dst_port);
        if (fd < 0)
                refuse(m, p);
        else
                bl_mux_conn_open(c, fd, p);
}

/* Other CIDs are dropped unanswered, as Linux's vhost-vsock does: a RST would go to somebody else. */
void bl_mux_receive(struct bl_mux *m, const struct bl_vsock_packet *p, const void *payload, usec_t now)
{
        struct bl_mux_conn *c;

        if (!bl_mux_may_receive(m) || p->src_cid != m->options.guest_cid || p->dst_cid != BL_VSOCK_HOST)
                return;
        if (p->type != BL_VSOCK_STREAM) {
                refuse(m, p);
                return;
        }
        c = find(m, p->src_port, p->dst_port);
        if (!c && p->op == BL_VSOCK_OP_REQUEST)
                request(m, p);
        else if (!c)
                refuse(m, p);
        else if (p->op == BL_VSOCK_OP_RST)
                bl_mux_conn_close(c);
        else if (!bl_mux_conn_receive(c, p, payload))
                end(m, c);
        else
                settle(m, c, now);
}

bool bl_mux_has_next(const struct bl_mux *m)
{
        if (m->n_answers > 0)
                return true;
        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++) {
                const struct bl_mux_conn *c = &m->conns[i];

                if (c->used && (bl_mux_conn_owed(c) != BL_VSOCK_OP_INVALID || bl_mux_conn_has_data(c)))
                        return true;
        }
        return false;
}

static int next_answer(struct bl_mux *m, struct bl_vsock_packet *ret)
{
        const struct answer *a = &m->answers[m->first];

        if (m->n_answers == 0)
                return 0;
        *ret = (struct bl_vsock_packet){
                .src_cid = BL_VSOCK_HOST,
                .dst_cid = m->options.guest_cid,
                .src_port = a->host_port,
                .dst_port = a->guest_port,
                .type = a->type,
                .op = BL_VSOCK_OP_RST,
        };
        m->first = (m->first + 1) % BL_MUX_ANSWERS;
        m->n_answers--;
        return 1;
}

/* Each packet tells the guest its credit. */
static void fill(const struct bl_mux *m, struct bl_mux_conn *c, enum bl_vsock_op op, uint32_t size,
                 struct bl_vsock_packet *ret)
{
        *ret = (struct bl_vsock_packet){
                .src_cid = BL_VSOCK_HOST,
                .dst_cid = m->options.guest_cid,
                .src_port = c->host_port,
                .dst_port = c->guest_port,
                .len = size,
                .type = BL_VSOCK_STREAM,
                .op = (uint16_t)op,
                .buf_alloc = BL_MUX_BUFFER,
                .fwd_cnt = c->fwd_cnt,
        };
        c->fwd_told = c->fwd_cnt;
        c->credit = false;
}

static int next_owed(struct bl_mux *m, struct bl_vsock_packet *ret)
{
        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++) {
                struct bl_mux_conn *c = &m->conns[i];
                const enum bl_vsock_op op = c->used ? bl_mux_conn_owed(c) : BL_VSOCK_OP_INVALID;

                if (op == BL_VSOCK_OP_INVALID)
                        continue;
                fill(m, c, op, 0, ret);
                if (op == BL_VSOCK_OP_RESPONSE)
                        c->respond = false;
                if (op == BL_VSOCK_OP_SHUTDOWN)
                        ret->flags = c->told = bl_mux_conn_shut(c);
                return 1;
        }
        return 0;
}

static int next_data(struct bl_mux *m, size_t room, struct bl_vsock_packet *ret, void *payload, usec_t now)
{
        for (unsigned i = 0; i < BL_MUX_CONNECTIONS && room > 0; i++) {
                const unsigned at = (m->turn + i) % BL_MUX_CONNECTIONS;
                struct bl_mux_conn *c = &m->conns[at];
                uint32_t n;

                if (!c->used || !bl_mux_conn_has_data(c))
                        continue;
                n = bl_mux_conn_read(c, payload, bl_min(bl_min(room, BL_MUX_PAYLOAD), bl_mux_conn_peer_free(c)));
                if (n > 0) {
                        fill(m, c, BL_VSOCK_OP_RW, n, ret);
                        m->turn = (at + 1) % BL_MUX_CONNECTIONS;
                        return 1;
                }
                settle(m, c, now);
        }
        return 0;
}

int bl_mux_next(struct bl_mux *m, size_t room, struct bl_vsock_packet *ret, void *payload, usec_t now)
{
        if (next_answer(m, ret) || next_owed(m, ret) || next_data(m, room, ret, payload, now))
                return 1;
        /* the end of a connection may have been found instead of data */
        return next_answer(m, ret) || next_owed(m, ret);
}

size_t bl_mux_poll(const struct bl_mux *m, struct pollfd *fds, size_t max, usec_t *ret_at)
{
        usec_t at = BL_UNSET;
        size_t n = 0;

        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++) {
                const struct bl_mux_conn *c = &m->conns[i];
                short events;

                if (!c->used)
                        continue;
                at = bl_min(at, c->deadline);
                if (n < max && bl_mux_conn_poll(c, &events))
                        fds[n++] = (struct pollfd){.fd = c->fd, .events = events};
        }
        *ret_at = at;
        return n;
}

void bl_mux_polled(struct bl_mux *m, const struct pollfd *fds, size_t n, usec_t now)
{
        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++) {
                struct bl_mux_conn *c = &m->conns[i];

                for (size_t k = 0; k < n && c->used && c->fd >= 0; k++)
                        if (fds[k].fd == c->fd && fds[k].revents != 0) {
                                bl_mux_conn_polled(c, fds[k].revents);
                                settle(m, c, now);
                        }
        }
}

void bl_mux_expire(struct bl_mux *m, usec_t now)
{
        for (unsigned i = 0; i < BL_MUX_CONNECTIONS; i++) {
                struct bl_mux_conn *c = &m->conns[i];

                if (c->used && c->deadline <= now)
                        end(m, c);
        }
}
