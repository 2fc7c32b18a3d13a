/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which way to the host: several transports in order of preference, and one
 * stream at a time.
 *
 * A transport that dials becomes the stream when a welcome has come over it,
 * not before; calls go out while there is no better one: every
 * GUEST_HUP_PERIOD while no host has welcomed us, every GUEST_DIAL_PERIOD while
 * one has on a way that we like less.  A device becomes the stream, while there
 * is none that is welcomed, as soon as a host is behind it, since only then can
 * we ask for the welcome (the first one may be lost).
 */
#ifndef BALLAST_GUEST_LINK_H
#define BALLAST_GUEST_LINK_H

#include <poll.h>

#include <ballast/wire.h>

#include "guestagent/transport.h"

#define GUEST_OPEN_PERIOD  (5 * BL_SEC) /* whether a device has come */
#define GUEST_HUP_PERIOD   (1 * BL_SEC) /* whether the host is back */
#define GUEST_DIAL_PERIOD  (5 * BL_SEC) /* whether there is a better way */
#define GUEST_WELCOME_TIME (3 * BL_SEC) /* without it a connection does not count */

#define GUEST_LINES 2U
#define GUEST_TRIAL 1024U /* bytes of a call, in which its welcome has to be */

struct guest_line {
        struct guest_transport *transport;
        int fd; /* -1: not open */
        int last_error; /* of opening it, so that each is said once */
        usec_t next_at; /* when to look again; BL_UNSET: not by itself */
};

struct guest_link {
        struct guest_line line[GUEST_LINES]; /* the best first */
        unsigned lines;
        int current; /* the line that has the stream; -1: none */
        int trial; /* the line that is called; -1: none */
        bool greeted; /* a welcome has come over the current one */
        bool trial_up; /* the call was taken, and the welcome is waited for */
        usec_t trial_until;
        size_t trial_len; /* what has come over the trial; when it becomes the stream, its first bytes */
        uint8_t trial_in[GUEST_TRIAL];
        void (*log)(const char *text);
};

/* Keeps the pointers, at most GUEST_LINES.  The first step opens them. */
void guest_link_init(struct guest_link *l, struct guest_transport *const transports[], unsigned n,
                     void (*log)(const char *text));
void guest_link_end(struct guest_link *l);

/* Fills in the stream (reading only) and the trial, fd -1 where there is none.
 * Returns how long to wait at most. */
usec_t guest_link_poll(const struct guest_link *l, struct pollfd *ret_stream, struct pollfd *ret_trial, usec_t now);

/* Does what is due.  True: there is another stream than before, which begins
 * with the bytes in trial_in. */
bool guest_link_step(struct guest_link *l, short trial_revents, usec_t now);

bool guest_link_is_up(const struct guest_link *l);

/* As in the transport; -ENOTCONN: there is no stream, or none any more. */
ssize_t guest_link_send(struct guest_link *l, const void *data, size_t size, usec_t now);
ssize_t guest_link_receive(struct guest_link *l, void *buf, size_t size, usec_t now);

/* poll(2) says that the host is gone. */
void guest_link_hang_up(struct guest_link *l, usec_t now);

/* A welcome came: this stream counts. */
void guest_link_greeted(struct guest_link *l, usec_t now);

/* One line for the log, about the line that has the stream. */
void guest_link_say(const struct guest_link *l, const char *what, const char *why);

/* Of the current stream where it is greeted; NULL: none. */
const char *guest_link_name(const struct guest_link *l);

#endif
