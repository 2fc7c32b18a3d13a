/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/vsock/mux_conn.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <ballast/cleanup.h>

#define BOTH (BL_VSOCK_SHUTDOWN_RECEIVE | BL_VSOCK_SHUTDOWN_SEND)

/* A guest that waits for room learns of it when this much has come free: at half, one
 * that filled the buffer can go on while the rest of it is written. */
#define CREDIT_STEP (BL_MUX_BUFFER / 2)

void bl_mux_conn_open(struct bl_mux_conn *c, int fd, const struct bl_vsock_packet *p)
{
        c->used = c->respond = true;
        c->readable = c->credit = c->read_done = c->write_done = false;
        c->guest_shut = c->told = 0;
        c->fd = fd;
        c->guest_port = p->src_port;
        c->host_port = p->dst_port;
        c->tx_cnt = c->fwd_cnt = c->fwd_told = c->head = c->buffered = 0;
        c->peer_buf_alloc = p->buf_alloc;
        c->peer_fwd_cnt = p->fwd_cnt;
        c->deadline = BL_UNSET;
}

void bl_mux_conn_close(struct bl_mux_conn *c)
{
        if (!c->used)
                return;
        bl_closep(&c->fd);
        c->fd = -1;
        c->used = false;
}

uint32_t bl_mux_conn_peer_free(const struct bl_mux_conn *c)
{
        /* a guest that claims to have passed on more than it got has this wrap: no room */
        const uint32_t in_flight = c->tx_cnt - c->peer_fwd_cnt;

        return (uint32_t)bl_sub_sat(c->peer_buf_alloc, in_flight);
}

static void forwarded(struct bl_mux_conn *c, uint32_t n)
{
        c->fwd_cnt += n;
        if (c->fwd_cnt - c->fwd_told >= CREDIT_STEP)
                c->credit = true;
}

/* The host takes no more: what it has not taken goes nowhere. */
static void end_write(struct bl_mux_conn *c)
{
        c->write_done = true;
        forwarded(c, c->buffered);
        c->buffered = 0;
}

static void flush(struct bl_mux_conn *c)
{
        while (c->buffered > 0) {
                const uint32_t first = (uint32_t)bl_min(c->buffered, BL_MUX_BUFFER - c->head);
                struct iovec parts[2] = {
                        {.iov_base = c->buffer + c->head, .iov_len = first},
                        {.iov_base = c->buffer, .iov_len = c->buffered - first},
                };
                const struct msghdr message = {.msg_iov = parts, .msg_iovlen = c->buffered > first ? 2 : 1};
                const ssize_t n = sendmsg(c->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0) {
                        if (errno != EAGAIN && errno != EINTR)
                                end_write(c);
                        return;
                }
                c->head = (c->head + (uint32_t)n) % BL_MUX_BUFFER;
                c->buffered -= (uint32_t)n;
                forwarded(c, (uint32_t)n);
        }
}

static bool take(struct bl_mux_conn *c, const uint8_t *payload, uint32_t size)
{
        const uint32_t tail = (c->head + c->buffered) % BL_MUX_BUFFER;
        const uint32_t first = (uint32_t)bl_min(size, BL_MUX_BUFFER - tail);

        if (c->guest_shut & BL_VSOCK_SHUTDOWN_SEND || size > BL_MUX_BUFFER - c->buffered)
                return false;
        if (size == 0)
                return true;
        if (c->write_done) {
                forwarded(c, size);
                return true;
        }
        memcpy(c->buffer + tail, payload, first);
        memcpy(c->buffer, payload + first, size - first);
        c->buffered += size;
        flush(c);
        return true;
}

static void end_read(struct bl_mux_conn *c)
{
        c->read_done = true;
        c->readable = false;
}

static void guest_shuts(struct bl_mux_conn *c, uint32_t flags)
{
        c->guest_shut |= (uint8_t)(flags & BOTH);
        if (c->guest_shut & BL_VSOCK_SHUTDOWN_RECEIVE && !c->read_done) {
                (void)shutdown(c->fd, SHUT_RD);
                end_read(c);
        }
}

