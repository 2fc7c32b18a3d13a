/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What comes in on the private socket passes this gate before sd-bus sees it.
 *
 * sd-bus takes messages of up to 128 MiB and sets the memory aside; our calls
 * are a few hundred bytes.  The gate lets the authentication dialogue and
 * well-framed messages of up to BL_GATE_MESSAGE_MAX through, and ends the
 * connection at anything else.  It runs the dialogue in canonical lines of its
 * own making, so that sd-bus and the gate never disagree on where messages
 * begin.  (The daemon has asked the kernel who the peer is; what the peer says
 * of itself in the dialogue is not used.)
 *
 * D-Bus specification: "Authentication Protocol", "Message Format".
 */
#ifndef BALLAST_BUS_GATE_H
#define BALLAST_BUS_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include <ballast/cleanup.h>

#define BL_GATE_AUTH_MAX    4096U
#define BL_GATE_MESSAGE_MAX 65536U

/* --- the parser: no I/O ---------------------------------------------------- */

struct bl_gate_parser {
        bool started; /* the NUL byte that opens a connection was seen */
        bool mechanism; /* EXTERNAL was chosen */
        bool running; /* BEGIN was seen: messages from here */
        size_t auth_seen; /* bytes of the dialogue */
        char line[256];
        size_t line_len;
        uint8_t header[16];
        size_t header_len;
        size_t body_left; /* of the message that is passing */
};

/* What `out` must hold for `n` bytes of input. */
#define BL_GATE_OUT(n) (2 * (n) + 64)

/* Consumes all of `in`; writes what may pass.  Returns how much that is, or
 * -EBADMSG (not D-Bus), -EMSGSIZE (too large): the connection must end. */
ssize_t bl_gate_parse(struct bl_gate_parser *p, const uint8_t *in, size_t n, uint8_t *out);

/* --- the relay ------------------------------------------------------------- */

struct bl_gate;

/* Relays from `client_fd` (dup'ed) to a descriptor that it makes and hands
 * over in `ret_fd`, for sd_bus_set_fd().  When the client ends or breaks the
 * rules, that descriptor reads end-of-file. */
int bl_gate_new(sd_event *event, int client_fd, int64_t priority, int *ret_fd, struct bl_gate **ret);
struct bl_gate *bl_gate_free(struct bl_gate *g);
BL_DEFINE_CLEANUP(struct bl_gate *, bl_gate_free)

#endif
