/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The connections of one guest: virtio-vsock packets on one side, Unix stream
 * sockets on the other (Virtual I/O Device 1.2, section 5.10.6: credit, reset,
 * shutdown).  Knows nothing of rings or vhost-user.
 *
 * Everything that a guest can make grow is bounded: BL_MUX_CONNECTIONS
 * connections, each with one buffer of BL_MUX_BUFFER bytes for what the guest
 * sent and the host has not taken, advertised as buf_alloc; a guest that sends
 * more than its credit is reset.  What goes to the guest is read from the
 * socket only when there is room in the guest (its credit) and in its ring.
 * Answers owed (RST and the like) are at most BL_MUX_ANSWERS; while there is no
 * room for one more, bl_mux_may_receive is false and the guest's transmit ring
 * is left alone.
 */
#ifndef BALLAST_VSOCK_MUX_H
#define BALLAST_VSOCK_MUX_H

#include <poll.h>
#include <stdbool.h>

#include <ballast/units.h>

#include "daemon/vsock/vsock_packet.h"

#define BL_MUX_CONNECTIONS 8U
#define BL_MUX_BUFFER      (16U * 1024U)
#define BL_MUX_ANSWERS     64U
#define BL_MUX_PAYLOAD \
        (64U * 1024U) /* largest that is taken from a guest in one packet (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE) */
#define BL_MUX_LINGER (8 * BL_SEC) /* a shutdown that the guest does not answer (Linux waits as long) */

struct bl_mux;

struct bl_mux_options {
        uint32_t guest_cid;
        /* Makes the host's end of a connection from `src_port` of the guest to
         * `dst_port` of CID 2: a connected non-blocking stream socket, owned by the
         * mux.  Any error: the guest gets RST.  Must not block. */
        int (*connect)(void *userdata, uint32_t src_port, uint32_t dst_port);
        void *userdata;
};

/* -ENOMEM: all that is ever needed is allocated here. */
int bl_mux_new(const struct bl_mux_options *o, struct bl_mux **ret);
struct bl_mux *bl_mux_free(struct bl_mux *m);

/* The driver reset the device or went: all connections end, nothing is owed. */
void bl_mux_reset(struct bl_mux *m);

/* May a packet be given to bl_mux_receive now? */
bool bl_mux_may_receive(const struct bl_mux *m);
/* A packet from the guest, `p->len` bytes of payload.  Anything is allowed to
 * come; what is wrong with it costs its connection or is answered with RST. */
void bl_mux_receive(struct bl_mux *m, const struct bl_vsock_packet *p, const void *payload, usec_t now);

/* Is there something for the guest?  Then bl_mux_next gives it: 1 and a packet
 * with at most `room` bytes of payload in `payload`; 0: there was nothing after all. */
bool bl_mux_has_next(const struct bl_mux *m);
int bl_mux_next(struct bl_mux *m, size_t room, struct bl_vsock_packet *ret, void *payload, usec_t now);

/* What to poll for: fills at most `max` (BL_MUX_CONNECTIONS are enough), returns
 * how many; then what came of it, in the same order; `*ret_at` is when to call
 * bl_mux_expire, UINT64_MAX: never. */
size_t bl_mux_poll(const struct bl_mux *m, struct pollfd *fds, size_t max, usec_t *ret_at);
void bl_mux_polled(struct bl_mux *m, const struct pollfd *fds, size_t n, usec_t now);
void bl_mux_expire(struct bl_mux *m, usec_t now);

/* Connections now; for tests and status. */
unsigned bl_mux_connections(const struct bl_mux *m);

#endif
