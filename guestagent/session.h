/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent's conversation with the host (include/ballast/wire.h): a state
 * machine without a loop or a clock of its own, so that tests can drive it.
 *
 * It never waits for the host and keeps nothing for it: what cannot be sent
 * now is dropped, except the rest of a frame of which the first part is out.
 */
#ifndef BALLAST_GUEST_SESSION_H
#define BALLAST_GUEST_SESSION_H

#include <poll.h>

#include <ballast/wire.h>

#include "guestagent/report.h"
#include "guestagent/transport.h"

/* How often to look whether a device has come, and whether the host is back. */
#define GUEST_OPEN_PERIOD (5 * BL_SEC)
#define GUEST_HUP_PERIOD  (1 * BL_SEC)

struct guest_session {
        struct guest_transport *transport;
        struct guest_reader *reader;
        void (*log)(const char *text); /* never NULL; on changes of state only */

        struct bl_wire_hello hello;
        int fd; /* -1: no device */
        int last_error; /* of opening it, so that each is said once */
        bool connected;
        bool hello_due;
        bool greeted; /* a welcome has come: only then is a connection worth a line in the log */
        bool refused; /* the host speaks another major version */
        usec_t period;
        usec_t next_at; /* the next report, or the next look */
        uint64_t sequence;
        uint64_t dropped; /* reports that the host did not take */

        size_t out_len, out_pos;
        size_t in_len;
        uint8_t out[BL_WIRE_FRAME_MAX / 4];
        uint8_t in[BL_WIRE_FRAME_MAX];
};

/* Keeps the pointers.  The first call of guest_session_step opens the device. */
void guest_session_init(struct guest_session *s, struct guest_transport *t, struct guest_reader *r,
                        const struct bl_wire_hello *hello, void (*log)(const char *text));

/* Closes the device. */
void guest_session_end(struct guest_session *s);

/* What to poll for before the next step (fd -1: nothing) and, returned, for
 * how long at most. */
usec_t guest_session_poll(const struct guest_session *s, struct pollfd *ret, usec_t now);

/* Does what is due.  `revents` is what poll(2) said about that descriptor. */
void guest_session_step(struct guest_session *s, short revents, usec_t now);

#endif