bool bl_mux_conn_receive(struct bl_mux_conn *c, const struct bl_vsock_packet *p, const uint8_t *payload)
{
        c->peer_buf_alloc = p->buf_alloc;
        c->peer_fwd_cnt = p->fwd_cnt;
        switch (p->op) {
        case BL_VSOCK_OP_RW:
                return take(c, payload, p->len);
        case BL_VSOCK_OP_SHUTDOWN:
                guest_shuts(c, p->flags);
                return true;
        case BL_VSOCK_OP_CREDIT_UPDATE:
                return true;
        case BL_VSOCK_OP_CREDIT_REQUEST:
                c->credit = true;
                return true;
        default: /* a second REQUEST, a RESPONSE to none of ours, a number without meaning */
                return false;
        }
}

/* Is the other end closed, or shut down both ways? */
static bool hung_up(const struct bl_mux_conn *c)
{
        struct pollfd p = {.fd = c->fd};

        return poll(&p, 1, 0) > 0 && p.revents != 0;
}

uint32_t bl_mux_conn_read(struct bl_mux_conn *c, void *buf, size_t size)
{
        const ssize_t n = recv(c->fd, buf, size, MSG_DONTWAIT);

        if (n > 0) {
                c->tx_cnt += (uint32_t)n;
                return (uint32_t)n;
        }
        c->readable = false;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        end_read(c);
        /* otherwise it may have said that it writes no more, and still reads */
        if (n < 0 || hung_up(c))
                end_write(c);
        return 0;
}

uint8_t bl_mux_conn_shut(const struct bl_mux_conn *c)
{
        return (uint8_t)((c->read_done ? BL_VSOCK_SHUTDOWN_SEND : 0) | (c->write_done ? BL_VSOCK_SHUTDOWN_RECEIVE : 0));
}

enum bl_vsock_op bl_mux_conn_owed(const struct bl_mux_conn *c)
{
        const uint8_t shut = bl_mux_conn_shut(c);
        /* what follows from the guest's own word needs no saying, until all is over and RST is awaited */
        const uint8_t known = (uint8_t)((c->guest_shut & BL_VSOCK_SHUTDOWN_RECEIVE ? BL_VSOCK_SHUTDOWN_SEND : 0) |
                                        (c->guest_shut & BL_VSOCK_SHUTDOWN_SEND ? BL_VSOCK_SHUTDOWN_RECEIVE : 0));

        if (c->respond)
                return BL_VSOCK_OP_RESPONSE;
        if (shut & ~(c->told | (shut == BOTH ? 0 : known)))
                return BL_VSOCK_OP_SHUTDOWN;
        /* a guest that answered SHUTDOWN with RST would take it for a stray */
        return c->credit && !c->write_done ? BL_VSOCK_OP_CREDIT_UPDATE : BL_VSOCK_OP_INVALID;
}

bool bl_mux_conn_has_data(const struct bl_mux_conn *c)
{
        return c->readable && bl_mux_conn_peer_free(c) > 0;
}

/*
 * poll(2) always tells of POLLHUP.  So a socket is left out while a hangup could not
 * be acted on: while what the host wrote before it waits for the guest's credit, or
 * for room in its ring.
 */
bool bl_mux_conn_poll(const struct bl_mux_conn *c, short *ret_events)
{
        const bool in = !c->read_done && !c->readable && bl_mux_conn_peer_free(c) > 0;

        *ret_events = (short)((in ? POLLIN : 0) | (c->buffered > 0 ? POLLOUT : 0));
        return c->fd >= 0 && (*ret_events != 0 || c->read_done);
}

void bl_mux_conn_polled(struct bl_mux_conn *c, short revents)
{
        if (revents & (POLLIN | POLLHUP | POLLERR) && !c->read_done)
                c->readable = true;
        if (revents & (POLLOUT | POLLHUP | POLLERR))
                flush(c);
        if (revents & (POLLHUP | POLLERR) && c->read_done && hung_up(c))
                end_write(c);
}

bool bl_mux_conn_settle(struct bl_mux_conn *c, usec_t now)
{
        if (c->buffered == 0 && c->guest_shut & BL_VSOCK_SHUTDOWN_SEND && !c->write_done) {
                (void)shutdown(c->fd, SHUT_WR);
                c->write_done = true;
        }
        if (c->buffered == 0 && c->guest_shut == BOTH)
                return true;
        if (c->read_done && c->write_done) {
                bl_closep(&c->fd);
                c->fd = -1;
        }
        if ((c->fd < 0 || c->guest_shut == BOTH) && c->deadline == BL_UNSET)
                c->deadline = bl_add_sat(now, BL_MUX_LINGER);
        return false;
}
