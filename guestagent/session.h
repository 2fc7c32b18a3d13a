/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent's conversation with the host (include/ballast/wire.h): a state
 * machine without a loop or a clock of its own, so that tests can drive it.
 *
 * It never waits for the host and keeps nothing for it: what cannot be sent
 * now is dropped, except the rest of a message of which the first part is out.
 * Requests and results wait for their turn, a request in fresh figures.
 */
#ifndef BALLAST_GUEST_SESSION_H
#define BALLAST_GUEST_SESSION_H

#include <poll.h>

#include <ballast/wire.h>

#include "guestagent/actions.h"
#include "guestagent/link.h"
#include "guestagent/report.h"
#include "guestagent/status.h"
#include "guestagent/swap.h"
#include "guestagent/watch.h"

/* Entitlements come every few seconds (BL_WIRE_GRANT_PERIOD): where they end, what
 * carries the stream hangs, and another way is looked for. */
#define GUEST_SILENT (3 * BL_WIRE_GRANT_PERIOD)

enum guest_poll {
        GUEST_POLL_STREAM,
        GUEST_POLL_TRIAL,
        GUEST_POLL_PSI,
        GUEST_POLL_ALARM,
        GUEST_POLL_ACTION,
        GUEST_POLL_SWAP,
        _GUEST_POLL_MAX,
};

struct guest_session {
        struct guest_link link;
        struct guest_reader *reader;
        struct guest_watch watch;
        struct guest_actions actions;
        struct guest_swap swap; /* goes on when the host is gone */
        struct guest_status status;

        struct bl_wire_hello hello;
        bool hello_due;
        bool greeted; /* a welcome has come: only then is a connection worth a line in the log */
        bool refused; /* the host speaks another major version */
        usec_t greet_by; /* hello again, unless a welcome has come by then */
        usec_t granted_at; /* the last entitlement on this stream; 0: none came, as from older hosts */
        uint64_t minor; /* the host's */
        usec_t period;
        usec_t report_at;
        uint64_t sequence;
        uint64_t dropped; /* reports that the host did not take */

        bool pressure_due, request_due;
        bool blocked; /* something is due that the stream did not take */
        bool grant_known;
        struct bl_wire_entitlement grant; /* all BL_UNSET until the host has said something */

        size_t out_len, out_pos;
        size_t in_len;
        uint8_t out[BL_WIRE_FRAME_MAX];
        uint8_t in[BL_WIRE_FRAME_MAX];
};

struct guest_setup {
        struct guest_transport *const *transports; /* the best first */
        unsigned n_transports;
        struct guest_reader *reader;
        const struct bl_wire_hello *hello; /* without the features of actions and requests */
        const char *root; /* put before /proc and /sys */
        const char *status_file;
        void (*log)(const char *text); /* never NULL; on changes of state only */
};

/* Keeps the pointers.  The first call of guest_session_step opens a transport. */
void guest_session_init(struct guest_session *s, const struct guest_setup *setup);

/* Closes everything, and ends what is under way. */
void guest_session_end(struct guest_session *s);

/* What to poll for before the next step (fd -1: nothing) and, returned, for
 * how long at most. */
usec_t guest_session_poll(const struct guest_session *s, struct pollfd ret[_GUEST_POLL_MAX], usec_t now);

/* Does what is due.  `fds` is what guest_session_poll filled in, with what
 * poll(2) said. */
void guest_session_step(struct guest_session *s, const struct pollfd fds[_GUEST_POLL_MAX], usec_t now);

#endif
