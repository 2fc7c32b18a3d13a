/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the host may ask for, and nothing else: the allow-list of
 * include/ballast/wire.h.
 *
 * All but an answer to a ping, and but for swap (swap.h), is done by a short-lived
 * child at nice 19, one at a time, which writes messages into a pipe: hints, and its result as the last.
 * They are passed on one by one, hints no faster than GUEST_HINTS_RATE, so that
 * statistics and requests never wait for them.  A child that takes longer than
 * GUEST_ACTION_TIME is killed.
 */
#ifndef BALLAST_GUEST_ACTIONS_H
#define BALLAST_GUEST_ACTIONS_H

#include <poll.h>
#include <sys/types.h>

#include <ballast/wire.h>

#define GUEST_HINTS_RATE  (32 * BL_KIB) /* bytes/s */
#define GUEST_HINTS_MOST  (256 * BL_KIB) /* bytes of messages an action */
#define GUEST_HINTS_GAP   (10 * BL_SEC) /* from one to the next */
#define GUEST_COMPACT_GAP (60 * BL_SEC)
#define GUEST_ACTION_TIME (10 * BL_SEC)
#define GUEST_SCAN_TIME   (5 * BL_SEC) /* what a scan has not seen by then it leaves */

struct guest_actions {
        const char *root; /* put before /proc and /sys; "" */
        pid_t child; /* 0: none */
        int pipe; /* -1: none */
        bool killed;
        uint64_t id, kind; /* of what is under way; kind 0: nothing */
        usec_t began_at, kill_at;
        usec_t hints_at, compact_at; /* not before */
        usec_t relay_at; /* the next message, not before */
        uint64_t scan; /* counts them */

        struct bl_wire_result reply; /* what needs no child, and how a child failed */
        bool reply_due;

        size_t len, frame; /* bytes in `in`; those of the whole message at its start, 0: there is none */
        uint8_t in[BL_WIRE_FRAME_MAX];
};

void guest_actions_init(struct guest_actions *a, const char *root);

/* Feature bits for hello: what can be done here now. */
uint64_t guest_actions_features(const struct guest_actions *a);

/* Begins it, or says at once why not. */
void guest_actions_begin(struct guest_actions *a, const struct bl_wire_action *action, usec_t now);

/* What was begun elsewhere is answered. */
void guest_actions_reply(struct guest_actions *a, const struct bl_wire_result *r);

/* Who asked is gone: ends what is under way, without a result. */
void guest_actions_cancel(struct guest_actions *a);

/* What to poll for (fd -1: nothing) and, returned, for how long at most. */
usec_t guest_actions_poll(const struct guest_actions *a, struct pollfd *ret, usec_t now);
void guest_actions_step(struct guest_actions *a, usec_t now);

/* The next message for the host; 0: none now.  It stays until guest_actions_sent. */
size_t guest_actions_message(struct guest_actions *a, void *buf, size_t size, usec_t now);
void guest_actions_sent(struct guest_actions *a, usec_t now);

#endif
