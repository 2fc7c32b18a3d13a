/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One connection of mux.c: a Unix stream socket, the credit of both sides, and
 * how far each direction is shut down.  Private to the mux.
 *
 * A direction ends once and for all.  `read_done`: nothing more is read from the
 * host for the guest; `write_done`: nothing more is written to the host.  Both:
 * the socket is closed, and the guest has BL_MUX_LINGER to answer with RST.
 */
#ifndef BALLAST_VSOCK_MUX_CONN_H
#define BALLAST_VSOCK_MUX_CONN_H

#include "daemon/vsock/mux.h"

struct bl_mux_conn {
        bool used;
        bool readable; /* poll said so, and it was not read empty since */
        bool respond; /* RESPONSE is owed */
        bool credit; /* CREDIT_UPDATE is owed */
        bool read_done, write_done;
        uint8_t guest_shut; /* flags of SHUTDOWN that the guest said; they last */
        uint8_t told; /* those that we said */
        int fd; /* -1: closed */
        uint32_t guest_port, host_port;
        uint32_t tx_cnt, peer_buf_alloc, peer_fwd_cnt; /* to the guest; they wrap */
        uint32_t fwd_cnt, fwd_told; /* bytes that left the buffer; the same as the guest knows it; they wrap */
        uint32_t head, buffered; /* of `buffer`, a ring */
        usec_t deadline; /* then RST; BL_UNSET: none */
        uint8_t buffer[BL_MUX_BUFFER];
};

/* For the REQUEST `p`; `fd` becomes the connection's. */
void bl_mux_conn_open(struct bl_mux_conn *c, int fd, const struct bl_vsock_packet *p);
/* NULL-safe for a connection that is not used. */
void bl_mux_conn_close(struct bl_mux_conn *c);

/* Bytes that the guest has room for. */
uint32_t bl_mux_conn_peer_free(const struct bl_mux_conn *c);

/* Anything but RST.  False: it broke the rules. */
bool bl_mux_conn_receive(struct bl_mux_conn *c, const struct bl_vsock_packet *p, const uint8_t *payload);

/* Reads at most `size` bytes for the guest.  0: none now, or no more ever. */
uint32_t bl_mux_conn_read(struct bl_mux_conn *c, void *buf, size_t size);

/* The next header-only packet that is owed, or BL_VSOCK_OP_INVALID. */
enum bl_vsock_op bl_mux_conn_owed(const struct bl_mux_conn *c);
/* Flags of SHUTDOWN for the directions that ended here. */
uint8_t bl_mux_conn_shut(const struct bl_mux_conn *c);
/* Is there something to read and room in the guest? */
bool bl_mux_conn_has_data(const struct bl_mux_conn *c);

/* What to poll the socket for; false: it is not to be polled at all. */
bool bl_mux_conn_poll(const struct bl_mux_conn *c, short *ret_events);
/* `revents` may be another socket's that had the same number. */
void bl_mux_conn_polled(struct bl_mux_conn *c, short revents);

/* After each of the above that may have ended a direction.  True: the connection
 * is over, and RST is due. */
bool bl_mux_conn_settle(struct bl_mux_conn *c, usec_t now);

#endif
